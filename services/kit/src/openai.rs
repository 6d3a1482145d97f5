//! OpenAI's chat completions, as far as the gateway's door and a specialist's read and write them.
//!
//! A client sends many more fields than are read here. What differs from the original: one answer a request, and text alone.
use crate::{
    serve::Unread,
    status::{self, Reason},
};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_proto::v1;
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::{Code, Status};

/// `POST /v1/chat/completions`.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// Which model; here a task is one too.
    pub model: String,
    messages: Vec<Turn>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<u64>,
    stop: Option<OneOrMany>,
    n: Option<u32>,
    /// Whether the answer comes as events.
    #[serde(default)]
    pub stream: bool,
    stream_options: Option<StreamOptions>,
    response_format: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
struct Turn {
    role: String,
    content: Content,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Clone, Deserialize)]
struct Part {
    #[serde(rename = "type", default)]
    kind: String,
    text: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Clone, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// What the answer must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// Nothing is said of it.
    Unsaid,
    /// Free text, whatever the task's own form is.
    Text,
    /// JSON of this schema.
    Schema(Value),
}

impl Request {
    /// Whether a stream ends with what it took.
    #[must_use]
    pub fn include_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|o| o.include_usage)
    }

    /// What was said, oldest first.
    ///
    /// # Errors
    /// `Invalid`, by field: more than one answer is wanted, or a part that is no text. An answer that never saw it would be worse
    /// than none.
    pub fn messages(&self) -> Result<Vec<v1::Message>, Reason> {
        if self.n.is_some_and(|n| n != 1) {
            return Err(status::invalid("n", "one answer a request: send more requests"));
        }
        let message = |(i, turn): (usize, &Turn)| {
            Ok(v1::Message {
                role: turn.role.clone(),
                content: turn.content.text(i)?,
            })
        };
        self.messages.iter().enumerate().map(message).collect()
    }

    /// How to decode.
    #[must_use]
    pub fn sampling(&self) -> v1::Sampling {
        v1::Sampling {
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            temperature: self.temperature,
            top_p: self.top_p,
            seed: self.seed,
            stop: match &self.stop {
                None => Vec::new(),
                Some(OneOrMany::One(stop)) => vec![stop.clone()],
                Some(OneOrMany::Many(stops)) => stops.clone(),
            },
            ..v1::Sampling::default()
        }
    }

    /// What the answer must be.
    ///
    /// # Errors
    /// `Invalid` for a type that is none of the three.
    pub fn format(&self) -> Result<Format, Reason> {
        let Some(format) = &self.response_format else {
            return Ok(Format::Unsaid);
        };
        match format["type"].as_str() {
            Some("text") => Ok(Format::Text),
            Some("json_object") => Ok(Format::Schema(json!({"type": "object"}))),
            Some("json_schema") => Ok(Format::Schema(format["json_schema"]["schema"].clone())),
            _ => Err(status::invalid(
                "response_format",
                "its type is none of `text`, `json_object` and `json_schema`",
            )),
        }
    }
}

impl Content {
    fn text(&self, message: usize) -> Result<String, Reason> {
        let parts = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::Parts(parts) => parts,
        };
        let one = |(i, part): (usize, &Part)| {
            let refused = || {
                let said = format!(
                    "a part of type `{}` is no text, which is all that is read here",
                    part.kind
                );
                status::invalid(&format!("messages[{message}].content[{i}]"), said)
            };
            part.text.clone().ok_or_else(refused)
        };
        parts.iter().enumerate().map(one).collect()
    }
}

