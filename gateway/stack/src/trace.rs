//! A client span for the whole call to a target: what an attempt injects as `traceparent`, and what the callee's spans hang under.
use crate::{Call, Error};
use futures::future::BoxFuture;
use shoal_kit::telemetry::names;
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tower::{Layer, Service};
use tracing::{Instrument as _, field::Empty, info_span};

/// Spans named for a target and a method.
#[derive(Debug, Clone)]
pub struct TraceLayer {
    target: Arc<str>,
    method: &'static str,
}

impl TraceLayer {
    /// `method` is "package.Service/Method".
    #[must_use]
    pub fn new(target: Arc<str>, method: &'static str) -> Self {
        Self { target, method }
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;
    fn layer(&self, inner: S) -> Trace<S> {
        Trace {
            inner,
            layer: self.clone(),
        }
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub struct Trace<S> {
    inner: S,
    layer: TraceLayer,
}

impl<S, R> Service<Call<R>> for Trace<S>
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
        let span = info_span!(
            "call",
            otel.name = self.layer.method,
            otel.kind = "client",
            otel.status_code = Empty,
            { names::RPC_SYSTEM } = "grpc",
            { names::RPC_METHOD } = self.layer.method,
            { names::RPC_STATUS } = Empty,
            shoal.target = &*self.layer.target,
        );
        let answer = span.in_scope(|| self.inner.call(call));
        let done = span.clone();
        Box::pin(
            async move {
                let answer = answer.await;
                let status = match &answer {
                    Ok(_) => "OK",
                    Err(Error::Call { status, .. }) => shoal_kit::status::code_name(status.code() as i32),
                    Err(Error::Expired | Error::Attempt { .. }) => "DEADLINE_EXCEEDED",
                    Err(Error::Shed { .. }) => "RESOURCE_EXHAUSTED",
                    Err(Error::NoEndpoint { .. }) => "UNAVAILABLE",
                };
                done.record(names::RPC_STATUS, status);
                if answer.is_err() {
                    done.record("otel.status_code", "ERROR");
                }
                answer
            }
            .instrument(span),
        )
    }
}
