//! The OpenAI-compatible door, over a socket.
use crate::world::{Served, until};
use serde_json::{Value, json};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// One request on a connection of its own; (status, head and body).
pub(crate) async fn call(served: &Served, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(&served.http).await.expect("connects");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: shoal\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut response = String::new();
    socket.read_to_string(&mut response).await.expect("received");
    let status = response
        .split(' ')
        .nth(1)
        .expect("a status line")
        .parse()
        .expect("a number");
    (status, response)
}

pub(crate) fn body(response: &str) -> Value {
    let body = response.split_once("\r\n\r\n").expect("a head").1;
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{body}: {e}"))
}

pub(crate) fn chat(extra: Value) -> String {
    let mut request =
        json!({"model": "echo", "messages": [{"role": "user", "content": "hello world"}], "max_tokens": 16});
    request
        .as_object_mut()
        .expect("a map")
        .extend(extra.as_object().expect("a map").clone());
    request.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_and_a_streamed_completion_are_the_same_text() {
    let served = Served::start("tiny_decoder", 2, |_| {}).await;
    let (status, plain) = call(&served, "POST", "/v1/chat/completions", &chat(json!({}))).await;
    assert_eq!(status, 200, "{plain}");
    let plain = body(&plain);
    let text = plain["choices"][0]["message"]["content"].as_str().expect("text");
    assert_eq!(plain["choices"][0]["finish_reason"], "length");
    assert_eq!(
        plain["usage"],
        json!({"prompt_tokens": 16, "completion_tokens": 16, "total_tokens": 32})
    );
    assert!(
        plain["shoal"]["confidence"]["score"]
            .as_f64()
            .is_some_and(|s| s > 0.0 && s < 1.0)
    );
    let parts = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "hello "}, {"type": "text", "text": "world"}]}]});
    let (_, again) = call(&served, "POST", "/v1/chat/completions", &chat(parts)).await;
    assert_eq!(body(&again)["choices"][0]["message"]["content"], text);

    let (status, streamed) = call(
        &served,
        "POST",
        "/v1/chat/completions",
        &chat(json!({"stream": true, "stream_options": {"include_usage": true}})),
    )
    .await;
    assert_eq!(status, 200);
    let events: Vec<&str> = streamed.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|e| serde_json::from_str(e).expect("JSON"))
        .collect();
    let joined: String = chunks
        .iter()
        .filter_map(|c| c["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(joined, text);
    assert_eq!(chunks.last().expect("usage")["usage"]["total_tokens"], 32);
    assert!(
        chunks
            .iter()
            .any(|c| c["choices"][0]["finish_reason"] == "length" && c["shoal"]["confidence"].is_object())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_and_a_response_format_holds() {
    let served = Served::start("tiny_decoder", 2, |_| {}).await;
    let (_, models) = call(&served, "GET", "/v1/models", "").await;
    let ids: Vec<_> = body(&models)["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|m| m["id"].as_str().expect("id").to_owned())
        .collect();
    assert_eq!(ids, ["tiny_decoder", "echo", "call"]);
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false});
    let format = json!({"max_tokens": 64, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}});
    let (status, response) = call(&served, "POST", "/v1/chat/completions", &chat(format)).await;
    assert_eq!(status, 200, "{response}");
    let text = body(&response)["choices"][0]["message"]["content"]
        .as_str()
        .expect("text")
        .to_owned();
    assert!(
        serde_json::from_str::<Value>(&text).expect("parses")["ok"].is_boolean(),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_openais_shape_and_a_fitting_status() {
    let served = Served::start("tiny_decoder", 1, |_| {}).await;
    let wrong = [
        (404, chat(json!({"model": "gpt"}))),
        (400, chat(json!({"max_tokens": 9999}))),
        (400, chat(json!({"n": 2}))),
        (400, chat(json!({"messages": []}))),
        (400, chat(json!({"messages": [{"role": "wizard", "content": "x"}]}))),
        (400, chat(json!({"temperature": "hot"}))),
        (400, "{".to_owned()),
        (400, chat(json!({"model": "tiny_decoder"}))),
        (
            400,
            chat(
                json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
            ),
        ),
        (413, chat(json!({"user": "x".repeat(17 << 20)}))),
    ];
    for (wanted, request) in wrong {
        let (status, response) = call(&served, "POST", "/v1/chat/completions", &request).await;
        assert_eq!(status, wanted, "{:.200}: {response}", request);
        assert!(
            body(&response)["error"]["message"]
                .as_str()
                .is_some_and(|m| !m.is_empty())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_frees_its_slot() {
    let served = Served::start("tiny_decoder", 1, |_| {}).await;
    let counters = &served.counters;
    for streamed in [false, true] {
        let before = counters.cancelled.load(Ordering::Relaxed);
        let mut tries = 0;
        // An answer takes some milliseconds: a try or two may come too late.
        while counters.cancelled.load(Ordering::Relaxed) == before {
            tries += 1;
            assert!(tries < 200, "streamed {streamed}: nobody noticed");
            let body = chat(json!({"max_tokens": 64, "stream": streamed}));
            let mut socket = TcpStream::connect(&served.http).await.expect("connects");
            let head = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            socket.write_all((head + &body).as_bytes()).await.expect("sent");
            let live = || counters.live_slots.load(Ordering::Relaxed) == 1;
            let _ = tokio::time::timeout(Duration::from_millis(20), until("it runs", live)).await;
            drop(socket);
            until("the slot is free", || counters.live_slots.load(Ordering::Relaxed) == 0).await;
        }
    }
}
