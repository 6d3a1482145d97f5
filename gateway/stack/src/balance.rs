//! Which endpoint takes the call: the better of two random ones (Mitzenmacher 2001), by peak EWMA of latency times calls in
//! flight (Finagle), with a penalty for failures. Plain peak EWMA sends the traffic to the replica that fails fastest; here a
//! failure counts as a slow answer. Endpoints come and go without a call in flight being dropped.
use crate::{Call, Error, breaker::Breaker};
use futures::future::BoxFuture;
use rand::Rng as _;
use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tower::{Service, ServiceExt as _};

/// How fast old latencies are forgotten: ten seconds are hundreds of calls under load, and a pause that lets a restarted
/// replica come back.
const DECAY: Duration = Duration::from_secs(10);

/// What a failure counts as: longer than any healthy call of a small model.
const PENALTY: Duration = Duration::from_secs(5);

/// What an endpoint that was never called counts as: better than most, so that it is tried soon.
const UNKNOWN: Duration = Duration::from_millis(1);

/// One endpoint of a target.
#[derive(Debug)]
pub struct Endpoint<S> {
    /// "host:port".
    pub address: Arc<str>,
    /// Its breaker; the service counts into it.
    pub breaker: Breaker,
    service: S,
    in_flight: AtomicUsize,
    latency: Mutex<(Duration, Instant)>,
}

impl<S> Endpoint<S> {
    /// Calls under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Cost of one more call: latency, decayed, times the calls that it would share with.
    fn cost(&self) -> f64 {
        let (latency, at) = *self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        let decayed = latency.as_secs_f64() * (-at.elapsed().as_secs_f64() / DECAY.as_secs_f64()).exp();
        decayed.max(UNKNOWN.as_secs_f64()) * (self.in_flight() + 1) as f64
    }

    /// A call that was dropped has taken at least so long, which counts if it is more than was known: the endpoint that hedges win
    /// against must not go on looking fast because none of its slow answers was waited for.
    fn at_least(&self, took: Duration) {
        let known = self.latency.lock().unwrap_or_else(PoisonError::into_inner).0;
        if took > known {
            self.observe(took);
        }
    }

    fn observe(&self, took: Duration) {
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        let weight = (-latency.1.elapsed().as_secs_f64() / DECAY.as_secs_f64()).exp();
        // Peak: a slower answer counts at once, a faster one only as the old is forgotten.
        let mean = latency.0.as_secs_f64() * weight + took.as_secs_f64() * (1.0 - weight);
        *latency = (took.max(Duration::from_secs_f64(mean)), Instant::now());
    }
}

/// A target's endpoints; clones share them.
#[derive(Debug)]
pub struct Endpoints<S> {
    target: Arc<str>,
    all: Arc<RwLock<Vec<Arc<Endpoint<S>>>>>,
}

impl<S> Clone for Endpoints<S> {
    fn clone(&self) -> Self {
        Self {
            target: self.target.clone(),
            all: self.all.clone(),
        }
    }
}

impl<S> Endpoints<S> {
    /// None yet.
    #[must_use]
    pub fn new(target: Arc<str>) -> Self {
        Self {
            target,
            all: Arc::default(),
        }
    }

    /// Makes the set these addresses: new ones are built, gone ones are no longer picked, the rest stay as they are.
    pub fn update(&self, addresses: &[Arc<str>], build: impl Fn(&Arc<str>, &Breaker) -> S) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|endpoint| addresses.contains(&endpoint.address));
        for address in addresses {
            if !all.iter().any(|endpoint| endpoint.address == *address) {
                let breaker = Breaker::default();
                let service = build(address, &breaker);
                let latency = Mutex::new((Duration::ZERO, Instant::now()));
                all.push(Arc::new(Endpoint {
                    address: address.clone(),
                    breaker,
                    service,
                    in_flight: AtomicUsize::new(0),
                    latency,
                }));
            }
        }
    }

    /// Whether an endpoint that is none of these could be called now.
    #[must_use]
    pub fn spare(&self, tried: &[Arc<str>]) -> bool {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().any(|e| e.breaker.ready() && !tried.contains(&e.address))
    }

    /// Every endpoint now.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Endpoint<S>>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The better of two random ready endpoints, those already tried only if there is no other; and how many could follow it.
    fn pick(&self, tried: &[Arc<str>]) -> Result<(Arc<Endpoint<S>>, usize), Error> {
        let all = self.list();
        let known = all.len();
        let ready: Vec<_> = all.into_iter().filter(|endpoint| endpoint.breaker.ready()).collect();
        let fresh: Vec<_> = ready
            .iter()
            .filter(|endpoint| !tried.contains(&endpoint.address))
            .cloned()
            .collect();
        let others = fresh.len().saturating_sub(1);
        let mut from = if fresh.is_empty() { ready } else { fresh };
        let mut random = rand::rng();
        match from.len() {
            0 => Err(Error::NoEndpoint {
                target: self.target.clone(),
                known,
            }),
            1 => Ok((from.swap_remove(0), others)),
            n => {
                let first = from.swap_remove(random.random_range(0..n));
                let second = from.swap_remove(random.random_range(0..n - 1));
                let better = if first.cost() <= second.cost() { first } else { second };
                Ok((better, others))
            }
        }
    }
}

