//! Tools that answer, that do not, and that answer nonsense.
use crate::support::{
    model::{Model, say},
    ms,
    plan::{model, request, tool},
    process::anywhere,
    store::{self, Disk},
    tools::{self, Reply},
    until,
    world::Mesh,
};
use serde_json::json;
use shoal_kit::status::{self, Reason};
use shoal_proto::v1::State;
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};
use tonic::Code;

fn unavailable() -> Reply {
    Reply::Refuse(Reason::Unavailable {
        message: "restarting".into(),
        retry_after: ms(1),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_answers_nonsense_never_or_an_error_is_a_fault_that_says_what_to_do() {
    let huge = format!("\"{}\"", "x".repeat(2 << 20));
    let tools = tools::start(
        &[
            ("S.Text", true),
            ("S.Huge", true),
            ("S.Never", true),
            ("S.Error", true),
            ("S.None", true),
        ],
        move |call, _| match call.name.as_str() {
            "S.Text" => Reply::Text("it is sunny".into()),
            "S.Huge" => Reply::Text(huge.clone()),
            "S.Never" => Reply::Never,
            "S.None" => Reply::Text(String::new()),
            _ => Reply::Refuse(Reason::NotFound {
                reason: "NO_MATCH",
                message: "nothing fits".into(),
            }),
        },
    );
    let world = Mesh::new()
        .tools(&tools.server.url())
        .change(|c| c.gateway.tool_timeout = ms(300))
        .start()
        .await;
    for (name, code, reason, says) in [
        ("S.Text", Code::FailedPrecondition, "TOOL_ANSWER_INVALID", "no JSON"),
        ("S.None", Code::FailedPrecondition, "TOOL_ANSWER_INVALID", "no JSON"),
        (
            "S.Huge",
            Code::FailedPrecondition,
            "TOOL_ANSWER_INVALID",
            "1048576 bytes",
        ),
        ("S.Never", Code::DeadlineExceeded, "DEADLINE", "[gateway] tool_timeout"),
        ("S.Error", Code::NotFound, "NO_MATCH", "nothing fits"),
    ] {
        let ran = world.run(request(vec![tool("a", name, json!({}))])).await;
        let fault = ran.node("a").fault.expect("fault");
        assert_eq!(
            (ran.state(), fault.code, fault.reason.as_str()),
            (State::Failed, code as i32, reason),
            "{name}: {fault:?}"
        );
        assert!(fault.message.contains(says), "{name}: {fault:?}");
        assert_eq!(ran.node("a").target, "concierge");
    }
    until("the call that never ended is dropped", || {
        tools.notes.dropped.load(Ordering::SeqCst) == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_tool_is_tried_again_another_is_not_and_a_retry_carries_its_first_key() {
    let tools = tools::start(&[("S.Find", true), ("S.Book", false)], |_, n| {
        if n % 2 == 0 {
            unavailable()
        } else {
            Reply::Text("{}".into())
        }
    });
    let world = Mesh::new().tools(&tools.server.url()).start().await;
    let found = world.run(request(vec![tool("a", "S.Find", json!({}))])).await;
    assert_eq!((found.state(), tools.notes.seen().len()), (State::Succeeded, 2));
    let booked = world.run(request(vec![tool("a", "S.Book", json!({}))])).await;
    assert_eq!((booked.state(), tools.notes.seen().len()), (State::Failed, 3));
    assert_eq!(booked.node("a").fault.expect("fault").code, Code::Unavailable as i32);
    // An odd call in between, so that the next one fails first again.
    world.run(request(vec![tool("x", "S.Find", json!({}))])).await;
    let mut asked = tool("a", "S.Book", json!({}));
    asked.max_attempts = 2;
    let booked = world.run(request(vec![asked])).await;
    assert_eq!(booked.state(), State::Succeeded, "who asks for two attempts has them");
    let keys: Vec<String> = tools.notes.seen().iter().map(|c| c.idempotency_key.clone()).collect();
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[4], keys[5]);
    assert_eq!(keys[5], format!("{}:a", booked.plan_id()));
    assert_ne!(keys[1], keys[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_break_the_schema_never_reach_the_tool() {
    let tools = tools::start(&[("S.Number", true), ("S.M", true)], |_, _| {
        Reply::Text("{\"n\":7}".into())
    });
    let world = Mesh::new().tools(&tools.server.url()).start().await;
    let refused = world.refused(request(vec![tool("a", "S.M", json!({"a": 7}))])).await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("plan.nodes[0].tool.arguments_json"),
        "{refused:?}"
    );
    // Only the answer tells that it is a number.
    let ran = world
        .run(request(vec![
            tool("n", "S.Number", json!({})),
            tool("a", "S.M", json!({"a": "${n.n}"})),
        ]))
        .await;
    let fault = ran.node("a").fault.expect("fault");
    assert_eq!(fault.code, Code::InvalidArgument as i32);
    assert!(fault.message.contains("input schema of S.M"), "{fault:?}");
    assert!(tools.notes.arguments("S.M").is_empty());
    // As text it is one.
    let ran = world
        .run(request(vec![
            tool("n", "S.Number", json!({})),
            tool("a", "S.M", json!({"a": "no ${n.n}"})),
        ]))
        .await;
    assert_eq!(
        (ran.state(), tools.notes.arguments("S.M")),
        (State::Succeeded, vec![json!({"a": "no 7"})])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_late_is_found_and_until_then_its_tools_are_away_and_not_unknown() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("port")
        .local_addr()
        .expect("address")
        .port();
    let address = SocketAddr::new(anywhere().ip(), port);
    let says = Model::new("says", "tool_call", |_, _| say(r#"{"tool":"S.M","arguments":{}}"#)).start();
    let world = Mesh::new()
        .specialist("says", &says.server.url())
        .task("tool_call", &["says"])
        .tools(&format!("http://{address}"))
        .start()
        .await;
    let plan = || request(vec![tool("a", "S.M", json!({}))]);
    let away = world.refused(plan()).await;
    assert_eq!(away.code(), Code::Unavailable, "{away:?}");
    assert!(
        status::retry_after(&away).is_some() && away.message().contains("concierge"),
        "{away:?}"
    );
    // A model says what to call only once the plan runs: that the call was made must not be told then either.
    let yielded = world.run(request(vec![model("c", "tool_call", "do it")])).await;
    let fault = yielded.node("c-call").fault.expect("fault");
    assert_eq!((yielded.state(), fault.code), (State::Failed, Code::Unavailable as i32));
    assert!(fault.message.contains("concierge"), "{fault:?}");
    let _tools = tools::start_at(address, &[("S.M", true)], |_, _| Reply::Text("{}".into()));
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while world.open(plan()).await.is_err() {
        assert!(std::time::Instant::now() < end, "the server is never found");
        tokio::time::sleep(ms(50)).await;
    }
    let unknown = world.refused(request(vec![tool("a", "S.Other", json!({}))])).await;
    assert_eq!(unknown.code(), Code::InvalidArgument);
    assert!(unknown.message().contains("there are: S.M"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_offers_anew_after_a_restart_can_be_called() {
    let first = tools::start(&[("S.Old", true)], |_, _| Reply::Text("{}".into()));
    let address = first.server.address;
    let world = Mesh::new().tools(&first.server.url()).start().await;
    assert_eq!(
        world.run(request(vec![tool("a", "S.Old", json!({}))])).await.state(),
        State::Succeeded
    );
    first.server.kill();
    let _second = tools::start_at(address, &[("S.New", true)], |_, _| Reply::Text("{}".into()));
    // A call that fails is what tells that something has changed.
    let ran = world.run(request(vec![tool("a", "S.Old", json!({}))])).await;
    assert_ne!(ran.state(), State::Succeeded, "{ran:?}");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match world.open(request(vec![tool("a", "S.New", json!({}))])).await {
            Ok(_) => break,
            Err(status) => assert!(std::time::Instant::now() < end, "{status:?}"),
        }
        tokio::time::sleep(ms(50)).await;
    }
    assert_eq!(
        world.refused(request(vec![tool("a", "S.Old", json!({}))])).await.code(),
        Code::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tools_outcome_says_whether_it_kept_its_own_word() {
    let disk = Arc::new(Disk::default());
    let feedback = store::start(&disk);
    let tools = tools::start(&[("S.M", true)], |_, n| {
        Reply::Text(if n == 0 { "{}" } else { "[7]" }.into())
    });
    let world = Mesh::new()
        .tools(&tools.server.url())
        .feedback(&feedback.url())
        .start()
        .await;
    for (n, valid) in [true, false].into_iter().enumerate() {
        let ran = world.run(request(vec![tool("a", "S.M", json!({"a": "b"}))])).await;
        assert_eq!(ran.state(), State::Succeeded);
        until("stored", || disk.all().len() == n + 1).await;
        let outcome = disk.node(&ran.plan_id(), "a").expect("stored");
        assert_eq!(
            (outcome.kind.as_str(), outcome.name.as_str(), outcome.valid),
            ("tool", "S.M", Some(valid))
        );
        assert_eq!(
            (outcome.input_json.as_str(), outcome.target.as_str()),
            (r#"{"a":"b"}"#, "concierge")
        );
    }
}
