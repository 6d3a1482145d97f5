//! W3C trace context over gRPC metadata and HTTP headers.
use opentelemetry::{
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::TraceContextExt as _,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{KeyRef, MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

struct Carrier<T>(T);

impl Injector for Carrier<&mut MetadataMap> {
    fn set(&mut self, key: &str, value: String) {
        let key = tonic::metadata::MetadataKey::from_bytes(key.as_bytes());
        if let (Ok(key), Ok(value)) = (key, MetadataValue::try_from(value)) {
            self.0.insert(key, value);
        }
    }
}

impl Extractor for Carrier<&MetadataMap> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }
    fn keys(&self) -> Vec<&str> {
        let ascii = |key| {
            if let KeyRef::Ascii(key) = key {
                Some(key.as_str())
            } else {
                None
            }
        };
        self.0.keys().filter_map(ascii).collect()
    }
}

impl Injector for Carrier<&mut http::HeaderMap> {
    fn set(&mut self, key: &str, value: String) {
        let key = http::HeaderName::from_bytes(key.as_bytes());
        if let (Ok(key), Ok(value)) = (key, http::HeaderValue::try_from(value)) {
            self.0.insert(key, value);
        }
    }
}

impl Extractor for Carrier<&http::HeaderMap> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Writes the current span's context into a call's metadata.
pub fn inject(metadata: &mut MetadataMap) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut Carrier(metadata));
}

/// Writes the current span's context into an HTTP request's headers.
pub fn inject_headers(headers: &mut http::HeaderMap) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut Carrier(headers));
}

/// Makes the caller's span the parent of `span`. Call it before `span` is entered or has children.
pub fn adopt(metadata: &MetadataMap, span: &Span) {
    set_parent(span, TraceContextPropagator::new().extract(&Carrier(metadata)));
}

/// Makes the caller's span the parent of `span`. Call it before `span` is entered or has children.
pub fn adopt_headers(headers: &http::HeaderMap, span: &Span) {
    set_parent(span, TraceContextPropagator::new().extract(&Carrier(headers)));
}

fn set_parent(span: &Span, context: opentelemetry::Context) {
    if context.span().span_context().is_valid()
        && let Err(error) = span.set_parent(context)
    {
        tracing::debug!(%error, "span cannot take the caller's context");
    }
}

/// 32 hex digits; all zeros when telemetry was never set up.
#[must_use]
pub fn trace_id(span: &Span) -> String {
    span.context().span().span_context().trace_id().to_string()
}
