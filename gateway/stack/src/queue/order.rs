//! Who is let in next. Plain data: no lock, no clock.
//!
//! The more urgent class first; within a class the call with the least slack, the time that it can still wait and yet end when its
//! plan needs it (least laxity first, Mok 1983). A call's slack shrinks as fast as everybody else's, so it is the latest start that
//! is compared, which does not change while it waits. A call that is late already has no slack, and not less than none: else those
//! that are lost would go before those that can still be saved, for ever.
//!
//! Nothing starves: a class counts as one more urgent for every [`AGE`] waited, and past the most urgent whoever came first goes first.
use shoal_proto::v1;
use std::time::Duration;
use tokio::time::Instant;

/// How urgently a call is wanted, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Class {
    /// A person waits.
    Interactive,
    /// An agent waits.
    #[default]
    Normal,
    /// Nobody waits.
    Batch,
}

impl From<v1::Priority> for Class {
    fn from(priority: v1::Priority) -> Self {
        match priority {
            v1::Priority::Interactive => Self::Interactive,
            v1::Priority::Normal | v1::Priority::Unspecified => Self::Normal,
            v1::Priority::Batch => Self::Batch,
        }
    }
}

/// How long a call waits before it counts as one class more urgent. Three of these, six seconds, are the longest that anything
/// goes on being overtaken: a tenth of a plan's default deadline, and many times what a small model takes for an answer.
pub const AGE: Duration = Duration::from_secs(2);

/// What a call is let in by.
#[derive(Debug, Clone, Copy)]
pub struct Rank {
    /// First.
    pub class: Class,
    /// Then: when it must have begun. Its slack is what is left until then.
    pub start_by: Instant,
}

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Waiting<T> {
    ticket: Ticket,
    rank: Rank,
    since: Instant,
    item: T,
}

impl<T> Waiting<T> {
    /// What the next is the least of.
    fn key(&self, now: Instant) -> (i64, Instant, Ticket) {
        let ages = now.saturating_duration_since(self.since).as_nanos() / AGE.as_nanos();
        let class = self.rank.class as i64 - i64::try_from(ages).unwrap_or(i64::MAX / 2);
        if class < 0 {
            (-1, self.since, self.ticket)
        } else {
            (class, self.rank.start_by.max(self.since), self.ticket)
        }
    }
}

/// Waiting calls, at most so many: few enough that looking at each of them is nothing beside a call.
#[derive(Debug)]
pub struct Order<T> {
    waiting: Vec<Waiting<T>>,
    most: usize,
    next: u64,
}

impl<T> Order<T> {
    /// At most `most` wait.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            waiting: Vec::new(),
            most,
            next: 0,
        }
    }

    /// Takes a call in.
    ///
    /// # Errors
    /// Gives it back if as many wait as may.
    pub fn push(&mut self, rank: Rank, now: Instant, item: T) -> Result<Ticket, T> {
        if self.waiting.len() >= self.most {
            return Err(item);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.push(Waiting {
            ticket,
            rank,
            since: now,
            item,
        });
        Ok(ticket)
    }

    /// The next.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        let next = (0..self.waiting.len()).min_by_key(|at| self.waiting[*at].key(now))?;
        Some(self.waiting.swap_remove(next).item)
    }

    /// Takes out whoever does not wait any more; `None` if it was let in already.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let at = self.waiting.iter().position(|w| w.ticket == ticket)?;
        Some(self.waiting.swap_remove(at).item)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const CLASSES: [Class; 3] = [Class::Interactive, Class::Normal, Class::Batch];

    fn rank(class: usize, start_by: Instant) -> Rank {
        Rank {
            class: CLASSES[class % 3],
            start_by,
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    proptest! {
        #[test]
        fn at_one_moment_the_order_is_class_then_slack_then_arrival(calls in prop::collection::vec((0usize..3, 0u64..50), 0..60)) {
            let now = Instant::now();
            let mut order = Order::new(usize::MAX);
            for (n, (class, slack)) in calls.iter().enumerate() {
                prop_assert!(order.push(rank(*class, now + ms(*slack)), now, n).is_ok());
            }
            let mut expected: Vec<usize> = (0..calls.len()).collect();
            expected.sort_by_key(|n| (calls[*n], *n));
            let popped: Vec<usize> = std::iter::from_fn(|| order.pop(now)).collect();
            prop_assert_eq!(popped, expected);
        }

        #[test]
        fn whoever_comes_is_let_in_once_or_refused_or_gone(steps in prop::collection::vec((0u8..4, 0usize..3, 0u64..9000), 0..200), most in 1usize..9) {
            let begin = Instant::now();
            let mut now = begin;
            let mut order = Order::new(most);
            let (mut here, mut tickets) = (BTreeSet::new(), Vec::new());
            for (n, (what, class, time)) in steps.into_iter().enumerate() {
                now += ms(time / 3);
                match what {
                    0 | 1 => match order.push(rank(class, begin + ms(time)), now, n) {
                        Ok(ticket) => {
                            here.insert(n);
                            tickets.push((ticket, n));
                        }
                        Err(back) => prop_assert!(back == n && here.len() == most),
                    },
                    2 => match order.pop(now) {
                        Some(next) => prop_assert!(here.remove(&next)),
                        None => prop_assert!(here.is_empty()),
                    },
                    _ => if let Some((ticket, n)) = tickets.get(class).copied() {
                        prop_assert_eq!(order.remove(ticket), here.remove(&n).then_some(n));
                    },
                }
                prop_assert!(order.len() == here.len() && order.is_empty() == here.is_empty() && order.len() <= most);
            }
        }

        // Somebody more urgent comes before each place that gets free, for as long as it takes.
        #[test]
        fn nothing_starves(ahead in 0usize..20, class in 0usize..3, slack in 0u64..600_000, gap in 1u64..500) {
            let mut now = Instant::now();
            let mut order = Order::new(usize::MAX);
            for n in 0..ahead {
                prop_assert!(order.push(rank(n, now), now, false).is_ok());
            }
            let came = now;
            prop_assert!(order.push(rank(class, now + ms(slack)), now, true).is_ok());
            loop {
                prop_assert!(order.push(rank(0, now), now, false).is_ok());
                if order.pop(now) == Some(true) {
                    break;
                }
                now += ms(gap);
                // Past its ageing only those that came before it, or that had aged by then, are let in before it.
                let aged = AGE * 3 + ms(gap) * u32::try_from(ahead + 2).unwrap_or(u32::MAX);
                prop_assert!(now - came <= aged, "waited {:?} of {aged:?}", now - came);
            }
        }
    }

    #[test]
    fn what_is_late_already_does_not_go_before_what_came_earlier_and_is_due_now() {
        let now = Instant::now() + ms(10_000);
        let mut order = Order::new(9);
        for (name, start_by, came) in [("due", now, now), ("lost", now - ms(9000), now + ms(1))] {
            assert!(order.push(rank(1, start_by), came, name).is_ok());
        }
        assert_eq!(order.pop(now + ms(2)), Some("due"));
    }
}
