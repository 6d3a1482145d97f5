//! ExecutePlanStream: steps and tool results come in while earlier steps run.
use crate::support::{
    model::{Act, Model, say},
    ms,
    plan::{Ran, model, request, tool},
    until,
    world::{Mesh, World},
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use shoal_proto::v1::{
    self, State,
    execute_plan_stream_request::{Message, Open},
    plan_event::Event,
    tool_result::Outcome,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

struct Client {
    sender: mpsc::Sender<v1::ExecutePlanStreamRequest>,
    events: Streaming<v1::PlanEvent>,
}

fn message(message: Message) -> v1::ExecutePlanStreamRequest {
    v1::ExecutePlanStreamRequest { message: Some(message) }
}

async fn open(world: &World, request: v1::ExecutePlanRequest, client_tools: &[&str]) -> Result<Client, Status> {
    let (sender, receiver) = mpsc::channel(64);
    let opening = Open {
        request: Some(request),
        client_tools: client_tools.iter().map(|t| (*t).to_owned()).collect(),
    };
    sender.send(message(Message::Open(opening))).await.expect("open");
    let events = world
        .plans()
        .execute_plan_stream(ReceiverStream::new(receiver))
        .await?
        .into_inner();
    Ok(Client { sender, events })
}

impl Client {
    async fn step(&self, node: v1::Node) {
        self.sender.send(message(Message::Step(node))).await.expect("sent");
    }

    async fn result(&self, call_id: &str, outcome: Option<Outcome>) {
        let result = v1::ToolResult {
            call_id: call_id.into(),
            outcome,
        };
        self.sender
            .send(message(Message::ToolResult(result)))
            .await
            .expect("sent");
    }

    /// The next request to run a tool.
    async fn requested(&mut self) -> v1::ToolRequested {
        loop {
            match self.events.next().await.expect("more").expect("an event").event {
                Some(Event::ToolRequested(requested)) => return requested,
                Some(Event::Finished(finished)) => panic!("{finished:?}"),
                _ => {}
            }
        }
    }

    /// The rest, once no more steps come.
    async fn rest(self) -> (Vec<v1::PlanEvent>, Option<Status>) {
        let Self { sender, mut events } = self;
        drop(sender);
        let mut rest = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => rest.push(event),
                Err(status) => return (rest, Some(status)),
            }
        }
        (rest, None)
    }
}

fn finished(events: &[v1::PlanEvent]) -> v1::PlanFinished {
    match events.last().and_then(|e| e.event.clone()) {
        Some(Event::Finished(finished)) => finished,
        other => panic!("{other:?}"),
    }
}

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
async fn a_client_that_answers_nonsense_or_a_fault_fails_that_node_by_its_policy() {
    let world = Mesh::new().start().await;
    for (outcome, reason) in [
        (Outcome::OutputJson("it is sunny".into()), "TOOL_ANSWER_INVALID"),
        (
            Outcome::Fault(v1::Fault {
                code: Code::NotFound as i32,
                reason: "NO_SUCH_FILE".into(),
                message: "gone".into(),
            }),
            "NO_SUCH_FILE",
        ),
    ] {
        let mut client = open(&world, request(vec![tool("t", "My.Tool", json!({}))]), &["My.Tool"])
            .await
            .expect("opened");
        let asked = client.requested().await;
        client.result(&asked.call_id, Some(outcome)).await;
        let (events, status) = client.rest().await;
        let finished = finished(&events);
        assert_eq!(
            (finished.state(), finished.fault.expect("fault").reason.as_str()),
            (State::Failed, reason)
        );
        assert!(status.is_none(), "the stream itself was fine: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_answers_is_bounded_by_the_nodes_timeout_and_a_late_answer_is_ignored() {
    let world = Mesh::new().start().await;
    let mut node = tool("t", "My.Tool", json!({}));
    node.timeout = Some(shoal_proto::time::duration(ms(150)));
    node.on_failure = Some(v1::FailurePolicy {
        action: v1::failure_policy::Action::Skip.into(),
        ..v1::FailurePolicy::default()
    });
    let mut client = open(&world, request(vec![node]), &["My.Tool"]).await.expect("opened");
    let asked = client.requested().await;
    let fault = loop {
        let event = client.events.next().await.expect("more").expect("event").event;
        if let Some(Event::NodeFinished(f)) = event {
            break f.result.expect("result").fault.expect("fault");
        }
    };
    assert_eq!(fault.code, Code::DeadlineExceeded as i32);
    client
        .result(&asked.call_id, Some(Outcome::OutputJson("1".into())))
        .await;
    let (events, status) = client.rest().await;
    assert_eq!((finished(&events).state(), status.is_none()), (State::Succeeded, true));
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
async fn a_call_that_a_model_yields_goes_to_the_client_if_the_client_answers_that_tool() {
    let caller = Model::new("caller", "tool_call", |_, _| {
        say(r#"{"tool":"PlayMusic","arguments":{"artist":"Ada"}}"#)
    })
    .start();
    let world = Mesh::new()
        .specialist("caller", &caller.server.url())
        .task("tool_call", &["caller"])
        .start()
        .await;
    let mut client = open(&world, request(vec![model("1", "tool_call", "play")]), &["PlayMusic"])
        .await
        .expect("opened");
    let asked = client.requested().await;
    assert_eq!(
        (asked.node_id.as_str(), asked.arguments_json.as_str()),
        ("1-call", r#"{"artist":"Ada"}"#)
    );
    // A later step may not take that name, and one that refers to the parent has the client's answer.
    client.step(model("2", "tool_call", "after ${1.playing}")).await;
    client
        .result(&asked.call_id, Some(Outcome::OutputJson("{\"playing\":true}".into())))
        .await;
    let asked = client.requested().await;
    assert_eq!(asked.node_id, "2-call");
    client.step(model("1-call", "tool_call", "x")).await;
    let (_, status) = client.rest().await;
    assert!(status.expect("taken").message().contains("taken by a call"));
    assert_eq!(caller.notes.seen()[1].prompt(), "after true");
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
