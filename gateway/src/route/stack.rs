//! The stack that every call goes through, to a model or to a tool. One layer a line, outermost first, the reason above it.
use shoal_kit::config;
use shoal_stack::{
    Call, Error,
    attempt::AttemptTimeoutLayer,
    balance::{Balance, Endpoints},
    breaker::{Breaker, BreakerLayer},
    deadline::DeadlineLayer,
    hedge::{self, Answered, HedgeLayer, Telling},
    metrics::MetricsLayer,
    pace::Pace,
    queue::QueueLayer,
    retry::RetryLayer,
    trace::TraceLayer,
};
use std::{sync::Arc, time::Duration};
use tower::{Service, ServiceBuilder, util::BoxCloneSyncService};

/// A target's whole stack: the answer comes with the address that gave it.
pub(crate) type Stack<R, T> = BoxCloneSyncService<Call<R>, Answered<T>, Error>;

/// One endpoint's part of it.
pub(crate) type Endpoint<R, T> = BoxCloneSyncService<Call<R>, T, Error>;

/// The sizes of one target's stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Calls at once.
    pub(crate) max_in_flight: usize,
    /// Calls that wait for that.
    pub(crate) max_waiting: usize,
    pub(crate) hedge: hedge::Limits,
}

/// What is particular to one kind of call.
pub(crate) struct Kind<R> {
    /// What its spans are named: "package.Service/Method".
    pub(crate) method: &'static str,
    pub(crate) telling: Telling<R>,
}

impl Sizes {
    /// Of a target with so many calls at once.
    pub(crate) fn new(gateway: &config::Gateway, max_in_flight: usize) -> Self {
        Self {
            max_in_flight,
            max_waiting: gateway.max_waiting,
            hedge: hedge::Limits {
                share: gateway.hedge_share,
                quantile: gateway.hedge_quantile,
            },
        }
    }
}

/// The part above the endpoints.
pub(crate) fn stack<R, T>(
    target: &Arc<str>,
    kind: Kind<R>,
    sizes: Sizes,
    pace: Pace,
    endpoints: Endpoints<Endpoint<R, T>>,
) -> Stack<R, T>
where
    R: Clone + Send + Sync + 'static,
    T: Send + 'static,
{
    let others = endpoints.clone();
    let spare: hedge::Spare = Arc::new(move |tried| others.spare(tried));
    let stack = ServiceBuilder::new()
        // First, so that the span covers everything that happens to the call: what an attempt sends as traceparent hangs under it.
        .layer(TraceLayer::new(target.clone(), kind.method))
        // Above the queue, so that the time in it counts, and what is shed is counted too.
        .layer(MetricsLayer::new(target.clone()))
        // Each target has its own room, so that none can starve another, and a line before it: who has the least time to lose goes first.
        .layer(QueueLayer::new(target.clone(), sizes.max_in_flight, sizes.max_waiting))
        // Above the retries: one absolute end, whatever is tried within it.
        .layer(DeadlineLayer)
        // Above the balancer: the next attempt goes elsewhere.
        .layer(RetryLayer::new(spare.clone()))
        // Above the balancer: a second attempt beside a slow one goes to another endpoint. Below the retries: both are one of theirs.
        .layer(HedgeLayer::new(target.clone(), sizes.hedge, kind.telling, spare, pace))
        // Picks the endpoint; what is below exists once for each.
        .service(Balance::new(endpoints));
    BoxCloneSyncService::new(stack)
}

/// In which a specialist that is well has begun to answer: it does in milliseconds, and in some hundred of them on a busy machine or of a
/// long input. Callers with less time are in a hurry, and must not have it broken off for those who are not; were it more, one that
/// hangs would be left for good to callers who have a few seconds.
pub(crate) const BEGUN: Duration = Duration::from_secs(2);

/// In which somebody who tells nothing before the end has answered: a large model writes for seconds, and so long may a tool take that
/// asks others.
const DONE: Duration = Duration::from_secs(10);

/// The same, of somebody whose calls are bounded by configuration: half of that bound at most, since an attempt that another could follow is
/// given no more of it. One that hangs would never be broken off else.
pub(crate) fn done(timeout: Duration) -> Duration {
    DONE.min(timeout / 2)
}

