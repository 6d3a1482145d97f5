//! An OpenAI-compatible endpoint on loopback.
use super::ms;
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::post,
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use shoal_kit::task;
use std::sync::{Arc, Mutex};

type Answering = Box<dyn Fn(&Value, usize) -> (u16, String) + Send + Sync>;

pub(crate) struct Endpoint {
    pub(crate) base_url: String,
    seen: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
}

impl Endpoint {
    /// Answers with a status and a body.
    pub(crate) async fn start(answer: impl Fn(&Value, usize) -> (u16, String) + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answering> = Arc::new(Box::new(answer));
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .with_state((seen.clone(), answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let base_url = format!("http://{}/v1", listener.local_addr().expect("address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base_url, seen }
    }

    /// Always says this.
    pub(crate) async fn saying(text: &'static str) -> Self {
        Self::start(move |_, _| (200, completion(text))).await
    }

    pub(crate) fn seen(&self) -> Vec<(HeaderMap, Value)> {
        self.seen.lock().expect("seen").clone()
    }
}

/// A completion with usage.
pub(crate) fn completion(text: &str) -> String {
    json!({
        "model": "large-1", "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 50},
    })
    .to_string()
}

type Shared = (Arc<Mutex<Vec<(HeaderMap, Value)>>>, Arc<Answering>);

async fn complete(State((seen, answer)): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let number = {
        let mut seen = seen.lock().expect("seen");
        seen.push((headers, body.clone()));
        seen.len() - 1
    };
    // Not on the test's own runtime: an answer that sleeps would hold up the gateway that it is to keep waiting.
    let (status, text) = task::blocking("endpoint", move || answer(&body, number))
        .await
        .expect("an answer");
    let status = StatusCode::from_u16(status).expect("status");
    if !text.contains("data: ") {
        return (status, text).into_response();
    }
    // An event at a time, each after a moment.
    let events: Vec<String> = text.split_inclusive("\n\n").map(str::to_owned).collect();
    let pieces = futures::stream::iter(events).then(async |event| {
        tokio::time::sleep(ms(20)).await;
        if event == BREAKS {
            return Err(std::io::Error::other("broken"));
        }
        Ok(event)
    });
    let kind = [("content-type", "text/event-stream")];
    (status, kind, Body::from_stream(pieces)).into_response()
}

/// In place of an event: the connection breaks.
pub(crate) const BREAKS: &str = ": breaks\n\n";

/// The same completion in pieces, as `stream` asks for it; `end` is what comes after the last piece.
pub(crate) fn in_pieces(pieces: &[&str], end: &str) -> String {
    let chunk = |choices: Value, usage: Value| json!({"model": "large-1", "choices": choices, "usage": usage});
    let of = |text: &&str| {
        chunk(
            json!([{"delta": {"content": text}, "finish_reason": null}]),
            Value::Null,
        )
    };
    let mut chunks: Vec<String> = pieces.iter().map(|text| of(text).to_string()).collect();
    if end.is_empty() {
        chunks.push(chunk(json!([{"delta": {}, "finish_reason": "stop"}]), Value::Null).to_string());
        chunks.push(chunk(json!([]), json!({"prompt_tokens": 100, "completion_tokens": 50})).to_string());
        chunks.push("[DONE]".into());
    } else {
        chunks.push(end.into());
    }
    chunks.iter().map(|data| format!("data: {data}\n\n")).collect()
}
