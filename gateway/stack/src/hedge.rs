//! A second attempt beside a slow one (Dean and Barroso, The Tail at Scale, 2013).
//!
//! When an attempt has run longer than nearly all before it of its kind, another begins at another endpoint; the first answer is
//! taken and the other call dropped, which frees its slot. That cuts the tail that one bad replica makes, and costs a share of the
//! calls, which a budget bounds: under overload, when everything is slow, hedging everything would double the load.
//!
//! None begins for a call that may not run twice or has no attempt left; without another endpoint that is ready; while too few
//! answers were seen; when the usual time for an answer is no longer left to the deadline; or once some of the answer has been
//! told, since another attempt's answer could contradict it. And one that has begun by then is taken only if the first fails.
//!
//! Tower's hedging sends both calls to whatever its one inner service picks, knows no deadline, and has no budget.
use crate::{Call, Error, metrics::hedges, pace::Pace};
use futures::future::{BoxFuture, Either, select};
use opentelemetry::{KeyValue, metrics::Counter};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tower::{Layer, Service, ServiceExt as _};

pub mod share;
use share::Share;

/// When, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Hedges as a share of calls, 0 to 1; 0 is never.
    pub share: f64,
    /// An attempt is slow when this share of those before it was faster, 0 to 1.
    pub quantile: f64,
}

/// What attempts of a call may tell before they end.
pub struct Telling<R> {
    /// Whether something has been told.
    pub told: fn(&R) -> bool,
    /// The same call, telling nothing until it ends.
    pub quiet: fn(&R) -> R,
}

impl<R: Clone> Telling<R> {
    /// Of calls that tell nothing but their answer.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            told: |_| false,
            quiet: Clone::clone,
        }
    }
}

impl<R> Clone for Telling<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Telling<R> {}

impl<R> fmt::Debug for Telling<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telling")
    }
}

/// Says whether an endpoint that is none of these is ready.
pub type Spare = Arc<dyn Fn(&[Arc<str>]) -> bool + Send + Sync>;

/// An answer, and how it was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered<T> {
    /// Who gave it.
    pub address: Arc<str>,
    /// What it is.
    pub answer: T,
    /// The hedge, if there was one.
    pub hedged: Option<Hedged>,
}

/// Two attempts ran side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hedged {
    /// Where the first was.
    pub first: Arc<str>,
    /// How long it had run when the second began.
    pub after: Duration,
    /// Whether the second one's answer was taken.
    pub won: bool,
}

impl fmt::Display for Hedged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after.as_millis();
        let end = if self.won {
            "was too slow"
        } else {
            "answered all the same"
        };
        write!(f, "hedged after {after} ms: {} {end}", self.first)
    }
}

/// Hedges the calls to one target.
#[derive(Clone)]
pub struct HedgeLayer<R> {
    target: Arc<str>,
    limits: Limits,
    telling: Telling<R>,
    spare: Spare,
    pace: Pace,
    budget: Arc<Mutex<Share>>,
    count: Counter<u64>,
}

impl<R> fmt::Debug for HedgeLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeLayer")
            .field("target", &self.target)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<R> HedgeLayer<R> {
    /// Of one target, whose endpoints `spare` knows. What attempts take is noted in `pace`.
    #[must_use]
    pub fn new(target: Arc<str>, limits: Limits, telling: Telling<R>, spare: Spare, pace: Pace) -> Self {
        Self {
            target,
            limits,
            telling,
            spare,
            pace,
            budget: Arc::new(Mutex::new(Share::new(limits.share))),
            count: hedges(),
        }
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Share> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long an attempt may run before it counts as slow; `None` if it never does.
    fn slow(&self, call: &Call<R>) -> Option<Duration> {
        let may = self.limits.share > 0.0 && call.idempotent && call.attempt + 1 < call.max_attempts;
        may.then(|| self.pace.tail(&call.work, self.limits.quantile)).flatten()
    }

    /// Whether a second attempt makes sense now, beside one at `first`.
    fn sense(&self, call: &Call<R>, tried: &[Arc<str>]) -> bool {
        let usual = self.pace.usual(&call.work).unwrap_or_default();
        let in_time = Instant::now() + usual < call.deadline;
        in_time && !(self.telling.told)(&call.request) && (self.spare)(tried)
    }
}

impl<R, S> Layer<S> for HedgeLayer<R>
where
    R: Clone,
{
    type Service = Hedge<R, S>;
    fn layer(&self, inner: S) -> Hedge<R, S> {
        Hedge {
            inner,
            layer: self.clone(),
        }
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub struct Hedge<R, S> {
    inner: S,
    layer: HedgeLayer<R>,
}

/// Counts a hedge when it is dropped, whatever has become of it by then.
struct Record<'a> {
    count: &'a Counter<u64>,
    target: &'a Arc<str>,
    outcome: &'static str,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let labels = [
            KeyValue::new("target", self.target.to_string()),
            KeyValue::new("outcome", self.outcome),
        ];
        self.count.add(1, &labels);
    }
}

/// How one attempt ended, and where.
type One<T> = Result<(Arc<str>, T), (Option<Arc<str>>, Error)>;
type Attempt<T> = BoxFuture<'static, One<T>>;
/// How a call ended, and everywhere it was.
type Ended<T> = Result<(Arc<str>, T), (Vec<Arc<str>>, Error)>;

