//! `POST /v1/embeddings`, as OpenAI's clients send it: a text or several in, a vector each out.
use super::{
    chat::{HTTP_STATUS, task},
    door::{Door, Doors, call_span, failed},
};
use crate::{
    encoder::Answer,
    engine::queue::Urgency,
    error::{Error, refuse},
    folder::manifest::Kind,
};
use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_kit::{
    openai, propagate,
    serve::{Posted, Unread},
    telemetry::names,
};
use tracing::{Instrument as _, Span};

/// What is read of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    model: String,
    input: Input,
    encoding_format: Option<String>,
    dimensions: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`input` is neither a text nor a list of texts")]
enum Input {
    One(String),
    Many(Vec<String>),
}

pub(super) async fn embed(
    State(doors): State<Doors>,
    headers: HeaderMap,
    body: Result<Posted<Request>, Unread>,
) -> Response {
    let span = call_span!(
        "embeddings",
        "EMBEDDING",
        "embeddings",
        http.request.method = "POST",
        http.route = "/v1/embeddings",
        http.response.status_code = tracing::field::Empty,
    );
    propagate::adopt_headers(&headers, &span);
    let response = match body {
        Ok(Posted(body)) => match answer(&doors.open(), body, &span).instrument(span.clone()).await {
            Ok(answer) => Json(answer).into_response(),
            Err(error) => {
                failed(&span, &error);
                openai::refusal(&refuse(error))
            }
        },
        Err(unread) => {
            failed(&span, &Error::invalid("body", unread.said()));
            openai::unread(&unread)
        }
    };
    span.record(HTTP_STATUS, response.status().as_u16());
    response
}

async fn answer(door: &Door, body: Request, span: &Span) -> Result<Value, Error> {
    door.identify(span, &body.model);
    let specialist = door.specialist();
    task(&body.model, specialist.folder())?;
    let encoder = specialist.encoder(Kind::Embed)?;
    let written = match body.encoding_format.as_deref() {
        None | Some("float") => |vector: &[f32]| json!(vector),
        Some("base64") => |vector: &[f32]| json!(base64(vector)),
        Some(other) => {
            let told = format!("`{other}` is not written here: send \"float\" or \"base64\"");
            return Err(Error::invalid("encoding_format", told));
        }
    };
    let own = specialist.folder().card.embed.as_ref().map(|embed| embed.dimensions);
    if body.dimensions.is_some_and(|asked| Some(asked) != own) {
        let told = format!(
            "vectors have {} here and are not cut: leave it out",
            own.unwrap_or_default()
        );
        return Err(Error::invalid("dimensions", told));
    }
    let texts = match body.input {
        Input::One(text) => vec![text],
        Input::Many(texts) => texts,
    };
    door.asked(span, || json!(texts).to_string());
    let encoded = encoder.encode(&texts, Urgency::default()).await.map_err(of_input)?;
    span.record(names::GEN_AI_INPUT_TOKENS, encoded.input_tokens);
    let entry = |(index, answer): (usize, &Answer)| {
        let vector = match answer {
            Answer::Vector(vector) => &vector[..],
            Answer::Labels(_) => &[],
        };
        json!({"object": "embedding", "index": index, "embedding": written(vector)})
    };
    let data: Vec<Value> = encoded.answers.iter().enumerate().map(entry).collect();
    let tokens = encoded.input_tokens;
    Ok(json!({
        "object": "list", "data": data, "model": specialist.identity(),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

/// Single precision, little-endian, in base64: what OpenAI's Python client asks for unless it is told otherwise.
fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    BASE64.encode(bytes)
}

/// The field as it is called here.
fn of_input(error: Error) -> Error {
    match error {
        Error::Invalid { field, description } => Error::Invalid {
            field: field.replacen("texts", "input", 1),
            description,
        },
        other => other,
    }
}
