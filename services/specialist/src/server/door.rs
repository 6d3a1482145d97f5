//! What the three doors share: the version behind them, and what their spans say of a call.
use crate::{error::Error, prompt::Prompt, specialist::Specialist, versions::Serving};
use serde_json::{Value, json};
use shoal_kit::{
    status::{Reason, code_name},
    telemetry::{CONTENT_BYTES, cut, names},
};
use std::sync::Arc;
use tokio::sync::watch;
use tracing::{Span, field};

/// Bytes of a model's name on a span: four times what a specialist or a task may be called, so that what is asked for by mistake can be read.
const NAME_BYTES: usize = 256;

/// The span of one call: name, OpenInference kind, GenAI operation, then what the protocol adds. Set the caller's context on it
/// before anything else.
macro_rules! call_span {
    ($name:literal, $kind:literal, $operation:literal, $($protocol:tt)*) => {
        tracing::info_span!(
            $name,
            otel.kind = "server",
            otel.status_code = tracing::field::Empty,
            openinference.span.kind = $kind,
            gen_ai.operation.name = $operation,
            gen_ai.provider.name = shoal_kit::telemetry::names::PROVIDER,
            gen_ai.request.model = tracing::field::Empty,
            gen_ai.response.model = tracing::field::Empty,
            gen_ai.usage.input_tokens = tracing::field::Empty,
            gen_ai.usage.output_tokens = tracing::field::Empty,
            shoal.confidence.score = tracing::field::Empty,
            input.value = tracing::field::Empty,
            output.value = tracing::field::Empty,
            $($protocol)*
        )
    };
}

/// The same over gRPC.
macro_rules! rpc_span {
    ($name:literal, $kind:literal, $operation:literal, $method:literal) => {
        $crate::server::door::call_span!(
            $name,
            $kind,
            $operation,
            rpc.system.name = "grpc",
            rpc.method = $method,
            rpc.response.status_code = tracing::field::Empty,
        )
    };
}
pub(super) use {call_span, rpc_span};

/// Opens a door for each call, to the version that serves at that moment.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    serving: watch::Receiver<Serving>,
    content: bool,
}

impl Doors {
    /// `content`: prompts and outputs go on spans.
    pub(crate) fn new(serving: watch::Receiver<Serving>, content: bool) -> Self {
        Self { serving, content }
    }

    /// What serves now, and what was refused.
    pub(super) fn serving(&self) -> Serving {
        self.serving.borrow().clone()
    }

    /// The version that serves now.
    pub(super) fn open(&self) -> Door {
        Door {
            specialist: self.serving().specialist,
            content: self.content,
        }
    }
}

/// One version of a specialist, as one call sees it from beginning to end: a model is kept as long as there is a door to it.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    specialist: Arc<Specialist>,
    content: bool,
}

impl Door {
    /// The same without a word of content, for a part of a call.
    pub(super) fn silent(self) -> Self {
        Self { content: false, ..self }
    }

    pub(super) fn specialist(&self) -> &Specialist {
        &self.specialist
    }

    /// Says which model is asked, and which answers.
    pub(super) fn identify(&self, span: &Span, asked: &str) {
        span.record(names::GEN_AI_REQUEST_MODEL, cut(asked, NAME_BYTES));
        span.record(names::GEN_AI_RESPONSE_MODEL, self.specialist.identity());
    }

    /// Says what was asked, if that may be said.
    pub(super) fn asked(&self, span: &Span, what: impl FnOnce() -> String) {
        if self.content {
            span.record(names::INPUT_VALUE, cut(&what(), CONTENT_BYTES));
        }
    }

    /// Says what was answered, if that may be said.
    pub(super) fn answered(&self, span: &Span, what: impl FnOnce() -> String) {
        if self.content {
            span.record(names::OUTPUT_VALUE, cut(&what(), CONTENT_BYTES));
        }
    }
}

/// A prompt for people.
pub(super) fn spoken(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Json(map) => Value::Object(map.clone()).to_string(),
        Prompt::Messages(list) => {
            let messages = list
                .iter()
                .map(|(role, content)| json!({"role": role, "content": content}));
            Value::Array(messages.collect()).to_string()
        }
    }
}

/// Marks a call's span as failed.
pub(super) fn failed(span: &Span, error: &Error) {
    let code = Reason::from(error.clone()).code() as i32;
    span.record(names::RPC_STATUS, code_name(code));
    span.record("otel.status_code", field::display("ERROR"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_kit::{config, onnxruntime};
    use std::{
        path::Path,
        sync::{Mutex, PoisonError},
    };
    use tracing_subscriber::{Layer, layer::SubscriberExt as _};

    /// Keeps the longest text that is recorded on a span.
    #[derive(Clone, Default)]
    struct Longest(Arc<Mutex<usize>>);

    impl field::Visit for Longest {
        fn record_str(&mut self, _: &field::Field, value: &str) {
            let mut longest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *longest = longest.max(value.len());
        }
        fn record_debug(&mut self, _: &field::Field, _: &dyn std::fmt::Debug) {}
    }

    impl<S: tracing::Subscriber> Layer<S> for Longest {
        fn on_record(
            &self,
            _: &tracing::Id,
            values: &tracing::span::Record<'_>,
            _: tracing_subscriber::layer::Context<'_, S>,
        ) {
            values.record(&mut self.clone());
        }
    }

    #[test]
    fn what_a_caller_calls_a_model_stands_on_a_span_cut_with_content_and_without() {
        let library = onnxruntime::locate(&config::OnnxRuntime::default(), &|_| {}).expect("ONNX Runtime");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/tiny_classifier");
        let specialist = Specialist::load(&path, &config::Specialist::default(), &library.path).expect("a good folder");
        let serving = Serving {
            specialist: Arc::new(specialist),
            refused: None,
        };
        let longest = Longest::default();
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(longest.clone()));
        let span = call_span!("call", "LLM", "chat",);
        for content in [false, true] {
            let door = Doors::new(watch::channel(serving.clone()).1, content).open();
            // Of two bytes each, with one before them: a cut in the middle of a letter would panic.
            door.identify(&span, &format!("x{}", "é".repeat(8 << 20)));
        }
        let longest = *longest.0.lock().expect("whole");
        assert_eq!(longest, NAME_BYTES - 1);
    }
}
