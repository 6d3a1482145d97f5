//! Whether a plan's answer is right, and whether a failed plan is a model's fault or ours.
use super::goals::{Goal, Kind};
use crate::{
    eval::{
        ask,
        pyjson::{self, Value},
        score::{self, Row, Task},
    },
    json,
    view::{NodeView, PlanView},
};
use serde_json::Value as Json;
use shoal_kit::status;
use shoal_proto::v1::{self, State, decision::Verdict};

/// Reasons (`ErrorInfo.reason`) that say: what a model wrote is not what it should be. Plans that people wrote have no such excuse.
const MODELS_ANSWER: [&str; 6] = [
    "PLAN_TEXT_GARBLED",
    "OUTPUT_INVALID",
    "REFERENCE_MISSING",
    "TASK_UNKNOWN",
    "TOOL_UNKNOWN",
    "NO_MATCH",
];

/// The reason of a tool that was called with arguments that are none of its own; of anybody else it is our mistake.
const BAD_ARGUMENTS: &str = "INVALID_REQUEST";

/// Why a plan failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// A model answered wrongly: it counts as not right, and the demo goes on to succeed.
    Model(String),
    /// Anything else: the demo fails.
    Mesh(String),
}

/// Whether the plan's answer is what people wrote down, by the scoring of `shoal eval`. A conversation is right if every call was
/// made with people's arguments, the references among them filled by what the earlier calls of this very run were answered: the
/// concierge may know another restaurant first than the conversation's did.
pub(super) fn right(goal: &Goal, plan: &PlanView) -> bool {
    let output = match goal.kind {
        Kind::Joined => ask::plan_output(plan),
        Kind::Trip | Kind::Talk => calls_made(plan),
        Kind::Single | Kind::Step(_) | Kind::Note => ask::only_output(plan),
        Kind::Reply => return replies_say(goal, plan),
        Kind::Beyond => return false,
    };
    let answer = |name: &str| {
        let result = plan
            .nodes
            .iter()
            .find(|n| n.name == name)
            .and_then(|n| n.result.as_ref());
        result.map_or(Json::Null, |r| json::value(&r.output_json))
    };
    let gold = match goal.kind {
        Kind::Trip | Kind::Talk => goal.answered(answer),
        _ => goal.row.clone(),
    };
    let output = pyjson::parse(&output.to_string()).unwrap_or(Value::None);
    score::right(goal.task(), &Row { gold, output }).unwrap_or(false)
}

/// Whether each reply says every value that it was given.
fn replies_say(goal: &Goal, plan: &PlanView) -> bool {
    let inputs = goal.input().as_array().into_iter().flatten();
    let said = |(i, input): (usize, &Json)| {
        let id = (i + 1).to_string();
        let node = plan.nodes.iter().find(|n| n.id == id).and_then(|n| n.result.as_ref());
        let output = node.map_or(Json::Null, |r| json::value(&r.output_json));
        let parsed = |json: &Json| pyjson::parse(&json.to_string()).unwrap_or(Value::None);
        let gold = parsed(&serde_json::json!({"input": input, "target": ""}));
        let row = Row {
            gold,
            output: parsed(&output),
        };
        score::right(Task::Compose, &row).unwrap_or(false)
    };
    inputs.enumerate().all(said)
}

/// The calls as they were really made, references filled in by what the tools really answered.
pub(super) fn calls_made(plan: &PlanView) -> Json {
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
                let misused = |f: &v1::Fault| r.kind == "tool" && f.reason == BAD_ARGUMENTS;
                invalid || r.fault.as_ref().is_some_and(|f| excuse(f) || misused(f))
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

    /// The plan of a goal's own target, as events would have left it with the recorded answers; `spoil` may change a call's
    /// arguments and its answer.
    fn ran(goal: &Goal, spoil: &dyn Fn(&mut Json, &mut Json)) -> PlanView {
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
            let mut answer = c["result"].clone();
            spoil(&mut arguments, &mut answer);
            let result = v1::NodeResult {
                state: State::Succeeded.into(),
                input_json: arguments.to_string(),
                output_json: answer.to_string(),
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
    fn a_conversation_is_right_if_each_call_has_peoples_values_and_what_the_tools_really_answered() {
        for goal in goals::trips() {
            assert!(right(&goal, &ran(&goal, &|_, _| ())), "{}", goal.id());
            let another_call = |arguments: &mut Json, _: &mut Json| {
                if let Some(value) = arguments.as_object_mut().and_then(|m| m.values_mut().next()) {
                    *value = "another place".into();
                }
            };
            assert!(!right(&goal, &ran(&goal, &another_call)), "{}", goal.id());
            // The tools said something else, and the dependent calls did not change with it.
            let another_answer = |_: &mut Json, answer: &mut Json| {
                for value in answer.as_object_mut().into_iter().flat_map(|m| m.values_mut()) {
                    *value = "another answer".into();
                }
            };
            assert!(!right(&goal, &ran(&goal, &another_answer)), "{}", goal.id());
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
        for (kind, models) in [("tool", true), ("model", false)] {
            let mut plan = failed("DEPENDENCY_FAILED");
            let result = v1::NodeResult {
                kind: kind.into(),
                state: State::Failed.into(),
                fault: Some(v1::Fault {
                    reason: BAD_ARGUMENTS.into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            plan.nodes.push(NodeView {
                result: Some(result),
                ..Default::default()
            });
            assert_eq!(matches!(fault(&joined, &plan), Some(Fault::Model(_))), models, "{kind}");
        }
        assert!(!right(&joined, &failed("PLAN_TEXT_GARBLED")));
    }
}
