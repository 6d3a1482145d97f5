//! What a round does: who is let in, whose prompt is read and how far, when to step. Pure: no model, no thread, no clock; what a
//! run took is told to it.
//!
//! ```text
//!   Queue ──open_classes──► readings (at most one a class, each in a prompt slot) ──ended──► decoding rows (Slots)
//!                             │ next(budget): a piece of one prompt                       │ one step of all, every round
//! ```
//!
//! A prompt is read a piece at a time between decode steps (chunked prefill: Sarathi-Serve, arXiv 2403.02310; in runs of its own,
//! because the CPU kernel refuses rows with a past and more than one new token beside others). While somebody waits for
//! tokens, the pieces of a round take three quarters of a step ([`Pace`]): a token is to come at most twice as late as it does
//! without prompts, and prompts have some two fifths of the time as long as there are any. That holds for the 99th percentile, as measured with
//! a shipped decoder of 4.6 M parameters on a busy machine; beside one to four rows, where a step is hardly more than a run's own cost, the median was 2.2 to 2.5
//! times as long. When nobody decodes, a piece is as long as the
//! decoder takes.
//!
//! A prompt is let in only if every prompt that is being read is of a less urgent class: what waits stays in the queue, where its turn
//! may still change, and an urgent prompt overtakes a long one between two pieces. Nothing is read at the cost of the others for ever:
//! a prompt that was passed over [`PATIENCE`] times has the next piece.
//!
//! Short prompts that share no beginning with an earlier one are read together, in one run, where they wait in numbers ([`Room`]): a run's own
//! cost is that of some ten to thirty tokens, and is paid once. A crowd that outnumbers the rows whose next token is waited for has a whole run:
//! those rows wait for it once, instead of a little longer at each of the crowd's own runs. Once, and not between any two of their tokens: before the
//! next whole run they have as many steps as take as long as the last one did. A crowd that nobody waits for has what the round's budget leaves, which
//! is a whole run where nobody waits for the rows either.
//!
//! Preemption goes into [`Schedule::open_classes`]: where no slot is free and the queue's next is more urgent than a
//! decoding row, that row would leave its slot (its KV copied out, or read again) and wait as a request that began already.

mod pace;
mod room;
#[cfg(test)]
mod tests;

pub use pace::{Budget, Pace};
pub use room::Room;

use super::queue::{Class, PATIENCE};
use std::time::Duration;

/// Prompts of up to this part of a run are short: at least as many fit in one run.
const SHORT: usize = 4;

/// Sizes that a schedule keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows that decode together.
    pub slots: usize,
    /// Prompts that are read at once.
    pub prompt_slots: usize,
    /// Prompt tokens of one run.
    pub chunk: usize,
}

/// A prompt that is being read.
#[derive(Debug)]
pub struct Reading<R> {
    /// Whose it is.
    pub row: R,
    class: Class,
    left: usize,
    passed_over: u32,
}

/// A run: so many tokens of one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Which of [`Schedule::readings`].
    pub reading: usize,
    /// How many tokens; at least one.
    pub tokens: usize,
    /// The prompt ends with it.
    pub last: bool,
}

/// The prompts that are being read, and how fast things are.
#[derive(Debug)]
pub struct Schedule<R> {
    limits: Limits,
    /// In the order in which they were let in: the last one is the most urgent.
    readings: Vec<Reading<R>>,
    patience: u32,
    /// Steps still to come before a crowd has a whole run again.
    steps_due: u32,
    /// What runs take.
    pace: Pace,
}

