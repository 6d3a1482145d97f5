//! ExecutePlanStream: steps and tool results come in while earlier steps run.
use crate::support::{
    model::{Act, Model, say, slow},
    ms,
    plan::{Ran, model, request, tool},
    stream::{Client, finished, message, open},
    until,
    world::Mesh,
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use shoal_proto::v1::{
    self, State,
    execute_plan_stream_request::{Message, Open},
    plan_event::Event,
    tool_result::Outcome,
};
use tonic::Code;
use tonic_types::StatusExt as _;

fn echo() -> Model {
    Model::new("echo", "echo", |seen, _| say(format!("said {}", seen.prompt())))
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_join_while_others_run_and_the_clients_own_tools_answer_them() {
    let echo = echo().start();
    let world = Mesh::new()
        .specialist("echo", &echo.server.url())
        .task("echo", &["echo"])
        .start()
        .await;
    let mut client = open(&world, request(Vec::new()), &["My.Tool"]).await.expect("opened");
    client.step(tool("t", "My.Tool", json!({"q": "weather $$5"}))).await;
    let asked = client.requested().await;
    assert_eq!((asked.node_id.as_str(), asked.name.as_str()), ("t", "My.Tool"));
    assert_eq!(asked.arguments_json, json!({"q": "weather $5"}).to_string());
    client.step(model("m", "echo", "it is ${t.sky}")).await;
    client
        .result(&asked.call_id, Some(Outcome::OutputJson("{\"sky\":\"blue\"}".into())))
        .await;
    let (events, status) = client.rest().await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(finished(&events).state(), State::Succeeded, "{events:?}");
    assert_eq!(echo.notes.seen()[0].prompt(), "it is blue");
    let told = events.iter().find_map(|e| match &e.event {
        Some(Event::NodeFinished(f)) if f.result.as_ref().is_some_and(|r| r.node_id == "t") => f.result.clone(),
        _ => None,
    });
    assert_eq!(told.expect("t has ended").target, "client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_step_ends_the_plan_and_the_stream_with_its_fields() {
    let hang = Model::new("hang", "hang", |_, _| Act::Hang).start();
    let world = Mesh::new()
        .specialist("hang", &hang.server.url())
        .task("hang", &["hang"])
        .start()
        .await;
    let bad: [(v1::Node, &str); 4] = [
        (model("b", "nobody", "x"), "step[0].model.task"),
        (model("b", "hang", "${later}"), "step[0].model.input"),
        (model("a", "hang", "x"), "step[0].id"),
        (tool("b", "No.Tool", json!({})), "step[0].tool.name"),
    ];
    for (n, (node, field)) in bad.into_iter().enumerate() {
        let client = open(&world, request(vec![model("a", "hang", "x")]), &[])
            .await
            .expect("opened");
        until("it runs", || hang.notes.live() == 1).await;
        client.step(node).await;
        let (events, status) = client.rest().await;
        let finished = finished(&events);
        assert_eq!(
            (finished.state(), finished.fault.expect("fault").code),
            (State::Failed, Code::InvalidArgument as i32)
        );
        let status = status.expect("the stream says so too");
        let told = status.get_details_bad_request().expect("details").field_violations;
        assert_eq!((status.code(), told[0].field.as_str()), (Code::InvalidArgument, field));
        until("what ran is dropped", || hang.notes.dropped() == n + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_must_not_say_is_refused() {
    let echo = echo().start();
    let world = Mesh::new()
        .specialist("echo", &echo.server.url())
        .task("echo", &["echo"])
        .change(|c| c.gateway.max_input_bytes = 2000)
        .start()
        .await;
    // Not opened.
    let step = message(Message::Step(model("a", "echo", "x")));
    let refused = world
        .plans()
        .execute_plan_stream(futures::stream::iter([step]))
        .await
        .expect_err("not open");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let empty = world
        .plans()
        .execute_plan_stream(futures::stream::iter(Vec::new()))
        .await
        .expect_err("nothing");
    assert_eq!(empty.code(), Code::InvalidArgument);
    let bad_name = open(&world, request(Vec::new()), &["My Tool"])
        .await
        .map(drop)
        .expect_err("bad name");
    assert!(bad_name.message().contains("open.client_tools[0]"), "{bad_name:?}");
    // Opened twice, a call that was never requested, a message from the future, and too much in all.
    type Bad = fn() -> v1::ExecutePlanStreamRequest;
    let says: [(&str, Bad); 4] = [
        ("open", || message(Message::Open(Open::default()))),
        ("tool_result.call_id", || {
            message(Message::ToolResult(v1::ToolResult {
                call_id: "nobody".into(),
                outcome: Some(Outcome::OutputJson("1".into())),
            }))
        }),
        ("message", v1::ExecutePlanStreamRequest::default),
        ("max_input_bytes", || {
            message(Message::Step(model("a", "echo", &"x".repeat(3000))))
        }),
    ];
    for (says, bad) in says {
        let client = open(&world, request(Vec::new()), &[]).await.expect("opened");
        client.sender.send(bad()).await.expect("sent");
        let (_, status) = client.rest().await;
        let status = status.expect(says);
        assert_eq!(status.code(), Code::InvalidArgument, "{says}: {status:?}");
        assert!(status.message().contains(says), "{says}: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_call_cancels_the_plan_and_half_closing_does_not() {
    let hang = Model::new("hang", "hang", |_, _| Act::Hang).start();
    let world = Mesh::new()
        .specialist("hang", &hang.server.url())
        .task("hang", &["hang"])
        .start()
        .await;
    let client = open(&world, request(vec![model("a", "hang", "x")]), &[])
        .await
        .expect("opened");
    until("it runs", || hang.notes.live() == 1).await;
    let Client { sender, events } = client;
    drop(sender);
    tokio::time::sleep(ms(100)).await;
    assert_eq!(hang.notes.dropped(), 0, "half-closed is not gone");
    drop(events);
    until("it is dropped", || hang.notes.dropped() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_plan_is_a_plan_like_any_other() {
    let echo = echo().start();
    let world = Mesh::new()
        .specialist("echo", &echo.server.url())
        .task("echo", &["echo"])
        .start()
        .await;
    let named = v1::ExecutePlanRequest {
        plan_id: "mine".into(),
        ..request(vec![model("a", "echo", "x")])
    };
    let client = open(&world, named.clone(), &[]).await.expect("opened");
    let watched = tokio::spawn(Ran::through(world.watch("mine", 0).await.expect("known")));
    let taken = open(&world, named, &[]).await.map(drop).expect_err("taken");
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken:?}");
    client.step(model("b", "echo", "${a}")).await;
    let (events, _) = client.rest().await;
    let ran = watched.await.expect("watched");
    assert_eq!(
        (finished(&events).state(), ran.state()),
        (State::Succeeded, State::Succeeded)
    );
    assert_eq!(ran.output("b"), Value::from("said said x"));
    let ids: Vec<_> = world
        .record("mine")
        .await
        .expect("known")
        .nodes
        .iter()
        .map(|n| n.node_id.clone())
        .collect();
    assert_eq!(ids, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_plan_goes_on_when_its_client_is_lost() {
    let model = Model::new("slow", "slow", |_, _| slow(1500)).start();
    let world = Mesh::new()
        .specialist("slow", &model.server.url())
        .task("slow", &["slow"])
        .start()
        .await;
    let opening = Open {
        request: Some(v1::ExecutePlanRequest {
            plan_id: "mine".into(),
            detach: true,
            ..request(vec![crate::support::plan::model("a", "slow", "x")])
        }),
        client_tools: Vec::new(),
    };
    // A client with a connection of its own, which ends without a word.
    let client = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime");
    let url = world.grpc.clone();
    client.spawn(async move {
        let channel = shoal_kit::channel::connect_lazy(&url).expect("URL");
        let sent = futures::stream::iter([message(Message::Open(opening))]).chain(futures::stream::pending());
        let mut plans = v1::plan_service_client::PlanServiceClient::new(channel);
        let events = plans.execute_plan_stream(sent).await.expect("opened");
        std::future::pending::<()>().await;
        drop(events);
    });
    until("it runs", || model.notes.live() == 1).await;
    let watched = world.watch("mine", 0).await.expect("known");
    client.shutdown_background();
    assert_eq!(Ran::through(watched).await.state(), State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_time_runs_from_the_call_and_not_from_what_opens_the_plan() {
    let hang = Model::new("hang", "hang", |_, _| Act::Hang).start();
    let world = Mesh::new()
        .specialist("hang", &hang.server.url())
        .task("hang", &["hang"])
        .start()
        .await;
    let opening = Open {
        request: Some(request(vec![model("a", "hang", "x")])),
        client_tools: Vec::new(),
    };
    let late = futures::stream::once(async {
        tokio::time::sleep(ms(600)).await;
        message(Message::Open(opening))
    });
    let mut call = tonic::Request::new(late);
    shoal_kit::deadline::set(&mut call, ms(1500));
    let called = std::time::SystemTime::now();
    let mut events = world
        .plans()
        .execute_plan_stream(call)
        .await
        .expect("opened")
        .into_inner();
    let accepted = events.message().await.expect("told").and_then(|e| e.event);
    let Some(Event::Accepted(accepted)) = accepted else {
        panic!("{accepted:?}")
    };
    let deadline = accepted.deadline.as_ref().and_then(shoal_proto::time::system_time);
    let given = deadline
        .and_then(|at| at.duration_since(called).ok())
        .expect("a deadline");
    assert!(given < ms(1800), "{given:?}");
}