/// The part of one endpoint, down to the service that knows the wire; what a `fair` time is, the breaker says.
pub(crate) fn endpoint<R, T, S>(address: &Arc<str>, breaker: &Breaker, fair: Duration, wire: S) -> Endpoint<R, T>
where
    R: Send + 'static,
    T: Send + 'static,
    S: Service<Call<R>, Response = T, Error = Error> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let endpoint = ServiceBuilder::new()
        // Counts every answer, and above all the attempts that take too long.
        .layer(BreakerLayer::new(breaker.clone(), fair))
        // One that hangs leaves time for another replica, if there is one.
        .layer(AttemptTimeoutLayer::new(address.clone()))
        .service(wire);
    BoxCloneSyncService::new(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_kit::status::Reason;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::time::Instant;
    use tower::{ServiceExt as _, service_fn};

    fn kind() -> Kind<()> {
        Kind {
            method: "m",
            telling: Telling::nothing(),
        }
    }

    /// Endpoints `a`, `b`, ... each answering after `takes`, or never if it is `None`, or failing if `down`.
    fn built(
        max_in_flight: usize,
        ends: &'static [(&'static str, Option<u64>, bool)],
    ) -> (Stack<(), ()>, Arc<AtomicU32>) {
        let calls = Arc::new(AtomicU32::new(0));
        let endpoints = Endpoints::new("t".into());
        let addresses: Vec<Arc<str>> = ends.iter().map(|e| e.0.into()).collect();
        endpoints.update(&addresses, |address, breaker| {
            let end = ends.iter().find(|e| *e.0 == **address).expect("known");
            let (calls, named) = (calls.clone(), address.clone());
            let wire = service_fn(move |_: Call<()>| {
                let (calls, address) = (calls.clone(), named.clone());
                async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    match end.1 {
                        Some(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
                        None => std::future::pending().await,
                    }
                    let down = Reason::Unavailable {
                        message: "down".into(),
                        retry_after: Duration::ZERO,
                    };
                    if end.2 {
                        Err(Error::call(&address, down.into()))
                    } else {
                        Ok(())
                    }
                }
            });
            endpoint(address, breaker, BEGUN, wire)
        });
        let gateway = config::Gateway {
            max_waiting: 1,
            ..config::Gateway::default()
        };
        let sizes = Sizes::new(&gateway, max_in_flight);
        (stack(&"t".into(), kind(), sizes, Pace::default(), endpoints), calls)
    }

    fn call(millis: u64, attempts: u32) -> Call<()> {
        Call::new((), Instant::now() + Duration::from_millis(millis), attempts)
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_room_waits_for_it_and_past_the_line_is_shed_at_once() {
        let (stack, _) = built(2, &[("a", Some(100), false)]);
        let began = Instant::now();
        let timed = async || (stack.clone().oneshot(call(1000, 1)).await, began.elapsed().as_millis());
        let (one, two, three, four) = tokio::join!(timed(), timed(), timed(), timed());
        assert!(one.0.is_ok() && two.0.is_ok() && two.1 < 150);
        assert!(three.0.is_ok() && three.1 >= 200, "{three:?}");
        assert!(matches!(four, (Err(Error::Shed { .. }), 0)), "{four:?}");
        assert!(stack.clone().oneshot(call(1000, 1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_endpoint_is_hedged_and_the_answer_comes_from_the_fast_one() {
        // Endpoints that take ten milliseconds, until one of them hangs.
        let hangs = Arc::new(AtomicU32::new(0));
        let endpoints = Endpoints::new("t".into());
        endpoints.update(&["a".into(), "b".into()], |address, breaker| {
            let (hangs, a) = (hangs.clone(), &**address == "a");
            let wire = service_fn(move |_: Call<()>| {
                let millis = if a && hangs.load(Ordering::SeqCst) > 0 {
                    60_000
                } else {
                    10
                };
                async move {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    Ok(())
                }
            });
            endpoint(address, breaker, BEGUN, wire)
        });
        let sizes = Sizes::new(&config::Gateway::default(), 9);
        let stack = stack(&"t".into(), kind(), sizes, Pace::default(), endpoints);
        let ask = || {
            let call = Call {
                idempotent: true,
                work: "work".into(),
                ..call(10_000, 2)
            };
            stack.clone().oneshot(call)
        };
        for _ in 0..100 {
            ask().await.expect("answered");
        }
        hangs.store(1, Ordering::SeqCst);
        let mut hedged = 0;
        for _ in 0..5 {
            let began = Instant::now();
            let answered = ask().await.expect("answered");
            assert!(&*answered.address == "b" && began.elapsed() < Duration::from_millis(100));
            hedged += usize::from(answered.hedged.is_some());
        }
        assert!(hedged > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_replica_costs_half_the_time_and_the_other_answers() {
        for _ in 0..8 {
            let (stack, _) = built(9, &[("a", None, false), ("b", Some(10), false)]);
            let began = Instant::now();
            let Answered { address, .. } = stack.oneshot(call(1000, 2)).await.expect("answered");
            assert!(&*address == "b" && began.elapsed() < Duration::from_millis(600));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_its_usual_time_is_not_cut_short_because_another_replica_could_follow() {
        let (stack, _) = built(9, &[("a", Some(600), false), ("b", Some(600), false)]);
        for _ in 0..40 {
            stack.clone().oneshot(call(10_000, 2)).await.expect("answered");
        }
        assert!(stack.oneshot(call(1000, 2)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_not_cut_short_where_nobody_else_could_give_one() {
        let (stack, _) = built(9, &[("a", Some(900), false)]);
        assert!(stack.oneshot(call(1000, 2)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_the_call_and_nothing_starts_after_it() {
        let (stack, calls) = built(9, &[("a", Some(40), true)]);
        let began = Instant::now();
        let ended = stack.clone().oneshot(call(100, 5)).await.expect_err("down");
        assert!(
            began.elapsed() <= Duration::from_millis(100),
            "{ended:?} after {:?}",
            began.elapsed()
        );
        let so_far = calls.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(calls.load(Ordering::SeqCst), so_far);
        let (stack, _) = built(9, &[("a", None, false)]);
        assert!(matches!(stack.oneshot(call(100, 1)).await, Err(Error::Expired)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_keeps_failing_is_not_called_any_more() {
        let (stack, calls) = built(9, &[("a", Some(1), true)]);
        for _ in 0..20 {
            drop(stack.clone().oneshot(call(50, 1)).await);
        }
        assert!(calls.load(Ordering::SeqCst) <= 6, "{calls:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sole_replica_that_hangs_is_broken_off_by_callers_with_time_and_not_by_those_in_a_hurry() {
        for (millis, least, most) in [(3000, 5, 10), (5, 20, 20)] {
            let (stack, calls) = built(9, &[("a", None, false)]);
            for _ in 0..20 {
                drop(stack.clone().oneshot(call(millis, 1)).await);
            }
            let calls = calls.load(Ordering::SeqCst);
            assert!((least..=most).contains(&calls), "{calls} calls of {millis} ms");
        }
    }
}
