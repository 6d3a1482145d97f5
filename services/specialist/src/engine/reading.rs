//! Prompts: who is let in, and what one piece of reading is.
use super::{
    Decoder, Event, Request, Row, Timings, Waiting, Waits as _,
    live::{Fate, Live, advance, finish},
    owner::Owner,
    prefix::Place,
    schedule::{Budget, Piece},
    sequence::Sequence,
};
use crate::{constrain::Bounds, error::Error};
use shoal_kit::telemetry::names::PROVIDER;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tracing::{Span, debug_span, field, warn};

/// A prompt that is being read.
pub(super) struct Prompt {
    waiting: Waiting,
    /// The prompt slot that it is read into.
    slot: usize,
    /// Tokens read so far.
    read: usize,
    started: Instant,
    span: Span,
}

impl Prompt {
    /// One that is read already.
    pub(super) fn read_in(slot: usize, waiting: Waiting, started: Instant, span: Span) -> Self {
        Self {
            read: waiting.request.prompt.len(),
            waiting,
            slot,
            started,
            span,
        }
    }
}

impl<D: Decoder> Owner<D> {
    /// Reads prompts as far as the round's budget goes. Who waits may come in between any two pieces.
    pub(super) fn read(&mut self) {
        let classes = self.slots.rows().iter().map(|live| live.urgency.class);
        let mut budget = self.schedule.budget(classes);
        // Who would only wait for the next round is not let in: in the queue it may still be joined by others.
        while budget.left() > 0 {
            self.let_in(&mut budget);
            let Some(piece) = self.schedule.next(&mut budget) else {
                return;
            };
            self.read_piece(piece);
        }
    }

    /// Begins the next waiting request, if its class may come in; with those that can be read together with it, reads it.
    fn let_in(&mut self, budget: &mut Budget) {
        let open = self.schedule.open_classes(self.slots.rows().len());
        if open == 0 {
            return;
        }
        let mut taken = self.take_next(open, budget);
        if taken.len() > 1 {
            return self.read_together(taken, budget);
        }
        let Some(waiting) = taken.pop() else { return };
        let request = &waiting.request;
        let (class, tokens) = (request.urgency.class, request.prompt.len());
        let (slot, past) = self.place(&waiting.request.prompt);
        let span = self.prefill_span(&waiting.request, past, slot);
        let prompt = Prompt {
            waiting,
            slot,
            read: past,
            started: Instant::now(),
            span,
        };
        self.schedule.begin(prompt, class, tokens - past);
        self.count_live();
    }

    /// The span of reading a prompt, of which `past` tokens are there already.
    pub(super) fn prefill_span(&self, request: &Request, past: usize, slot: usize) -> Span {
        debug_span!(
            parent: &request.span, "prefill",
            gen_ai.operation.name = "chat", gen_ai.provider.name = PROVIDER, gen_ai.request.model = %self.model,
            gen_ai.usage.input_tokens = request.prompt.len(), shoal.prefix.tokens = past, shoal.slot = slot,
        )
    }

    /// The slot to read a prompt in, and how many tokens of it are there already.
    fn place(&mut self, prompt: &[u32]) -> (usize, usize) {
        let Place { slot, mut past, from } = self
            .prefixes
            .begin(prompt)
            .expect("a class is open only while a prompt slot is free");
        if let Some(from) = from
            && let Err(error) = self.decoder.copy_row(from, slot, past)
        {
            warn!(%error, from, to = slot, "a prefix could not be copied and is read again");
            self.prefixes.forget(slot);
            past = 0;
        }
        self.instruments.looked_up(past);
        (slot, past)
    }

    /// Reads a piece of a prompt; the last one gives the first token.
    fn read_piece(&mut self, piece: Piece) {
        let Prompt {
            waiting,
            slot,
            read,
            span,
            ..
        } = self.schedule.row_mut(piece.reading);
        let (slot, past) = (*slot, *read);
        *read += piece.tokens;
        let tokens = &waiting.request.prompt[past..past + piece.tokens];
        let started = Instant::now();
        match span.in_scope(|| self.decoder.prefill(slot, past, tokens)) {
            Ok(logits) if piece.last => {
                self.first_logits.clear();
                self.first_logits.extend_from_slice(logits);
                self.prefixes.read(slot, tokens);
                self.schedule.read(piece.tokens, started.elapsed());
                let prompt = self.schedule.end(piece.reading);
                self.begin(prompt, 0);
                self.prefixes.end(slot);
                self.count_live();
            }
            Ok(_) => {
                self.prefixes.read(slot, tokens);
                self.schedule.read(piece.tokens, started.elapsed());
            }
            Err(error) => {
                // Only this slot was written to, and it is free: the rows beside it are whole.
                warn!(%error, prompt_tokens = waiting.request.prompt.len(), "prefill failed");
                let message = format!("prefill failed: {error}");
                let _ = waiting.events.try_send(Event::Failed(Error::Broken { message }));
                self.prefixes.forget(slot);
                self.end_reading(piece.reading, "failed");
            }
        }
    }

