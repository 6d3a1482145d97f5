//! The OpenAI-compatible door: `POST /v1/chat/completions` (plain and streamed), `POST /v1/embeddings` (in `embeddings`) and `GET /v1/models`.
//!
//! What differs from the original: temperature is 0 unless given; a task's output is held to its form unless
//! `response_format` says otherwise; the answer carries a `shoal` field with confidence and timings.
use super::{
    door::{Door, Doors, call_span, failed, spoken},
    embeddings,
    generate::{Generation, usage},
    request, sse,
};
use crate::{
    engine::{Done, Finish, queue::Urgency},
    error::{Error, refuse},
    folder::{Folder, Form},
    prompt::Prompt,
    specialist::{Ask, Specialist},
};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use shoal_kit::{
    openai::{self, Format, Head, Request},
    propagate,
    serve::{MAX_REQUEST_BYTES, Posted, Unread},
    telemetry::names::PROVIDER,
};
use tracing::Span;

pub(super) const HTTP_STATUS: &str = "http.response.status_code";

/// The routes, for [`shoal_kit::serve::Server::http`].
pub(crate) fn router(doors: Doors) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/v1/embeddings", post(embeddings::embed))
        .route("/v1/models", get(models))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(doors)
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

async fn complete(State(doors): State<Doors>, headers: HeaderMap, body: Result<Posted<Request>, Unread>) -> Response {
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

async fn answer(door: &Door, body: Result<Posted<Request>, Unread>, span: &Span) -> Response {
    let refused = |error: Error| {
        failed(span, &error);
        openai::refusal(&refuse(error))
    };
    let body = match body {
        Ok(Posted(body)) => body,
        Err(unread) => {
            failed(span, &Error::invalid("body", unread.said()));
            return openai::unread(&unread);
        }
    };
    door.identify(span, &body.model);
    let specialist = door.specialist();
    let (streamed, include_usage) = (body.stream, body.include_usage());
    let ask = match ask(body, specialist, span.clone()) {
        Ok(ask) => ask,
        Err(error) => return refused(error),
    };
    door.asked(span, || spoken(&ask.prompt));
    let generation = match specialist.generate(ask).await {
        Ok(ticket) => Generation::new(ticket, None, span.clone(), door.clone()),
        Err(error) => return refused(error),
    };
    let head = Head::now(&uuid::Uuid::new_v4().simple().to_string(), specialist.identity());
    if streamed {
        return sse::stream(generation, door.clone(), head, include_usage).into_response();
    }
    match generation.complete().await {
        Ok(done) => {
            let extra = extra(&done, specialist);
            Json(head.whole(&done.text, reason(done.finish), tokens(&done), extra)).into_response()
        }
        Err(error) => openai::refusal(&refuse(error)),
    }
}

/// The task that a model's name stands for: one of the specialist's, or its own name, which is none.
pub(super) fn task(model: &str, folder: &Folder) -> Result<String, Error> {
    match folder.tasks.iter().find(|t| t.name == model) {
        Some(task) => Ok(task.name.clone()),
        None if model == folder.card.name => Ok(String::new()),
        None => {
            let all: Vec<_> = folder.tasks.iter().map(|t| t.name.as_str()).collect();
            Err(Error::Unknown {
                message: format!(
                    "no model `{model}` here; there is `{}`, with tasks {}",
                    folder.card.name,
                    all.join(", ")
                ),
            })
        }
    }
}

fn ask(body: Request, specialist: &Specialist, span: tracing::Span) -> Result<Ask, Error> {
    let folder = specialist.folder();
    let task = task(&body.model, folder)?;
    specialist.generates()?;
    let messages = body.messages()?.into_iter().map(|m| (m.role, m.content)).collect();
    let form = match body.format()? {
        Format::Unsaid => None,
        Format::Text => Some(Form::Free),
        Format::Schema(schema) => Some(Form::Schema(schema)),
    };
    Ok(Ask {
        task,
        prompt: Prompt::messages(messages)?,
        sampling: request::sampling(Some(body.sampling()), request::most(&folder.card))?,
        form,
        urgency: Urgency::default(),
        span,
    })
}

pub(super) fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

pub(super) fn tokens(done: &Done) -> Value {
    openai::usage(done.input_tokens as u64, done.tokens.len() as u64)
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
