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
//! copied into its place ([`slots`]). What waits and who is next is [`queue`]; what one row does with its logits is
//! [`sequence`]; the loop is [`owner`]. Queue and slots are plain data, without a clock or a thread.
//!
//! The engine never waits for a caller: a request's channel has room for every event that it can cause.

mod owner;
pub mod queue;
mod sequence;
pub mod slots;

pub use sequence::Finish;

use crate::{
    constrain::Grammar,
    error::Error,
    sampling::{Confidence, Sampling},
    telemetry::{Counters, Instruments},
    vocabulary::Vocabulary,
};
use queue::{Class, Queue, Refused};
use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Span;

/// Requests that may wait, whatever their size: a bound on memory for one-token prompts.
const QUEUE_REQUESTS: usize = 4096;

/// Sizes of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the KV buffer.
    pub slots: usize,
    /// Positions of a row.
    pub context_tokens: usize,
    /// Logits per position.
    pub vocabulary: usize,
    /// Prompt tokens of one prefill at most.
    pub chunk: usize,
}

/// One live row of a decode step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The token to read.
    pub token: u32,
    /// Positions of the row that are filled already; the token goes after them.
    pub length: usize,
}

/// A model that decodes over slots. Row `i` of every call is slot `i`.
pub trait Decoder: Send + 'static {
    /// What can go wrong. After an error the content of every slot is undefined.
    type Error: fmt::Display;

    /// Its sizes.
    fn shape(&self) -> Shape;

    /// Reads `tokens` (1 to [`Shape::chunk`]) into `slot` after its first `past` positions; gives the last one's logits,
    /// `[vocabulary]`.
    ///
    /// # Errors
    /// When the runtime fails.
    fn prefill(&mut self, slot: usize, past: usize, tokens: &[u32]) -> Result<&[f32], Self::Error>;

    /// Reads one token into each of the first `rows.len()` slots; gives `[rows, vocabulary]`.
    ///
    /// # Errors
    /// When the runtime fails.
    fn step(&mut self, rows: &[Row]) -> Result<&[f32], Self::Error>;

    /// Copies the first `length` positions of slot `from` over slot `to`.
    ///
    /// # Errors
    /// When the runtime fails.
    fn copy_row(&mut self, from: usize, to: usize, length: usize) -> Result<(), Self::Error>;
}

/// What to generate.
#[derive(Debug)]
pub struct Request {
    /// 1 to context - 1 token ids.
    pub prompt: Vec<u32>,
    /// How to decode.
    pub sampling: Sampling,
    /// What the output is held to.
    pub grammar: Option<Grammar>,
    /// Queueing class.
    pub class: Class,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
    /// Time that tokenizing took, for the timings.
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
    /// Text to ids.
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

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Cancelled when the owner thread has ended, by [`Engine::close`] or by a panic.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    /// Queues a request.
    ///
    /// # Errors
    /// `Busy` when the queue is full, `Invalid` for a prompt that is empty or fills the context, `Closing` at the end.
    pub fn submit(&self, request: Request) -> Result<Ticket, Error> {
        let (length, context) = (request.prompt.len(), self.shape.context_tokens);
        if length == 0 || length >= context {
            return Err(Error::invalid(
                "prompt",
                format!(
                    "it has {length} tokens; 1 to {} fit, with room for an answer",
                    context - 1
                ),
            ));
        }
        if let Some(id) = request.prompt.iter().find(|id| **id as usize >= self.shape.vocabulary) {
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
        state.queue.offer(waiting, length, class).map_err(
            |Refused {
                 waiting_tokens,
                 queue_tokens,
             }| {
                // Prefill of a small model on one core is of the order of 5,000 tokens a second (FACTS: 1,200 to 9,000).
                let retry_after = Duration::from_secs_f64((waiting_tokens as f64 / 5000.0).clamp(0.05, 5.0));
                Error::Busy {
                    waiting_tokens,
                    queue_tokens,
                    retry_after,
                }
            },
        )?;
        self.counters
            .queue_tokens
            .store(state.queue.waiting_tokens() as u64, Ordering::Relaxed);
        drop(state);
        self.shared.wake.notify_one();
        Ok(Ticket { events: receiver })
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
