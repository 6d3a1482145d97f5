//! Tools that a plan's own client answers, on ExecutePlanStream.
use crate::support::{
    metrics::Metrics,
    model::{Model, say},
    ms,
    plan::{model, on_failure, request, tool},
    stream::{finished, open},
    until,
    world::Mesh,
};
use futures::StreamExt as _;
use serde_json::json;
use shoal_proto::v1::{self, State, failure_policy::Action, plan_event::Event, tool_result::Outcome};
use std::time::{Duration, Instant};
use tonic::Code;

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
async fn a_call_whose_client_can_answer_no_more_fails_at_once_by_its_nodes_policy() {
    let world = Mesh::new().start().await;
    for (action, state) in [(Action::Skip, State::Succeeded), (Action::Fail, State::Failed)] {
        let node = on_failure(tool("t", "My.Tool", json!({})), action, "", "");
        // The one is asked while the client is there; the other becomes ready when it has gone.
        let mut late = on_failure(tool("late", "My.Tool", json!({})), action, "", "");
        late.after = vec!["first".into()];
        let nodes = vec![tool("first", "My.Tool", json!({})), node, late];
        let mut client = open(&world, request(nodes), &["My.Tool"]).await.expect("opened");
        let asked = [client.requested().await, client.requested().await];
        let first = asked.iter().find(|a| a.node_id == "first").expect("asked");
        client
            .result(&first.call_id, Some(Outcome::OutputJson("1".into())))
            .await;
        let began = Instant::now();
        let (events, status) = client.rest().await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(status.is_none(), "the stream itself was fine: {status:?}");
        let finished = finished(&events);
        assert_eq!(finished.state(), state, "{events:?}");
        let reasons: Vec<_> = events
            .iter()
            .filter_map(|e| match &e.event {
                Some(Event::NodeFinished(f)) => f.result.clone()?.fault,
                _ => None,
            })
            .map(|fault| fault.reason)
            .collect();
        assert!(reasons.contains(&"CLIENT_GONE".to_owned()), "{reasons:?}");
        if action == Action::Skip {
            assert_eq!(reasons, ["CLIENT_GONE", "CLIENT_GONE"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_calls_its_tools_is_no_series_of_the_metrics() {
    let metrics = Metrics::counted();
    let world = Mesh::new().start().await;
    for (name, plan_id) in [("Answered.ByMe", "answered"), ("Left.Open", "open")] {
        let request = v1::ExecutePlanRequest {
            plan_id: plan_id.into(),
            ..request(vec![tool("t", name, json!({}))])
        };
        let mut client = open(&world, request, &[name]).await.expect("opened");
        let asked = client.requested().await;
        if plan_id == "answered" {
            let answer = Some(Outcome::OutputJson("1".into()));
            client.result(&asked.call_id, answer).await;
        } else {
            world.cancel(plan_id).await.expect("cancelled");
        }
        client.rest().await;
    }
    until("both are counted", || {
        let text = metrics.of("shoal_node_seconds");
        text.contains("succeeded") && text.contains("cancelled")
    })
    .await;
    let text = metrics.told();
    assert!(
        text.contains("shoal_node_seconds") && text.contains("\"client\""),
        "{text}"
    );
    assert!(!text.contains("Answered.ByMe") && !text.contains("Left.Open"), "{text}");
}
