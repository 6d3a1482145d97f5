//! A model node of task `tool_call` yields a call. When that tool is registered, or the plan's client answers it, the call runs as a
//! tool node of its own, called after its parent: `4` yields `4-call`. What refers to `4` then gets the tool's answer; and the
//! parent's failure policy covers the call as well. A call to a tool that nobody offers, or that the plan's goal does not name among
//! its methods, is simply the node's output. While a tool server has not been asked yet nobody knows that, and the call is away.
use crate::admit::{self, Step};
use serde_json::Value;
use shoal_plan::{Json, Kind, Node, reference::is_id};

/// The task whose answers are calls.
pub(crate) const CALL_TASK: &str = "tool_call";

/// The call that a step's answer is, if its answers are calls.
pub(crate) fn yielded(step: &Step, answer: &Value) -> Option<(String, Value)> {
    (step.task() == Some(CALL_TASK)).then(|| call_of(answer))?
}

/// The call that an answer is: `{"tool", "arguments"}`, or `{"service", "method", "parameters"}`.
fn call_of(answer: &Value) -> Option<(String, Value)> {
    let text = |key: &str| answer.get(key).and_then(Value::as_str);
    let (name, arguments) = match (text("tool"), text("service"), text("method")) {
        (Some(tool), _, _) => (tool.to_owned(), answer.get("arguments")),
        (None, Some(service), Some(method)) => (format!("{service}.{method}"), answer.get("parameters")),
        _ => return None,
    };
    let arguments = arguments
        .cloned()
        .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    arguments.is_object().then_some((name, arguments))
}

/// The step that a parent's call becomes.
pub(super) fn step(parent: &Step, id: String, name: String, arguments: &Value) -> Option<Step> {
    let kind = Kind::Tool {
        name,
        arguments: Json::parse(&literal(arguments)).ok()?,
    };
    let mut node = Node::new(id, kind);
    node.after = vec![parent.node.id.clone()];
    node.timeout = parent.node.timeout;
    node.on_failure = parent.node.on_failure.clone();
    node.human_facing = parent.node.human_facing;
    node.private = parent.node.private;
    Some(Step {
        wire: admit::wire(&node),
        node,
        sampling: None,
        schema: None,
        conversation: None,
    })
}

/// An id of its own: after its parent where that fits and is free.
pub(super) fn id(parent: &str, at: usize, taken: impl Fn(&str) -> bool) -> String {
    let after = format!("{parent}-call");
    let numbered = (0..).map(|n| format!("call-{at}-{n}"));
    let mut candidates = std::iter::once(after).chain(numbered);
    candidates.find(|id| is_id(id) && !taken(id)).unwrap_or_default()
}

/// A model's arguments are values, and a dollar sign in them is one.
fn literal(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(list) => list.iter().map(literal).collect(),
        Value::Object(object) => Value::Object(object.iter().map(|(k, v)| (k.clone(), literal(v))).collect()),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shoal_plan::Template;

    #[test]
    fn both_shapes_of_a_call_are_read_and_nothing_else() {
        let call = Some(("S.M".to_owned(), json!({"a": "b"})));
        assert_eq!(call_of(&json!({"tool": "S.M", "arguments": {"a": "b"}})), call);
        assert_eq!(
            call_of(&json!({"service": "S", "method": "M", "parameters": {"a": "b"}})),
            call
        );
        assert_eq!(call_of(&json!({"tool": "S.M"})), Some(("S.M".into(), json!({}))));
        for other in [
            json!("S.M"),
            json!({"tool": 7}),
            json!({"service": "S"}),
            json!({"tool": "S.M", "arguments": []}),
            json!(null),
        ] {
            assert_eq!(call_of(&other), None, "{other}");
        }
    }

    #[test]
    fn what_a_model_says_is_never_a_reference() {
        let node = Node::new(
            "4",
            Kind::Model {
                task: CALL_TASK.into(),
                input: Template::default(),
            },
        );
        let parent = Step {
            wire: admit::wire(&node),
            node,
            sampling: None,
            schema: None,
            conversation: None,
        };
        let said = json!({"price": "$5 ${1.secret}", "deep": ["${2}"]});
        let derived = step(&parent, "4-call".into(), "S.M".into(), &said).expect("a step");
        assert!(derived.node.references().is_empty());
        let Kind::Tool { arguments, .. } = &derived.node.kind else {
            panic!("a tool")
        };
        assert_eq!(arguments.fill(&|_| None).expect("no references"), said);
    }

    #[test]
    fn an_id_is_after_its_parent_and_never_one_that_is_taken() {
        assert_eq!(id("4", 3, |_| false), "4-call");
        assert_eq!(id("4", 3, |id| id == "4-call"), "call-3-0");
        assert_eq!(id(&"x".repeat(64), 3, |id| id == "call-3-0"), "call-3-1");
    }
}
