//! Latency and outcome of every call to a target. A call counts as "cancelled" until it has completed: one that is dropped on
//! the way is seen, and not lost from the statistics.
use crate::{Call, Error};
use futures::future::BoxFuture;
use opentelemetry::{KeyValue, metrics::Histogram};
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Seconds of one call to a target, by `target` and `outcome` ("ok", "error", "expired", "shed", "cancelled").
pub const CALL_SECONDS: &str = "shoal_call_seconds";

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
        let seconds = shoal_kit::telemetry::meter().f64_histogram(CALL_SECONDS).with_description("one call to a target, retries included").build();
        Self { target, seconds }
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Metrics<S>;
    fn layer(&self, inner: S) -> Metrics<S> {
        Metrics { inner, layer: self.clone() }
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
        let labels = [KeyValue::new("target", self.layer.target.to_string()), KeyValue::new("outcome", self.outcome)];
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
        let mut record = Record { layer: self.layer.clone(), began: Instant::now(), outcome: "cancelled" };
        let answer = self.inner.call(call);
        Box::pin(async move {
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
