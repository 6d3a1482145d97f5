//! Stops calling an endpoint that keeps failing, and tries it again with one call at a time.
//!
//! ```text
//!            FAILURES in a row                 the pause is over: one probe
//!   Closed ────────────────────▶ Open ◀───────────────────────────┐
//!     ▲                           │  ╲                             │ it failed: twice the pause
//!     │                           ▼   ╲                            │
//!     └───────── it succeeded ── HalfOpen ─────────────────────────┘
//! ```
//!
//! A call whose time ran out has not succeeded. It is a failure if an answer would have come in that time; one that was given less, or
//! that was still being answered, or that was dropped, says nothing: it changes no count, and a probe of that kind makes room for the next.
//!
//! An open breaker is not ready: a balancer asks [`Breaker::ready`] and passes it over, so that the endpoint that fails
//! fastest does not attract the traffic.
use crate::{Call, Error};
use futures::future::BoxFuture;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Failures in a row that open it. One may be chance and two a restart; five from one process in one go are an outage.
const FAILURES: u32 = 5;

/// The first pause, about a process's restart, and the longest, about what a person waits before trying again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// What an attempt says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Works,
    Fails,
    Nothing,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    HalfOpen { pause: Duration },
}

/// An endpoint's breaker; clones share it.
#[derive(Debug, Clone)]
pub struct Breaker(Arc<Mutex<State>>);

impl Default for Breaker {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State::Closed { failures: 0 })))
    }
}

