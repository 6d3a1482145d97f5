//! The owner thread: the one that touches the decoder.
use super::{
    Decoder, Event, Request, Row, Shape, Shared, Timings, Waiting,
    live::{Fate, Live, advance, finish},
    sequence::Sequence,
    slots::Slots,
};
use crate::{error::Error, telemetry::Instruments, vocabulary::Vocabulary};
use shoal_kit::telemetry::names::PROVIDER;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tokio::sync::mpsc;
use tracing::{field, info_span, warn};

pub(super) struct Owner<D> {
    decoder: D,
    shape: Shape,
    vocabulary: Arc<Vocabulary>,
    eos: Arc<[u32]>,
    shared: Arc<Shared<Waiting>>,
    instruments: Instruments,
    model: String,
    slots: Slots<Live>,
}

impl<D: Decoder> Owner<D> {
    pub(super) fn new(
        decoder: D,
        vocabulary: Arc<Vocabulary>,
        eos: Vec<u32>,
        shared: Arc<Shared<Waiting>>,
        instruments: Instruments,
        model: String,
    ) -> Self {
        let shape = decoder.shape();
        Self {
            decoder,
            shape,
            vocabulary,
            eos: eos.into(),
            shared,
            instruments,
            model,
            slots: Slots::new(shape.slots),
        }
    }

    /// Until the handle closes.
    pub(super) fn run(mut self) {
        while let Some(admitted) = self.admit() {
            for waiting in admitted {
                self.begin(waiting);
            }
            self.drop_dead_rows();
            self.step();
        }
        for live in self.slots.rows() {
            let _ = live.events.try_send(Event::Failed(Error::Closing));
        }
    }

    /// Takes waiting requests for the free slots; waits if there is nothing at all to do. `None` at the end.
    fn admit(&mut self) -> Option<Vec<Waiting>> {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        loop {
            if state.closing {
                return None;
            }
            state.drop_dead(&self.instruments);
            let free = self.shape.slots - self.slots.rows().len();
            let admitted: Vec<Waiting> = std::iter::from_fn(|| state.queue.take()).take(free).collect();
            shared.count(&state);
            if !admitted.is_empty() || !self.slots.rows().is_empty() {
                return Some(admitted);
            }
            state = shared.wait(state);
        }
    }

    /// Frees the slots of rows whose caller left or whose time is up, before another step is spent on them.
    fn drop_dead_rows(&mut self) {
        let now = Instant::now();
        for slot in (0..self.slots.rows().len()).rev() {
            let live = &self.slots.rows()[slot];
            if live.events.is_closed() {
                self.end(slot, "cancelled");
            } else if live.deadline.is_some_and(|d| d <= now) {
                let _ = live.events.try_send(Event::Failed(Error::Expired {
                    generated: live.sequence.generated(),
                }));
                self.end(slot, "expired");
            }
        }
    }

    /// Reads a prompt into the next free slot and takes the first token from it.
    fn begin(&mut self, waiting: Waiting) {
        let Waiting {
            request,
            events,
            admitted,
        } = waiting;
        let Request {
            prompt,
            sampling,
            grammar,
            calibration,
            deadline,
            tokenize,
            span: parent,
            ..
        } = request;
        let started = Instant::now();
        let slot = self
            .slots
            .free()
            .expect("`admit` takes as many as there are free slots");
        let span = info_span!(
            parent: &parent, "prefill",
            gen_ai.operation.name = "chat", gen_ai.provider.name = PROVIDER, gen_ai.request.model = %self.model,
            gen_ai.usage.input_tokens = prompt.len(), shoal.slot = slot,
        );
        let fate = span.in_scope(|| self.prefill(slot, &prompt, &events, deadline));
        let prefilled = Instant::now();
        drop(span);
        let logits = match fate {
            Ok(logits) => logits,
            Err(outcome) => return self.instruments.ended(outcome),
        };
        self.instruments.prefilled(prompt.len());
        let decode = info_span!(
            parent: &parent, "decode",
            gen_ai.operation.name = "chat", gen_ai.provider.name = PROVIDER, gen_ai.request.model = %self.model,
            gen_ai.usage.output_tokens = field::Empty, shoal.decode.steps = field::Empty,
        );
        let budget = sampling.max_tokens.min(self.shape.context_tokens - prompt.len());
        let timings = Timings {
            tokenize,
            queue: started - admitted,
            prefill: prefilled - started,
            ..Timings::default()
        };
        let mut live = Live {
            sequence: Sequence::new(
                &prompt,
                &sampling,
                // A grammar of this request alone is taken as it is.
                grammar.map(|g| Arc::try_unwrap(g).unwrap_or_else(|shared| shared.begin())),
                calibration,
                budget,
                self.vocabulary.clone(),
                self.eos.clone(),
            ),
            next: Row {
                token: 0,
                length: prompt.len(),
            },
            input_tokens: prompt.len(),
            events,
            deadline,
            timings,
            decode_from: prefilled,
            steps: 0,
            span: decode,
        };
        self.instruments.sampled();
        match advance(&mut live, &logits) {
            Fate::Stays => {
                let placed = self.slots.begin(live).is_ok();
                debug_assert!(placed, "the slot was free");
            }
            Fate::Ends(outcome) => finish(live, outcome, &self.instruments),
        }
        self.count_live();
    }

    /// The prompt's last logits, or how the request ended meanwhile.
    fn prefill(
        &mut self,
        slot: usize,
        prompt: &[u32],
        events: &mpsc::Sender<Event>,
        deadline: Option<Instant>,
    ) -> Result<Vec<f32>, &'static str> {
        let mut last = Vec::new();
        let mut past = 0;
        for chunk in prompt.chunks(self.shape.chunk) {
            if events.is_closed() {
                return Err("cancelled");
            }
            if deadline.is_some_and(|d| d <= Instant::now()) {
                let _ = events.try_send(Event::Failed(Error::Expired { generated: 0 }));
                return Err("expired");
            }
            match self.decoder.prefill(slot, past, chunk) {
                Ok(logits) if past + chunk.len() == prompt.len() => last = logits.to_vec(),
                Ok(_) => {}
                Err(error) => {
                    // Only this slot was written to, and it is free: the rows beside it are whole.
                    warn!(%error, prompt_tokens = prompt.len(), "prefill failed");
                    let _ = events.try_send(Event::Failed(Error::Broken {
                        message: format!("prefill failed: {error}"),
                    }));
                    return Err("failed");
                }
            }
            past += chunk.len();
        }
        Ok(last)
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
                    self.instruments.sampled();
                    if let Fate::Ends(outcome) = advance(live, logits) {
                        ended.push((slot, outcome));
                    }
                }
                self.instruments.stepped(rows.len(), started.elapsed().as_secs_f64());
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

    fn count_live(&self) {
        self.instruments
            .counters
            .live_slots
            .store(self.slots.rows().len() as u64, Ordering::Relaxed);
    }
}
