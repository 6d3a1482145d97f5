//! Traces, logs and metrics of one process.
//!
//! The span layer is always there, so that trace ids exist and reach logs, events and outcomes; spans leave the process
//! only when an OTLP endpoint is named (in `mesh.toml`, or by the standard `OTEL_EXPORTER_OTLP_*`).
use crate::{config, log::Line};
use anyhow::Context as _;
use opentelemetry::{KeyValue, global, metrics::Meter, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use std::{io::IsTerminal as _, sync::OnceLock, time::Duration};
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, filter_fn},
    fmt::format::debug_fn,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// How long the last spans may take on their way out. A collector that is away must not hold up an exit.
const FLUSH: Duration = Duration::from_secs(2);

static REGISTRY: OnceLock<prometheus::Registry> = OnceLock::new();

/// Bounds of every histogram of seconds, from a cached answer to a plan's default deadline. OpenTelemetry's own are for milliseconds.
pub const SECONDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Bytes of a prompt or an output on a span: an exporter's message holds 4 MiB of spans, and a prompt is at most 16 MiB.
pub const CONTENT_BYTES: usize = 64 << 10;

/// The beginning of what a caller sent, for a span: at most so many bytes of it.
#[must_use]
pub fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Names of span attributes that more than one crate sets: OpenTelemetry GenAI and RPC conventions, and what OpenInference
/// UIs read. Durations are in seconds, sizes in bytes or tokens, as the names say.
pub mod names {
    /// `server.address`-like identity of the mesh as a provider of models.
    pub const PROVIDER: &str = "shoal";
    /// The GenAI operation: "chat", "embeddings", "execute_tool", "invoke_agent".
    pub const GEN_AI_OPERATION: &str = "gen_ai.operation.name";
    /// Who serves the model.
    pub const GEN_AI_PROVIDER: &str = "gen_ai.provider.name";
    /// The model asked for.
    pub const GEN_AI_REQUEST_MODEL: &str = "gen_ai.request.model";
    /// The model that answered: "name@version".
    pub const GEN_AI_RESPONSE_MODEL: &str = "gen_ai.response.model";
    /// Prompt tokens.
    pub const GEN_AI_INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    /// Generated tokens.
    pub const GEN_AI_OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    /// The tool called.
    pub const GEN_AI_TOOL_NAME: &str = "gen_ai.tool.name";
    /// "grpc".
    pub const RPC_SYSTEM: &str = "rpc.system.name";
    /// "package.Service/Method".
    pub const RPC_METHOD: &str = "rpc.method";
    /// "OK", "UNAVAILABLE", ...
    pub const RPC_STATUS: &str = "rpc.response.status_code";
    /// What OpenInference UIs sort by: "AGENT", "CHAIN", "LLM", "TOOL".
    pub const OPENINFERENCE_KIND: &str = "openinference.span.kind";
    /// Only with `[telemetry] content = true`.
    pub const INPUT_VALUE: &str = "input.value";
    /// Only with `[telemetry] content = true`.
    pub const OUTPUT_VALUE: &str = "output.value";
    /// The plan.
    pub const PLAN_ID: &str = "shoal.plan.id";
    /// The node in it.
    pub const NODE_ID: &str = "shoal.node.id";
}

/// Keeps telemetry alive. Drop it last: what is still buffered leaves then, under two seconds.
pub struct Guard {
    tracer: SdkTracerProvider,
    meter: SdkMeterProvider,
    /// The exporter's own: tonic inside a shared one-worker runtime can deadlock with the batch thread.
    exporter: Option<tokio::runtime::Runtime>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("exports", &self.exporter.is_some())
            .finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.tracer.shutdown_with_timeout(FLUSH) {
            tracing::debug!(%error, "some spans did not leave");
        }
        if let Err(error) = self.meter.shutdown_with_timeout(FLUSH) {
            tracing::debug!(%error, "metrics did not close");
        }
        if let Some(runtime) = self.exporter.take() {
            runtime.shutdown_background();
        }
    }
}

