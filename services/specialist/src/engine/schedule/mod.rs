//! What a round does: who is let in, whose prompt is read and how far, when to step. Pure: no model, no thread, no clock; what a
//! run took is told to it.
//!
//! ```text
//!   Queue ──open_classes──► readings (one a class, and a short one, each in a prompt slot) ──ended──► decoding rows (Slots)
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
//! a prompt that was passed over [`PATIENCE`] times has the next piece. Of its own class one short prompt at a time may overtake a long one, and
//! has every other piece then: what takes a piece or three need not wait for hundreds, and those take twice as long at most.
//!
//! A batch may not have every slot where there are several (`KEPT_OF`): who is waited for would wait for its longest answers.
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

use super::queue::{Class, PATIENCE, Queue};
use std::time::Duration;

/// Prompts of up to this part of a run are short: at least as many fit in one run.
const SHORT: usize = 4;

/// Where there are so many slots, one of them is none of a batch's: fifteen rows of sixteen have some 98 % of the tokens of all, since a step of them
/// takes less long, and of two slots it would be half.
const KEPT_OF: usize = 8;

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
    /// It came in before the end of another of its class.
    overtakes: bool,
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
    /// In the order in which they were let in: the last one is the most urgent, or has overtaken the one before it.
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

    /// How many of the most urgent classes may come in now, beside `decoding` rows, as far as [`Self::take`] lets them. Every reading has a slot
    /// reserved.
    #[must_use]
    pub fn open_classes(&self, decoding: usize) -> usize {
        let Limits {
            slots, prompt_slots, ..
        } = self.limits;
        if decoding + self.readings.len() >= slots || self.readings.len() >= prompt_slots {
            return 0;
        }
        match self.readings.last() {
            None => Class::ALL.len(),
            Some(last) => {
                // Who overtakes leaves room for who is more urgent than both.
                let kept = usize::from(last.class > Class::Interactive);
                let room = decoding + self.readings.len() + kept < slots && self.readings.len() + kept < prompt_slots;
                let overtakes = room && last.class < Class::Batch && !last.overtakes;
                last.class as usize + usize::from(overtakes)
            }
        }
    }

    /// Takes who may come in next out of the queue, of the `open` most urgent classes; `batch` of the decoding rows are one's, and a request has so
    /// many tokens of `prompt`.
    pub fn take<T>(&self, queue: &mut Queue<T>, open: usize, batch: usize, prompt: impl Fn(&T) -> usize) -> Option<T> {
        let reads = self.readings.iter().filter(|r| r.class == Class::Batch).count();
        let open = if batch + reads < self.for_batch() {
            open
        } else {
            open.min(Class::Batch as usize)
        };
        // Of the class that is being read, what is short.
        let above = self.readings.last().map_or(open, |r| open.min(r.class as usize));
        let next = queue.take_of(above, |_| true);
        next.or_else(|| queue.take_of(open, |next| open > above && self.is_short(prompt(next))))
    }

    /// Slots that a batch may have.
    fn for_batch(&self) -> usize {
        self.limits.slots - usize::from(self.limits.slots >= KEPT_OF)
    }

    /// Takes in a prompt of an open class, with `left` tokens still to be read; at least one.
    pub fn begin(&mut self, row: R, class: Class, left: usize) {
        debug_assert!(left > 0, "a prompt's last token is always read");
        debug_assert!(
            self.readings.last().is_none_or(|r| r.class >= class),
            "the class is open"
        );
        let overtakes = self.readings.last().is_some_and(|r| r.class == class);
        self.readings.push(Reading {
            row,
            class,
            left,
            passed_over: 0,
            overtakes,
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
        let mut free = self.limits.slots.saturating_sub(decoding);
        if class == Class::Batch {
            free = free.min(self.for_batch().saturating_sub(decoding - waited_for));
        }
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
        let reading = impatient.or_else(|| self.turn())?;
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

    /// Whose piece is next: the last one's, and between two of one that overtook, one of whom it did.
    fn turn(&self) -> Option<usize> {
        let last = self.readings.len().checked_sub(1)?;
        let overtaken = last.checked_sub(1).filter(|before| {
            let (before, after) = (&self.readings[*before], &self.readings[last]);
            after.overtakes && before.class == after.class && before.passed_over > 0
        });
        Some(overtaken.unwrap_or(last))
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
