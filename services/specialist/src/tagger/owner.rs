//! The owner thread of a tagger: takes what waits together through the model, and answers each text.
use super::{
    Prepared,
    answer::{Answers, Found},
    path::{self, Tagset},
    read::Text,
};
use crate::{
    engine::{Done, Event, Finish, Shared, Timings, Waits},
    error::Error,
    runtime::Output,
    sampling::{
        Confidence,
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
use tracing::{Span, info_span, warn};

/// Tokens of one run, padding included: some twenty utterances. Few enough that who came first does not wait long for who came
/// last, enough that the weights are not read from memory for each text alone.
const RUN_TOKENS: usize = 512;

/// A text in the queue.
pub(super) struct Waiting {
    pub(super) text: Text,
    pub(super) task: Arc<Prepared>,
    pub(super) stop: Vec<String>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) deadline: Option<Instant>,
    pub(super) tokenize: Duration,
    pub(super) admitted: Instant,
    pub(super) span: Span,
}

impl Waits for Waiting {
    fn events(&self) -> &mpsc::Sender<Event> {
        &self.events
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// Texts that run together: `ids` and `mask` are `[rows, columns]`, right-padded.
pub(super) struct Batch {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) ids: Vec<i64>,
    pub(super) mask: Vec<i64>,
}

impl Batch {
    fn of(texts: &[Waiting]) -> Self {
        let columns = texts.iter().map(|w| w.text.ids.len()).max().unwrap_or(1);
        let padded = |of: fn(u32) -> i64| {
            let row = move |w: &Waiting| {
                let filled: Vec<i64> = w.text.ids.iter().map(|id| of(*id)).collect();
                filled.into_iter().chain(std::iter::repeat(0)).take(columns)
            };
            texts.iter().flat_map(row).collect()
        };
        Self {
            rows: texts.len(),
            columns,
            ids: padded(i64::from),
            mask: padded(|_| 1),
        }
    }
}

/// What the model says of a batch, all finite.
pub(super) struct Logits {
    /// `[rows, columns, tags]`.
    pub(super) tags: Vec<f32>,
    /// `[rows, classes]`.
    pub(super) classes: Vec<f32>,
}

impl Logits {
    /// Holds the model's outputs to the card: `tag_logits`, then `class_logits` if there are classes.
    pub(super) fn of(outputs: Vec<Output>, rows: usize, columns: usize, tagset: &Tagset) -> Result<Self, String> {
        let wanted = [
            ("tag_logits", vec![rows, columns, tagset.tags()]),
            ("class_logits", vec![rows, tagset.classes()]),
        ];
        for (output, (name, shape)) in outputs.iter().zip(&wanted) {
            if output.shape != *shape {
                return Err(format!(
                    "the model gave {name} {:?} for {rows} texts of {columns} tokens; the card's [tag] makes them {shape:?}",
                    output.shape
                ));
            }
            if output.values.iter().any(|v| !v.is_finite()) {
                return Err(format!("the model gave {name} that are not finite"));
            }
        }
        let mut values = outputs.into_iter().map(|o| o.values);
        Ok(Self {
            tags: values.next().unwrap_or_default(),
            classes: values.next().unwrap_or_default(),
        })
    }
}

pub(super) struct Owner<M> {
    pub(super) model: M,
    pub(super) tagset: Arc<Tagset>,
    pub(super) answers: Answers,
    pub(super) shared: Arc<Shared<Waiting>>,
    pub(super) instruments: Instruments,
    pub(super) name: String,
}

impl<M: FnMut(Batch) -> Result<Logits, String>> Owner<M> {
    /// Until the handle closes.
    pub(super) fn run(mut self) {
        while let Some(texts) = self.admit() {
            let live = &self.instruments.counters.clone().live_slots;
            live.store(texts.len() as u64, Ordering::Relaxed);
            self.tag(texts);
            live.store(0, Ordering::Relaxed);
        }
    }

    /// Takes as many waiting texts as run together; waits if there are none. `None` at the end.
    fn admit(&self) -> Option<Vec<Waiting>> {
        let mut state = self.shared.lock();
        loop {
            if state.closing {
                return None;
            }
            state.drop_dead(&self.instruments);
            let (mut texts, mut columns): (Vec<Waiting>, usize) = (Vec::new(), 0);
            let fits = |w: &Waiting, rows: usize, columns: usize| {
                rows == 0 || (rows + 1) * columns.max(w.text.ids.len()) <= RUN_TOKENS
            };
            while let Some(next) = state.queue.take_if(|w| fits(w, texts.len(), columns)) {
                columns = columns.max(next.text.ids.len());
                texts.push(next);
            }
            self.shared.count(&state);
            if !texts.is_empty() {
                return Some(texts);
            }
            state = self.shared.wait(state);
        }
    }

    fn tag(&mut self, texts: Vec<Waiting>) {
        let started = Instant::now();
        let span = |w: &Waiting| {
            info_span!(
                parent: &w.span, "prefill",
                gen_ai.operation.name = "chat", gen_ai.provider.name = PROVIDER, gen_ai.request.model = %self.name,
                gen_ai.usage.input_tokens = w.text.ids.len(), shoal.rows = texts.len(),
            )
        };
        let spans: Vec<Span> = texts.iter().map(span).collect();
        let batch = Batch::of(&texts);
        let columns = batch.columns;
        let logits = (self.model)(batch);
        let ran = started.elapsed();
        // Children close before their parents.
        drop(spans);
        let logits = match logits {
            Ok(logits) => logits,
            Err(error) => {
                warn!(error, texts = texts.len(), "a run failed, its texts have no answer");
                for waiting in texts {
                    self.fail(&waiting, format!("the run failed: {error}"));
                }
                return;
            }
        };
        let (tags, classes) = (self.tagset.tags(), self.tagset.classes());
        for (row, waiting) in texts.into_iter().enumerate() {
            self.instruments.prefilled(waiting.text.ids.len());
            let of_text = &logits.tags[row * columns * tags..(row + 1) * columns * tags];
            let of_class = &logits.classes[row * classes..(row + 1) * classes];
            let timings = Timings {
                tokenize: waiting.tokenize,
                queue: started - waiting.admitted,
                prefill: ran,
                ..Timings::default()
            };
            match self.answer(&waiting, of_text, of_class, timings) {
                Ok(done) => self.finish(&waiting, done),
                Err(error) => {
                    let file = &waiting.task.template;
                    warn!(error, file, "an answer template failed");
                    self.fail(
                        &waiting,
                        format!("the answer template {file} fails for this text: {error}"),
                    );
                }
            }
        }
    }

    /// What the logits of one text, `tags: [columns, tags]` and `classes: [classes]`, come to.
    fn answer(&self, waiting: &Waiting, tags: &[f32], classes: &[f32], timings: Timings) -> Result<Done, String> {
        let (text, width) = (&waiting.text, self.tagset.tags());
        let rows: Vec<&[f32]> = text
            .tokens
            .iter()
            .map(|t| &tags[t.at * width..(t.at + 1) * width])
            .collect();
        let reading = path::read(&self.tagset, &rows, classes, text.wanted.as_deref());
        let spans = path::spans(&reading.tags);
        let slice = |span: &path::Span| {
            let (first, last) = (text.tokens[span.tokens.start], text.tokens[span.tokens.end - 1]);
            // Tokens stand in the order of the text; of a tokenizer that has them otherwise, nothing is between them.
            let words = text.text.get(first.start..last.end).unwrap_or_default();
            (self.tagset.label(span.label), words)
        };
        let found = Found {
            class: reading.class.and_then(|class| self.tagset.class(class)),
            spans: spans.iter().map(slice).collect(),
            input: &text.text,
            task: &waiting.task.name,
        };
        let answer = self
            .answers
            .render(&waiting.task.template, &found)
            .map_err(|e| format!("{e:#}"))?;
        let mut confidence = Confidence::new(waiting.task.calibration.clone());
        reading.choices.iter().for_each(|choice| confidence.add(choice));
        let mut stops = Stops::new(&waiting.stop);
        let answer = match stops.push(&answer) {
            Passed::Stop(cut) => cut,
            Passed::On(passed) => passed + &stops.finish(),
        };
        Ok(Done {
            text: answer,
            finish: Finish::Stop,
            input_tokens: text.ids.len(),
            tokens: Vec::new(),
            timings,
            confidence,
        })
    }

    fn finish(&self, waiting: &Waiting, done: Done) {
        let heard = done.text.is_empty() || waiting.events.try_send(Event::Delta(done.text.clone())).is_ok();
        let heard = heard && waiting.events.try_send(Event::Done(Box::new(done))).is_ok();
        self.instruments.ended(if heard { "stop" } else { "cancelled" });
    }

    fn fail(&self, waiting: &Waiting, message: String) {
        let _ = waiting.events.try_send(Event::Failed(Error::Broken { message }));
        self.instruments.ended("failed");
    }
}
