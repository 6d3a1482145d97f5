//! One attempt's bound, so that a replica that hangs leaves time for another. Half of what is left, since whoever is tried
//! second should have as much as who was tried first; the last attempt, and one that no other replica could follow, has all of it.
use crate::{Call, Error};
use futures::future::BoxFuture;
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Bounds attempts at one address.
#[derive(Debug, Clone)]
pub struct AttemptTimeoutLayer {
    address: Arc<str>,
}

impl AttemptTimeoutLayer {
    /// For the endpoint at `address`.
    #[must_use]
    pub fn new(address: Arc<str>) -> Self {
        Self { address }
    }
}

impl<S> Layer<S> for AttemptTimeoutLayer {
    type Service = AttemptTimeout<S>;
    fn layer(&self, inner: S) -> AttemptTimeout<S> {
        AttemptTimeout {
            inner,
            address: self.address.clone(),
        }
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub struct AttemptTimeout<S> {
    inner: S,
    address: Arc<str>,
}

impl<S, R> Service<Call<R>> for AttemptTimeout<S>
where
    S: Service<Call<R>, Error = Error>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = Error;
    type Future = BoxFuture<'static, Result<S::Response, Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call<R>) -> Self::Future {
        let left = call.deadline.saturating_duration_since(Instant::now());
        let last = call.attempt + 1 >= call.max_attempts || call.others == 0;
        let bound = if last { left } else { left / 2 };
        // The callee is told this attempt's deadline, and not the plan's: it should not work on for nobody.
        let until = Instant::now() + bound;
        call.deadline = until;
        let (address, answer) = (self.address.clone(), self.inner.call(call));
        Box::pin(async move {
            let expired = if last {
                Error::Expired
            } else {
                Error::Attempt { address, after: bound }
            };
            let answer = tokio::time::timeout_at(until, answer).await;
            let left = until.saturating_duration_since(Instant::now());
            match answer {
                Ok(Err(error)) if error.timed_out(left) => Err(expired),
                Ok(answer) => answer,
                Err(_) => Err(expired),
            }
        })
    }
}
