//! Latency and outcome of every call to a target. A call counts as "cancelled" until it has completed: one that is dropped on
//! the way is seen, and not lost from the statistics.
use crate::{Call, Error};
use futures::future::BoxFuture;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};
pub use shoal_kit::telemetry::SECONDS;
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Seconds of one call to a target, by `target` and `outcome` ("ok", "error", "expired", "shed", "cancelled").
pub const CALL_SECONDS: &str = "shoal_call_seconds";

/// Counter: attempts that were slow enough for a second one beside them, by `target` and `outcome`: the second one's answer was
/// taken ("won"), or the first one's ("lost"), or neither had one ("failed"); the call was dropped ("cancelled"); or too many
/// calls were hedged already, and this one was not ("no_budget").
pub const HEDGES: &str = "shoal_hedges";

/// What [`HEDGES`] is counted with.
pub(crate) fn hedges() -> Counter<u64> {
    shoal_kit::telemetry::meter()
        .u64_counter(HEDGES)
        .with_description("slow attempts, and what became of a second one beside them")
        .build()
}

/// Records into [`CALL_SECONDS`].
#[derive(Debug, Clone)]
pub struct MetricsLayer {
    target: Arc<str>,
    seconds: Histogram<f64>,
}

impl MetricsLayer {
    /// For one target.
    #[must_use]
    pub fn new(target: Arc<str>) -> Self {
        let seconds = shoal_kit::telemetry::meter()
            .f64_histogram(CALL_SECONDS)
            .with_boundaries(SECONDS.to_vec())
            .with_description("one call to a target, retries included")
            .build();
        Self { target, seconds }
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Metrics<S>;
    fn layer(&self, inner: S) -> Metrics<S> {
        Metrics {
            inner,
            layer: self.clone(),
        }
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub struct Metrics<S> {
    inner: S,
    layer: MetricsLayer,
}

/// Records when it is dropped, whatever has happened by then.
struct Record {
    layer: MetricsLayer,
    began: Instant,
    outcome: &'static str,
}

impl Drop for Record {
    fn drop(&mut self) {
        let labels = [
            KeyValue::new("target", self.layer.target.to_string()),
            KeyValue::new("outcome", self.outcome),
        ];
        self.layer.seconds.record(self.began.elapsed().as_secs_f64(), &labels);
    }
}

impl<S, R> Service<Call<R>> for Metrics<S>
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
        let record = Record {
            layer: self.layer.clone(),
            began: Instant::now(),
            outcome: "cancelled",
        };
        let answer = self.inner.call(call);
        Box::pin(async move {
            // All of it moves in here: naming a field alone would move that field, and record the call as it begins.
            let mut record = record;
            let answer = answer.await;
            record.outcome = match &answer {
                Ok(_) => "ok",
                Err(Error::Expired) => "expired",
                Err(Error::Shed { .. }) => "shed",
                Err(_) => "error",
            };
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_kit::{config, telemetry};
    use std::time::Duration;
    use tower::{ServiceExt as _, service_fn};

    // The only test of this crate that sets telemetry up: it may be done once a process.
    #[tokio::test(start_paused = true)]
    async fn a_call_counts_by_its_end_and_as_cancelled_if_it_had_none() {
        let quiet = config::Telemetry {
            log: "off".into(),
            ..config::Telemetry::default()
        };
        let guard = telemetry::init("metrics-test", &quiet).expect("telemetry");
        let takes = |millis: u64, answer: Result<(), Error>| {
            let slow = service_fn(move |_: Call<()>| {
                let answer = answer.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    answer
                }
            });
            MetricsLayer::new("t".into()).layer(slow)
        };
        let call = || Call::new((), Instant::now() + Duration::from_secs(60), 1);
        takes(1, Ok(())).oneshot(call()).await.expect("ok");
        takes(1, Err(Error::Expired))
            .oneshot(call())
            .await
            .expect_err("expired");
        let dropped = takes(1000, Ok(())).oneshot(call());
        drop(tokio::time::timeout(Duration::from_millis(5), dropped).await);
        let text = telemetry::render_metrics();
        for outcome in ["ok", "expired", "cancelled"] {
            let line = text
                .lines()
                .find(|l| l.starts_with("shoal_call_seconds_count") && l.contains(&format!("outcome=\"{outcome}\"")));
            assert!(line.is_some_and(|l| l.ends_with(" 1")), "{outcome}: {text}");
        }
        drop(guard);
    }
}
