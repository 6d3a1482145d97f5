//! Another attempt where it may help, and never past the deadline.
//!
//! A callee that is full and says when to come back has been asked, and has not attempted anything: that uses up no attempt. The
//! call goes to an endpoint that was not asked yet, and where there is none it waits as long as it was told, within its patience.
//!
//! A budget bounds what retries add to the load of a target in trouble (tower's token bucket: a fifth of the calls, and a few a
//! second when there are hardly any); the absolute deadline bounds the call, whatever the budget says.
use crate::{Call, Error, hedge::Spare};
use futures::future::BoxFuture;
use rand::Rng as _;
use std::{
    fmt,
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

/// How much later than it was told a call comes back at most, as a share: those that were turned away together should not come
/// back together.
const SPREAD: f64 = 0.5;

/// Tries again within budget and deadline.
#[derive(Clone)]
pub struct RetryLayer {
    budget: Arc<TpsBudget>,
    spare: Spare,
}

impl fmt::Debug for RetryLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

impl RetryLayer {
    /// Of one target, whose endpoints `spare` knows.
    #[must_use]
    pub fn new(spare: Spare) -> Self {
        Self {
            budget: Arc::new(TpsBudget::new(BUDGET.0, BUDGET.1, BUDGET.2)),
            spare,
        }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;
    fn layer(&self, inner: S) -> Retry<S> {
        Retry {
            inner,
            layer: self.clone(),
        }
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub struct Retry<S> {
    inner: S,
    layer: RetryLayer,
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
        let (inner, RetryLayer { budget, spare }) = (self.inner.clone(), self.layer.clone());
        budget.deposit();
        Box::pin(async move {
            loop {
                let (addresses, error) = match inner.clone().oneshot(call.clone()).await {
                    Ok(answer) => return Ok(answer),
                    Err(failed) => failed,
                };
                let asked = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
                call.tried.extend(addresses);
                let pause = match error.full().filter(|_| call.idempotent) {
                    Some(_) if spare(&call.tried) && budget.withdraw() => Duration::ZERO,
                    Some(told) => {
                        let pause = told.max(PAUSE).mul_f64(rand::rng().random_range(1.0..1.0 + SPREAD));
                        let until = call.patience.min(call.deadline);
                        if Instant::now().checked_add(pause).is_none_or(|at| at >= until) {
                            return Err(error);
                        }
                        tracing::debug!(?pause, %error, "waiting for room");
                        call.tried.clear();
                        pause
                    }
                    None => {
                        let pause = PAUSE * 2u32.saturating_pow(call.attempt);
                        // A hedged attempt was two.
                        call.attempt += asked;
                        let in_time = Instant::now().checked_add(pause).is_some_and(|at| at < call.deadline);
                        if !error.retryable() || call.attempt >= call.max_attempts || !in_time || !budget.withdraw() {
                            return Err(error);
                        }
                        tracing::debug!(attempt = call.attempt, %error, "trying again");
                        pause
                    }
                };
                tokio::time::sleep(pause).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use shoal_kit::status::Reason;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tonic::{Code, Status};
    use tonic_types::pb;
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
        RetryLayer::new(Arc::new(|_| true))
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
        let layered = RetryLayer::new(Arc::new(|_| true)).layer(service);
        for _ in 0..200 {
            let call = Call::new((), Instant::now() + Duration::from_secs(3600), 2);
            drop(layered.clone().oneshot(call).await);
        }
        let retries = calls.load(Ordering::SeqCst) - 200;
        assert!((1..120).contains(&retries), "{retries} retries for 200 calls");
    }

    /// Replicas that are full until a moment and say to come back in so long; the moments at which they were asked.
    async fn full(
        replicas: usize,
        free_after: u64,
        told: u64,
        change: impl FnOnce(&mut Call<()>),
    ) -> (bool, Vec<u128>) {
        let (began, asked) = (Instant::now(), Arc::new(std::sync::Mutex::new(Vec::new())));
        let seen = asked.clone();
        let service = service_fn(move |call: Call<()>| {
            let at = began.elapsed();
            seen.lock().expect("asked").push(at.as_millis());
            async move {
                let full = Reason::Exhausted {
                    message: "the queue is full".into(),
                    retry_after: Duration::from_millis(told),
                };
                let address: Arc<str> = format!("r{}", call.tried.len()).into();
                if at < Duration::from_millis(free_after) {
                    Err((vec![address.clone()], Error::call(&address, full.into())))
                } else {
                    Ok(())
                }
            }
        });
        let mut call = Call {
            idempotent: true,
            ..Call::new((), began + Duration::from_secs(10), 2)
        };
        change(&mut call);
        let layer = RetryLayer::new(Arc::new(move |tried| tried.len() < replicas));
        let answered = layer.layer(service).oneshot(call).await.is_ok();
        let asked = asked.lock().expect("asked").clone();
        (answered, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_callee_is_waited_for_as_long_as_it_says_and_that_uses_up_no_attempt() {
        let (answered, asked) = full(1, 1000, 200, |_| {}).await;
        assert!(answered && asked.len() > 3, "{asked:?}");
        assert!(
            asked.windows(2).all(|w| (200..=301).contains(&(w[1] - w[0]))),
            "{asked:?}"
        );
        // Another replica is asked at once, and then both have said so.
        let (answered, asked) = full(2, 150, 200, |_| {}).await;
        assert!(
            answered && asked.len() == 3 && asked[1] < 5 && asked[2] >= 200,
            "{asked:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_room_ends_with_patience_and_deadline_and_is_not_for_what_may_not_run_twice() {
        let soon = Instant::now() + Duration::from_millis(500);
        for bound in [(|c, at| c.patience = at) as fn(&mut Call<()>, Instant), |c, at| {
            c.deadline = at
        }] {
            let (answered, asked) = full(1, 60_000, 100, |c| bound(c, soon)).await;
            // A pause that ends just before the moment is rounded up to a whole millisecond by tokio's timer.
            assert!(!answered && asked.iter().all(|at| *at <= 501), "{asked:?}");
        }
        let (answered, asked) = full(1, 60_000, 100, |c| (c.idempotent, c.max_attempts) = (false, 1)).await;
        assert!(!answered && asked.len() == 1, "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_callee_that_says_to_come_back_at_the_end_of_time_is_not_waited_for() {
        let told = pb::RetryInfo {
            retry_delay: Some(prost_types::Duration {
                seconds: i64::MAX,
                nanos: 0,
            }),
        };
        let details = pb::Status {
            code: Code::ResourceExhausted.into(),
            message: "full".into(),
            details: vec![prost_types::Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
                value: told.encode_to_vec(),
            }],
        };
        let full = Status::with_details(Code::ResourceExhausted, "full", details.encode_to_vec().into());
        let (calls, service) = failing(Error::call(&"a".into(), full), Duration::ZERO);
        let call = Call {
            idempotent: true,
            ..Call::new((), Instant::now() + Duration::from_secs(10), 2)
        };
        let layered = RetryLayer::new(Arc::new(|_| false)).layer(service);
        layered.oneshot(call).await.expect_err("full");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
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
