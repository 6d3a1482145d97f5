//! Whether a plan's answer is right, and whether a failed plan is a model's fault or ours.
use super::goals::{Goal, Kind};
use crate::{
    eval::{
        ask,
        pyjson::{self, Value},
        score::{self, Row},
    },
    json,
    view::{NodeView, PlanView},
};
use serde_json::Value as Json;
use shoal_kit::status;
use shoal_proto::v1::{self, State, decision::Verdict};

/// Reasons (`ErrorInfo.reason`) that say: the model's text was not what it should be. Plans that people wrote have no such excuse.
const MODELS_ANSWER: [&str; 6] = [
    "PLAN_TEXT_GARBLED",
    "NO_MATCH",
    "TOOL_UNKNOWN",
    "OUTPUT_INVALID",
    "INVALID_OUTPUT",
    "SCHEMA_VIOLATED",
];

/// Why a plan failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// A model answered wrongly: it counts as not right, and the demo goes on to succeed.
    Model(String),
    /// Anything else: the demo fails.
    Mesh(String),
}

/// Whether the plan's answer is what people wrote down, by the scoring of `shoal eval`.
pub(super) fn right(goal: &Goal, plan: &PlanView) -> bool {
    let output = match goal.kind {
        Kind::Joined => ask::plan_output(plan),
        Kind::Trip => calls_made(plan),
        Kind::Single => ask::only_output(plan),
    };
    let output = pyjson::parse(&output.to_string()).unwrap_or(Value::None);
    score::right(
        goal.task(),
        &Row {
            gold: goal.row.clone(),
            output,
        },
    )
    .unwrap_or(false)
}

/// The calls as they were really made, references filled in by what the tools really answered.
fn calls_made(plan: &PlanView) -> Json {
    let call = |n: &NodeView| {
        let (service, method) = n.name.split_once('.').unwrap_or((n.name.as_str(), ""));
        let asked = n.result.as_ref().filter(|r| r.state() == State::Succeeded);
        let parameters = asked.map_or(Json::Null, |r| json::value(&r.input_json));
        serde_json::json!({"id": n.id.parse::<u64>().ok(), "service": service, "method": method, "parameters": parameters})
    };
    plan.nodes.iter().map(call).collect()
}

/// Why the plan failed, if it did.
pub(super) fn fault(goal: &Goal, plan: &PlanView) -> Option<Fault> {
    let Some(finished) = &plan.finished else {
        return Some(Fault::Mesh("its events broke off".into()));
    };
    if finished.state() == State::Succeeded {
        return None;
    }
    let message = finished.fault.as_ref().map_or_else(
        || json::state(finished.state).to_owned(),
        |f| format!("{}: {}", status::code_name(f.code), f.message),
    );
    let excuse = |f: &v1::Fault| MODELS_ANSWER.contains(&f.reason.as_str());
    let node_excused = |n: &NodeView| {
        n.result
            .as_ref()
            .filter(|r| r.state() == State::Failed)
            .is_some_and(|r| {
                let invalid = r.decisions.last().is_some_and(|d| d.verdict() == Verdict::Invalid);
                invalid || r.fault.as_ref().is_some_and(excuse)
            })
    };
    // People wrote a trip's plan: no model answers in it.
    let models =
        goal.kind != Kind::Trip && (finished.fault.as_ref().is_some_and(excuse) || plan.nodes.iter().any(node_excused));
    Some(if models {
        Fault::Model(message)
    } else {
        Fault::Mesh(message)
    })
}

/// Whether a refusal is about the planner's text.
pub(super) fn garbled(status: &tonic::Status) -> bool {
    status::error_reason(status).is_some_and(|r| r == "PLAN_TEXT_GARBLED")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::goals;

    /// The plan of a goal's own target, as events would have left it; `spoil` may change a call's arguments.
    fn ran(goal: &Goal, spoil: &dyn Fn(&mut Json)) -> PlanView {
        let calls = goal.target().as_array().cloned().unwrap_or_default();
        let recorded = |id: &str, field: &str| {
            calls
                .iter()
                .find(|c| c["id"].as_u64() == id.parse().ok())
                .map(|c| c["result"][field].clone())
        };
        let node = |c: &Json| {
            let mut arguments = c["parameters"].clone();
            for value in arguments.as_object_mut().into_iter().flat_map(|m| m.values_mut()) {
                let reference = value
                    .as_str()
                    .and_then(|v| v.strip_prefix("${")?.strip_suffix('}')?.split_once('.'));
                if let Some(result) = reference.and_then(|(id, field)| recorded(id, field)) {
                    *value = result;
                }
            }
            spoil(&mut arguments);
            let result = v1::NodeResult {
                state: State::Succeeded.into(),
                input_json: arguments.to_string(),
                ..Default::default()
            };
            let name = format!(
                "{}.{}",
                c["service"].as_str().unwrap_or_default(),
                c["method"].as_str().unwrap_or_default()
            );
            NodeView {
                id: c["id"].to_string(),
                name,
                result: Some(result),
                ..Default::default()
            }
        };
        let finished = v1::PlanFinished {
            state: State::Succeeded.into(),
            ..Default::default()
        };
        PlanView {
            nodes: calls.iter().map(node).collect(),
            finished: Some(finished),
            ..Default::default()
        }
    }

    #[test]
    fn a_conversation_is_right_if_the_calls_had_the_recorded_values_and_wrong_if_a_tool_answered_something_else() {
        for goal in goals::trips() {
            assert!(right(&goal, &ran(&goal, &|_| ())), "{}", goal.id());
            let other = |arguments: &mut Json| {
                if let Some(value) = arguments.as_object_mut().and_then(|m| m.values_mut().next()) {
                    *value = "another place".into();
                }
            };
            assert!(!right(&goal, &ran(&goal, &other)), "{}", goal.id());
        }
    }

    fn failed(reason: &str) -> PlanView {
        let fault = Some(v1::Fault {
            code: 5,
            reason: reason.into(),
            message: "m".into(),
        });
        let finished = v1::PlanFinished {
            state: State::Failed.into(),
            fault,
            ..Default::default()
        };
        PlanView {
            finished: Some(finished),
            ..Default::default()
        }
    }

    #[test]
    fn a_garbled_plan_is_a_models_fault_and_a_lost_specialist_is_not() {
        let [joined, trip] = [goals::joined().remove(0), goals::trips().remove(0)];
        assert_eq!(
            fault(&joined, &failed("PLAN_TEXT_GARBLED")),
            Some(Fault::Model("NOT_FOUND: m".into()))
        );
        assert_eq!(
            fault(&joined, &failed("DRAINING")),
            Some(Fault::Mesh("NOT_FOUND: m".into()))
        );
        assert_eq!(
            fault(&trip, &failed("NO_MATCH")),
            Some(Fault::Mesh("NOT_FOUND: m".into())),
            "people wrote it"
        );
        assert!(matches!(fault(&joined, &PlanView::default()), Some(Fault::Mesh(_))));
        assert!(!right(&joined, &failed("PLAN_TEXT_GARBLED")));
    }
}
