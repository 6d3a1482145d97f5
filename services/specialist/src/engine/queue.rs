//! What waits for a slot: bounded by prompt tokens; the more urgent class first, within a class whatever is due first, and
//! what is not in the order of arrival. Nothing waits for ever: a class, and within it the oldest, is passed over a bounded
//! number of times ([`PATIENCE`]).

use std::{collections::VecDeque, time::Instant};

/// How urgently a request is wanted, most urgent first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A person waits.
    Interactive,
    /// An agent waits.
    #[default]
    Normal,
    /// Nobody waits.
    Batch,
}

impl Class {
    /// Every class, most urgent first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Batch];

    /// How many classes are at least as urgent, for [`Queue::take_of`].
    #[must_use]
    pub const fn and_above(self) -> usize {
        self as usize + 1
    }
}

/// How soon an answer is wanted, as its caller says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Urgency {
    /// Queueing class.
    pub class: Class,
    /// When the answer is of no use any more: the request ends then.
    pub deadline: Option<Instant>,
    /// When it should have begun, for what comes after it to be in time: its slack. It orders what waits, and ends nothing.
    pub start_by: Option<Instant>,
}

impl Urgency {
    /// Of a caller who says nothing but how long an answer is of use.
    #[must_use]
    pub fn until(deadline: Option<Instant>) -> Self {
        Self {
            deadline,
            ..Self::default()
        }
    }

    /// When its turn is due. Without a slack, when it ends: whoever has until then is not late before.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.start_by.or(self.deadline)
    }
}

/// A class that waits is served at the latest after this many of the more urgent ones in a row: urgent work stays within
/// 1/16 of what strict priority would give it, and a batch never starves. The same holds within a class for its oldest
/// request, over those that are due earlier. Counted in turns, not in time: a queue that does not move ages nobody.
pub const PATIENCE: u32 = 16;

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Prompt tokens waiting.
    pub waiting_tokens: usize,
    /// Which bound was met, and what it is.
    pub full: Full,
}

/// A bound of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// So many prompt tokens may wait.
    Tokens(usize),
    /// So many requests may wait, however small.
    Requests(usize),
}

/// Waiting requests. Plain data: no lock, no clock.
#[derive(Debug)]
pub struct Queue<T> {
    classes: [Line<T>; 3],
    waiting_tokens: usize,
    queue_tokens: usize,
    requests: usize,
    patience: u32,
}

/// What waits in one class, oldest first.
#[derive(Debug)]
struct Line<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Turns of more urgent classes since this one's last.
    passed_over: u32,
    /// Turns of the class since its oldest was the oldest.
    oldest_passed_over: u32,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    tokens: usize,
    due: Option<Instant>,
}

impl<T> Line<T> {
    /// Whose turn it is within the class.
    fn turn(&self, patience: u32) -> Option<usize> {
        // Fairness between tenants goes here: choose the tenant with the largest deficit, then among its requests as below.
        if self.oldest_passed_over >= patience {
            return Some(0).filter(|_| !self.waiting.is_empty());
        }
        let due = |w: &Waiting<T>| (w.due.is_none(), w.due);
        (0..self.waiting.len()).min_by_key(|i| due(&self.waiting[*i]))
    }
}

impl<T> Queue<T> {
    /// At most `queue_tokens` prompt tokens and `requests` requests wait. One request alone always may.
    #[must_use]
    pub fn new(queue_tokens: usize, requests: usize) -> Self {
        Self {
            classes: Class::ALL.map(|_| Line {
                waiting: VecDeque::new(),
                passed_over: 0,
                oldest_passed_over: 0,
            }),
            waiting_tokens: 0,
            queue_tokens,
            requests: requests.max(1),
            patience: PATIENCE,
        }
    }

    /// With another [`PATIENCE`]: small schedules reach a small one.
    #[cfg(test)]
    pub(super) fn with_patience(self, patience: u32) -> Self {
        Self { patience, ..self }
    }

