//! Another attempt where it may help, and never past the deadline.
//!
//! A budget bounds what retries add to the load of a target in trouble (tower's token bucket: a fifth of the calls, and a few a
//! second when there are hardly any); the absolute deadline bounds the call, whatever the budget says.
use crate::{Call, Error};
use futures::future::BoxFuture;
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tower::{
    Layer, Service, ServiceExt as _,
    retry::budget::{Budget as _, TpsBudget},
};

/// Retries as a share of calls, over the last ten seconds, and the few a second that an idle target may have.
const BUDGET: (Duration, u32, f32) = (Duration::from_secs(10), 3, 0.2);

/// The pause before the first retry, doubled for each further one: a restart takes longer, a lost connection less.
const PAUSE: Duration = Duration::from_millis(20);

/// Tries again within budget and deadline.
#[derive(Debug, Clone)]
pub struct RetryLayer {
    budget: Arc<TpsBudget>,
}

impl Default for RetryLayer {
    fn default() -> Self {
        Self {
            budget: Arc::new(TpsBudget::new(BUDGET.0, BUDGET.1, BUDGET.2)),
        }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;
    fn layer(&self, inner: S) -> Retry<S> {
        Retry {
            inner,
            budget: self.budget.clone(),
        }
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub struct Retry<S> {
    inner: S,
    budget: Arc<TpsBudget>,
}

impl<S, R> Service<Call<R>> for Retry<S>
where
    S: Service<Call<R>, Error = (Vec<Arc<str>>, Error)> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    R: Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = Error;
    type Future = BoxFuture<'static, Result<S::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut call: Call<R>) -> Self::Future {
        let (inner, budget) = (self.inner.clone(), self.budget.clone());
        budget.deposit();
        Box::pin(async move {
            loop {
                let (addresses, error) = match inner.clone().oneshot(call.clone()).await {
                    Ok(answer) => return Ok(answer),
                    Err(failed) => failed,
                };
                let pause = PAUSE * 2u32.saturating_pow(call.attempt);
                // A hedged attempt was two.
                call.attempt += u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
                let in_time = Instant::now() + pause < call.deadline;
                if !error.retryable() || call.attempt >= call.max_attempts || !in_time || !budget.withdraw() {
                    return Err(error);
                }
                tracing::debug!(attempt = call.attempt, %error, "trying again");
                call.tried.extend(addresses);
                tokio::time::sleep(pause).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tower::{service_fn, util::BoxCloneService};

    type Failing = BoxCloneService<Call<()>, (), (Vec<Arc<str>>, Error)>;

    fn failing(error: Error, takes: Duration) -> (Arc<AtomicU32>, Failing) {
        let calls = Arc::new(AtomicU32::new(0));
        let seen = calls.clone();
        let service = BoxCloneService::new(service_fn(move |call: Call<()>| {
            let (seen, error) = (seen.clone(), error.clone());
            async move {
                let n = seen.fetch_add(1, Ordering::SeqCst);
                assert_eq!(
                    call.tried.len() as u32,
                    n,
                    "every address tried is named to the next attempt"
                );
                tokio::time::sleep(takes).await;
                Err((vec![format!("a{n}").into()], error))
            }
        }));
        (calls, service)
    }

    fn down() -> Error {
        Error::Attempt {
            address: "a".into(),
            after: Duration::ZERO,
        }
    }

    async fn run(error: Error, takes: Duration, left: Duration, attempts: u32) -> u32 {
        let (calls, service) = failing(error, takes);
        let call = Call::new((), Instant::now() + left, attempts);
        RetryLayer::default()
            .layer(service)
            .oneshot(call)
            .await
            .expect_err("it always fails");
        calls.load(Ordering::SeqCst)
    }

    #[tokio::test(start_paused = true)]
    async fn it_tries_as_often_as_it_may_and_no_attempt_starts_past_the_deadline() {
        let second = Duration::from_secs(1);
        assert_eq!(run(down(), Duration::ZERO, second * 60, 3).await, 3);
        // Each attempt takes 40 ms and 100 ms are left: the third would start at 120 ms.
        assert_eq!(
            run(down(), Duration::from_millis(40), Duration::from_millis(100), 5).await,
            2
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_help_is_not_tried_again() {
        assert_eq!(run(Error::Expired, Duration::ZERO, Duration::from_secs(60), 5).await, 1);
        let refused = Error::call(&"a".into(), shoal_kit::status::invalid("x", "wrong").into());
        assert_eq!(run(refused, Duration::ZERO, Duration::from_secs(60), 5).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_ends_retries_of_a_target_in_trouble() {
        let (calls, service) = failing_any();
        let layered = RetryLayer::default().layer(service);
        for _ in 0..200 {
            let call = Call::new((), Instant::now() + Duration::from_secs(3600), 2);
            drop(layered.clone().oneshot(call).await);
        }
        let retries = calls.load(Ordering::SeqCst) - 200;
        assert!((1..120).contains(&retries), "{retries} retries for 200 calls");
    }

    fn failing_any() -> (Arc<AtomicU32>, Failing) {
        let calls = Arc::new(AtomicU32::new(0));
        let seen = calls.clone();
        let service = BoxCloneService::new(service_fn(move |_: Call<()>| {
            seen.fetch_add(1, Ordering::SeqCst);
            async { Err((Vec::new(), down())) }
        }));
        (calls, service)
    }
}
