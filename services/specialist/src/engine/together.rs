//! Short prompts that wait in numbers: taken out of the queue together, and read in one run, each in the slot that it will decode in.
use super::{
    Decoder, Event, Together, Waiting, Waits as _,
    owner::Owner,
    queue::Class,
    reading::Prompt,
    schedule::{Budget, Room},
    still_wanted,
};
use crate::error::Error;
use std::{cmp::Reverse, time::Instant};
use tracing::warn;

impl<D: Decoder> Owner<D> {
    /// Takes the next waiting request of the `open` most urgent classes, and those behind it that can be read with it. Nothing if nobody waits.
    pub(super) fn take_next(&mut self, open: usize, budget: &Budget) -> Vec<Waiting> {
        let (mut state, now) = (self.shared.lock(), Instant::now());
        let first = loop {
            let batch = self
                .slots
                .rows()
                .iter()
                .filter(|live| live.urgency.class == Class::Batch);
            let prompt = |next: &Waiting| next.request.prompt.len();
            let Some(next) = self.schedule.take(&mut state.queue, open, batch.count(), prompt) else {
                return Vec::new();
            };
            if let Some(first) = still_wanted(next, now, &self.instruments) {
                break first;
            }
        };
        let (class, length) = (first.request.urgency.class, first.request.prompt.len());
        let joins = |other: &Waiting| {
            let prompt = &other.request.prompt;
            let suits = match self.shape.together {
                Together::Never => false,
                Together::Equal => prompt.len() == length,
                Together::Padded => true,
            };
            suits
                && other.request.urgency.class == class
                && self.schedule.is_short(prompt.len())
                // What is kept of a beginning is worth more than company.
                && !self.prefixes.has(prompt)
        };
        let room = joins(&first).then(|| {
            // Who has no slot makes it no larger.
            let free = self.shape.slots.saturating_sub(self.slots.rows().len());
            let crowd = 1 + state.queue.count(class, free, joins);
            let classes = self.slots.rows().iter().map(|live| live.urgency.class);
            self.schedule.room(budget, classes, class, crowd)
        });
        let mut crowd = vec![first];
        if let Some(mut room) = room.flatten()
            && room.take(length)
        {
            let fits = |next: &Waiting, room: &mut Room| joins(next) && room.take(next.request.prompt.len());
            while let Some(next) = state
                .queue
                .take_of(open, |next| next.gone(now).is_some() || fits(next, &mut room))
            {
                crowd.extend(still_wanted(next, now, &self.instruments));
            }
        }
        self.shared.count(&state);
        crowd
    }

    /// Reads a crowd's prompts in one run, the round's last, and takes the first token of each.
    pub(super) fn read_together(&mut self, mut crowd: Vec<Waiting>, budget: &mut Budget) {
        // Who may go on longest first: it ends last, and as seldom as can be a row behind one that has ended is moved.
        crowd.sort_by_key(|w| Reverse(w.request.sampling.max_tokens));
        let first = self.slots.rows().len();
        let prompts: Vec<&[u32]> = crowd.iter().map(|w| &w.request.prompt[..]).collect();
        let longest = prompts.iter().map(|p| p.len()).max().unwrap_or(0);
        self.schedule.ran_together(budget, crowd.len() * longest);
        let started = Instant::now();
        let spans: Vec<_> = (first..)
            .zip(&crowd)
            .map(|(slot, w)| self.prefill_span(&w.request, 0, slot))
            .collect();
        self.first_logits.clear();
        let read = match self.decoder.prefill_together(first, &prompts) {
            Ok(logits) => {
                self.first_logits.extend_from_slice(logits);
                Ok(())
            }
            // Only free slots were written to.
            Err(error) => Err(format!("prefill failed: {error}")),
        };
        match read {
            Ok(()) => {
                self.schedule.read(crowd.len() * longest, started.elapsed());
                self.instruments.together(crowd.len());
                self.keep(first, &crowd[0].request.prompt);
                for (nth, (waiting, span)) in crowd.into_iter().zip(spans).enumerate() {
                    self.instruments.looked_up(0);
                    self.begin(Prompt::read_in(first + nth, waiting, started, span), nth);
                }
            }
            Err(message) => {
                warn!(
                    message,
                    prompts = crowd.len(),
                    "prompts that were read together are lost"
                );
                for waiting in crowd {
                    let message = message.clone();
                    let _ = waiting.events.try_send(Event::Failed(Error::Broken { message }));
                    self.instruments.ended("failed");
                }
            }
        }
        self.count_live();
    }

    /// Keeps one of the crowd for prompts that begin like it: those that come together are mostly of a kind.
    fn keep(&mut self, from: usize, prompt: &[u32]) {
        let Some(slot) = self.prefixes.keep(prompt) else {
            return;
        };
        match self.decoder.copy_row(from, slot, prompt.len()) {
            Ok(()) => self.prefixes.read(slot, prompt),
            Err(error) => {
                warn!(%error, from, to = slot, "a prompt could not be kept");
                self.prefixes.forget(slot);
            }
        }
        self.prefixes.end(slot);
    }
}
