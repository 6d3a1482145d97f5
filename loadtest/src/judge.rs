//! Whether a plan's answer is the row's target: the exact match of `shoal eval`, for answers made of objects, lists and text.
//!
//! Text is compared lowercased, with white space collapsed and end punctuation dropped; objects ignore key order, lists
//! keep theirs. Figures that must agree with the scorer's to the digit come from `shoal eval`; this one is for load, where a
//! mesh that answers fast and wrongly must not pass for a fast one.
use crate::goals::{ONLY, Target};
use serde_json::Value;
use shoal_proto::v1::{NodeAdded, NodeResult, node::Kind};

/// What a plan's events said of its nodes, in order of joining.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    id: String,
    /// Empty for a tool node.
    input: String,
    output: Value,
}

/// The node id of the planner's own call, which is no step of its plan.
const PLANNER: &str = "planner";

impl Answer {
    /// A node joined.
    pub(crate) fn added(&mut self, added: &NodeAdded) {
        let Some(node) = added.node.as_ref().filter(|n| n.id != PLANNER) else {
            return;
        };
        let input = match &node.kind {
            Some(Kind::Model(model)) => model.input.replace("$$", "$"),
            _ => String::new(),
        };
        self.steps.push(Step {
            id: node.id.clone(),
            input,
            output: Value::Null,
        });
    }

    /// A node ended.
    pub(crate) fn finished(&mut self, result: &NodeResult) {
        if let Some(step) = self.steps.iter_mut().find(|s| s.id == result.node_id) {
            step.output = serde_json::from_str(&result.output_json).unwrap_or_default();
        }
    }

    /// Whether it is right.
    pub(crate) fn is(&self, target: &Target) -> bool {
        match target {
            Target::Output(wanted) => self
                .steps
                .iter()
                .find(|s| s.id == ONLY)
                .is_some_and(|s| same(&s.output, wanted)),
            // A step that a call brought along (a registered tool) has no input of its own and is none of the planner's.
            Target::Steps(wanted) => {
                let wanted: Vec<&Value> = wanted.as_array().into_iter().flatten().collect();
                let steps: Vec<&Step> = self.steps.iter().filter(|s| !s.input.is_empty()).collect();
                let is = |(s, w): (&&Step, &&Value)| {
                    w["input"].as_str().is_some_and(|i| normal(i) == normal(&s.input)) && same(&s.output, &w["output"])
                };
                steps.len() == wanted.len() && steps.iter().zip(&wanted).all(is)
            }
        }
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => normal(a) == normal(b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
        }
        (a, b) => a == b,
    }
}

fn normal(text: &str) -> String {
    let words: Vec<String> = text.to_lowercase().split_whitespace().map(str::to_owned).collect();
    words.join(" ").trim_end_matches([' ', '.', '?', '!', ',']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shoal_proto::v1::{ModelCall, Node};

    fn answer(steps: &[(&str, &str, Value)]) -> Answer {
        let mut answer = Answer::default();
        for (id, input, output) in steps {
            let model = ModelCall {
                task: "tool_call".into(),
                input: (*input).to_owned(),
                ..Default::default()
            };
            let node = Node {
                id: (*id).to_owned(),
                kind: (!input.is_empty()).then_some(Kind::Model(model)),
                ..Default::default()
            };
            answer.added(&NodeAdded {
                node: Some(node),
                ..Default::default()
            });
            answer.finished(&NodeResult {
                node_id: (*id).to_owned(),
                output_json: output.to_string(),
                ..Default::default()
            });
        }
        answer
    }

    #[test]
    fn steps_are_right_in_their_order_with_their_texts_and_calls() {
        let call = json!({"tool": "Play", "arguments": {"genre": "jazz", "year": "1999"}});
        let target = Target::Steps(json!([{"input": "play for $5", "output": call}, {"input": "x", "output": {}}]));
        let said = json!({"arguments": {"year": "1999", "genre": "Jazz."}, "tool": "play"});
        let right = [
            ("planner", "?", json!("1.")),
            ("1", "Play  for $$5!", said.clone()),
            ("2", "x", json!({})),
        ];
        assert!(answer(&right).is(&target));
        let brought_along = [right.as_slice(), &[("1-call", "", json!(7))]].concat();
        assert!(answer(&brought_along).is(&target));
        assert!(!answer(&[right[1].clone()]).is(&target), "a step is missing");
        assert!(
            !answer(&[right[2].clone(), right[1].clone()]).is(&target),
            "the steps are reversed"
        );
        assert!(
            !answer(&[right[1].clone(), ("2", "y", json!({}))]).is(&target),
            "another split"
        );
        assert!(
            !answer(&[right[1].clone(), ("2", "x", json!({"a": "b"}))]).is(&target),
            "another call"
        );
        assert!(!answer(&[]).is(&target));
    }

    #[test]
    fn the_only_nodes_output_is_compared_whole() {
        let target = Target::Output(json!({"tool": "T", "arguments": {"a": ["x", "y"]}}));
        assert!(answer(&[("1", "i", json!({"tool": "t", "arguments": {"a": ["X", "y"]}}))]).is(&target));
        assert!(!answer(&[("1", "i", json!({"tool": "t", "arguments": {"a": ["y", "x"]}}))]).is(&target));
        assert!(!answer(&[("1", "i", json!({"tool": "t"}))]).is(&target));
        assert!(!answer(&[("1", "i", Value::Null)]).is(&target));
    }
}
