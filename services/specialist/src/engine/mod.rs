//! The slot engine: continuous batching over one shared KV buffer.
//!
//! ```text
//!   submit ──► Queue (bounded by prompt tokens, a line per class) ──► owner thread
//!                                                                      │  each round:
//!   Ticket ◄── bounded channel per request, never waited on ◄──────────┤  1. drop what nobody waits for any more
//!                                                                      │  2. read prompts, as far as the round's budget goes
//!                                                                      │  3. one decode step of all live rows together
//! ```
//!
//! A sequence owns a slot, a row of the buffer. Its prompt is read in a prompt slot, one of the rows behind, and copied to where it
//! decodes: live rows are always the first ones, and when one ends, the last live row is copied into its place ([`slots`]). What a
//! model must do is `decoder`; what a caller says and hears is `call`; what waits and who is next is [`queue`]; who is let in and how far a
//! prompt is read between two steps is [`schedule`]; what of it need not be read is [`prefix`], and which are read in one run `together`; what one row does with its logits is `sequence`, within `live`; the loop is `owner`
//! with `reading`, `watched` its end where the runtime is broken for good, and `shared` what it and the handle share. Queue, schedule, prefixes and slots are plain data, without a clock or a thread.
//!
//! The engine never waits for a caller: a request's channel has room for every event that it can cause.

mod call;
mod decoder;
mod live;
mod owner;
pub mod prefix;
pub mod queue;
mod reading;
pub mod schedule;
mod sequence;
mod shared;
pub mod slots;
mod together;
mod watched;

pub use call::{Done, Event, Request, Ticket, Timings};
pub use decoder::{Decoder, Row, Shape, Together};
pub use sequence::Finish;
use shared::still_wanted;
pub(crate) use shared::{End, Shared, Waits, gone};

use crate::{
    constrain::Grammar,
    error::Error,
    telemetry::{Counters, Instruments},
    vocabulary::Vocabulary,
};
use call::Hearing;
use queue::{Class, Urgency};
use std::{fmt, sync::Arc, thread::JoinHandle, time::Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Bytes of a grammar that count in the queue as much as a prompt token: a request that brings one of its own holds it while it waits, and 65,536 tokens
/// are 256 MiB of such at most.
const GRAMMAR_BYTES_A_TOKEN: usize = 4 << 10;

/// How an engine is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Prompt tokens that may wait, grammars of requests' own counted as such.
    pub queue_tokens: usize,
    /// Prompts that begin alike share what was computed of their beginning.
    pub keeps_prefixes: bool,
}

/// A request in the queue.
struct Waiting {
    request: Request,
    events: mpsc::Sender<Event>,
    hearing: Arc<Hearing>,
    admitted: Instant,
}

impl Waits for Waiting {
    fn left(&self) -> bool {
        self.events.is_closed()
    }

    fn urgency(&self) -> Urgency {
        self.request.urgency
    }

    fn fail(self, error: Error) {
        let _ = self.events.try_send(Event::Failed(error));
    }
}

/// Tokens that a request counts as while it waits.
fn counted(request: &Request) -> usize {
    // One that others have too is held by its task.
    let own = |grammar: &&Arc<Grammar>| Arc::strong_count(grammar) == 1;
    let own = request.grammar.as_ref().filter(own);
    request.prompt.len() + own.map_or(0, |grammar| grammar.compiled_bytes() / GRAMMAR_BYTES_A_TOKEN)
}

/// An engine: its handle, and the owner thread behind it. Dropping it ends the thread after the step that it is in.
pub struct Engine {
    shared: Arc<Shared<Waiting>>,
    shape: Shape,
    counters: Arc<Counters>,
    stopped: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("shape", &self.shape)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the owner thread. `eos` ends a text.
    ///
    /// # Errors
    /// When the operating system has no thread to give.
    pub fn start<D: Decoder>(
        name: &str,
        decoder: D,
        vocabulary: Arc<Vocabulary>,
        eos: Vec<u32>,
        settings: Settings,
    ) -> std::io::Result<Self> {
        let instruments = Instruments::new(name);
        let shared = Shared::new(settings.queue_tokens, instruments.counters.clone());
        let (shape, counters, stopped) = (decoder.shape(), instruments.counters.clone(), CancellationToken::new());
        let owner = owner::Owner::new(
            decoder,
            vocabulary,
            eos,
            shared.clone(),
            instruments,
            name.to_owned(),
            settings.keeps_prefixes,
        );
        let end = End {
            shared: shared.clone(),
            stopped: stopped.clone(),
        };
        let thread = shoal_kit::task::thread("engine", move || {
            let _end = end;
            owner.run();
        })?;
        Ok(Self {
            shared,
            shape,
            counters,
            stopped,
            thread: Some(thread),
        })
    }

    /// The decoder's sizes.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What it did so far; lives on when the engine is gone.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Cancelled when the owner thread has ended, by [`Engine::close`], by a panic, or because no run works any more.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    /// Whether [`Self::submit`] would take a prompt of a class now: for callers that have dear work to do before it.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn check(&self, prompt: &[u32], class: Class) -> Result<(), Error> {
        let (length, context) = (prompt.len(), self.shape.context_tokens);
        if length == 0 || length >= context {
            return Err(Error::invalid(
                "prompt",
                format!(
                    "it has {length} tokens; 1 to {} fit, with room for an answer",
                    context - 1
                ),
            ));
        }
        if let Some(id) = prompt.iter().find(|id| **id as usize >= self.shape.vocabulary) {
            return Err(Error::invalid(
                "prompt",
                format!("token {id} is not in the vocabulary of {}", self.shape.vocabulary),
            ));
        }
        if self.stopped.is_cancelled() {
            return Err(Error::Broken {
                message: "the engine stopped".into(),
            });
        }
        self.shared.check(length, class)
    }

    /// Queues a request.
    ///
    /// # Errors
    /// `Busy` when the queue is full, where a grammar of the request's own counts beside its prompt; `Invalid` for a prompt that is empty or fills the
    /// context, `Closing` at the end.
    pub fn submit(&self, request: Request) -> Result<Ticket, Error> {
        let class = request.urgency.class;
        self.check(&request.prompt, class)?;
        let (length, context) = (counted(&request), self.shape.context_tokens);
        // One delta a token, one for what was held back, one end: the owner thread never finds it full.
        let (events, receiver) = mpsc::channel(request.sampling.max_tokens.min(context) + 2);
        let hearing = Arc::<Hearing>::default();
        let waiting = Waiting {
            request,
            events,
            hearing: hearing.clone(),
            admitted: Instant::now(),
        };
        self.shared.offer(waiting, length, class)?;
        Ok(Ticket::heard(receiver, hearing))
    }

    /// Refuses new requests, fails the open ones, and waits for the owner thread.
    pub fn close(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}
