//! The larger tier: an OpenAI-compatible endpoint.
use crate::support::{
    endpoint::{BREAKS, Endpoint, completion, in_pieces},
    model::{Model, unsure},
    ms,
    plan::{Ran, goal, model, request, within},
    world::Mesh,
};
use serde_json::{Value, json};
use shoal_proto::v1::{self, State, decision::Verdict};
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::Code;

/// A variable that every test process has, and whose value is long enough to be recognised.
const KEY: &str = "CARGO_MANIFEST_DIR";

/// What a node `a` comes to that an endpoint alone can answer.
async fn asked(endpoint: &Endpoint) -> Ran {
    let world = Mesh::new()
        .endpoint("large", &endpoint.base_url, |_| {})
        .task("t", &["large"])
        .start()
        .await;
    world.run(request(vec![model("a", "t", "x")])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubted_answer_goes_to_the_endpoint_with_schema_instructions_and_price() {
    let endpoint = Endpoint::saying("{\"tool\":\"x\"}").await;
    let schema = r#"{"type":"object","required":["tool"]}"#;
    let small = Model::new("small", "tool_call", |_, _| unsure("{\"tool\":\"y\"}", 0.2))
        .threshold(0.5)
        .task(|t| t.output_schema_json = schema.into())
        .start();
    let world = Mesh::new()
        .specialist("small", &small.server.url())
        .endpoint("large", &endpoint.base_url, |e| {
            e.input_usd_per_million_tokens = 10.0;
            e.output_usd_per_million_tokens = 20.0;
        })
        .task("tool_call", &["small", "large"])
        .start()
        .await;
    let ran = world
        .run(request(vec![model("a", "tool_call", "play some jazz")]))
        .await;
    assert_eq!((ran.state(), ran.output("a")), (State::Succeeded, json!({"tool": "x"})));
    let node = ran.node("a");
    assert_eq!((node.target.as_str(), node.model.as_str()), ("large", "large-1"));
    // Ten and five of the specialist at $1 and $2 a million, a hundred and fifty of the endpoint's.
    let usage = node.usage.expect("usage");
    assert_eq!((usage.input_tokens, usage.output_tokens), (110, 55));
    assert!((usage.cost_usd - (0.00002 + 0.001 + 0.001)).abs() < 1e-9, "{usage:?}");
    let (headers, body) = endpoint.seen().remove(0);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!((&body["model"], &body["temperature"]), (&json!("large"), &json!(0.0)));
    assert_eq!(
        body["messages"][1],
        json!({"role": "user", "content": "play some jazz"})
    );
    assert!(
        body["messages"][0]["content"]
            .as_str()
            .is_some_and(|s| s.contains("`tool_call`"))
    );
    let schema: Value = serde_json::from_str(schema).expect("JSON");
    assert_eq!(body["response_format"]["json_schema"]["schema"], schema);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_an_endpoint_is_told_and_the_key_never_is() {
    let key = std::env::var(KEY).expect("set by cargo");
    for (status, body, code, attempts) in [
        (
            401,
            json!({"error": {"message": format!("no such key: {key}")}}).to_string(),
            Code::FailedPrecondition,
            1,
        ),
        // Where the message is cut, a part of the key would be left.
        (
            400,
            json!({"error": {"message": format!("{} {key}", "x".repeat(285))}}).to_string(),
            Code::FailedPrecondition,
            1,
        ),
        (429, "slow down".to_owned(), Code::ResourceExhausted, 2),
        (500, "oops".to_owned(), Code::Unavailable, 2),
        (200, "not json".to_owned(), Code::FailedPrecondition, 1),
    ] {
        let endpoint = Endpoint::start(move |_, _| (status, body.clone())).await;
        let world = Mesh::new()
            .endpoint("large", &endpoint.base_url, |e| e.api_key_env = Some(KEY.into()))
            .task("t", &["large"])
            .start()
            .await;
        let ran = world.run(request(vec![model("a", "t", "x")])).await;
        let fault = ran.node("a").fault.expect("fault");
        assert_eq!(
            (fault.code, endpoint.seen().len()),
            (code as i32, attempts),
            "{fault:?}"
        );
        assert_eq!(endpoint.seen()[0].0["authorization"], format!("Bearer {key}"));
        let told = format!("{:?}", ran.events);
        assert!(!told.contains(&key[..8]), "the key is in {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_count_its_tokens_is_held_to_the_plans_bounds_all_the_same() {
    let text = "y".repeat(396);
    let endpoint = Endpoint::start(move |_, _| {
        let message = json!({"role": "assistant", "content": text});
        (
            200,
            json!({"choices": [{"message": message}], "usage": null}).to_string(),
        )
    })
    .await;
    let world = Mesh::new()
        .endpoint("large", &endpoint.base_url, |e| e.output_usd_per_million_tokens = 10.0)
        .task("t", &["large"])
        .start()
        .await;
    // A hundred tokens of an answer each, and some of a prompt: the second call uses up what is left.
    let mut nodes = vec![model("0", "t", "x")];
    for n in 1..5 {
        let mut next = model(&n.to_string(), "t", "x");
        next.after = vec![(n - 1).to_string()];
        nodes.push(next);
    }
    let chain = v1::ExecutePlanRequest {
        limits: Some(v1::PlanLimits {
            max_tokens: 200,
            ..v1::PlanLimits::default()
        }),
        ..request(nodes)
    };
    let ran = world.run(chain).await;
    let fault = ran.finished().fault.expect("fault");
    assert_eq!(
        (ran.state(), fault.code),
        (State::Failed, Code::ResourceExhausted as i32),
        "{fault:?}"
    );
    assert!(fault.message.contains("max_tokens"), "{fault:?}");
    let usage = ran.node("0").usage.expect("usage");
    assert_eq!(usage.output_tokens, 100, "four bytes to a token: {usage:?}");
    assert!((usage.cost_usd - 0.001).abs() < 1e-9, "{usage:?}");
    assert_eq!(endpoint.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_recovers_is_tried_again_and_one_that_hangs_has_its_own_bound() {
    let endpoint = Endpoint::start(|_, n| {
        if n == 0 {
            (503, String::new())
        } else {
            (200, completion("ok"))
        }
    })
    .await;
    let world = Mesh::new()
        .endpoint("large", &endpoint.base_url, |_| {})
        .task("t", &["large"])
        .start()
        .await;
    assert_eq!(world.run(request(vec![model("a", "t", "x")])).await.output("a"), "ok");
    static HELD: AtomicUsize = AtomicUsize::new(0);
    let hanging = Endpoint::start(|_, _| {
        HELD.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(ms(900));
        (200, completion("too late"))
    })
    .await;
    let world = Mesh::new()
        .endpoint("large", &hanging.base_url, |e| e.timeout = ms(300))
        .task("t", &["large"])
        .start()
        .await;
    let began = std::time::Instant::now();
    let ran = world.run(within(request(vec![model("a", "t", "x")]), ms(5000))).await;
    assert!(began.elapsed() < ms(800), "{:?}", began.elapsed());
    assert_eq!(
        (ran.state(), ran.node("a").decisions[0].verdict()),
        (State::Failed, Verdict::Failed)
    );
    assert_eq!(HELD.load(Ordering::SeqCst), 1);
    let fault = ran.finished().fault.expect("fault");
    assert!(fault.message.contains("300ms ([endpoint.large] timeout)"), "{fault:?}");
    // Whoever always takes all of that is broken off.
    for _ in 0..4 {
        world.run(request(vec![model("a", "t", "x")])).await;
    }
    let refused = world.run(request(vec![model("a", "t", "x")])).await;
    let fault = refused.finished().fault.expect("fault");
    assert_eq!(fault.code, Code::Unavailable as i32, "{fault:?}");
    assert_eq!(HELD.load(Ordering::SeqCst), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_has_used_that_the_plans_deadline_cut_off_is_counted() {
    let pieces: String = in_pieces(&["word "; 200], "");
    let endpoint = Endpoint::start(move |_, _| (200, pieces.clone())).await;
    let world = Mesh::new()
        .endpoint("large", &endpoint.base_url, |e| e.output_usd_per_million_tokens = 20.0)
        .task("t", &["large"])
        .start()
        .await;
    let ran = world.run(within(request(vec![model("a", "t", "x")]), ms(900))).await;
    assert_eq!(ran.state(), State::Cancelled);
    let (plan, node) = (
        ran.finished().usage.expect("usage"),
        ran.node("a").usage.expect("usage"),
    );
    assert!(node.output_tokens > 1 && node.cost_usd > 0.0, "{node:?}");
    assert_eq!(plan, node);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tier_has_room_of_its_own() {
    let endpoint = Endpoint::start(|_, _| {
        std::thread::sleep(ms(50));
        (200, completion("large"))
    })
    .await;
    let small = Model::new("small", "s", |_, _| crate::support::model::say("small")).start();
    let world = Mesh::new()
        .specialist("small", &small.server.url())
        .endpoint("large", &endpoint.base_url, |e| e.max_in_flight = 1)
        .task("s", &["small"])
        .task("l", &["large"])
        .start()
        .await;
    let mut nodes: Vec<_> = (0..5).map(|i| model(&format!("l{i}"), "l", "x")).collect();
    nodes.extend((0..20).map(|i| model(&format!("s{i}"), "s", "x")));
    let ran = world.run(request(nodes)).await;
    assert_eq!(ran.state(), State::Succeeded, "{:?}", ran.finished());
    let last_small = ran.nodes().iter().rposition(|n| n.name == "s").expect("small");
    let last_large = ran.nodes().iter().rposition(|n| n.name == "l").expect("large");
    assert!(last_small < last_large, "the small ones did not wait for the large one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoints_answer_is_told_as_it_comes_and_has_its_usage_and_whoever_will_not_stream_is_not_asked_to() {
    for (stream, told) in [(true, "a b c"), (false, "")] {
        let endpoint = Endpoint::start(|body, _| {
            let asked = body["stream"] == true && body["stream_options"]["include_usage"] == true;
            let whole = || completion("a b c");
            (
                200,
                if asked {
                    in_pieces(&["a ", "b ", "c"], "")
                } else {
                    whole()
                },
            )
        })
        .await;
        let world = Mesh::new()
            .endpoint("large", &endpoint.base_url, |e| {
                e.stream = stream;
                e.output_usd_per_million_tokens = 20.0;
            })
            .task("t", &["large"])
            .start()
            .await;
        let ran = world.run(request(vec![model("a", "t", "x")])).await;
        assert_eq!((ran.state(), ran.output("a")), (State::Succeeded, json!("a b c")));
        assert_eq!(ran.told("a"), told);
        let node = ran.node("a");
        let usage = node.usage.expect("usage");
        assert_eq!(
            (node.model.as_str(), usage.input_tokens, usage.output_tokens),
            ("large-1", 100, 50)
        );
        assert!((usage.cost_usd - 0.001).abs() < 1e-9, "{usage:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoints_answer_that_breaks_off_is_asked_for_again_and_one_without_an_end_is_none() {
    const BROKEN: &str = r#"{"error": {"message": "out of memory", "type": "server_error"}}"#;
    const REFUSED: &str = r#"{"error": {"message": "no such thing", "type": "invalid_request_error"}}"#;
    const CUT: &str = r#"{"choices": [{"delta": {"content": "b "}, "finish_reason": null}]}"#;
    // What comes behind the first piece, at every attempt; what is said of that, and after how many attempts.
    let cases: [(&[&str], &str, usize); 4] = [
        (&[BROKEN, ""], "", 2),
        (&[BROKEN, BROKEN], "out of memory", 2),
        (&[CUT, CUT], "before it said why", 2),
        (&[REFUSED], "no such thing", 1),
    ];
    for (ends, fault, attempts) in cases {
        let endpoint = Endpoint::start(move |_, n| (200, in_pieces(&["a ", "b"], ends[n]))).await;
        let ran = asked(&endpoint).await;
        assert_eq!(endpoint.seen().len(), attempts, "{:?}", ran.finished());
        if fault.is_empty() {
            assert_eq!((ran.told("a").as_str(), ran.output("a")), ("a b", json!("a b")));
            // What broke off said two tokens of four bytes and is paid for, with its prompt.
            let usage = ran.node("a").usage.expect("usage");
            assert_eq!(usage.output_tokens, 50 + 1, "{usage:?}");
            assert!(usage.input_tokens > 100, "{usage:?}");
        } else {
            let said = ran.finished().fault.expect("a fault").message;
            assert!(said.contains(fault), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_servers_add_to_a_stream_or_leave_out_of_it_costs_no_answer() {
    let whole = in_pieces(&["a ", "b"], "");
    let (said, counted) = whole
        .match_indices("\n\n")
        .nth(2)
        .map(|(at, _)| whole.split_at(at + 2))
        .expect("four events");
    let mark = |text: &str| format!("\u{feff}{text}");
    for text in [
        mark(&whole),
        format!(": a comment\n\n{whole}"),
        // It says why it ended, and then the connection breaks; and it says that it is done, and not why.
        format!("{said}{BREAKS}"),
        in_pieces(&["a ", "b"], "[DONE]"),
        format!("{whole}{counted}"),
    ] {
        let told = text.clone();
        let endpoint = Endpoint::start(move |_, _| (200, told.clone())).await;
        let ran = asked(&endpoint).await;
        assert_eq!(ran.state(), State::Succeeded, "{text}: {:?}", ran.finished());
        assert_eq!((ran.output("a"), endpoint.seen().len()), (json!("a b"), 1), "{text}");
    }
    let first = whole.split_inclusive("\n\n").next().expect("an event");
    for (text, why) in [
        (format!("{first}{BREAKS}"), "broke"),
        (format!("data: {}\n\n", "x".repeat(2 << 20)), "larger than"),
        (in_pieces(&[], ""), "no choices[0].delta.content"),
    ] {
        let endpoint = Endpoint::start(move |_, _| (200, text.clone())).await;
        let ran = asked(&endpoint).await;
        let fault = ran.finished().fault.expect("a fault");
        assert!(fault.message.contains(why), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_an_endpoint_joins_once_it_is_whole_for_asked_again_it_may_be_worded_otherwise() {
    let endpoint = Endpoint::start(|body, n| match (body["stream"] == true, n) {
        (true, 0) => (
            200,
            in_pieces(&["1. do: a\n", "2. do: b\n"], r#"{"error": "out of memory"}"#),
        ),
        (false, 0) => (500, "out of memory".into()),
        _ => (200, completion("1. do: c\n")),
    })
    .await;
    let worker = Model::new("worker", "do", |_, _| crate::support::model::say("done")).start();
    let world = Mesh::new()
        .endpoint("large", &endpoint.base_url, |_| {})
        .specialist("worker", &worker.server.url())
        .task("plan", &["large"])
        .task("do", &["worker"])
        .start()
        .await;
    let ran = world.run(goal("two things")).await;
    assert_eq!(ran.state(), State::Succeeded, "{:?}", ran.finished());
    let nodes = ran.nodes();
    let asked: Vec<&str> = nodes.iter().map(|n| n.input_json.as_str()).collect();
    assert_eq!((asked, endpoint.seen().len()), (vec!["\"c\""], 2));
}