impl<S, R, T> Service<Call<R>> for Hedge<R, S>
where
    S: Service<Call<R>, Response = (Arc<str>, T), Error = (Option<Arc<str>>, Error)> + Clone + Send + 'static,
    S::Future: Send + 'static,
    R: Clone + Send + Sync + 'static,
    T: Send + 'static,
{
    type Response = Answered<T>;
    /// Every address that was tried, and why there is no answer.
    type Error = (Vec<Arc<str>>, Error);
    type Future = BoxFuture<'static, Result<Answered<T>, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call<R>) -> Self::Future {
        let (inner, other, layer) = (self.inner.clone(), self.inner.clone(), self.layer.clone());
        Box::pin(async move {
            if call.attempt == 0 {
                layer.budget().put();
            }
            let began = Instant::now();
            let call = Call {
                usual: layer.pace.usual(&call.work),
                sent_to: Arc::default(),
                ..call
            };
            let mut first: Attempt<T> = Box::pin(inner.oneshot(call.clone()));
            if let Some(slow) = layer.slow(&call) {
                match timeout(slow, &mut first).await {
                    Ok(ended) => return layer.alone(&call, began, ended),
                    Err(_) => {
                        let at = call.sent_to.get().cloned();
                        if let Some(at) = at
                            && let tried = [call.tried.as_slice(), std::slice::from_ref(&at)].concat()
                            && layer.sense(&call, &tried)
                        {
                            let hedge = Hedged {
                                first: at,
                                after: began.elapsed(),
                                won: false,
                            };
                            let second = Call {
                                request: (layer.telling.quiet)(&call.request),
                                tried,
                                sent_to: Arc::default(),
                                ..call.clone()
                            };
                            let second = move || -> Attempt<T> { Box::pin(other.oneshot(second)) };
                            return layer.both(&call, began, first, hedge, second).await;
                        }
                    }
                }
            }
            let ended = first.await;
            layer.alone(&call, began, ended)
        })
    }
}

impl<R> HedgeLayer<R> {
    /// One attempt has ended, with nobody beside it.
    fn alone<T>(&self, call: &Call<R>, began: Instant, ended: One<T>) -> Result<Answered<T>, (Vec<Arc<str>>, Error)> {
        let (address, answer) = ended.map_err(|(address, error)| (address.into_iter().collect(), error))?;
        self.pace.observe(&call.work, began.elapsed());
        Ok(Answered {
            address,
            answer,
            hedged: None,
        })
    }

    /// A slow attempt, and another beside it if the budget allows one.
    async fn both<T>(
        &self,
        call: &Call<R>,
        began: Instant,
        first: Attempt<T>,
        mut hedge: Hedged,
        second: impl FnOnce() -> Attempt<T>,
    ) -> Result<Answered<T>, (Vec<Arc<str>>, Error)> {
        let mut record = Record {
            count: &self.count,
            target: &self.target,
            outcome: "cancelled",
        };
        if !self.budget().take() {
            record.outcome = "no_budget";
            drop(record);
            let ended = first.await;
            return self.alone(call, began, ended);
        }
        tracing::debug!(
            target = &*self.target,
            work = &*call.work,
            first = &*hedge.first,
            "hedging"
        );
        let began_second = Instant::now();
        let (ended, won) = self.race(call, first, second()).await;
        (hedge.won, record.outcome) = match (&ended, won) {
            (Err(_), _) => (false, "failed"),
            (Ok(_), true) => (true, "won"),
            (Ok(_), false) => (false, "lost"),
        };
        let (address, answer) = ended?;
        // Of a first that was let go, what it has taken so far is the least that it would have taken: without it the tail would
        // only ever shrink, and every call would be slow in the end.
        self.pace.observe(&call.work, began.elapsed());
        if won {
            self.pace.observe(&call.work, began_second.elapsed());
        }
        Ok(Answered {
            address,
            answer,
            hedged: Some(hedge),
        })
    }

    /// The first answer of the two, and whether it is the second one's. An attempt that fails leaves it to the other.
    async fn race<T>(&self, call: &Call<R>, first: Attempt<T>, second: Attempt<T>) -> (Ended<T>, bool) {
        let failed = |one: (Option<Arc<str>>, Error), other: (Option<Arc<str>>, Error)| {
            (one.0.into_iter().chain(other.0).collect(), one.1)
        };
        match select(first, second).await {
            Either::Left((Ok(answer), _)) => (Ok(answer), false),
            Either::Left((Err(one), second)) => match second.await {
                Ok(answer) => (Ok(answer), true),
                Err(other) => (Err(failed(one, other)), false),
            },
            // What the first has told by now, the second's answer could contradict: it is only for the worst case.
            Either::Right((Ok(answer), first)) if (self.telling.told)(&call.request) => match first.await {
                Ok(answer) => (Ok(answer), false),
                Err(_) => (Ok(answer), true),
            },
            Either::Right((Ok(answer), _)) => (Ok(answer), true),
            Either::Right((Err(other), first)) => match first.await {
                Ok(answer) => (Ok(answer), false),
                Err(one) => (Err(failed(one, other)), false),
            },
        }
    }
}

#[cfg(test)]
mod tests;
