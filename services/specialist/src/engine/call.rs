//! One request: what its caller says and what it hears.
use super::{queue::Urgency, sequence::Finish};
use crate::{
    constrain::{Grammar, Required},
    error::Error,
    sampling::{Confidence, Sampling, calibration::Calibration},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tracing::Span;

/// What to generate.
#[derive(Debug)]
pub struct Request {
    /// 1 to context - 1 token ids.
    pub prompt: Vec<u32>,
    /// How to decode.
    pub sampling: Sampling,
    /// What the output is held to, at its beginning. Copied when a slot is free, unless nobody else holds it.
    pub grammar: Option<Arc<Grammar>>,
    /// What the output must say.
    pub required: Required,
    /// Makes the confidence score.
    pub calibration: Calibration,
    /// How soon the answer is wanted.
    pub urgency: Urgency,
    /// Time that reading the request took (tokens, and a grammar of its own), for the timings.
    pub tokenize: Duration,
    /// The span that `prefill` and `decode` become children of.
    pub span: Span,
}

/// What a request's caller hears.
#[derive(Debug, Clone)]
pub enum Event {
    /// Text to append; not empty.
    Delta(String),
    /// The end.
    Done(Box<Done>),
    /// The end, without an answer.
    Failed(Error),
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Done {
    /// All deltas together.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub input_tokens: usize,
    /// Tokens of the answer, end-of-sequence not counted.
    pub tokens: Vec<u32>,
    /// Where the time went.
    pub timings: Timings,
    /// How sure the model was.
    pub confidence: Confidence,
}

/// Where the time of a request went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Text to ids, and to a grammar where the request has one of its own.
    pub tokenize: Duration,
    /// Admission to the first prefill.
    pub queue: Duration,
    /// Prompt into the KV buffer.
    pub prefill: Duration,
    /// All decode steps.
    pub decode: Duration,
}

/// A running request. Dropping it ends the request before the next step.
#[derive(Debug)]
pub struct Ticket {
    events: mpsc::Receiver<Event>,
}

impl Ticket {
    pub(crate) fn new(events: mpsc::Receiver<Event>) -> Self {
        Self { events }
    }

    /// The next event; `Failed` if the engine broke. Nothing comes after `Done` or `Failed`.
    pub async fn next(&mut self) -> Event {
        let broken = || {
            Event::Failed(Error::Broken {
                message: "the engine stopped before the answer was complete".into(),
            })
        };
        self.events.recv().await.unwrap_or_else(broken)
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn complete(mut self) -> Result<Done, Error> {
        loop {
            match self.next().await {
                Event::Delta(_) => {}
                Event::Done(done) => return Ok(*done),
                Event::Failed(error) => return Err(error),
            }
        }
    }
}
