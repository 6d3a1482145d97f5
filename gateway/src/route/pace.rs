//! How fast a target answers a task, as far as it has been seen.
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Answers that are remembered per task. The fastest of the last 32 is a cautious bound: a target that was never faster in 32
/// answers will hardly be faster in the next, and one that has just become slow is not written off by one answer.
const REMEMBERED: usize = 32;

/// Answers before anything is concluded.
const ENOUGH: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<HashMap<String, VecDeque<Duration>>>);

impl Pace {
    /// Notes an answer.
    pub(crate) fn observe(&self, task: &str, took: Duration) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = match seen.get_mut(task) {
            Some(seen) => seen,
            None => seen.entry(task.to_owned()).or_default(),
        };
        if seen.len() == REMEMBERED {
            seen.pop_front();
        }
        seen.push_back(took);
    }

    /// The least time that an answer takes; `None` while too few were seen.
    pub(crate) fn least(&self, task: &str) -> Option<Duration> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.get(task).filter(|s| s.len() >= ENOUGH)?;
        seen.iter().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_concluded_from_few_answers_and_old_ones_are_forgotten() {
        let pace = Pace::default();
        let ms = Duration::from_millis;
        (1..ENOUGH as u64).for_each(|_| pace.observe("t", ms(5)));
        assert_eq!(pace.least("t"), None);
        pace.observe("t", ms(9));
        assert_eq!(pace.least("t"), Some(ms(5)));
        (0..REMEMBERED).for_each(|_| pace.observe("t", ms(40)));
        assert_eq!((pace.least("t"), pace.least("other")), (Some(ms(40)), None));
    }
}
