//! What waits for a slot: bounded by prompt tokens, first in first out within a class, the more urgent class first.

use std::collections::VecDeque;

/// How urgently a request is wanted, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A person waits.
    Interactive,
    /// An agent waits.
    Normal,
    /// Nobody waits.
    Batch,
}

/// A class that waits is served at the latest after this many of the more urgent ones in a row: urgent work stays within
/// 1/16 of what strict priority would give it, and a batch never starves.
const PATIENCE: u32 = 16;

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Prompt tokens waiting.
    pub waiting_tokens: usize,
    /// How many may.
    pub queue_tokens: usize,
}

/// Waiting requests. Plain data: no lock, no clock.
#[derive(Debug)]
pub struct Queue<T> {
    classes: [VecDeque<(T, usize)>; 3],
    passed_over: [u32; 3],
    waiting_tokens: usize,
    queue_tokens: usize,
    requests: usize,
}

impl<T> Queue<T> {
    /// At most `queue_tokens` prompt tokens and `requests` requests wait. One request alone always may.
    #[must_use]
    pub fn new(queue_tokens: usize, requests: usize) -> Self {
        Self {
            classes: Default::default(),
            passed_over: [0; 3],
            waiting_tokens: 0,
            queue_tokens,
            requests: requests.max(1),
        }
    }

    /// Whether a request of `tokens` prompt tokens may wait.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn fits(&self, tokens: usize) -> Result<(), Refused> {
        let fits = self.waiting_tokens.saturating_add(tokens) <= self.queue_tokens && self.len() < self.requests;
        if fits || self.is_empty() {
            return Ok(());
        }
        Err(Refused {
            waiting_tokens: self.waiting_tokens,
            queue_tokens: self.queue_tokens,
        })
    }

    /// Takes a request of `tokens` prompt tokens in.
    ///
    /// # Errors
    /// When it does not fit; nothing has changed then.
    pub fn offer(&mut self, item: T, tokens: usize, class: Class) -> Result<(), Refused> {
        self.fits(tokens)?;
        self.waiting_tokens += tokens;
        self.classes[class as usize].push_back((item, tokens));
        Ok(())
    }

    /// The next request.
    pub fn take(&mut self) -> Option<T> {
        self.take_if(|_| true)
    }

    /// The next request, if it is wanted; else it stays the next.
    pub fn take_if(&mut self, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let waits = |class: &usize| !self.classes[*class].is_empty();
        let impatient = (0..3)
            .rev()
            .filter(waits)
            .find(|class| self.passed_over[*class] >= PATIENCE);
        let class = impatient.or_else(|| (0..3).find(waits))?;
        if !self.classes[class].front().is_some_and(|(item, _)| wanted(item)) {
            return None;
        }
        for lesser in class + 1..3 {
            self.passed_over[lesser] = if self.classes[lesser].is_empty() {
                0
            } else {
                self.passed_over[lesser] + 1
            };
        }
        self.passed_over[class] = 0;
        let (item, tokens) = self.classes[class].pop_front()?;
        self.waiting_tokens -= tokens;
        Some(item)
    }

    /// Removes what `gone` says nobody waits for any more, and gives it back.
    pub fn remove(&mut self, mut gone: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for class in &mut self.classes {
            for _ in 0..class.len() {
                let Some((item, tokens)) = class.pop_front() else { break };
                if gone(&item) {
                    self.waiting_tokens -= tokens;
                    removed.push(item);
                } else {
                    class.push_back((item, tokens));
                }
            }
        }
        removed
    }

    /// Requests waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
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

    #[test]
    fn a_full_queue_refuses_and_takes_again_when_there_is_room() {
        let mut queue = Queue::new(10, 100);
        queue.offer('a', 6, Class::Normal).expect("fits");
        assert_eq!(
            queue.offer('b', 5, Class::Interactive),
            Err(Refused {
                waiting_tokens: 6,
                queue_tokens: 10
            })
        );
        queue.offer('c', 4, Class::Normal).expect("fits exactly");
        assert_eq!(queue.take(), Some('a'));
        queue.offer('b', 5, Class::Interactive).expect("there is room again");
        assert_eq!((queue.take(), queue.take(), queue.take()), (Some('b'), Some('c'), None));
        assert_eq!(queue.waiting_tokens(), 0);
    }

    #[test]
    fn a_prompt_larger_than_the_whole_queue_may_wait_alone() {
        let mut queue = Queue::new(10, 100);
        queue.offer('a', 50, Class::Normal).expect("alone");
        assert!(queue.offer('b', 1, Class::Normal).is_err());
        assert_eq!(queue.take(), Some('a'));
    }

    #[test]
    fn what_is_not_wanted_stays_the_next() {
        let mut queue = Queue::new(10, 100);
        queue.offer('a', 4, Class::Normal).expect("fits");
        queue.offer('b', 4, Class::Interactive).expect("fits");
        assert_eq!(queue.take_if(|next| *next == 'a'), None);
        assert_eq!((queue.waiting_tokens(), queue.len()), (8, 2));
        assert_eq!(
            (queue.take_if(|next| *next == 'b'), queue.take()),
            (Some('b'), Some('a'))
        );
    }

    #[test]
    fn a_batch_is_served_after_sixteen_urgent_ones() {
        let mut queue = Queue::new(1000, 1000);
        queue.offer(0, 1, Class::Batch).expect("fits");
        (1..100).for_each(|i| queue.offer(i, 1, Class::Interactive).expect("fits"));
        let order: Vec<i32> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(order.iter().position(|i| *i == 0), Some(PATIENCE as usize));
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
                        prop_assert_eq!(queue.offer((id, class), tokens, class).is_ok(), fits);
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
