//! The slot engine: continuous batching over one shared KV buffer.
//!
//! ```text
//!   submit ──► Queue (bounded by prompt tokens, FIFO per priority) ──► owner thread
//!                                                                       │  each round:
//!   Ticket ◄── bounded channel per request, never waited on ◄───────────┤  1. drop rows whose caller left or whose time is up
//!                                                                       │  2. prefill waiting prompts into free slots
//!                                                                       │  3. one decode step of all live rows together
//! ```
//!
//! A sequence owns a slot, a row of the buffer. Live rows are always the first ones: when one ends, the last live row is
//! copied into its place ([`slots`]). What a model must do is `decoder`; what a caller says and hears is `call`; what waits and
//! who is next is [`queue`]; what one row does with its logits is `sequence`, within `live`; the loop is `owner`. Queue and
//! slots are plain data, without a clock or a thread.
//!
//! The engine never waits for a caller: a request's channel has room for every event that it can cause.

mod call;
mod decoder;
mod live;
mod owner;
pub mod queue;
mod sequence;
pub mod slots;

pub use call::{Done, Event, Request, Ticket, Timings};
pub use decoder::{Decoder, Row, Shape};
pub use sequence::Finish;

use crate::{
    error::Error,
    telemetry::{Counters, Instruments},
    vocabulary::Vocabulary,
};
use queue::Queue;
use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::Instant,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Requests that may wait, whatever their size: a bound on memory for one-token prompts.
const QUEUE_REQUESTS: usize = 4096;

/// A request in the queue.
struct Waiting {
    request: Request,
    events: mpsc::Sender<Event>,
    admitted: Instant,
}

/// What handle and owner thread share.
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    queue: Queue<Waiting>,
    closing: bool,
}

impl Shared {
    /// A panic while it was held leaves plain data that is still whole: every change to it is one call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the owner thread: however it ends, by a panic too, nobody is left waiting for it.
struct End {
    shared: Arc<Shared>,
    stopped: CancellationToken,
}

impl Drop for End {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.shared.lock();
            state.closing = true;
            state.queue.remove(|_| true)
        };
        for waiting in waiting {
            let _ = waiting.events.try_send(Event::Failed(Error::Closing));
        }
        self.stopped.cancel();
    }
}

/// An engine: its handle, and the owner thread behind it. Dropping it ends the thread after the step that it is in.
pub struct Engine {
    shared: Arc<Shared>,
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
    /// Starts the owner thread. `eos` ends a text; `queue_tokens` prompt tokens may wait.
    ///
    /// # Errors
    /// When the operating system has no thread to give.
    pub fn start<D: Decoder>(
        name: &str,
        decoder: D,
        vocabulary: Arc<Vocabulary>,
        eos: Vec<u32>,
        queue_tokens: usize,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: Queue::new(queue_tokens, QUEUE_REQUESTS),
                closing: false,
            }),
            wake: Condvar::new(),
        });
        let instruments = Instruments::new(name);
        let (shape, counters, stopped) = (decoder.shape(), instruments.counters.clone(), CancellationToken::new());
        let owner = owner::Owner::new(decoder, vocabulary, eos, shared.clone(), instruments, name.to_owned());
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

    /// Cancelled when the owner thread has ended, by [`Engine::close`] or by a panic.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    /// Whether [`Self::submit`] would take a prompt now: for callers that have dear work to do before it.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn check(&self, prompt: &[u32]) -> Result<(), Error> {
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
        let state = self.shared.lock();
        match state.queue.fits(length) {
            _ if state.closing => Err(Error::Closing),
            Ok(()) => Ok(()),
            Err(full) => Err(Error::queue_full(full.waiting_tokens, full.queue_tokens)),
        }
    }

    /// Queues a request.
    ///
    /// # Errors
    /// `Busy` when the queue is full, `Invalid` for a prompt that is empty or fills the context, `Closing` at the end.
    pub fn submit(&self, request: Request) -> Result<Ticket, Error> {
        self.check(&request.prompt)?;
        let (length, context) = (request.prompt.len(), self.shape.context_tokens);
        // One delta a token, one for what was held back, one end: the owner thread never finds it full.
        let (events, receiver) = mpsc::channel(request.sampling.max_tokens.min(context) + 2);
        let class = request.class;
        let mut state = self.shared.lock();
        if state.closing {
            return Err(Error::Closing);
        }
        let waiting = Waiting {
            request,
            events,
            admitted: Instant::now(),
        };
        let offered = state.queue.offer(waiting, length, class);
        offered.map_err(|full| Error::queue_full(full.waiting_tokens, full.queue_tokens))?;
        self.counters
            .queue_tokens
            .store(state.queue.waiting_tokens() as u64, Ordering::Relaxed);
        drop(state);
        self.shared.wake.notify_one();
        Ok(Ticket::new(receiver))
    }

    /// Refuses new requests, fails the open ones, and waits for the owner thread.
    pub fn close(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
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
