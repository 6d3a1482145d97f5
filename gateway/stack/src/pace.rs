//! How long work takes, as far as it has been seen: by task or by tool, since what a target does for one takes another time than
//! what it does for the next.
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Times that are remembered of each kind of work: enough that six of them lie past the 95th percentile, and few enough that a
/// target that has become slower is known to be within that many answers.
const REMEMBERED: usize = 128;

/// Of which the fastest counts as the least that an answer takes. The fastest of the last 32 is a cautious bound: a target that
/// was never faster in 32 answers will hardly be faster in the next, and one that has just become slow is not written off by one.
const LATELY: usize = 32;

/// Times before anything is concluded of the usual or the least.
const ENOUGH: usize = 8;

/// Times before anything is concluded of the tail: with fewer, the slowest of all would be the 95th percentile.
const ENOUGH_FOR_TAIL: usize = 32;

/// How old the newest time may be before somebody may find out anew. Who is passed over for being slow is not asked, and so never seen to be
/// fast again; a call in ten seconds is what that costs where it still is slow.
const STALE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Seen {
    times: VecDeque<Duration>,
    /// When the newest was seen, or somebody was last let find out.
    at: Instant,
}

/// Observed times; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<Mutex<HashMap<Arc<str>, Seen>>>);

impl Pace {
    /// Notes how long it took.
    pub fn observe(&self, work: &Arc<str>, took: Duration) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.entry(work.clone()).or_insert_with(|| Seen {
            times: VecDeque::new(),
            at: Instant::now(),
        });
        if seen.times.len() == REMEMBERED {
            seen.times.pop_front();
        }
        seen.times.push_back(took);
        seen.at = Instant::now();
    }

    /// Whether this call, of which what is known says that it will be late, is to find out whether that still holds: one in a while is.
    #[must_use]
    pub fn probe(&self, work: &str) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get_mut(work).is_some_and(|seen| {
            let stale = seen.at.elapsed() >= STALE;
            if stale {
                seen.at = Instant::now();
            }
            stale
        })
    }

    /// What is concluded from at least `enough` times.
    fn of<T>(&self, work: &str, enough: usize, conclude: impl FnOnce(&VecDeque<Duration>) -> T) -> Option<T> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = seen.get(work).map(|seen| &seen.times);
        times.filter(|times| times.len() >= enough).map(conclude)
    }

    /// The least time that it takes; `None` while too few were seen.
    #[must_use]
    pub fn least(&self, work: &str) -> Option<Duration> {
        self.of(work, ENOUGH, |seen| {
            seen.iter().rev().take(LATELY).min().copied().unwrap_or_default()
        })
    }

    /// The time that it usually takes, the median; `None` while too few were seen.
    #[must_use]
    pub fn usual(&self, work: &str) -> Option<Duration> {
        self.of(work, ENOUGH, |seen| quantile(seen, 0.5))
    }

    /// The time within which it ends but for the slowest; `share`, 0 to 1, are not among those. `None` while too few were seen.
    #[must_use]
    pub fn tail(&self, work: &str, share: f64) -> Option<Duration> {
        self.of(work, ENOUGH_FOR_TAIL, |seen| quantile(seen, share))
    }
}

/// The nearest rank.
fn quantile(seen: &VecDeque<Duration>, share: f64) -> Duration {
    let mut sorted: Vec<Duration> = seen.iter().copied().collect();
    sorted.sort_unstable();
    let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn nothing_is_concluded_from_few_times_and_old_ones_are_forgotten() {
        let (pace, work) = (Pace::default(), Arc::from("t"));
        (1..ENOUGH).for_each(|_| pace.observe(&work, ms(5)));
        assert_eq!((pace.least("t"), pace.usual("t")), (None, None));
        pace.observe(&work, ms(9));
        assert_eq!((pace.least("t"), pace.usual("t")), (Some(ms(5)), Some(ms(5))));
        (0..LATELY).for_each(|_| pace.observe(&work, ms(40)));
        assert_eq!((pace.least("t"), pace.least("other")), (Some(ms(40)), None));
        (0..REMEMBERED).for_each(|_| pace.observe(&work, ms(7)));
        assert_eq!(pace.tail("t", 1.0), Some(ms(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_in_a_while_finds_out_whether_what_was_slow_still_is() {
        let (pace, work) = (Pace::default(), Arc::from("t"));
        (0..LATELY).for_each(|_| pace.observe(&work, ms(1200)));
        assert!(!pace.probe("t") && !pace.probe("other"));
        tokio::time::advance(STALE).await;
        assert!(pace.probe("t") && !pace.probe("t"), "one");
        tokio::time::advance(STALE).await;
        assert!(pace.probe("t"), "and one more");
        pace.observe(&work, ms(10));
        tokio::time::advance(STALE / 2).await;
        assert_eq!((pace.probe("t"), pace.least("t")), (false, Some(ms(10))));
    }

    #[test]
    fn the_tail_is_what_only_the_slowest_exceed_and_needs_more_times() {
        let (pace, work) = (Pace::default(), Arc::from("t"));
        (1..ENOUGH_FOR_TAIL as u64).for_each(|n| pace.observe(&work, ms(n)));
        assert_eq!(pace.tail("t", 0.95), None);
        (ENOUGH_FOR_TAIL as u64..=100).for_each(|n| pace.observe(&work, ms(n)));
        assert_eq!((pace.tail("t", 0.95), pace.usual("t")), (Some(ms(95)), Some(ms(50))));
    }
}
