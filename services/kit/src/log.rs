//! Log lines: one JSON object a line when read by a machine, one plain line when read by a person; both with the trace id.
use opentelemetry::trace::TraceContextExt as _;
use serde_json::{Map, Value, json};
use std::fmt;
use tracing::{Event, Level, Subscriber, field};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer, time::FormatTime as _, time::SystemTime as Clock},
    registry::LookupSpan,
};

/// Which process speaks, and to whom.
pub(crate) struct Line {
    pub(crate) process: String,
    pub(crate) json: bool,
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &field::Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.rest.insert(name.to_owned(), value);
            }
        }
    }
}

impl field::Visit for Fields {
    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &field::Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &field::Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &field::Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &field::Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &field::Field, value: f64) {
        self.put(field, json!(value));
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let trace = context.lookup_current().and_then(|span| {
            let context = tracing::dispatcher::get_default(|dispatch| {
                tracing_opentelemetry::get_otel_context(&span.id(), dispatch)
            })?;
            let span = context.span().span_context().clone();
            span.is_valid()
                .then(|| (span.trace_id().to_string(), span.span_id().to_string()))
        });
        let mut time = String::new();
        Clock.format_time(&mut Writer::new(&mut time))?;
        if self.json {
            let mut line = Map::new();
            line.insert("time".into(), time.into());
            line.insert("level".into(), level.as_str().into());
            line.insert("process".into(), self.process.clone().into());
            line.insert("pid".into(), std::process::id().into());
            line.insert("target".into(), target.into());
            line.insert("message".into(), fields.message.into());
            if let Some((trace, span)) = trace {
                line.insert("trace_id".into(), trace.into());
                line.insert("span_id".into(), span.into());
            }
            // Fields of the same name as ours would change what a collector keys on: ours win.
            for (name, value) in fields.rest {
                line.entry(name).or_insert(value);
            }
            return writeln!(out, "{}", Value::Object(line));
        }
        let colour = match *level {
            Level::ERROR => "\x1b[31m",
            Level::WARN => "\x1b[33m",
            Level::INFO => "\x1b[32m",
            _ => "\x1b[2m",
        };
        let clock = time.get(11..19).unwrap_or(&time);
        write!(
            out,
            "{clock} {colour}{level:>5}\x1b[0m {}: {}",
            self.process, fields.message
        )?;
        for (name, value) in &fields.rest {
            match value {
                Value::String(text) => write!(out, " {name}={text}")?,
                other => write!(out, " {name}={other}")?,
            }
        }
        if let Some((trace, _)) = trace {
            write!(out, " trace_id={trace}")?;
        }
        writeln!(out)
    }
}
