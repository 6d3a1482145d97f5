//! What attempts at a question have said that came to no answer: whoever said it was at work for it, and an endpoint has its price.
use std::sync::atomic::{AtomicUsize, Ordering};

/// The attempts at one question that began to answer and did not end: they broke off, took too long, or another was faster.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    attempts: AtomicUsize,
    bytes: AtomicUsize,
}

impl Lost {
    /// One more begins. What it says is lost if it is dropped before it is whole.
    pub(crate) fn attempt(&self) -> Attempt<'_> {
        Attempt { lost: self, said: None }
    }

    /// How many so far, and the bytes of what they said.
    pub(crate) fn so_far(&self) -> (usize, usize) {
        (
            self.attempts.load(Ordering::Acquire),
            self.bytes.load(Ordering::Acquire),
        )
    }
}

/// A running attempt.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    lost: &'a Lost,
    /// Bytes of its text; `None` while nothing at all has come.
    said: Option<usize>,
}

impl Attempt<'_> {
    /// It answers, with so many bytes more.
    pub(crate) fn says(&mut self, bytes: usize) {
        *self.said.get_or_insert_default() += bytes;
    }

    /// It is an answer, and counted as one.
    pub(crate) fn whole(mut self) {
        self.said = None;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(bytes) = self.said {
            self.lost.bytes.fetch_add(bytes, Ordering::AcqRel);
            self.lost.attempts.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_and_not_ended_is_lost_and_nothing_else() {
        let lost = Lost::default();
        let mut whole = lost.attempt();
        whole.says(7);
        whole.whole();
        drop(lost.attempt());
        assert_eq!(lost.so_far(), (0, 0));
        for bytes in [0, 3] {
            let mut broken = lost.attempt();
            broken.says(bytes);
            broken.says(2);
        }
        assert_eq!(lost.so_far(), (2, 7));
    }
}
