//! What the views say, event by event.
use super::{PlanView, plain, words};
use prost_types::Duration;
use shoal_proto::v1::{self, plan_event::Event};

fn event(sequence: u64, event: Event) -> v1::PlanEvent {
    v1::PlanEvent {
        plan_id: "p-1".into(),
        sequence,
        time: None,
        event: Some(event),
    }
}

fn milliseconds(n: i32) -> Option<Duration> {
    Some(Duration {
        seconds: 0,
        nanos: n * 1_000_000,
    })
}

fn history() -> Vec<v1::PlanEvent> {
    let tool = |id: &str, name: &str| v1::Node {
        id: id.into(),
        kind: Some(v1::node::Kind::Tool(v1::ToolCall {
            name: name.into(),
            arguments_json: "{}".into(),
        })),
        ..v1::Node::default()
    };
    let model = v1::Node {
        id: "3".into(),
        kind: Some(v1::node::Kind::Model(v1::ModelCall {
            task: "tool_call".into(),
            input: "jazz".into(),
            ..Default::default()
        })),
        ..v1::Node::default()
    };
    let added = |node, depends_on: &[&str], text: &str| {
        let depends_on = depends_on.iter().map(|d| (*d).to_owned()).collect();
        Event::NodeAdded(v1::NodeAdded {
            node: Some(node),
            depends_on,
            text: text.into(),
        })
    };
    let unsure = v1::Decision {
        reason: "confidence 0.61 under threshold 0.83".into(),
        ..Default::default()
    };
    let finished = |result| Event::NodeFinished(v1::NodeFinished { result: Some(result) });
    let events = vec![
        Event::Accepted(v1::PlanAccepted {
            trace_id: "ab".repeat(16),
            deadline: None,
        }),
        added(tool("1", "A.Find"), &[], "A.Find(city=\"San Jose\")"),
        added(tool("2", "A.Book"), &["1"], "2. A.Book(name=$1.name)"),
        added(model, &[], "tool_call: jazz"),
        Event::NodeStarted(v1::NodeStarted {
            node_id: "3".into(),
            target: "small".into(),
        }),
        Event::NodeDelta(v1::NodeDelta {
            node_id: "3".into(),
            text: "{\"to".into(),
        }),
        Event::NodeEscalated(v1::NodeEscalated {
            node_id: "3".into(),
            from: "small".into(),
            to: "large".into(),
            decision: Some(unsure),
        }),
        finished(v1::NodeResult {
            node_id: "3".into(),
            kind: "model".into(),
            name: "tool_call".into(),
            state: v1::State::Succeeded.into(),
            target: "large".into(),
            model: "wide@1".into(),
            output_json: "{\"tool\":\"PlayMusic\"}".into(),
            usage: Some(v1::Usage {
                input_tokens: 12,
                output_tokens: 8,
                cost_usd: 0.0,
            }),
            elapsed: milliseconds(34),
            ..Default::default()
        }),
        finished(v1::NodeResult {
            node_id: "1".into(),
            kind: "tool".into(),
            state: v1::State::Failed.into(),
            target: "concierge".into(),
            elapsed: milliseconds(2),
            fault: Some(v1::Fault {
                code: 5,
                reason: "NO_MATCH".into(),
                message: "no row fits".into(),
            }),
            ..Default::default()
        }),
        Event::Finished(v1::PlanFinished {
            state: v1::State::Failed.into(),
            elapsed: milliseconds(40),
            usage: Some(v1::Usage {
                input_tokens: 12,
                output_tokens: 8,
                cost_usd: 0.000_004,
            }),
            ..Default::default()
        }),
    ];
    (1..).zip(events).map(|(sequence, e)| event(sequence, e)).collect()
}

#[test]
fn plain_lines_say_kind_target_state_latency_tokens_and_edges() {
    let mut plan = PlanView::default();
    let lines: Vec<String> = history()
        .iter()
        .filter_map(|e| {
            let node = plan.apply(e);
            plain::line(e, &plan, node)
        })
        .collect();
    assert_eq!(
        lines,
        [
            format!("plan p-1 accepted, trace {}", "ab".repeat(16)),
            "  1 tool  A.Find(city=\"San Jose\")".into(),
            "  2 tool  A.Book(name=$1.name) <- 1".into(),
            "  3 model tool_call: jazz".into(),
            "  3 started on small".into(),
            "  3 goes on to large: left small (confidence 0.61 under threshold 0.83)".into(),
            "  3 succeeded large (wide@1), 34 ms, 12+8 tokens, left small (confidence 0.61 under threshold 0.83): \
             {\"tool\":\"PlayMusic\"}"
                .into(),
            "  1 failed concierge, 2 ms: NOT_FOUND: no row fits".into(),
        ]
    );
    assert_eq!(
        words::summary(&plan),
        format!(
            "plan p-1 failed in 40 ms: 3 nodes, 1 edges, 12+8 tokens, $0.000004, trace {}",
            "ab".repeat(16)
        )
    );
}

#[test]
fn the_last_json_object_has_the_four_keys_and_only_outputs_that_are_there() {
    let mut plan = PlanView::default();
    for e in history() {
        plan.apply(&e);
    }
    let last = plan.to_json();
    let keys: Vec<&str> = last.as_object().expect("object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["plan_id", "state", "nodes", "outputs"]);
    assert_eq!(last["state"], "failed");
    assert_eq!(last["outputs"], serde_json::json!({"3": {"tool": "PlayMusic"}}));
    assert_eq!(last["nodes"].as_array().map(Vec::len), Some(2));
}

#[test]
fn an_event_about_a_node_that_nobody_announced_still_shows() {
    let mut plan = PlanView::default();
    let index = plan.apply(&event(
        1,
        Event::NodeStarted(v1::NodeStarted {
            node_id: "planner".into(),
            target: "planner".into(),
        }),
    ));
    assert_eq!(index, Some(0));
    assert_eq!(plan.nodes[0].id, "planner");
    assert!(
        plan.apply(&v1::PlanEvent {
            event: None,
            ..event(2, Event::Accepted(v1::PlanAccepted::default()))
        })
        .is_none()
    );
}
