//! One request: what its caller says and what it hears.
use super::{queue::Urgency, sequence::Finish};
use crate::{
    constrain::{Grammar, Required},
    error::Error,
    sampling::{Confidence, Sampling, calibration::Calibration},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
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

/// How a request's caller listens; both sides know it.
///
/// To wake a caller costs the engine some six microseconds a token, half of all that is around one row's step, and takes the core on which ONNX
/// Runtime's next thread is about to be wanted. For text that is thrown away it is not done.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// The answer is wanted whole, and no piece of it before.
    whole: AtomicBool,
    /// Pieces that were not sent.
    unsent: AtomicUsize,
}

impl Hearing {
    /// Whether the next piece of text is to be sent.
    pub(super) fn wants_a_piece(&self) -> bool {
        let whole = self.whole.load(Ordering::Relaxed);
        if whole {
            self.unsent.fetch_add(1, Ordering::Relaxed);
        }
        !whole
    }
}

/// A running request. Dropping it ends the request before the next step.
#[derive(Debug)]
pub struct Ticket {
    events: mpsc::Receiver<Event>,
    hearing: Arc<Hearing>,
}

impl Ticket {
    pub(crate) fn new(events: mpsc::Receiver<Event>) -> Self {
        Self::heard(events, Arc::default())
    }

    /// One whose engine asks how it listens.
    pub(super) fn heard(events: mpsc::Receiver<Event>, hearing: Arc<Hearing>) -> Self {
        Self { events, hearing }
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

    /// The next event, if it is there already.
    pub(crate) fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// From here on only the end is waited for: the engine need not send what is in it anyway. Pieces that were sent before still come.
    pub(crate) fn await_end(&self) {
        self.hearing.whole.store(true, Ordering::Relaxed);
    }

    /// Pieces of text that therefore did not come.
    pub(crate) fn unsent(&self) -> usize {
        self.hearing.unsent.load(Ordering::Relaxed)
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn complete(mut self) -> Result<Done, Error> {
        self.await_end();
        loop {
            match self.next().await {
                Event::Delta(_) => {}
                Event::Done(done) => return Ok(*done),
                Event::Failed(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_are_sent_until_only_the_end_is_waited_for_and_counted_from_then_on() {
        let (engine, events) = mpsc::channel(4);
        let hearing = Arc::<Hearing>::default();
        let mut ticket = Ticket::heard(events, hearing.clone());
        assert!(hearing.wants_a_piece());
        engine.send(Event::Delta("a".into())).await.expect("it listens");
        assert!(matches!(ticket.try_next(), Some(Event::Delta(text)) if text == "a"));
        ticket.await_end();
        assert!(!hearing.wants_a_piece() && !hearing.wants_a_piece());
        assert_eq!(ticket.unsent(), 2);
        assert!(ticket.try_next().is_none());
    }
}
