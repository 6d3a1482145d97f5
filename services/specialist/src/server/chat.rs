//! The OpenAI-compatible door: `POST /v1/chat/completions` (plain and streamed) and `GET /v1/models`.
//!
//! What differs from the original: temperature is 0 unless given; a task's output is held to its form unless
//! `response_format` says otherwise; the answer carries a `shoal` field with confidence and timings.
use super::{
    door::{Door, Doors, call_span, failed, spoken},
    generate::{Generation, usage},
    request, sse,
};
use crate::{
    engine::{Done, Finish, queue::Class},
    error::Error,
    folder::Form,
    prompt::Prompt,
    specialist::{Ask, Specialist},
};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_kit::{propagate, serve::MAX_REQUEST_BYTES, status::Reason, telemetry::names::PROVIDER};
use shoal_proto::v1;
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::Code;
use tracing::Span;

const HTTP_STATUS: &str = "http.response.status_code";

/// The routes, for [`shoal_kit::serve::Server::http`].
pub(crate) fn router(doors: Doors) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/v1/models", get(models))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(doors)
}

/// A chat completion request, as far as it is read; clients send many more fields.
#[derive(Debug, Deserialize)]
struct Body {
    model: String,
    messages: Vec<Turn>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<u64>,
    stop: Option<OneOrMany>,
    n: Option<u32>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    response_format: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Turn {
    role: String,
    content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type", default)]
    kind: String,
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// What names one completion in every chunk of it.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub id: String,
    pub created: u64,
    pub model: String,
}

async fn models(State(doors): State<Doors>) -> Json<Value> {
    let door = doors.open();
    let folder = door.specialist().folder();
    let tasks = folder
        .tasks
        .iter()
        .map(|t| t.name.as_str())
        .filter(|t| *t != folder.card.name);
    let entry = |id: &str| json!({"id": id, "object": "model", "created": 0, "owned_by": PROVIDER});
    let data: Vec<Value> = std::iter::once(folder.card.name.as_str())
        .chain(tasks)
        .map(entry)
        .collect();
    Json(json!({"object": "list", "data": data}))
}

async fn complete(State(doors): State<Doors>, headers: HeaderMap, body: Result<Json<Body>, JsonRejection>) -> Response {
    let span = call_span!(
        "chat_completions",
        "LLM",
        "chat",
        http.request.method = "POST",
        http.route = "/v1/chat/completions",
        http.response.status_code = tracing::field::Empty,
    );
    propagate::adopt_headers(&headers, &span);
    let response = answer(&doors.open(), body, &span).await;
    span.record(HTTP_STATUS, response.status().as_u16());
    response
}

async fn answer(door: &Door, body: Result<Json<Body>, JsonRejection>, span: &Span) -> Response {
    let refused = |error: Error| {
        failed(span, &error);
        error_response(error)
    };
    let body = match body {
        Ok(Json(body)) => body,
        Err(e) => {
            let too_long = e.status() == StatusCode::PAYLOAD_TOO_LARGE;
            let mut response = refused(Error::invalid("body", e.body_text()));
            if too_long {
                *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            }
            return response;
        }
    };
    door.identify(span, &body.model);
    let specialist = door.specialist();
    let (streamed, include_usage) = (
        body.stream,
        body.stream_options.as_ref().is_some_and(|o| o.include_usage),
    );
    let ask = match ask(body, specialist, span.clone()) {
        Ok(ask) => ask,
        Err(error) => return refused(error),
    };
    door.asked(span, || spoken(&ask.prompt));
    let generation = match specialist.generate(ask).await {
        Ok(ticket) => Generation::new(ticket, None, span.clone(), door.clone()),
        Err(error) => return refused(error),
    };
    let created = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let header = Header {
        id: format!("chatcmpl-{}", uuid::Uuid::new_v4().simple()),
        created,
        model: specialist.identity(),
    };
    if streamed {
        return sse::stream(generation, door.clone(), header, include_usage).into_response();
    }
    match generation.complete().await {
        Ok(done) => {
            let choice = json!({"index": 0, "message": {"role": "assistant", "content": done.text}, "logprobs": null, "finish_reason": reason(done.finish)});
            Json(json!({
                "id": header.id, "object": "chat.completion", "created": header.created, "model": header.model,
                "choices": [choice], "usage": tokens(&done), "shoal": extra(&done, specialist),
            }))
            .into_response()
        }
        Err(error) => error_response(error),
    }
}

fn ask(body: Body, specialist: &Specialist, span: tracing::Span) -> Result<Ask, Error> {
    let folder = specialist.folder();
    let task = match folder.tasks.iter().find(|t| t.name == body.model) {
        Some(task) => task.name.clone(),
        None if body.model == folder.card.name => String::new(),
        None => {
            let all: Vec<_> = folder.tasks.iter().map(|t| t.name.as_str()).collect();
            return Err(Error::Unknown {
                message: format!(
                    "no model `{}` here; there is `{}`, with tasks {}",
                    body.model,
                    folder.card.name,
                    all.join(", ")
                ),
            });
        }
    };
    if body.n.is_some_and(|n| n != 1) {
        return Err(Error::invalid("n", "one answer a request: send more requests"));
    }
    let form = match body.response_format.as_ref().map(|f| (f["type"].as_str(), f)) {
        None => None,
        Some((Some("text"), _)) => Some(Form::Free),
        Some((Some("json_object"), _)) => Some(Form::Schema(json!({"type": "object"}))),
        Some((Some("json_schema"), format)) => Some(Form::Schema(format["json_schema"]["schema"].clone())),
        Some(_) => {
            return Err(Error::invalid(
                "response_format",
                "its type is none of `text`, `json_object` and `json_schema`",
            ));
        }
    };
    let mut messages = Vec::with_capacity(body.messages.len());
    for (i, turn) in body.messages.into_iter().enumerate() {
        messages.push((turn.role, text(turn.content, i)?));
    }
    let sampling = v1::Sampling {
        max_tokens: body.max_completion_tokens.or(body.max_tokens),
        temperature: body.temperature,
        top_p: body.top_p,
        seed: body.seed,
        stop: match body.stop {
            None => Vec::new(),
            Some(OneOrMany::One(stop)) => vec![stop],
            Some(OneOrMany::Many(stops)) => stops,
        },
        ..v1::Sampling::default()
    };
    Ok(Ask {
        task,
        prompt: Prompt::messages(messages)?,
        sampling: request::sampling(Some(sampling), folder.card.limits.max_new_tokens.max(1))?,
        form,
        class: Class::Normal,
        deadline: None,
        span,
    })
}

/// A message's text. A part of another kind is refused: an answer that never saw it would be worse than none.
fn text(content: Content, message: usize) -> Result<String, Error> {
    let parts = match content {
        Content::Text(text) => return Ok(text),
        Content::Parts(parts) => parts,
    };
    let one = |(i, part): (usize, Part)| {
        let refused = || {
            Error::invalid(
                format!("messages[{message}].content[{i}]"),
                format!(
                    "a part of type `{}` is no text, which is all that this model reads",
                    part.kind
                ),
            )
        };
        part.text.clone().ok_or_else(refused)
    };
    parts.into_iter().enumerate().map(one).collect()
}

pub(super) fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

pub(super) fn tokens(done: &Done) -> Value {
    let (input, output) = (done.input_tokens, done.tokens.len());
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

/// The non-standard field.
pub(super) fn extra(done: &Done, specialist: &Specialist) -> Value {
    let confidence = done.confidence.to_wire();
    let (t, cost) = (
        &done.timings,
        usage(done.input_tokens, done.tokens.len(), specialist).cost_usd,
    );
    json!({
        "confidence": {"score": confidence.score, "mean_logprob": confidence.mean_logprob, "sum_logprob": confidence.sum_logprob, "min_logprob": confidence.min_logprob, "margin": confidence.margin},
        "timings": {"tokenize_seconds": t.tokenize.as_secs_f64(), "queue_seconds": t.queue.as_secs_f64(), "prefill_seconds": t.prefill.as_secs_f64(), "decode_seconds": t.decode.as_secs_f64()},
        "cost_usd": cost,
    })
}

/// An error as OpenAI's clients read it.
pub(super) fn error_body(error: &Error) -> Value {
    let reason = Reason::from(error.clone());
    let kind = if matches!(reason, Reason::Invalid(_)) {
        "invalid_request_error"
    } else {
        "server_error"
    };
    json!({"error": {"message": reason.to_string(), "type": kind, "code": reason.name(), "param": null}})
}

fn error_response(error: Error) -> Response {
    let body = error_body(&error);
    let reason = Reason::from(error);
    let status = match reason.code() {
        Code::InvalidArgument | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = (status, Json(body)).into_response();
    if let Reason::Exhausted { retry_after, .. } | Reason::Unavailable { retry_after, .. } = reason {
        let seconds = retry_after.as_secs_f64().ceil().max(1.0) as u64;
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
