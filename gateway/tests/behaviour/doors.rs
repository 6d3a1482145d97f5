//! OpenAI's protocol over HTTP.
use crate::support::{
    endpoint::{Endpoint, completion},
    model::{Act, Model, Specialist, down, say},
    ms, until,
    world::{Mesh, World},
};
use serde_json::{Value, json};

/// An echo, a planner, and the doors to them.
pub(crate) async fn served() -> (Specialist, Specialist, World) {
    let echo = Model::new("echo", "echo", |seen, _| match seen.prompt().as_str() {
        "hang" => Act::Hang,
        "json" => say("{ \"a\": 1 }"),
        "long" => Act::Cut("once upon a".into()),
        "words" => Act::Pieces(
            ["one ", "two ", "three"]
                .iter()
                .map(|w| (ms(20), (*w).to_owned()))
                .collect(),
            0.9,
        ),
        other => say(format!("said {other}")),
    })
    .start();
    let planner = Model::new("planner", "plan", |seen, _| match seen.prompt().as_str() {
        "both" => say("1. echo: a\n2. echo: b"),
        "long" => say("1. echo: long\n2. echo: b"),
        _ => say("1. echo: alone"),
    })
    .start();
    let world = Mesh::new()
        .specialist("echo", &echo.server.url())
        .specialist("planner", &planner.server.url())
        .task("echo", &["echo"])
        .task("plan", &["planner"])
        .start()
        .await;
    until("the first look is over", || {
        echo.notes.described.load(std::sync::atomic::Ordering::SeqCst) > 0
    })
    .await;
    (echo, planner, world)
}

async fn send(world: &World, body: &Value) -> reqwest::Result<reqwest::Response> {
    send_to(&world.http, body).await
}

async fn send_to(http: &str, body: &Value) -> reqwest::Result<reqwest::Response> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{http}/v1/chat/completions");
    client
        .post(url)
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
}

async fn post(world: &World, body: &Value) -> (u16, String) {
    let response = send(world, body).await.expect("answered");
    (response.status().as_u16(), response.text().await.expect("text"))
}

fn chat(model: &str, said: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": said}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_and_a_goal_are_models_of_the_openai_door() {
    let (echo, _planner, world) = served().await;
    let (status, text) = post(&world, &chat("echo", "it costs $5 ${x}")).await;
    let body: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (status, &body["choices"][0]["message"]["content"]),
        (200, &json!("said it costs $5 ${x}"))
    );
    assert_eq!(
        body["usage"],
        json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15})
    );
    assert_eq!(
        (&body["object"], &body["model"], &body["shoal"]["nodes"][0]["target"]),
        (&json!("chat.completion"), &json!("echo"), &json!("echo"))
    );
    let plan_id = body["shoal"]["plan_id"].as_str().expect("a plan");
    assert_eq!(world.record(plan_id).await.expect("known").nodes.len(), 1);
    let (_, text) = post(&world, &chat("echo", "json")).await;
    assert!(text.contains(r#""content":"{\"a\":1}""#), "{text}");
    // A conversation reaches the model whole.
    let turns = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]);
    post(&world, &json!({"model": "echo", "messages": turns, "max_tokens": 9})).await;
    let seen = echo.notes.seen().pop().expect("asked");
    assert_eq!(
        (seen.prompt().as_str(), seen.request.sampling.and_then(|s| s.max_tokens)),
        ("system: s\nuser: u", Some(9))
    );
    let (_, text) = post(&world, &chat("shoal", "do it")).await;
    let body: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (
            &body["choices"][0]["message"]["content"],
            body["usage"]["total_tokens"].as_u64()
        ),
        (&json!("said alone"), Some(30))
    );
    let (_, text) = post(&world, &chat("shoal", "both")).await;
    let body: Value = serde_json::from_str(&text).expect("JSON");
    let outputs: Value =
        serde_json::from_str(body["choices"][0]["message"]["content"].as_str().expect("text")).expect("JSON");
    assert_eq!(outputs, json!({"1": "said a", "2": "said b"}));
    let models = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("client")
        .get(format!("{}/v1/models", world.http));
    let listed: Value = models.send().await.expect("answered").json().await.expect("JSON");
    let ids: Vec<&str> = listed["data"]
        .as_array()
        .expect("list")
        .iter()
        .filter_map(|m| m["id"].as_str())
        .collect();
    assert_eq!(ids, ["shoal", "echo", "plan"]);
}

