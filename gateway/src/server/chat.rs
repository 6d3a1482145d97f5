//! OpenAI's protocol over HTTP: `POST /v1/chat/completions`, plain and streamed, and `GET /v1/models`. A task is a model; the model
//! `shoal` takes a goal, has it planned and run, and answers with the outputs.
use super::{
    open::{self, Entrance},
    single, sse,
};
use crate::{
    admit::Catalogue as _,
    context::Context,
    error::Error,
    plans::{Attached, Plan},
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
    openai::{self, Head, Request},
    propagate,
    serve::{Posted, Unread},
    telemetry::names,
};
use shoal_proto::v1;
use std::sync::Arc;

pub(super) mod answer;
mod body;

/// The model that takes goals.
pub(super) const GOALS: &str = "shoal";

/// Bytes of JSON around a request's own texts.
const MARGIN: usize = 64 << 10;

/// The routes, for the server's HTTP door.
pub(crate) fn router(context: Arc<Context>) -> Router {
    // Twice the texts: an escape in JSON is two bytes or more. What is really too large is told with the key that says so.
    let most = context.config.max_input_bytes.saturating_mul(2).saturating_add(MARGIN);
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/v1/models", get(models))
        .layer(DefaultBodyLimit::max(most))
        .with_state(context)
}

async fn models(State(context): State<Arc<Context>>) -> Json<Value> {
    let tasks = context.registry.tasks();
    let goals = tasks.contains(&context.config.plan_task.as_str()).then_some(GOALS);
    let model = |id: &str| json!({"id": id, "object": "model", "created": 0, "owned_by": names::PROVIDER});
    let data: Vec<Value> = goals.into_iter().chain(tasks).map(model).collect();
    Json(json!({"object": "list", "data": data}))
}

async fn complete(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
    body: Result<Posted<Request>, Unread>,
) -> Response {
    let span = open::span("POST /v1/chat/completions");
    propagate::adopt_headers(&headers, &span);
    let body = match body {
        Ok(Posted(body)) => body,
        Err(unread) => return openai::unread(&unread),
    };
    let (streamed, include_usage, model) = (body.stream, body.include_usage(), body.model.clone());
    let completion = match begin(&context, body, span) {
        Ok(completion) => completion,
        Err(error) => return openai::refusal(&error.into()),
    };
    if streamed {
        let live = model != GOALS && context.registry.route(&model).is_some_and(|r| r.chain.len() == 1);
        return sse::stream(completion, include_usage, live).into_response();
    }
    match answer::whole(&completion.plan).await {
        Ok(answer) => {
            let extra = answer.extra(&completion.plan);
            Json(
                completion
                    .head
                    .whole(&answer.text, &answer.finish_reason, answer.usage(), extra),
            )
            .into_response()
        }
        Err(error) => openai::refusal(&error.into()),
    }
}

fn begin(context: &Arc<Context>, body: Request, span: tracing::Span) -> Result<Completion, Error> {
    let model = body.model.clone();
    let plan = if model == GOALS {
        let request = v1::ExecutePlanRequest {
            source: Some(v1::execute_plan_request::Source::Goal(body::goal(&body)?)),
            ..v1::ExecutePlanRequest::default()
        };
        open::open(context, request, false, Entrance::whole(span, None))?
    } else if context.registry.route(&model).is_some() {
        single::begin(context, body::asked(body)?, span, None)?
    } else {
        let there = context.registry.tasks().join(", ");
        return Err(Error::Passed(v1::Fault {
            code: tonic::Code::NotFound as i32,
            reason: "MODEL_UNKNOWN".into(),
            message: format!("no model `{model}` here; there are {GOALS}, {there}"),
        }));
    };
    Ok(Completion {
        head: Head::now(&plan.id, model),
        _attached: plan.clone().attach(),
        plan,
    })
}

/// One completion: the plan behind it, held by whoever waits for the answer.
pub(super) struct Completion {
    pub(super) head: Head,
    pub(super) plan: Arc<Plan>,
    _attached: Attached,
}