impl Breaker {
    /// Whether a call may be made now. `shoal status` shows an endpoint as open where not: once the pause is over it may, though on a mesh
    /// without traffic nobody has tried yet, and an outage that has ended is not shown for hours.
    #[must_use]
    pub fn ready(&self) -> bool {
        match *self.state() {
            State::Closed { .. } => true,
            State::Open { until, .. } => Instant::now() >= until,
            State::HalfOpen { .. } => false,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the one probe of an open breaker whose pause is over. A call that was picked before it opened goes through as well: its
    /// answer counts as any.
    fn begin(&self, deadline: Instant, fair: Duration) -> Probe {
        let mut state = self.state();
        let mut decides = false;
        if let State::Open { until, pause } = *state
            && Instant::now() >= until
        {
            *state = State::HalfOpen { pause };
            decides = true;
        }
        Probe {
            breaker: self.clone(),
            began: Instant::now(),
            deadline,
            fair,
            heard: Arc::default(),
            decides,
            ended: false,
        }
    }

    fn end(&self, verdict: Verdict, decides: bool) {
        let mut state = self.state();
        *state = match (*state, verdict) {
            (_, Verdict::Works) => State::Closed { failures: 0 },
            (State::Closed { failures }, Verdict::Fails) if failures + 1 < FAILURES => {
                State::Closed { failures: failures + 1 }
            }
            (State::Closed { .. }, Verdict::Fails) => State::Open {
                until: Instant::now() + PAUSE.0,
                pause: PAUSE.0,
            },
            (State::HalfOpen { pause }, Verdict::Fails) => {
                let pause = (pause * 2).min(PAUSE.1);
                State::Open {
                    until: Instant::now() + pause,
                    pause,
                }
            }
            // It must not stay half open for ever: the next call is the probe.
            (State::HalfOpen { pause }, Verdict::Nothing) if decides => State::Open {
                until: Instant::now(),
                pause,
            },
            (as_it_was, Verdict::Fails | Verdict::Nothing) => as_it_was,
        };
    }
}

/// A call under way.
struct Probe {
    breaker: Breaker,
    began: Instant,
    deadline: Instant,
    fair: Duration,
    heard: Arc<AtomicBool>,
    /// Whether it is the one that an open breaker let through.
    decides: bool,
    ended: bool,
}

impl Probe {
    fn end(mut self, error: Option<&Error>) {
        let verdict = match error {
            Some(Error::Expired | Error::Attempt { .. }) => self.ran_out(),
            Some(error) if error.endpoint_fault() => Verdict::Fails,
            _ => Verdict::Works,
        };
        self.ended = true;
        self.breaker.end(verdict, self.decides);
    }

    fn ran_out(&self) -> Verdict {
        if self.began.elapsed() >= self.fair && !self.heard.load(Ordering::Relaxed) {
            Verdict::Fails
        } else {
            Verdict::Nothing
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The timers above strike with the attempt's own, and whichever is first drops the rest.
        let verdict = if Instant::now() >= self.deadline {
            self.ran_out()
        } else {
            Verdict::Nothing
        };
        self.breaker.end(verdict, self.decides);
    }
}

/// Counts an endpoint's answers into its breaker.
#[derive(Debug, Clone)]
pub struct BreakerLayer {
    breaker: Breaker,
    fair: Duration,
}

impl BreakerLayer {
    /// Into this one. In a `fair` time a healthy endpoint has begun to answer, or has answered if it says nothing before: only a call
    /// that was given so much speaks against it by running out of time.
    #[must_use]
    pub fn new(breaker: Breaker, fair: Duration) -> Self {
        Self { breaker, fair }
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Broken<S>;
    fn layer(&self, inner: S) -> Broken<S> {
        Broken {
            inner,
            layer: self.clone(),
        }
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub struct Broken<S> {
    inner: S,
    layer: BreakerLayer,
}

impl<S, R> Service<Call<R>> for Broken<S>
where
    S: Service<Call<R>, Error = Error>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Error;
    type Future = BoxFuture<'static, Result<S::Response, Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call<R>) -> Self::Future {
        let probe = self.layer.breaker.begin(call.deadline, self.layer.fair);
        call.heard = probe.heard.clone();
        let answer = self.inner.call(call);
        Box::pin(async move {
            let answer = answer.await;
            probe.end(answer.as_ref().err());
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_kit::status::Reason;

    const FAIR: Duration = Duration::from_secs(2);

    /// A call with all the time in the world.
    fn begin(breaker: &Breaker) -> Probe {
        breaker.begin(Instant::now() + Duration::from_secs(3600), FAIR)
    }

    fn down() -> Error {
        let down = Reason::Unavailable {
            message: "down".into(),
            retry_after: Duration::ZERO,
        };
        Error::call(&"a".into(), down.into())
    }

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            begin(breaker).end(Some(&down()));
        }
    }

    async fn expire(breaker: &Breaker, after: Duration) {
        let probe = breaker.begin(Instant::now() + after, FAIR);
        tokio::time::advance(after).await;
        probe.end(Some(&Error::Expired));
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_a_success_between_starts_the_count_anew() {
        let breaker = Breaker::default();
        fail(&breaker, FAILURES - 1);
        begin(&breaker).end(None);
        fail(&breaker, FAILURES - 1);
        assert!(breaker.ready());
        fail(&breaker, 1);
        assert!(!breaker.ready());
    }

    #[tokio::test(start_paused = true)]
    async fn after_its_pause_one_probe_passes_and_decides() {
        let breaker = Breaker::default();
        fail(&breaker, FAILURES);
        tokio::time::advance(PAUSE.0).await;
        assert!(breaker.ready());
        let probe = begin(&breaker);
        assert!(!breaker.ready(), "a second call must wait for the probe");
        probe.end(Some(&down()));
        tokio::time::advance(PAUSE.0).await;
        assert!(!breaker.ready(), "the pause has doubled");
        tokio::time::advance(PAUSE.0).await;
        begin(&breaker).end(None);
        assert!(breaker.ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_leaves_room_for_the_next() {
        let breaker = Breaker::default();
        let picked_before = begin(&breaker);
        fail(&breaker, FAILURES);
        tokio::time::advance(PAUSE.0).await;
        let probe = begin(&breaker);
        drop(picked_before);
        assert!(!breaker.ready(), "the probe is still under way");
        drop(probe);
        assert!(breaker.ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_expires_is_never_a_success_and_a_failure_if_it_had_a_fair_time() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES * 10 {
            expire(&breaker, FAIR / 400).await;
        }
        assert!(breaker.ready(), "callers in a hurry break nobody off");
        fail(&breaker, FAILURES - 1);
        expire(&breaker, FAIR / 400).await;
        assert!(breaker.ready());
        expire(&breaker, FAIR).await;
        assert!(!breaker.ready(), "the short one did not start the count anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_does_not_close_it() {
        let breaker = Breaker::default();
        fail(&breaker, FAILURES);
        tokio::time::advance(PAUSE.0).await;
        expire(&breaker, FAIR / 2).await;
        assert!(breaker.ready(), "it said nothing, and the next call is the probe");
        expire(&breaker, FAIR).await;
        assert!(!breaker.ready(), "it had its time");
        tokio::time::advance(PAUSE.0).await;
        assert!(!breaker.ready(), "the pause has doubled");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_dropped_at_its_deadline_has_expired_and_one_that_is_dropped_before_says_nothing() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES {
            let probe = begin(&breaker);
            tokio::time::advance(FAIR * 2).await;
            drop(probe);
        }
        assert!(breaker.ready());
        for _ in 0..FAILURES {
            let probe = breaker.begin(Instant::now() + FAIR, FAIR);
            tokio::time::advance(FAIR).await;
            drop(probe);
        }
        assert!(!breaker.ready());
    }
}
