//! Our tower layers, over typed calls and not over HTTP bodies.
//!
//! A call here is a future that ends when its stream does: what a stream brings on the way leaves through the request's own
//! channel. So a concurrency permit, an in-flight count, a latency and a deadline cover the whole stream without a body wrapper,
//! and every layer is a few lines. Outermost first, the gateway stacks them so:
//!
//! [`trace`] -> [`metrics`] -> [`queue`] -> [`deadline`] -> [`retry`] -> [`hedge`] -> [`balance`], then per endpoint: [`breaker`] ->
//! [`attempt`] -> the channel.
//!
//! Why not tower's own: its concurrency limit lets waiters in by arrival; its timeout knows durations, not a plan's one absolute
//! deadline; its retry has no end but its budget; its hedging does not know where the first attempt went; its balancer sends
//! traffic to whoever fails fastest.

pub mod attempt;
pub mod balance;
pub mod breaker;
pub mod deadline;
mod error;
pub mod hedge;
pub mod metrics;
pub mod pace;
pub mod queue;
pub mod retry;
pub mod trace;

pub use error::Error;

use queue::order::Class;
use std::{
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};
use tokio::time::Instant;

/// One typed call on its way through the stack.
#[derive(Debug, Clone)]
pub struct Call<R> {
    /// What is asked. Cloned for each attempt.
    pub request: R,
    /// What is asked for, a task or a tool: times are compared within it.
    pub work: Arc<str>,
    /// Whether it may be done twice, or be asked again of one who says that it is full.
    pub idempotent: bool,
    /// Who is let in before whom.
    pub class: Class,
    /// The latest start with which its plan, as far as anybody knows, still ends in time. Its slack is what is left until then.
    pub start_by: Instant,
    /// Until when room may be waited for.
    pub patience: Instant,
    /// When the whole call must have ended: the plan's, or the node's if that is sooner.
    pub deadline: Instant,
    /// Attempts at most, the first included.
    pub max_attempts: u32,
    /// Addresses that this call was already tried at; passed over where there is another.
    pub tried: Vec<Arc<str>>,
    /// Retries so far: 0 on the first attempt.
    pub attempt: u32,
    /// Endpoints that could be tried after this one; the balancer says so when it has picked.
    pub others: usize,
    /// How long such a call usually takes, if enough were seen: the hedge layer, which sees them, says so.
    pub usual: Option<Duration>,
    /// Where it was sent: the balancer says so when it has picked.
    pub sent_to: Arc<OnceLock<Arc<str>>>,
    /// Whether some of the answer has come: whoever reads the wire says so, and the breaker has one for each attempt.
    pub heard: Arc<AtomicBool>,
}

impl<R> Call<R> {
    /// A first attempt, of a call that may wait for room until its deadline and not run twice.
    #[must_use]
    pub fn new(request: R, deadline: Instant, max_attempts: u32) -> Self {
        Self {
            request,
            work: Arc::default(),
            idempotent: false,
            class: Class::default(),
            start_by: deadline,
            patience: deadline,
            deadline,
            max_attempts,
            tried: Vec::new(),
            attempt: 0,
            others: 0,
            usual: None,
            sent_to: Arc::default(),
            heard: Arc::default(),
        }
    }
}
