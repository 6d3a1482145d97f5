//! What a model is asked, and what it says.
use super::lost::Lost;
use crate::schema::Schema;
use serde_json::{Map, Value};
use shoal_plan::integers;
use shoal_proto::v1;
use shoal_stack::hedge::Telling;
use std::{fmt, sync::Arc};

/// The content of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// One user message.
    Text(String),
    /// One user message whose content the model's template sees as a mapping.
    Json(Map<String, Value>),
    /// A conversation, oldest first.
    Conversation(Vec<v1::Message>),
}

impl Input {
    /// A filled template: an object, or text that is one, is a mapping; everything else is text.
    pub(crate) fn of(filled: Value) -> Self {
        match filled {
            Value::Object(map) => Self::Json(map),
            Value::String(text) if text.trim_start().starts_with('{') => match serde_json::from_str(&text) {
                // Read, a larger integer would be another number.
                Ok(Value::Object(map)) if integers::fit(&text).is_ok() => Self::Json(map),
                _ => Self::Text(text),
            },
            Value::String(text) => Self::Text(text),
            other => Self::Text(other.to_string()),
        }
    }

    /// As a specialist is asked.
    pub(crate) fn prompt(&self) -> v1::Prompt {
        let content = match self {
            Self::Text(text) => v1::prompt::Content::Text(text.clone()),
            Self::Json(map) => v1::prompt::Content::Json(Value::Object(map.clone()).to_string()),
            Self::Conversation(messages) => v1::prompt::Content::Messages(v1::prompt::Messages {
                messages: messages.clone(),
            }),
        };
        v1::Prompt { content: Some(content) }
    }

    /// As one text: of a conversation, what was said last.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Json(map) => Value::Object(map.clone()).to_string(),
            Self::Conversation(messages) => messages.last().map(|m| m.content.clone()).unwrap_or_default(),
        }
    }

    /// As an outcome keeps it.
    pub(crate) fn json(&self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.clone()),
            Self::Json(map) => Value::Object(map.clone()),
            Self::Conversation(messages) => {
                let message = |m: &v1::Message| serde_json::json!({"role": m.role, "content": m.content});
                messages.iter().map(message).collect()
            }
        }
    }

    /// Bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Json(map) => map.iter().map(|(k, v)| k.len() + v.to_string().len()).sum(),
            Self::Conversation(messages) => messages.iter().map(|m| m.content.len()).sum(),
        }
    }
}

/// How the answer is got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Means {
    /// Token by token.
    Generate,
    /// As the likeliest label.
    Classify,
}

/// Hears a running answer. It is called from within the call: it must not block.
pub(crate) trait Sink: Send + Sync {
    /// An attempt begins: what was heard of an earlier one was for nothing.
    fn begin(&self);
    /// Text to append.
    fn delta(&self, text: &str);
    /// Whether any text was taken in, of whichever attempt.
    fn heard(&self) -> bool;
}

/// One question to one target. Attempts share it.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) task: String,
    pub(crate) input: Input,
    pub(crate) means: Means,
    pub(crate) sampling: Option<v1::Sampling>,
    /// A form that the answer is held to while it is decoded, instead of the card's own.
    pub(crate) form: Option<Arc<Schema>>,
    pub(crate) priority: v1::Priority,
    /// What a model that was not trained on the task is told of it.
    pub(crate) instructions: Option<String>,
    pub(crate) sink: Option<Arc<dyn Sink>>,
    pub(crate) lost: Arc<Lost>,
}

/// What attempts at a question tell on the way: their text, where somebody listens.
pub(crate) fn telling() -> Telling<Arc<Question>> {
    Telling {
        told: |question| question.sink.as_ref().is_some_and(|sink| sink.heard()),
        quiet: |question| {
            Arc::new(Question {
                sink: None,
                ..Question::clone(question)
            })
        },
    }
}

impl Question {
    /// Bytes of its prompt.
    pub(crate) fn bytes(&self) -> usize {
        self.input.bytes() + self.instructions.as_ref().map_or(0, String::len)
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No content: this is what a span or a log line would show.
        f.debug_struct("Question")
            .field("task", &self.task)
            .field("means", &self.means)
            .finish_non_exhaustive()
    }
}

/// Why an answer ends where it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Finish {
    /// It says all that it was to say.
    #[default]
    Stop,
    /// The tokens that it may have, or the context, are used up.
    Length,
    /// The endpoint has left something out.
    Filtered,
}

impl Finish {
    /// In OpenAI's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Filtered => "content_filter",
        }
    }

    /// Of an endpoint's word. Any other is of tools, for which nobody was asked, or of what somebody's door adds, and says that it
    /// ended by itself.
    pub(crate) fn of(word: &str) -> Self {
        let known = [Self::Length, Self::Filtered];
        known.into_iter().find(|f| f.word() == word).unwrap_or_default()
    }
}

/// What a target said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) finish: Finish,
    /// Absent where the target does not count.
    pub(crate) usage: Option<v1::Usage>,
    pub(crate) timings: Option<v1::Timings>,
    pub(crate) confidence: Option<v1::Confidence>,
    /// "name@version", or what an endpoint calls its model.
    pub(crate) model: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_is_a_mapping_however_it_is_written_and_everything_else_is_text() {
        let mapping = Input::of(json!({"a": 1}));
        assert_eq!(Input::of(json!(r#" {"a": 1}"#)), mapping);
        for (value, text) in [
            (json!("play {jazz}"), "play {jazz}"),
            (json!("{not json"), "{not json"),
            (json!([1, 2]), "[1,2]"),
            (json!("[1]"), "[1]"),
        ] {
            assert_eq!(Input::of(value), Input::Text(text.into()));
        }
        assert_eq!(mapping.json(), json!({"a": 1}));
    }
}