/// Contents of the chunks, the last chunk, and the last line.
fn chunks(text: &str) -> (Vec<String>, Vec<Value>, String) {
    let lines: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
    let parsed: Vec<Value> = lines.iter().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let contents = parsed
        .iter()
        .filter_map(|c| c["choices"][0]["delta"]["content"].as_str())
        .filter(|c| !c.is_empty());
    (
        contents.map(str::to_owned).collect(),
        parsed.clone(),
        lines.last().expect("a line").to_string(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_is_streamed_as_it_is_decoded_where_nobody_can_take_over_and_in_one_piece_where_somebody_could() {
    let (_echo, _planner, world) = served().await;
    let mut body = chat("echo", "words");
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let (status, text) = post(&world, &body).await;
    let (contents, all, last) = chunks(&text);
    assert_eq!(
        (status, contents, last.as_str()),
        (200, vec!["one ".into(), "two ".into(), "three".into()], "[DONE]")
    );
    assert_eq!(all[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(all[all.len() - 2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        (
            &all[all.len() - 1]["choices"],
            &all[all.len() - 1]["usage"]["total_tokens"]
        ),
        (&json!([]), &json!(15))
    );
    let small = Model::new("small", "t", |_, _| {
        Act::Pieces(vec![(ms(5), "wro".into()), (ms(5), "ng".into())], 0.1)
    })
    .threshold(0.5)
    .start();
    let large = Model::new("large", "t", |_, _| {
        Act::Pieces(vec![(ms(5), "ri".into()), (ms(5), "ght".into())], 0.9)
    })
    .start();
    let world = Mesh::new()
        .specialist("small", &small.server.url())
        .specialist("large", &large.server.url())
        .task("t", &["small", "large"])
        .start()
        .await;
    let mut body = chat("t", "x");
    body["stream"] = true.into();
    assert_eq!(chunks(&post(&world, &body).await.1).0, ["right"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_cut_at_its_length_says_so_whole_and_streamed_and_in_the_record() {
    let (_echo, _planner, world) = served().await;
    for model in ["echo", "shoal"] {
        for (said, reason) in [("long", "length"), ("both", "stop")] {
            let mut body = chat(model, said);
            let whole: Value = serde_json::from_str(&post(&world, &body).await.1).expect("JSON");
            assert_eq!(whole["choices"][0]["finish_reason"], reason, "{whole}");
            let plan_id = whole["shoal"]["plan_id"].as_str().expect("a plan");
            let node = world.record(plan_id).await.expect("known").nodes.pop().expect("a node");
            let of_last = if model == "echo" { reason } else { "stop" };
            assert_eq!(node.finish_reason.as_deref(), Some(of_last));
            body["stream"] = true.into();
            let (_, all, _) = chunks(&post(&world, &body).await.1);
            let last = &all[all.len() - 1]["choices"][0]["finish_reason"];
            assert_eq!(last, reason, "{all:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoints_reason_to_end_is_the_doors() {
    let endpoint = Endpoint::start(|_, _| (200, completion("once upon a").replace("\"stop\"", "\"length\""))).await;
    let world = Mesh::new()
        .endpoint("large", &endpoint.base_url, |_| {})
        .task("t", &["large"])
        .start()
        .await;
    let whole: Value = serde_json::from_str(&post(&world, &chat("t", "x")).await.1).expect("JSON");
    assert_eq!(whole["choices"][0]["finish_reason"], "length", "{whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_openai_door_refuses_it_refuses_in_openais_words() {
    let (_echo, _planner, world) = served().await;
    for (body, status, code) in [
        (chat("nobody", "x"), 404, "MODEL_UNKNOWN"),
        (json!({"model": "echo"}), 400, "INVALID_REQUEST"),
        (json!({"model": "echo", "messages": []}), 400, "INVALID_REQUEST"),
        (
            json!({"model": "echo", "messages": [{"role": "user", "content": "x"}], "temperature": 9}),
            400,
            "INVALID_REQUEST",
        ),
        (chat("echo", &"x".repeat(1 << 21)), 400, "INVALID_REQUEST"),
    ] {
        let (told, text) = post(&world, &body).await;
        let error: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((told, error["error"]["code"].as_str()), (status, Some(code)), "{text}");
    }
    // Refused before it is read: whoever goes on sending finds the connection closed.
    match send(&world, &chat("echo", &"x".repeat(100 << 20))).await {
        Ok(response) => assert_eq!(response.status().as_u16(), 413),
        Err(error) => assert!(error.is_request(), "{error:?}"),
    }
    assert_eq!(post(&world, &chat("echo", "x")).await.0, 200, "it goes on");
    let dead = Model::new("dead", "t", |_, _| down()).start();
    let world = Mesh::new()
        .specialist("dead", &dead.server.url())
        .task("t", &["dead"])
        .start()
        .await;
    let (told, text) = post(&world, &chat("t", "x")).await;
    assert_eq!(told, 503, "{text}");
    let mut streamed = chat("t", "x");
    streamed["stream"] = true.into();
    let (_, text) = post(&world, &streamed).await;
    assert!(text.contains("\"error\"") && !text.contains("[DONE]"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_cancels_its_completion() {
    let (echo, _planner, world) = served().await;
    for streamed in [false, true] {
        let dropped = echo.notes.dropped();
        let mut body = chat("echo", "hang");
        body["stream"] = streamed.into();
        let client = reqwest::Client::builder().no_proxy().build().expect("client");
        let sent = client
            .post(format!("{}/v1/chat/completions", world.http))
            .header("content-type", "application/json");
        let call =
            tokio::spawn(async move { sent.body(body.to_string()).send().await.expect("answered").text().await });
        until("it runs", || echo.notes.live() == 1).await;
        call.abort();
        until("it is dropped", || echo.notes.dropped() == dropped + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_that_a_leaving_gateway_cuts_off_is_to_be_tried_again() {
    let hang = Model::new("hang", "hang", |_, _| Act::Hang).start();
    let world = Mesh::new()
        .specialist("hang", &hang.server.url())
        .task("hang", &["hang"])
        .change(|c| c.gateway.drain = ms(100))
        .start()
        .await;
    let http = world.http.clone();
    let asked = tokio::spawn(async move { send_to(&http, &chat("hang", "x")).await });
    until("it runs", || hang.notes.live() == 1).await;
    world.stop().await;
    let response = asked.await.expect("asked").expect("answered");
    assert_eq!(response.status().as_u16(), 503);
    assert!(response.headers().contains_key("retry-after"), "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_was_said_in_a_conversation_counts_as_its_input() {
    let (echo, _planner, world) = served().await;
    let said = |content: String| json!({"role": "user", "content": content});
    let long = |n: usize| said("x".repeat(n));
    let body = |messages: Vec<Value>| json!({"model": "echo", "messages": messages});
    let (status, text) = post(&world, &body(vec![long(600 << 10), long(600 << 10), said("hi".into())])).await;
    assert_eq!((status, echo.notes.count()), (400, 0), "{text}");
    assert!(
        text.contains("messages: ") && text.contains("max_input_bytes"),
        "{text}"
    );
    let (status, text) = post(&world, &body(vec![long(400 << 10), long(400 << 10), said("hi".into())])).await;
    assert_eq!(status, 200, "{text}");
}
