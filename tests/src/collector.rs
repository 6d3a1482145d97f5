//! An OTLP receiver on a port of its own, which keeps every span.
use anyhow::Result;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A span, with what tests ask of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// 32 hex digits.
    pub trace: String,
    /// 16 hex digits.
    pub id: String,
    /// 16 hex digits; empty for a root.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// `service.name` of the process that made it.
    pub service: String,
    /// Attributes that are text or integers.
    pub attributes: BTreeMap<String, String>,
    /// Start and end, nanoseconds since 1970.
    pub time: (u64, u64),
}

/// The receiver; clones share what it has got.
#[derive(Debug, Clone, Default)]
pub struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Starts one; the URL is where spans go.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> Result<(Self, String)> {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        shoal_kit::task::spawn("collector under test", server);
        Ok((collector, url))
    }

    /// Every span of a trace that has come so far.
    #[must_use]
    pub fn trace(&self, id: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| span.trace == id).cloned().collect()
    }

    /// The spans of a trace, once `whole` says that they are all there, or what there is after a while: exporters send in batches.
    pub async fn settled(&self, id: &str, whole: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let until = Instant::now() + Duration::from_secs(15);
        loop {
            let spans = self.trace(id);
            if whole(&spans) || Instant::now() > until {
                return spans;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(yes) => Some(yes.to_string()),
        _ => None,
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut found = Vec::new();
        for resource in request.into_inner().resource_spans {
            let named = resource.resource.iter().flat_map(|r| &r.attributes);
            let service = named
                .filter(|a| a.key == "service.name")
                .find_map(|a| text(a.value.as_ref().and_then(|v| v.value.as_ref())))
                .unwrap_or_default();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let attributes = span.attributes.iter();
                found.push(Span {
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    name: span.name,
                    service: service.clone(),
                    attributes: attributes
                        .filter_map(|a| Some((a.key.clone(), text(a.value.as_ref()?.value.as_ref())?)))
                        .collect(),
                    time: (span.start_time_unix_nano, span.end_time_unix_nano),
                });
            }
        }
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