    /// Whether a request of `tokens` prompt tokens may wait.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn fits(&self, tokens: usize) -> Result<(), Refused> {
        let full = if self.is_empty() {
            return Ok(());
        } else if self.len() >= self.requests {
            Full::Requests(self.requests)
        } else if self.waiting_tokens.saturating_add(tokens) > self.queue_tokens {
            Full::Tokens(self.queue_tokens)
        } else {
            return Ok(());
        };
        Err(Refused {
            waiting_tokens: self.waiting_tokens,
            full,
        })
    }

    /// Takes a request of `tokens` prompt tokens in, whose turn is `due` then.
    ///
    /// # Errors
    /// When it does not fit; nothing has changed then.
    pub fn offer(&mut self, item: T, tokens: usize, class: Class, due: Option<Instant>) -> Result<(), Refused> {
        self.fits(tokens)?;
        self.waiting_tokens += tokens;
        self.classes[class as usize]
            .waiting
            .push_back(Waiting { item, tokens, due });
        Ok(())
    }

    /// The next request.
    pub fn take(&mut self) -> Option<T> {
        self.take_of(Class::ALL.len(), |_| true)
    }

    /// The next request of the `classes` most urgent classes, if it is wanted; else it stays the next.
    pub fn take_of(&mut self, classes: usize, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let waits = |class: &usize| !self.classes[*class].waiting.is_empty();
        let impatient = (0..classes)
            .rev()
            .filter(waits)
            .find(|class| self.classes[*class].passed_over >= self.patience);
        let class = impatient.or_else(|| (0..classes).find(waits))?;
        let turn = self.classes[class].turn(self.patience)?;
        if !wanted(&self.classes[class].waiting[turn].item) {
            return None;
        }
        for lesser in &mut self.classes[class + 1..] {
            lesser.passed_over = if lesser.waiting.is_empty() {
                0
            } else {
                lesser.passed_over.saturating_add(1)
            };
        }
        let line = &mut self.classes[class];
        line.passed_over = 0;
        line.oldest_passed_over = if turn == 0 { 0 } else { line.oldest_passed_over + 1 };
        let Waiting { item, tokens, .. } = line.waiting.remove(turn)?;
        self.waiting_tokens -= tokens;
        Some(item)
    }

    /// Removes what `gone` says nobody waits for any more, and gives it back.
    pub fn remove(&mut self, mut gone: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for line in &mut self.classes {
            for _ in 0..line.waiting.len() {
                let Some(waiting) = line.waiting.pop_front() else { break };
                if gone(&waiting.item) {
                    self.waiting_tokens -= waiting.tokens;
                    removed.push(waiting.item);
                } else {
                    line.waiting.push_back(waiting);
                }
            }
        }
        removed
    }

    /// How many of a class are so.
    pub fn count(&self, class: Class, so: impl Fn(&T) -> bool) -> usize {
        let waiting = &self.classes[class as usize].waiting;
        waiting.iter().filter(|waiting| so(&waiting.item)).count()
    }

    /// Requests waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.classes.iter().map(|line| line.waiting.len()).sum()
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Prompt tokens waiting.
    #[must_use]
    pub fn waiting_tokens(&self) -> usize {
        self.waiting_tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_full_queue_refuses_and_takes_again_when_there_is_room() {
        let mut queue = Queue::new(10, 100);
        queue.offer('a', 6, Class::Normal, None).expect("fits");
        assert_eq!(
            queue.offer('b', 5, Class::Interactive, None),
            Err(Refused {
                waiting_tokens: 6,
                full: Full::Tokens(10)
            })
        );
        queue.offer('c', 4, Class::Normal, None).expect("fits exactly");
        assert_eq!(queue.take(), Some('a'));
        queue
            .offer('b', 5, Class::Interactive, None)
            .expect("there is room again");
        assert_eq!((queue.take(), queue.take(), queue.take()), (Some('b'), Some('c'), None));
        assert_eq!(queue.waiting_tokens(), 0);
    }

    #[test]
    fn a_queue_full_of_small_requests_says_so() {
        let mut queue = Queue::new(10, 2);
        queue.offer('a', 1, Class::Normal, None).expect("fits");
        queue.offer('b', 1, Class::Normal, None).expect("fits");
        let full = Full::Requests(2);
        assert_eq!(
            queue.offer('c', 1, Class::Normal, None),
            Err(Refused {
                waiting_tokens: 2,
                full
            })
        );
    }

    #[test]
    fn a_prompt_larger_than_the_whole_queue_may_wait_alone() {
        let mut queue = Queue::new(10, 100);
        queue.offer('a', 50, Class::Normal, None).expect("alone");
        assert!(queue.offer('b', 1, Class::Normal, None).is_err());
        assert_eq!(queue.take(), Some('a'));
    }

    #[test]
    fn what_is_not_wanted_stays_the_next() {
        let mut queue = Queue::new(10, 100);
        queue.offer('a', 4, Class::Normal, None).expect("fits");
        queue.offer('b', 4, Class::Interactive, None).expect("fits");
        assert_eq!(queue.take_of(Class::Batch.and_above(), |next| *next == 'a'), None);
        assert_eq!((queue.waiting_tokens(), queue.len()), (8, 2));
        assert_eq!(
            (
                queue.take_of(Class::Batch.and_above(), |next| *next == 'b'),
                queue.take()
            ),
            (Some('b'), Some('a'))
        );
    }

    #[test]
    fn a_batch_is_served_after_sixteen_urgent_ones() {
        let mut queue = Queue::new(1000, 1000);
        queue.offer(0, 1, Class::Batch, None).expect("fits");
        (1..100).for_each(|i| queue.offer(i, 1, Class::Interactive, None).expect("fits"));
        let order: Vec<i32> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(order.iter().position(|i| *i == 0), Some(PATIENCE as usize));
    }

    #[test]
    fn within_a_class_what_is_due_first_is_next_and_the_oldest_waits_for_sixteen_at_most() {
        let start = Instant::now();
        let due = |seconds| Some(start + Duration::from_secs(seconds));
        let mut queue = Queue::new(1000, 1000);
        queue.offer("none", 1, Class::Normal, None).expect("fits");
        queue.offer("late", 1, Class::Normal, due(9)).expect("fits");
        queue.offer("soon", 1, Class::Normal, due(1)).expect("fits");
        queue.offer("urgent", 1, Class::Interactive, None).expect("fits");
        assert_eq!(
            [(); 4].map(|()| queue.take()),
            ["urgent", "soon", "late", "none"].map(Some)
        );
        queue.offer("oldest", 1, Class::Normal, None).expect("fits");
        (1..100).for_each(|i| queue.offer("due", 1, Class::Normal, due(i)).expect("fits"));
        let order: Vec<&str> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(order.iter().position(|i| *i == "oldest"), Some(PATIENCE as usize));
    }

    #[test]
    fn a_slack_comes_before_a_deadline_and_either_before_neither() {
        let now = Instant::now();
        let (soon, late) = (Some(now + Duration::from_secs(1)), Some(now + Duration::from_secs(9)));
        let slack = Urgency {
            start_by: soon,
            ..Urgency::until(late)
        };
        assert_eq!((slack.due(), Urgency::until(late).due()), (soon, late));
        assert_eq!(Urgency::default().due(), None);
    }

    #[test]
    fn the_more_urgent_classes_alone_can_be_asked() {
        let mut queue = Queue::new(10, 100);
        queue.offer('n', 1, Class::Normal, None).expect("fits");
        assert_eq!(queue.take_of(0, |_| true), None);
        assert_eq!(queue.take_of(Class::Interactive.and_above(), |_| true), None);
        queue.offer('i', 1, Class::Interactive, None).expect("fits");
        assert_eq!(queue.take_of(Class::Interactive.and_above(), |_| true), Some('i'));
        assert_eq!(queue.take_of(Class::Normal.and_above(), |_| true), Some('n'));
    }

    proptest! {
        #[test]
        fn tokens_are_counted_exactly_and_a_class_keeps_its_order(
            steps in prop::collection::vec((0u8..10, 1usize..20, 0u8..3), 0..200),
        ) {
            let mut queue = Queue::new(60, 12);
            let mut inside: Vec<(usize, usize, Class)> = Vec::new();
            for (id, (what, tokens, class)) in steps.into_iter().enumerate() {
                let class = [Class::Interactive, Class::Normal, Class::Batch][class as usize];
                match what {
                    0..=5 => {
                        let fits = inside.is_empty() || (inside.len() < 12 && inside.iter().map(|i| i.1).sum::<usize>() + tokens <= 60);
                        prop_assert_eq!(queue.offer((id, class), tokens, class, None).is_ok(), fits);
                        if fits {
                            inside.push((id, tokens, class));
                        }
                    }
                    6..=8 => match queue.take() {
                        None => prop_assert!(inside.is_empty()),
                        Some((id, class)) => {
                            let first = inside.iter().position(|i| i.2 == class).expect("known");
                            prop_assert_eq!(inside.remove(first).0, id);
                        }
                    },
                    _ => {
                        let gone = queue.remove(|(id, _)| id % 3 == 0);
                        prop_assert_eq!(gone.len(), inside.iter().filter(|i| i.0 % 3 == 0).count());
                        inside.retain(|i| i.0 % 3 != 0);
                    }
                }
                prop_assert_eq!(queue.waiting_tokens(), inside.iter().map(|i| i.1).sum::<usize>());
                prop_assert_eq!(queue.len(), inside.len());
            }
        }
    }
}