/// What names one completion, in the whole of it and in every chunk.
#[derive(Debug, Clone)]
pub struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    /// Of a completion that begins now. `id` is what comes after `chatcmpl-`.
    #[must_use]
    pub fn now(id: &str, model: impl Into<String>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id: format!("chatcmpl-{id}"),
            created: since.as_secs(),
            model: model.into(),
        }
    }

    /// The whole answer; `shoal` is the field that OpenAI's has not.
    #[must_use]
    pub fn whole(&self, text: &str, finish_reason: &str, usage: Value, shoal: Value) -> Value {
        let message = json!({"role": "assistant", "content": text});
        json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason}],
            "usage": usage, "shoal": shoal,
        })
    }

    /// A chunk of a streamed answer.
    #[must_use]
    pub fn chunk(&self, delta: &Value, finish_reason: &Value) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}],
        })
    }

    /// The chunk that begins a streamed answer.
    #[must_use]
    pub fn first(&self) -> Value {
        self.chunk(&json!({"role": "assistant", "content": ""}), &Value::Null)
    }

    /// The chunk that ends one whose client wants to know what it took.
    #[must_use]
    pub fn last(&self, usage: Value) -> Value {
        let mut last = self.chunk(&json!({}), &Value::Null);
        last["choices"] = json!([]);
        last["usage"] = usage;
        last
    }
}

/// Tokens as OpenAI counts them.
#[must_use]
pub fn usage(input: u64, output: u64) -> Value {
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

/// The body of an error, as OpenAI's clients read it.
#[must_use]
pub fn error(status: &Status) -> Value {
    let fault = status::to_fault(status);
    let kind = match status.code() {
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::AlreadyExists => {
            "invalid_request_error"
        }
        _ => "server_error",
    };
    json!({"error": {"message": fault.message, "type": kind, "code": fault.reason, "param": null}})
}

/// An error as a whole response.
#[must_use]
pub fn refusal(status: &Status) -> Response {
    let code = match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        // Nginx's word for a client that has closed its request, or for whom somebody else has cancelled it.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = (code, Json(error(status))).into_response();
    if let Some(after) = status::retry_after(status) {
        let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A body that is no request, or that never came.
#[must_use]
pub fn unread(unread: &Unread) -> Response {
    let mut response = refusal(&status::invalid("body", unread.said()).into());
    *response.status_mut() = unread.status();
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn request(more: Value) -> Request {
        let mut whole = json!({"model": "m", "messages": [{"role": "user", "content": "play jazz"}]});
        if let (Value::Object(whole), Value::Object(more)) = (&mut whole, more) {
            whole.extend(more);
        }
        serde_json::from_value(whole).expect("a request")
    }

    #[test]
    fn text_is_read_however_it_is_given_and_what_is_no_text_is_refused_by_field() {
        let parts = request(
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "play "}, {"text": "jazz"}]}]}),
        );
        assert_eq!(parts.messages(), request(json!({})).messages());
        let image = request(json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}));
        let said = image.messages().expect_err("no text").to_string();
        assert!(
            said.starts_with("messages[0].content[0]:") && said.contains("image_url"),
            "{said}"
        );
        let two = request(json!({"n": 2})).messages().expect_err("two").to_string();
        assert!(two.starts_with("n:"), "{two}");
    }

    #[test]
    fn sampling_and_format_are_read() {
        let sampling = request(json!({"max_tokens": 9, "max_completion_tokens": 7, "stop": "x"})).sampling();
        assert_eq!((sampling.max_tokens, sampling.stop), (Some(7), vec!["x".to_owned()]));
        let format = |format: Value| request(json!({"response_format": format})).format();
        assert_eq!(request(json!({})).format(), Ok(Format::Unsaid));
        assert_eq!(format(json!({"type": "text"})), Ok(Format::Text));
        let schema = json!({"type": "json_schema", "json_schema": {"schema": {"type": "array"}}});
        assert_eq!(format(schema), Ok(Format::Schema(json!({"type": "array"}))));
        assert!(format(json!({"type": "xml"})).is_err());
    }

    #[test]
    fn a_refusal_says_its_kind_and_when_to_come_back() {
        let full = Reason::Exhausted {
            message: "full".into(),
            retry_after: Duration::from_millis(1200),
        };
        let response = refusal(&full.into());
        assert_eq!(
            (response.status().as_u16(), response.headers()["retry-after"].as_bytes()),
            (429, &b"2"[..])
        );
        let body = error(&status::invalid("n", "one").into());
        assert_eq!(
            (body["error"]["type"].as_str(), body["error"]["code"].as_str()),
            (Some("invalid_request_error"), Some("INVALID_REQUEST"))
        );
        assert_eq!(unread(&Unread::Slow).status(), StatusCode::REQUEST_TIMEOUT);
    }
}
