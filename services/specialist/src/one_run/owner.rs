//! The owner thread: takes what waits together through the model, and answers each text.
use super::{Prepared, Runs};
use crate::{
    engine::{
        Done, Event, Finish, Shared, Timings, Waits,
        queue::{Class, Urgency},
    },
    error::Error,
    faults::Faults,
    runtime::Padded,
    sampling::{
        Choice, Confidence,
        stop::{Passed, Stops},
    },
    telemetry::Instruments,
};
use shoal_kit::telemetry::names::PROVIDER;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tracing::{Span, debug_span, error, warn};

/// Tokens of one run, padding included: some twenty utterances. Few enough that who came first does not wait long for who came
/// last, enough that the weights are not read from memory for each text alone.
pub(crate) const RUN_TOKENS: usize = 512;

/// A text in the queue.
pub(super) struct Waiting<G> {
    pub(super) given: G,
    pub(super) task: Arc<Prepared>,
    pub(super) stop: Vec<String>,
    pub(super) urgency: Urgency,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) tokenize: Duration,
    pub(super) admitted: Instant,
    pub(super) span: Span,
}

impl<G> Waits for Waiting<G> {
    fn left(&self) -> bool {
        self.events.is_closed()
    }

    fn urgency(&self) -> Urgency {
        self.urgency
    }

    fn fail(self, error: Error) {
        let _ = self.events.try_send(Event::Failed(error));
    }
}

pub(super) struct Owner<M: Runs> {
    pub(super) runs: M,
    pub(super) ids: fn(&M::Given) -> &[u32],
    pub(super) shared: Arc<Shared<Waiting<M::Given>>>,
    pub(super) instruments: Instruments,
    pub(super) run_tokens: usize,
    pub(super) name: String,
    pub(super) faults: Faults,
}

impl<M: Runs> Owner<M> {
    /// Until the handle closes, or no run works any more.
    pub(super) fn run(mut self) {
        while !self.is_broken()
            && let Some(texts) = self.admit()
        {
            let live = &self.instruments.counters.clone().live_slots;
            live.store(texts.len() as u64, Ordering::Relaxed);
            self.serve(&texts);
            live.store(0, Ordering::Relaxed);
        }
    }

    /// Whether not even a text of one token can be run, after runs that failed.
    fn is_broken(&mut self) -> bool {
        if !self.faults.are_suspicious() {
            return false;
        }
        let ran = self.runs.works();
        self.faults.heard(&ran);
        if let Err(error) = &ran {
            error!(error, "nothing can be run any more: the model stops");
        }
        ran.is_err()
    }

    fn tokens(&self, waiting: &Waiting<M::Given>) -> usize {
        (self.ids)(&waiting.given).len()
    }

    /// Takes as many waiting texts as run together; waits if there are none. `None` at the end. A run is as long as all of its texts take: with
    /// the first go those of its class or a more urgent one, and nobody waits for what is less urgent than he is.
    fn admit(&self) -> Option<Vec<Waiting<M::Given>>> {
        let mut state = self.shared.lock();
        loop {
            if state.closing {
                return None;
            }
            state.drop_dead(&self.instruments, false);
            let (mut texts, mut columns): (Vec<Waiting<M::Given>>, usize) = (Vec::new(), 0);
            let fits = |w: &Waiting<M::Given>, rows: usize, columns: usize| {
                rows == 0 || (rows + 1) * columns.max(self.tokens(w)) <= self.run_tokens
            };
            let mut class = Class::Batch;
            while let Some(next) = state
                .queue
                .take_of(class.and_above(), |w| fits(w, texts.len(), columns))
            {
                if texts.is_empty() {
                    class = next.urgency.class;
                }
                columns = columns.max(self.tokens(&next));
                texts.push(next);
            }
            self.shared.count(&state);
            if !texts.is_empty() {
                return Some(texts);
            }
            state = self.shared.wait(state);
        }
    }

    /// Runs texts together, and each alone if that fails: a model that breaks on one costs the others nothing.
    fn serve(&mut self, texts: &[Waiting<M::Given>]) {
        let started = Instant::now();
        let span = |w: &Waiting<M::Given>| {
            debug_span!(
                parent: &w.span, "prefill",
                gen_ai.operation.name = "chat", gen_ai.provider.name = PROVIDER, gen_ai.request.model = %self.name,
                gen_ai.usage.input_tokens = self.tokens(w), shoal.rows = texts.len(),
            )
        };
        let spans: Vec<Span> = texts.iter().map(span).collect();
        let given: Vec<&M::Given> = texts.iter().map(|w| &w.given).collect();
        let ids: Vec<&[u32]> = given.iter().map(|g| (self.ids)(g)).collect();
        let said = self.runs.run(Padded::of(&ids), &given);
        self.faults.heard(&said);
        let ran = started.elapsed();
        // Children close before their parents.
        drop(spans);
        let said = match said {
            Ok(said) => said,
            Err(_) if texts.len() > 1 => return texts.chunks(1).for_each(|alone| self.serve(alone)),
            Err(error) => {
                warn!(error, "a run failed, its text has no answer");
                for waiting in texts {
                    self.fail(waiting, format!("the run failed: {error}"));
                }
                return;
            }
        };
        for (row, waiting) in texts.iter().enumerate() {
            self.instruments.prefilled(self.tokens(waiting));
            let timings = Timings {
                tokenize: waiting.tokenize,
                queue: started - waiting.admitted,
                prefill: ran,
                ..Timings::default()
            };
            match self.runs.answer(&said, row, &waiting.given, &waiting.task) {
                Ok((answer, choices)) => self.finish(waiting, &answer, &choices, timings),
                Err(error) => {
                    let file = &waiting.task.template;
                    warn!(error, file, "an answer template failed");
                    self.fail(
                        waiting,
                        format!("the answer template {file} fails for this text: {error}"),
                    );
                }
            }
        }
    }

    fn finish(&self, waiting: &Waiting<M::Given>, answer: &str, choices: &[Choice], timings: Timings) {
        let mut confidence = Confidence::new(waiting.task.calibration.clone());
        choices.iter().for_each(|choice| confidence.add(choice));
        let mut stops = Stops::new(&waiting.stop);
        let text = match stops.push(answer) {
            Passed::Stop(cut) => cut,
            Passed::On(passed) => passed + &stops.finish(),
        };
        let done = Done {
            text,
            finish: Finish::Stop,
            input_tokens: self.tokens(waiting),
            tokens: Vec::new(),
            timings,
            confidence,
        };
        let heard = done.text.is_empty() || waiting.events.try_send(Event::Delta(done.text.clone())).is_ok();
        let heard = heard && waiting.events.try_send(Event::Done(Box::new(done))).is_ok();
        let unheard = if heard { None } else { waiting.gone(Instant::now()) };
        self.instruments.ended(unheard.unwrap_or("stop"));
    }

    fn fail(&self, waiting: &Waiting<M::Given>, message: String) {
        let _ = waiting.events.try_send(Event::Failed(Error::Broken { message }));
        self.instruments.ended("failed");
    }
}
