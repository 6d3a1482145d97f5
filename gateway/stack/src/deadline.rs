//! The absolute deadline, enforced. `grpc-timeout` is a request to the callee, and tonic's own timer stops at the response's
//! headers: here the whole call ends, its future dropped, which resets the stream and frees the callee's slot.
use crate::{Call, Error};
use futures::future::BoxFuture;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// Ends calls at their deadline with [`Error::Expired`].
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;
    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner }
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    inner: S,
}

impl<S, R> Service<Call<R>> for Deadline<S>
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

    fn call(&mut self, call: Call<R>) -> Self::Future {
        let deadline = call.deadline;
        let answer = self.inner.call(call);
        Box::pin(async move {
            tokio::time::timeout_at(deadline, answer)
                .await
                .unwrap_or(Err(Error::Expired))
        })
    }
}