/// The service over [`Endpoints`]: each call goes to one of them. The answer comes with the address that gave it.
#[derive(Debug)]
pub struct Balance<S>(Endpoints<S>);

impl<S> Balance<S> {
    /// Over these.
    #[must_use]
    pub fn new(endpoints: Endpoints<S>) -> Self {
        Self(endpoints)
    }
}

impl<S> Clone for Balance<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Counts a call in flight, however it ends.
struct InFlight<S> {
    endpoint: Arc<Endpoint<S>>,
    began: Instant,
    ended: bool,
}

impl<S> Drop for InFlight<S> {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.ended {
            self.endpoint.at_least(self.began.elapsed());
        }
    }
}

impl<S, R> Service<Call<R>> for Balance<S>
where
    S: Service<Call<R>, Error = Error> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    R: Send + 'static,
{
    type Response = (Arc<str>, S::Response);
    type Error = (Option<Arc<str>>, Error);
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Readiness is the picked endpoint's, and is asked when one is picked.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call<R>) -> Self::Future {
        let picked = self.0.pick(&call.tried);
        if let Ok((endpoint, _)) = &picked {
            // Set once an attempt; a second value would be of an attempt that nobody above asks about.
            drop(call.sent_to.set(endpoint.address.clone()));
        }
        Box::pin(async move {
            let (endpoint, others) = picked.map_err(|error| (None, error))?;
            let call = Call { others, ..call };
            endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
            let mut held = InFlight {
                endpoint: endpoint.clone(),
                began: Instant::now(),
                ended: false,
            };
            let answer = endpoint.service.clone().oneshot(call).await;
            let took = held.began.elapsed();
            match &answer {
                // Its caller had no more time for it, as of a call that is dropped: that is no fault, and it would have taken longer.
                Err(Error::Attempt { .. } | Error::Expired) => endpoint.at_least(took),
                Err(error) if error.endpoint_fault() => endpoint.observe(PENALTY),
                _ => endpoint.observe(took),
            }
            held.ended = true;
            drop(held);
            let address = endpoint.address.clone();
            match answer {
                Ok(answer) => Ok((address, answer)),
                Err(error) => Err((Some(address), error)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::AttemptTimeoutLayer;
    use tower::{Layer as _, service_fn};

    type Fake = tower::util::BoxCloneSyncService<Call<()>, (), Error>;

    fn endpoints(fakes: &'static [(&'static str, u64, bool)]) -> Endpoints<Fake> {
        let endpoints = Endpoints::new("t".into());
        let addresses: Vec<Arc<str>> = fakes.iter().map(|f| f.0.into()).collect();
        endpoints.update(&addresses, |address, _| {
            let (address, fake) = (
                address.clone(),
                fakes.iter().find(|f| *f.0 == **address).expect("known"),
            );
            tower::util::BoxCloneSyncService::new(service_fn(move |_: Call<()>| {
                let address = address.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(fake.1)).await;
                    let reason = shoal_kit::status::Reason::Unavailable {
                        message: "down".into(),
                        retry_after: Duration::ZERO,
                    };
                    if fake.2 {
                        Err(Error::call(&address, reason.into()))
                    } else {
                        Ok(())
                    }
                }
            }))
        });
        endpoints
    }

    async fn counts(endpoints: &Endpoints<Fake>, calls: usize) -> std::collections::BTreeMap<String, usize> {
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..calls {
            let call = Call::new((), Instant::now() + Duration::from_secs(60), 1);
            let address = match Balance::new(endpoints.clone()).oneshot(call).await {
                Ok((address, ())) => address.to_string(),
                Err((address, _)) => address.expect("called").to_string(),
            };
            *counts.entry(address).or_default() += 1;
        }
        counts
    }

    #[tokio::test(start_paused = true)]
    async fn the_replica_that_fails_fastest_does_not_attract_the_traffic() {
        let counts = counts(&endpoints(&[("fails", 0, true), ("slow", 200, false)]), 200).await;
        assert!(counts.get("fails").copied().unwrap_or(0) < 20, "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn equal_replicas_share_the_load_and_a_slower_one_gets_less() {
        let equal = counts(&endpoints(&[("a", 10, false), ("b", 10, false), ("c", 10, false)]), 300).await;
        assert!(equal.values().all(|&n| n > 30), "{equal:?}");
        let skewed = counts(&endpoints(&[("fast", 5, false), ("slow", 100, false)]), 300).await;
        assert!(
            skewed["fast"] > 3 * skewed.get("slow").copied().unwrap_or(0),
            "{skewed:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_in_a_hurry_takes_no_replica_out_of_service() {
        let plain = endpoints(&[("a", 20, false), ("b", 20, false)]);
        let endpoints = Endpoints::new("t".into());
        endpoints.update(&["a".into(), "b".into()], |address, _| {
            let inner = plain.list().into_iter().find(|e| e.address == *address).expect("known");
            Fake::new(AttemptTimeoutLayer::new(address.clone()).layer(inner.service.clone()))
        });
        counts(&endpoints, 20).await;
        let hurried = Call::new((), Instant::now() + Duration::from_millis(30), 2);
        let ended = Balance::new(endpoints.clone()).oneshot(hurried).await;
        assert!(matches!(ended, Err((_, Error::Attempt { .. }))), "{ended:?}");
        let counts = counts(&endpoints, 100).await;
        assert!(counts.values().all(|&n| n > 20), "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_was_tried_is_passed_over_while_there_is_another() {
        let endpoints = endpoints(&[("a", 1, false), ("b", 1, false)]);
        for _ in 0..20 {
            let (picked, others) = endpoints.pick(&["a".into()]).expect("b");
            assert_eq!((&*picked.address, others), ("b", 0));
        }
        assert!(endpoints.pick(&["a".into(), "b".into()]).is_ok());
        assert!(matches!(
            Endpoints::<Fake>::new("t".into()).pick(&[]),
            Err(Error::NoEndpoint { known: 0, .. })
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_call_is_no_longer_in_flight() {
        let endpoints = endpoints(&[("a", 1000, false)]);
        let call = Balance::new(endpoints.clone()).oneshot(Call::new((), Instant::now() + Duration::from_secs(9), 1));
        let _ = tokio::time::timeout(Duration::from_millis(10), call).await;
        assert_eq!(endpoints.list()[0].in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_whose_slow_answers_are_never_waited_for_looks_slow_all_the_same() {
        let endpoints = endpoints(&[("hangs", 60_000, false), ("slow", 20, false)]);
        let mut calls = std::collections::BTreeMap::<_, usize>::new();
        for _ in 0..100 {
            let call = Call::new((), Instant::now() + Duration::from_secs(60), 1);
            let sent_to = call.sent_to.clone();
            let call = Balance::new(endpoints.clone()).oneshot(call);
            drop(tokio::time::timeout(Duration::from_millis(50), call).await);
            *calls.entry(sent_to.get().expect("sent").to_string()).or_default() += 1;
        }
        assert!(calls["slow"] > 3 * calls["hangs"], "{calls:?}");
    }

    #[test]
    fn an_endpoint_is_to_spare_if_it_was_not_tried_and_its_breaker_lets_a_call_through() {
        let endpoints = endpoints(&[("a", 1, false), ("b", 1, false)]);
        assert!(endpoints.spare(&["a".into()]) && endpoints.spare(&[]));
        assert!(!endpoints.spare(&["a".into(), "b".into()]));
    }
}
