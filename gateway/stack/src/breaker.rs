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
//! An open breaker is not ready: a balancer asks [`Breaker::ready`] and passes it over, so that the endpoint that fails
//! fastest does not attract the traffic.
use crate::{Call, Error};
use futures::future::BoxFuture;
use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Failures in a row that open it. One may be chance and two a restart; five from one process in one go are an outage.
const FAILURES: u32 = 5;

/// The first pause, about a process's restart, and the longest, about what a person waits before trying again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

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

    /// Takes the one probe of an open breaker whose pause is over.
    fn begin(&self) -> Probe {
        let mut state = self.state();
        if let State::Open { until, pause } = *state
            && Instant::now() >= until
        {
            *state = State::HalfOpen { pause };
            return Probe {
                breaker: self.clone(),
                ended: false,
            };
        }
        // A call that was picked before it opened goes through: its answer counts as any.
        Probe {
            breaker: self.clone(),
            ended: false,
        }
    }

    fn end(&self, failed: bool) {
        let mut state = self.state();
        *state = match (*state, failed) {
            (_, false) => State::Closed { failures: 0 },
            (State::Closed { failures }, true) if failures + 1 < FAILURES => State::Closed { failures: failures + 1 },
            (State::Closed { .. }, true) => State::Open {
                until: Instant::now() + PAUSE.0,
                pause: PAUSE.0,
            },
            (State::HalfOpen { pause }, true) => {
                let pause = (pause * 2).min(PAUSE.1);
                State::Open {
                    until: Instant::now() + pause,
                    pause,
                }
            }
            (open @ State::Open { .. }, true) => open,
        };
    }
}

/// A call under way. One that is dropped says nothing about the endpoint, but must not leave the breaker half open for ever.
struct Probe {
    breaker: Breaker,
    ended: bool,
}

impl Drop for Probe {
    fn drop(&mut self) {
        let mut state = self.breaker.state();
        if let (false, State::HalfOpen { pause }) = (self.ended, *state) {
            *state = State::Open {
                until: Instant::now(),
                pause,
            };
        }
    }
}

/// Counts an endpoint's answers into its breaker.
#[derive(Debug, Clone)]
pub struct BreakerLayer(Breaker);

impl BreakerLayer {
    /// Into this one.
    #[must_use]
    pub fn new(breaker: Breaker) -> Self {
        Self(breaker)
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Broken<S>;
    fn layer(&self, inner: S) -> Broken<S> {
        Broken {
            inner,
            breaker: self.0.clone(),
        }
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub struct Broken<S> {
    inner: S,
    breaker: Breaker,
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

    fn call(&mut self, call: Call<R>) -> Self::Future {
        let (probe, answer) = (self.breaker.begin(), self.inner.call(call));
        Box::pin(async move {
            let mut probe = probe;
            let answer = answer.await;
            probe.ended = true;
            probe.breaker.end(answer.as_ref().is_err_and(Error::endpoint_fault));
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            let mut probe = breaker.begin();
            probe.ended = true;
            breaker.end(true);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_a_success_between_starts_the_count_anew() {
        let breaker = Breaker::default();
        fail(&breaker, FAILURES - 1);
        breaker.end(false);
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
        let mut probe = breaker.begin();
        assert!(!breaker.ready(), "a second call must wait for the probe");
        probe.ended = true;
        breaker.end(true);
        tokio::time::advance(PAUSE.0).await;
        assert!(!breaker.ready(), "the pause has doubled");
        tokio::time::advance(PAUSE.0).await;
        let mut probe = breaker.begin();
        probe.ended = true;
        breaker.end(false);
        assert!(breaker.ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_leaves_room_for_the_next() {
        let breaker = Breaker::default();
        fail(&breaker, FAILURES);
        tokio::time::advance(PAUSE.0).await;
        drop(breaker.begin());
        assert!(breaker.ready());
    }
}
