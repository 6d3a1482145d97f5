//! How many hedges there may be: a share of the calls, saved up while none is needed. Plain data: no lock, no clock.
//!
//! Tower's retry budget forgets what was put into it after ten seconds, which suits retries after a burst of failures; a hedge is
//! for the one slow call in twenty, and a target with a call a second would never have saved up for one.

/// Of one call, in millionths: whole numbers add up exactly.
const WHOLE: u64 = 1_000_000;

/// Hedges that can be saved up at most: after a quiet hour a bad minute must not double the load of so much as a few dozen calls.
const MOST: u64 = 10;

/// A token bucket filled by calls.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    a_call: u64,
    saved: u64,
}

impl Share {
    /// So many hedges a call: 0.05 is one in twenty. Nothing is saved yet.
    #[must_use]
    pub fn new(share: f64) -> Self {
        Self {
            a_call: (share.clamp(0.0, 1.0) * WHOLE as f64) as u64,
            saved: 0,
        }
    }

    /// A call was made.
    pub fn put(&mut self) {
        self.saved = (self.saved + self.a_call).min(MOST * WHOLE);
    }

    /// Takes one hedge; says whether there was one.
    pub fn take(&mut self) -> bool {
        let left = self.saved.checked_sub(WHOLE);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn there_are_never_more_hedges_than_the_share_of_calls_so_far(share in 0.0f64..1.0, wants in prop::collection::vec(any::<bool>(), 0..500)) {
            let mut budget = Share::new(share);
            let (mut calls, mut hedges) = (0u32, 0u32);
            for wanted in wants {
                budget.put();
                calls += 1;
                hedges += u32::from(wanted && budget.take());
                prop_assert!(f64::from(hedges) <= share * f64::from(calls) + 1e-6);
            }
            let burst = std::iter::from_fn(|| budget.take().then_some(())).count();
            prop_assert!(burst as u64 <= MOST);
        }
    }

    #[test]
    fn one_in_twenty_is_one_after_twenty_calls() {
        let mut budget = Share::new(0.05);
        (0..19).for_each(|_| budget.put());
        assert!(!budget.take());
        budget.put();
        assert!(budget.take() && !budget.take());
    }
}
