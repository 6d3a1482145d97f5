//! The stack that every call goes through, to a model or to a tool. One layer a line, outermost first, the reason above it.
use shoal_stack::{
    Call, Error,
    attempt::AttemptTimeoutLayer,
    balance::{Balance, Endpoints},
    breaker::{Breaker, BreakerLayer},
    deadline::DeadlineLayer,
    metrics::MetricsLayer,
    retry::RetryLayer,
    trace::TraceLayer,
};
use std::sync::Arc;
use tower::{
    BoxError, Service, ServiceBuilder, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer,
    util::BoxCloneSyncService,
};

/// A target's whole stack: the answer comes with the address that gave it.
pub(crate) type Stack<R, T> = BoxCloneSyncService<Call<R>, (Arc<str>, T), Error>;

/// One endpoint's part of it.
pub(crate) type Endpoint<R, T> = BoxCloneSyncService<Call<R>, T, Error>;

/// The part above the endpoints.
pub(crate) fn stack<R, T>(
    target: &Arc<str>,
    method: &'static str,
    max_in_flight: usize,
    endpoints: Endpoints<Endpoint<R, T>>,
) -> Stack<R, T>
where
    R: Clone + Send + Sync + 'static,
    T: Send + 'static,
{
    let shed = shed(target.clone());
    let stack = ServiceBuilder::new()
        // First, so that the span covers everything that happens to the call: what an attempt sends as traceparent hangs under it.
        .layer(TraceLayer::new(target.clone(), method))
        // Above the shedding, so that what is shed is counted too.
        .layer(MetricsLayer::new(target.clone()))
        // Tower's shedding speaks in boxed errors.
        .map_err(shed)
        // A call that finds no room is told so now: its plan has somewhere else to go, and a queue here would only hide the load.
        .layer(LoadShedLayer::new())
        // Each tier has its own room, so that neither can starve the other.
        .layer(GlobalConcurrencyLimitLayer::new(max_in_flight))
        // Above the retries: one absolute end, whatever is tried within it.
        .layer(DeadlineLayer)
        // Above the balancer: the next attempt goes elsewhere.
        .layer(RetryLayer::default())
        // Picks the endpoint; what is below exists once for each.
        .service(Balance::new(endpoints));
    BoxCloneSyncService::new(stack)
}

/// The part of one endpoint, down to the service that knows the wire.
pub(crate) fn endpoint<R, T, S>(address: &Arc<str>, breaker: &Breaker, wire: S) -> Endpoint<R, T>
where
    R: Send + 'static,
    T: Send + 'static,
    S: Service<Call<R>, Response = T, Error = Error> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let endpoint = ServiceBuilder::new()
        // Counts every answer, and above all the attempts that take too long.
        .layer(BreakerLayer::new(breaker.clone()))
        // One that hangs leaves time for another replica, if there is one.
        .layer(AttemptTimeoutLayer::new(address.clone()))
        .service(wire);
    BoxCloneSyncService::new(endpoint)
}

/// Names tower's word for "no room"; every other error below is ours already.
fn shed(target: Arc<str>) -> impl Fn(BoxError) -> Error + Clone {
    move |error| match error.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(_overloaded) => Error::Shed { target: target.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_kit::status::Reason;
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };
    use tokio::time::Instant;
    use tower::{ServiceExt as _, service_fn};

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
            endpoint(address, breaker, wire)
        });
        (stack(&"t".into(), "m", max_in_flight, endpoints), calls)
    }

    fn call(millis: u64, attempts: u32) -> Call<()> {
        Call::new((), Instant::now() + Duration::from_millis(millis), attempts)
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_room_is_shed_at_once_and_room_comes_back() {
        let (stack, _) = built(2, &[("a", Some(100), false)]);
        let (one, two, three) = tokio::join!(
            stack.clone().oneshot(call(1000, 1)),
            stack.clone().oneshot(call(1000, 1)),
            stack.clone().oneshot(call(1000, 1))
        );
        assert!(one.is_ok() && two.is_ok());
        assert!(matches!(three, Err(Error::Shed { .. })), "{three:?}");
        assert!(stack.oneshot(call(1000, 1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_replica_costs_half_the_time_and_the_other_answers() {
        for _ in 0..8 {
            let (stack, _) = built(9, &[("a", None, false), ("b", Some(10), false)]);
            let began = Instant::now();
            let (address, ()) = stack.oneshot(call(1000, 2)).await.expect("answered");
            assert!(&*address == "b" && began.elapsed() < Duration::from_millis(600));
        }
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
}