impl<R> Schedule<R> {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            readings: Vec::new(),
            patience: PATIENCE,
            steps_due: 0,
            pace: Pace::default(),
        }
    }

    /// A step of all rows took so long, sampling included.
    pub fn stepped(&mut self, took: Duration) {
        self.steps_due = self.steps_due.saturating_sub(1);
        self.pace.stepped(took);
    }

    /// A run over `tokens` prompt tokens took so long.
    pub fn read(&mut self, tokens: usize, took: Duration) {
        self.pace.read(tokens, took);
    }

    /// How many of the most urgent classes may come in now, beside `decoding` rows. Every reading has a slot reserved.
    #[must_use]
    pub fn open_classes(&self, decoding: usize) -> usize {
        let Limits {
            slots, prompt_slots, ..
        } = self.limits;
        if decoding + self.readings.len() >= slots || self.readings.len() >= prompt_slots {
            return 0;
        }
        self.readings.last().map_or(Class::ALL.len(), |r| r.class as usize)
    }

    /// Takes in a prompt of an open class, with `left` tokens still to be read; at least one.
    pub fn begin(&mut self, row: R, class: Class, left: usize) {
        debug_assert!(left > 0, "a prompt's last token is always read");
        debug_assert!(
            self.readings.last().is_none_or(|r| r.class > class),
            "the class is open"
        );
        self.readings.push(Reading {
            row,
            class,
            left,
            passed_over: 0,
        });
    }

    /// What this round may read. `classes` are those of the decoding rows.
    #[must_use]
    pub fn budget(&self, classes: impl Iterator<Item = Class>) -> Budget {
        // A batch's tokens are waited for by nobody: prompts need not be short for their sake.
        let waited_for = classes.filter(|class| *class < Class::Batch).count();
        self.pace.budget(waited_for, self.limits.chunk)
    }

    /// Room for prompts that are read together with one of `class` that comes in now, where so many of it `crowd`, of whom as many have a slot as
    /// are free. `None` while a prompt is being read: what is left of it comes first. `classes` are those of the decoding rows.
    #[must_use]
    pub fn room(
        &self,
        budget: &Budget,
        classes: impl Iterator<Item = Class>,
        class: Class,
        crowd: usize,
    ) -> Option<Room> {
        let (mut decoding, mut waited_for) = (0, 0);
        for class in classes {
            decoding += 1;
            waited_for += usize::from(class < Class::Batch);
        }
        let free = self.limits.slots.saturating_sub(decoding);
        let whole = class < Class::Batch && crowd.min(free) > waited_for && self.steps_due == 0;
        let tokens = if whole { self.limits.chunk } else { budget.left() };
        (self.readings.is_empty() && budget.left() > 0).then(|| Room::new(free, tokens))
    }

    /// A crowd is read in one run of so many tokens, padding included: the round reads no more.
    pub fn ran_together(&mut self, budget: &mut Budget, tokens: usize) {
        if tokens > budget.left() {
            self.steps_due = self.pace.steps_of(tokens);
        }
        budget.spend();
    }

    /// Whether a prompt is short enough to be read together with others.
    #[must_use]
    pub fn is_short(&self, prompt: usize) -> bool {
        prompt * SHORT <= self.limits.chunk
    }

    /// The round's next run, and nothing once its budget is used up or no prompt is left.
    #[must_use]
    pub fn next(&mut self, budget: &mut Budget) -> Option<Piece> {
        let impatient = self.readings.iter().position(|r| r.passed_over >= self.patience);
        let reading = impatient.or_else(|| self.readings.len().checked_sub(1))?;
        let tokens = budget.take(self.readings[reading].left.min(self.limits.chunk))?;
        for (i, other) in self.readings.iter_mut().enumerate() {
            other.passed_over = if i == reading {
                0
            } else {
                other.passed_over.saturating_add(1)
            };
        }
        self.readings[reading].left -= tokens;
        Some(Piece {
            reading,
            tokens,
            last: self.readings[reading].left == 0,
        })
    }

    /// Ends a reading: its prompt is read, or nobody waits for it any more.
    ///
    /// # Panics
    /// When there is no such reading.
    pub fn end(&mut self, reading: usize) -> R {
        self.readings.remove(reading).row
    }

    /// The prompts that are being read.
    #[must_use]
    pub fn readings(&self) -> &[Reading<R>] {
        &self.readings
    }

    /// What the caller keeps of a reading.
    pub fn row_mut(&mut self, reading: usize) -> &mut R {
        &mut self.readings[reading].row
    }
}
