//! One attempt's bound, so that a replica that hangs leaves time for another. Half of what is left, since whoever is tried
//! second should have as much as who was tried first; the last attempt, and one that no other replica could follow, has all of it. So has one
//! that usually takes more than half: cut short, neither it nor the next would ever answer.
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
        let long = call.usual.is_some_and(|usual| usual > left / 2);
        let last = call.attempt + 1 >= call.max_attempts || call.others == 0 || long;
        let bound = if last { left } else { left / 2 };
        // The callee is told this attempt's deadline, and not the plan's: it should not work on for nobody. The last one's is the call's to
        // the nanosecond: were it a moment later, the layers above would drop the attempt before it can say that it has expired.
        let until = if last { call.deadline } else { Instant::now() + bound };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        breaker::{Breaker, BreakerLayer},
        deadline::DeadlineLayer,
    };
    use std::{sync::atomic::Ordering, time::Duration};
    use tower::{ServiceBuilder, ServiceExt as _, service_fn};

    /// A sole endpoint that hangs, asked so often with so much time; whether it may still be called. Before it hangs it may say a piece.
    async fn hung(calls: u32, time: Duration, says: bool) -> bool {
        let breaker = Breaker::default();
        let stack = ServiceBuilder::new()
            .layer(DeadlineLayer)
            .layer(BreakerLayer::new(breaker.clone(), Duration::from_secs(2)))
            .layer(AttemptTimeoutLayer::new("a".into()))
            .service(service_fn(move |call: Call<()>| async move {
                call.heard.store(says, Ordering::Relaxed);
                std::future::pending::<Result<(), Error>>().await
            }));
        for _ in 0..calls {
            let call = Call::new((), Instant::now() + time, 3);
            let ended = stack.clone().oneshot(call).await;
            assert!(matches!(ended, Err(Error::Expired)), "{ended:?}");
        }
        breaker.ready()
    }

    #[tokio::test(start_paused = true)]
    async fn a_sole_endpoint_that_hangs_is_broken_off_and_a_caller_in_a_hurry_breaks_nobody_off() {
        assert!(!hung(5, Duration::from_secs(3), false).await);
        assert!(hung(4, Duration::from_secs(3), false).await);
        assert!(hung(100, Duration::from_millis(5), false).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_was_still_answering_at_the_deadline_is_slow_and_not_hung() {
        assert!(hung(20, Duration::from_secs(3), true).await);
    }
}
