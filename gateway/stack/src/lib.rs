//! Our tower layers, over typed calls and not over HTTP bodies.
//!
//! A call here is a future that ends when its stream does: what a stream brings on the way leaves through the request's own
//! channel. So a concurrency permit, an in-flight count, a latency and a deadline cover the whole stream without a body wrapper,
//! and every layer is a few lines. Outermost first, the gateway stacks them so:
//!
//! [`trace`] -> [`metrics`] -> shed (tower's) -> concurrency (tower's) -> [`deadline`] -> [`retry`] -> [`balance`], then per
//! endpoint: [`breaker`] -> [`attempt`] -> the channel.
//!
//! Why not tower's own for the rest: its timeout knows durations, not a plan's one absolute deadline; its retry has no end but
//! its budget; its balancer sends traffic to whoever fails fastest.

pub mod attempt;
pub mod balance;
pub mod breaker;
pub mod deadline;
mod error;
pub mod metrics;
pub mod retry;
pub mod trace;

pub use error::Error;

use std::sync::Arc;
use tokio::time::Instant;

/// One typed call on its way through the stack.
#[derive(Debug, Clone)]
pub struct Call<R> {
    /// What is asked. Cloned for each attempt.
    pub request: R,
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
}

impl<R> Call<R> {
    /// A first attempt.
    #[must_use]
    pub fn new(request: R, deadline: Instant, max_attempts: u32) -> Self {
        Self {
            request,
            deadline,
            max_attempts,
            tried: Vec::new(),
            attempt: 0,
            others: 0,
        }
    }
}