    /// Takes the first token from the prompt's last logits, which are the `nth` of `first_logits`, and moves the row to where it decodes.
    pub(super) fn begin(&mut self, prompt: Prompt, nth: usize) {
        let Prompt {
            waiting:
                Waiting {
                    request,
                    events,
                    hearing,
                    admitted,
                },
            slot,
            started,
            span,
            ..
        } = prompt;
        let Request {
            prompt,
            sampling,
            grammar,
            required,
            calibration,
            urgency,
            tokenize,
            span: parent,
        } = request;
        let prefilled = Instant::now();
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
                Bounds {
                    // A grammar of this request alone is taken as it is.
                    grammar: grammar.map(|g| Arc::try_unwrap(g).unwrap_or_else(|shared| shared.begin())),
                    required,
                },
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
            urgency,
            events,
            hearing,
            timings,
            decode_from: prefilled,
            steps: 0,
            unsaid: String::new(),
            span: Span::none(),
        };
        // The caller has its first token before anything is noted about it.
        let vocabulary = self.shape.vocabulary;
        let fate = advance(&mut live, &self.first_logits[nth * vocabulary..][..vocabulary]);
        live.say();
        drop(span);
        live.span = debug_span!(
            parent: &parent, "decode",
            gen_ai.operation.name = "chat", gen_ai.provider.name = PROVIDER, gen_ai.request.model = %self.model,
            gen_ai.usage.output_tokens = field::Empty, shoal.decode.steps = field::Empty,
        );
        self.instruments.prefilled(live.input_tokens);
        self.instruments.sampled(1);
        if let Fate::Ends(outcome) = fate {
            return finish(live, outcome, &self.instruments);
        }
        let to = self.slots.free().expect("a reading has a slot reserved");
        // One that was read with others is where it decodes, unless one before it has ended already.
        if slot != to
            && let Err(error) = self.decoder.copy_row(slot, to, prompt.len())
        {
            warn!(%error, from = slot, to, "a prompt could not be moved and is lost");
            let message = format!("a prompt could not be moved: {error}");
            let _ = live.events.try_send(Event::Failed(Error::Broken { message }));
            return finish(live, "failed", &self.instruments);
        }
        let placed = self.slots.begin(live).is_ok();
        debug_assert!(placed, "the slot was free");
    }

    /// Ends the readings whose caller left or whose time is up.
    pub(super) fn drop_dead_readings(&mut self) {
        if self.schedule.readings().is_empty() {
            return;
        }
        let now = Instant::now();
        for reading in (0..self.schedule.readings().len()).rev() {
            let waiting = &self.schedule.readings()[reading].row.waiting;
            if let Some(outcome) = waiting.gone(now) {
                let _ = waiting.events.try_send(Event::Failed(Error::Expired { generated: 0 }));
                self.end_reading(reading, outcome);
            }
        }
    }

    fn end_reading(&mut self, reading: usize, outcome: &'static str) {
        let prompt = self.schedule.end(reading);
        self.prefixes.end(prompt.slot);
        drop(prompt);
        self.instruments.ended(outcome);
        self.count_live();
    }

    /// Fails what is still being read, at the end.
    pub(super) fn close_readings(&mut self) {
        for reading in self.schedule.readings() {
            let _ = reading.row.waiting.events.try_send(Event::Failed(Error::Closing));
        }
    }

    /// Tells the gauges how many slots are taken, and what the prompt slots hold.
    pub(super) fn count_live(&self) {
        let taken = self.slots.rows().len() + self.schedule.readings().len();
        let held = self.prefixes.held_tokens() * self.shape.position_bytes;
        let counters = &self.instruments.counters;
        counters.live_slots.store(taken as u64, Ordering::Relaxed);
        counters.prefix_bytes.store(held as u64, Ordering::Relaxed);
    }
}
