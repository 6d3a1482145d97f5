//! Plans, and what their events say.
use futures::StreamExt as _;
use shoal_proto::v1::{self, execute_plan_request::Source, node::Kind, plan_event::Event};
use std::time::Duration;
use tonic::{Status, Streaming};

pub(crate) fn model(id: &str, task: &str, input: &str) -> v1::Node {
    let call = v1::ModelCall {
        task: task.into(),
        input: input.into(),
        ..v1::ModelCall::default()
    };
    v1::Node {
        id: id.into(),
        kind: Some(Kind::Model(call)),
        ..v1::Node::default()
    }
}

pub(crate) fn tool(id: &str, name: &str, arguments: serde_json::Value) -> v1::Node {
    let call = v1::ToolCall {
        name: name.into(),
        arguments_json: arguments.to_string(),
    };
    v1::Node {
        id: id.into(),
        kind: Some(Kind::Tool(call)),
        ..v1::Node::default()
    }
}

pub(crate) fn on_failure(
    node: v1::Node,
    action: v1::failure_policy::Action,
    default_json: &str,
    fallback_task: &str,
) -> v1::Node {
    let policy = v1::FailurePolicy {
        action: action.into(),
        default_json: default_json.into(),
        fallback_task: fallback_task.into(),
    };
    v1::Node {
        on_failure: Some(policy),
        ..node
    }
}

pub(crate) fn request(nodes: Vec<v1::Node>) -> v1::ExecutePlanRequest {
    v1::ExecutePlanRequest {
        source: Some(Source::Plan(v1::Plan { nodes })),
        ..v1::ExecutePlanRequest::default()
    }
}

pub(crate) fn plan_text(text: &str) -> v1::ExecutePlanRequest {
    v1::ExecutePlanRequest {
        source: Some(Source::PlanText(text.into())),
        ..v1::ExecutePlanRequest::default()
    }
}

pub(crate) fn goal(text: &str) -> v1::ExecutePlanRequest {
    let goal = v1::Goal {
        text: text.into(),
        ..v1::Goal::default()
    };
    v1::ExecutePlanRequest {
        source: Some(Source::Goal(goal)),
        ..v1::ExecutePlanRequest::default()
    }
}

pub(crate) fn within(request: v1::ExecutePlanRequest, deadline: Duration) -> v1::ExecutePlanRequest {
    let mut limits = request.limits.unwrap_or_default();
    limits.deadline = Some(shoal_proto::time::duration(deadline));
    v1::ExecutePlanRequest {
        limits: Some(limits),
        ..request
    }
}

/// A plan's events to its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ran {
    pub(crate) events: Vec<v1::PlanEvent>,
    /// How the stream itself ended.
    pub(crate) status: Option<Status>,
}

impl Ran {
    pub(crate) async fn through(mut stream: Streaming<v1::PlanEvent>) -> Self {
        let mut ran = Self::default();
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => ran.events.push(event),
                Err(status) => {
                    ran.status = Some(status);
                    break;
                }
            }
        }
        for (i, event) in ran.events.iter().enumerate() {
            assert_eq!(event.sequence, i as u64 + 1, "a gap in {:?}", ran.events);
        }
        ran
    }

    pub(crate) fn plan_id(&self) -> String {
        self.events.first().map(|e| e.plan_id.clone()).expect("an event")
    }

    pub(crate) fn finished(&self) -> v1::PlanFinished {
        match self.events.last().and_then(|e| e.event.clone()) {
            Some(Event::Finished(finished)) => finished,
            other => panic!("the last event is {other:?}, then {:?}", self.status),
        }
    }

    pub(crate) fn state(&self) -> v1::State {
        self.finished().state()
    }

    /// Why it failed: the reason.
    pub(crate) fn reason(&self) -> String {
        self.finished().fault.expect("a fault").reason
    }

    pub(crate) fn nodes(&self) -> Vec<v1::NodeResult> {
        let result = |e: &v1::PlanEvent| match &e.event {
            Some(Event::NodeFinished(f)) => f.result.clone(),
            _ => None,
        };
        self.events.iter().filter_map(result).collect()
    }

    pub(crate) fn node(&self, id: &str) -> v1::NodeResult {
        let found: Vec<_> = self.nodes().into_iter().filter(|n| n.node_id == id).collect();
        assert_eq!(found.len(), 1, "a node ends once: {id} in {:#?}", self.events);
        found[0].clone()
    }

    pub(crate) fn output(&self, id: &str) -> serde_json::Value {
        serde_json::from_str(&self.node(id).output_json).expect("JSON")
    }

    /// (target, verdict, reason) of every candidate of a node.
    pub(crate) fn decisions(&self, id: &str) -> Vec<(String, v1::decision::Verdict, String)> {
        let of = |d: &v1::Decision| (d.target.clone(), d.verdict(), d.reason.clone());
        self.node(id).decisions.iter().map(of).collect()
    }

    /// Text of a node as it was told in pieces.
    pub(crate) fn told(&self, id: &str) -> String {
        let piece = |e: &v1::PlanEvent| match &e.event {
            Some(Event::NodeDelta(d)) if d.node_id == id => Some(d.text.clone()),
            _ => None,
        };
        self.events.iter().filter_map(piece).collect()
    }

    /// Position of the first event that fits.
    pub(crate) fn position(&self, what: &str, fits: impl Fn(&Event) -> bool) -> usize {
        let at = self.events.iter().position(|e| e.event.as_ref().is_some_and(&fits));
        at.unwrap_or_else(|| panic!("no {what} in {:#?}", self.events))
    }
}
