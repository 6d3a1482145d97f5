//! The owner thread: the one that touches the decoder. What a round is made of, and its decode step; prompts are `reading`'s.
use super::{
    Decoder, Event, Row, Shape, Shared, Waiting, gone,
    live::{Fate, Live, advance, finish},
    prefix::Prefixes,
    reading::Prompt,
    schedule::{Limits, Schedule},
    slots::Slots,
    watched::Watched,
};
use crate::{error::Error, telemetry::Instruments, vocabulary::Vocabulary};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tracing::warn;

pub(super) struct Owner<D> {
    pub(super) decoder: Watched<D>,
    pub(super) shape: Shape,
    pub(super) vocabulary: Arc<Vocabulary>,
    pub(super) eos: Arc<[u32]>,
    pub(super) shared: Arc<Shared<Waiting>>,
    pub(super) instruments: Instruments,
    pub(super) model: String,
    pub(super) schedule: Schedule<Prompt>,
    pub(super) prefixes: Prefixes,
    pub(super) slots: Slots<Live>,
    /// The last logits of the prompts that were read last, `[prompts, vocabulary]`: the decoder's own are gone with its next call.
    pub(super) first_logits: Vec<f32>,
}

impl<D: Decoder> Owner<D> {
    pub(super) fn new(
        decoder: D,
        vocabulary: Arc<Vocabulary>,
        eos: Vec<u32>,
        shared: Arc<Shared<Waiting>>,
        instruments: Instruments,
        model: String,
        keeps_prefixes: bool,
    ) -> Self {
        let shape = decoder.shape();
        let bytes = (shape.slots + shape.prompt_slots) * shape.context_tokens * shape.position_bytes;
        instruments.counters.kv_bytes.store(bytes as u64, Ordering::Relaxed);
        Self {
            decoder: Watched::new(decoder),
            shape,
            vocabulary,
            eos: eos.into(),
            shared,
            instruments,
            model,
            schedule: Schedule::new(Limits {
                slots: shape.slots,
                prompt_slots: shape.prompt_slots,
                chunk: shape.chunk,
            }),
            prefixes: Prefixes::new(shape.slots, shape.prompt_slots, keeps_prefixes),
            slots: Slots::new(shape.slots),
            first_logits: Vec::new(),
        }
    }

    /// Until the handle closes, or no run works any more.
    pub(super) fn run(mut self) {
        while self.wait() && !self.is_broken() {
            self.drop_dead_readings();
            self.read();
            self.drop_dead_rows();
            self.step();
        }
        for live in self.slots.rows() {
            let _ = live.events.try_send(Event::Failed(Error::Closing));
        }
        self.close_readings();
    }

    /// Waits if there is nothing at all to do. False at the end.
    fn wait(&mut self) -> bool {
        let mut state = self.shared.lock();
        loop {
            if state.closing {
                return false;
            }
            let busy = !self.slots.rows().is_empty() || !self.schedule.readings().is_empty();
            state.drop_dead(&self.instruments, busy);
            self.shared.count(&state);
            if busy || !state.queue.is_empty() {
                return true;
            }
            state = self.shared.wait(state);
        }
    }

    /// Frees the slots of rows whose caller left or whose time is up, before another step is spent on them.
    fn drop_dead_rows(&mut self) {
        let now = Instant::now();
        for slot in (0..self.slots.rows().len()).rev() {
            let live = &self.slots.rows()[slot];
            if let Some(outcome) = gone(live.events.is_closed(), live.urgency.deadline, now) {
                let _ = live.events.try_send(Event::Failed(Error::Expired {
                    generated: live.sequence.generated(),
                }));
                self.end(slot, outcome);
            }
        }
    }

    /// One token for every live row.
    fn step(&mut self) {
        if self.slots.rows().is_empty() {
            return;
        }
        let rows: Vec<Row> = self.slots.rows().iter().map(|live| live.next).collect();
        let started = Instant::now();
        let vocabulary = self.shape.vocabulary;
        let mut ended: Vec<(usize, &'static str)> = Vec::new();
        match self.decoder.step(&rows) {
            Ok(logits) => {
                for (slot, (live, logits)) in self
                    .slots
                    .rows_mut()
                    .iter_mut()
                    .zip(logits.chunks_exact(vocabulary))
                    .enumerate()
                {
                    live.next.length += 1;
                    live.steps += 1;
                    if let Fate::Ends(outcome) = advance(live, logits) {
                        ended.push((slot, outcome));
                    }
                }
                // All at once: the first wakes who carries the answers, and what comes before that is awake costs a tenth.
                self.slots.rows_mut().iter_mut().for_each(Live::say);
                self.instruments.sampled(rows.len());
                let took = started.elapsed();
                self.schedule.stepped(took);
                self.instruments.stepped(rows.len(), took.as_secs_f64());
            }
            Err(error) => {
                warn!(%error, rows = rows.len(), "decode step failed, its rows are lost");
                for (slot, live) in self.slots.rows().iter().enumerate() {
                    let message = format!("a decode step failed: {error}");
                    let _ = live.events.try_send(Event::Failed(Error::Broken { message }));
                    ended.push((slot, "failed"));
                }
            }
        }
        // From the last slot down, so that no slot still to be ended has been moved.
        for (slot, outcome) in ended.into_iter().rev() {
            self.end(slot, outcome);
        }
    }

    /// Ends the row in `slot`, and moves the last live row into its place.
    fn end(&mut self, slot: usize, outcome: &'static str) {
        let ended = self.slots.end(slot);
        self.count_live();
        finish(ended.row, outcome, &self.instruments);
        if let Some(from) = ended.moved_from {
            let length = self.slots.rows()[slot].next.length;
            if let Err(error) = self.decoder.copy_row(from, slot, length) {
                warn!(%error, from, to = slot, "a row could not be moved and is lost");
                let live = &self.slots.rows()[slot];
                let _ = live.events.try_send(Event::Failed(Error::Broken {
                    message: format!("a row could not be moved: {error}"),
                }));
                self.end(slot, "failed");
            }
        }
    }
}