/// The level of our spans. Without it said, a filter by function counts as one that wants everything, and every trace line of every library is
/// put together before it is thrown away: a tokenizer writes one a character, which was a fifth of what classifying a short text took.
///
/// Spans of level INFO carry a trace from process to process. Those of DEBUG divide one further, for whoever looks at it: where none leaves the process
/// they are not made.
const fn span_level(exports: bool) -> LevelFilter {
    if exports { LevelFilter::DEBUG } else { LevelFilter::INFO }
}

/// Sets up logs, spans and metrics for the process named `process` ("gateway", "tool_call"). Once a process.
///
/// # Errors
/// When the log filter cannot be parsed, or the exporter cannot be built from its endpoint.
pub fn init(process: &str, config: &config::Telemetry) -> anyhow::Result<Guard> {
    let resource = Resource::builder()
        .with_service_name(format!("shoal-{process}"))
        .with_attributes([
            KeyValue::new("service.namespace", "shoal"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", format!("{process}-{}", std::process::id())),
        ])
        .build();
    let (tracer, exporter) = tracer(config, resource.clone())?;
    let registry = prometheus::Registry::new();
    let reader = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .build()?;
    let meter = SdkMeterProvider::builder()
        .with_reader(reader)
        .with_resource(resource)
        .build();
    global::set_meter_provider(meter.clone());
    let _ = REGISTRY.set(registry);

    let filter =
        EnvFilter::try_new(&config.log).with_context(|| format!("[telemetry] log = {:?} is no filter", config.log))?;
    let json = !std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Line {
            process: process.to_owned(),
            json,
        })
        // A line shows its own fields and the trace id: those of its spans would be put together on every call, for nobody.
        .fmt_fields(debug_fn(|_, _, _| Ok(())))
        .with_writer(std::io::stderr)
        .with_filter_of(filter);
    // Spans are filtered apart from log lines: a quieter log must not orphan children in the trace.
    let span_level = span_level(exporter.is_some());
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer.tracer("shoal"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        // Nobody reads OpenTelemetry's own current context: what goes on, and a log line's trace id, are taken from the span.
        .with_context_activation(false)
        .with_filter_of(
            filter_fn(move |meta| meta.is_span() && *meta.level() <= span_level && meta.target().starts_with("shoal"))
                .with_max_level_hint(span_level),
        );
    tracing_subscriber::registry()
        .with(lines)
        .with(spans)
        .try_init()
        .context("telemetry is already set up")?;
    Ok(Guard {
        tracer,
        meter,
        exporter,
    })
}

/// `Layer::with_filter`, named so that the two filters above read alike.
trait WithFilter<S>: tracing_subscriber::Layer<S> + Sized
where
    S: tracing::Subscriber,
{
    fn with_filter_of<F: tracing_subscriber::layer::Filter<S>>(
        self,
        filter: F,
    ) -> tracing_subscriber::filter::Filtered<Self, F, S> {
        tracing_subscriber::Layer::with_filter(self, filter)
    }
}
impl<S: tracing::Subscriber, L: tracing_subscriber::Layer<S>> WithFilter<S> for L {}

fn tracer(
    config: &config::Telemetry,
    resource: Resource,
) -> anyhow::Result<(SdkTracerProvider, Option<tokio::runtime::Runtime>)> {
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let Some(endpoint) = config.endpoint() else {
        return Ok((builder.build(), None));
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("otlp exporter")
        .enable_all()
        .build()?;
    let exporter = {
        let _inside = runtime.enter();
        opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&endpoint)
            .with_timeout(FLUSH)
            .build()
            .with_context(|| format!("OTLP endpoint {endpoint:?}; give http://host:4317"))?
    };
    Ok((builder.with_batch_exporter(exporter).build(), Some(runtime)))
}

/// The process's meter; what it records shows on `/metrics`.
#[must_use]
pub fn meter() -> Meter {
    global::meter("shoal")
}

/// The process's metrics in Prometheus' text format; empty before [`init`].
#[must_use]
pub fn render_metrics() -> String {
    let families = REGISTRY.get().map(prometheus::Registry::gather).unwrap_or_default();
    prometheus::TextEncoder::new()
        .encode_to_string(&families)
        .unwrap_or_default()
}
