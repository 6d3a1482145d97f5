//! What is told and kept of a node that has ended. Pure but for the clock.
use crate::{
    error::Error,
    outcomes::outcome::Beyond,
    plans::Plan,
    route::{Trail, question::Finish, trail::Way, walk::Answer},
    tools::call::Told,
};
use serde_json::Value;
use shoal_proto::{time, v1};
use tokio::time::Instant;

/// What does not change while a node runs.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) node_id: String,
    /// "model" or "tool".
    pub(crate) kind: &'static str,
    /// Task, or tool name.
    pub(crate) name: String,
    pub(crate) depends_on: Vec<String>,
    pub(crate) began: Instant,
    /// Whatever the end, it is kept under this id: a node that is cut off while its outcome is written leaves one, not two.
    pub(crate) outcome_id: String,
}

/// An output, and where it came from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Got {
    pub(crate) value: Value,
    /// Of a model's answer.
    pub(crate) finish: Option<Finish>,
    pub(crate) target: String,
    pub(crate) endpoint: String,
    pub(crate) model: String,
    pub(crate) timings: Option<v1::Timings>,
    pub(crate) confidence: Option<v1::Confidence>,
    pub(crate) beyond: Beyond,
}

impl Got {
    /// A model's answer.
    pub(crate) fn answer(answer: Answer, trail: &Trail) -> Self {
        Self {
            beyond: Beyond {
                valid: answer.valid,
                escalated_from: trail.escalated_from(&answer.target),
            },
            value: answer.value,
            finish: Some(answer.finish),
            target: answer.target,
            endpoint: answer.endpoint,
            model: answer.model,
            timings: answer.timings,
            confidence: answer.confidence,
        }
    }

    /// A tool's.
    pub(crate) fn answered(server: &str, answered: Told) -> Self {
        Self {
            beyond: Beyond {
                valid: answered.valid,
                escalated_from: String::new(),
            },
            value: answered.value,
            target: server.to_owned(),
            endpoint: answered.endpoint,
            ..Self::default()
        }
    }
}

/// How a node ended.
#[derive(Debug)]
pub(crate) enum Ended<'a> {
    /// With an output.
    Got(&'a Got),
    /// With an error.
    Failed(&'a Error),
    /// By somebody else.
    Cancelled(&'a v1::Fault),
}

/// The result of a node that ran.
pub(crate) fn result(plan: &Plan, about: &About, way: &Way, ended: &Ended<'_>) -> v1::NodeResult {
    let state = match ended {
        Ended::Got(_) => v1::State::Succeeded,
        Ended::Failed(_) => v1::State::Failed,
        Ended::Cancelled(_) => v1::State::Cancelled,
    };
    let mut result = v1::NodeResult {
        node_id: about.node_id.clone(),
        kind: about.kind.to_owned(),
        name: about.name.clone(),
        state: state.into(),
        target: way.target.clone(),
        endpoint: way.decisions.last().map(|d| d.endpoint.clone()).unwrap_or_default(),
        input_json: way.input_json.clone(),
        usage: Some(way.usage),
        decisions: way.decisions.clone(),
        started_after: Some(time::duration(about.began.saturating_duration_since(plan.began))),
        elapsed: Some(time::duration(about.began.elapsed())),
        depends_on: about.depends_on.clone(),
        outcome_id: about.outcome_id.clone(),
        ..v1::NodeResult::default()
    };
    match ended {
        Ended::Got(got) => {
            result.target.clone_from(&got.target);
            result.endpoint.clone_from(&got.endpoint);
            result.model.clone_from(&got.model);
            result.output_json = got.value.to_string();
            result.timings = got.timings;
            result.confidence = got.confidence;
            result.finish_reason = got.finish.map(|finish| finish.word().to_owned());
        }
        Ended::Failed(error) => result.fault = Some(error.fault()),
        Ended::Cancelled(fault) => result.fault = Some((*fault).clone()),
    }
    result
}

/// The result of a node that never ran.
pub(crate) fn never(about: &About, state: v1::State, fault: v1::Fault) -> v1::NodeResult {
    v1::NodeResult {
        node_id: about.node_id.clone(),
        kind: about.kind.to_owned(),
        name: about.name.clone(),
        state: state.into(),
        fault: Some(fault),
        depends_on: about.depends_on.clone(),
        usage: Some(v1::Usage::default()),
        ..v1::NodeResult::default()
    }
}
