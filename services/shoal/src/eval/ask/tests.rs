//! Rows on their way to the mesh, and answers on their way back.
use super::*;
use serde_json::json;

#[test]
fn a_conversation_brings_its_turns_and_methods_in_order() {
    let goal = conversation(
        &json!({"methods": {"B": {"Y": ["p", "q"], "X": []}, "A": {"Z": ["r"]}}, "turns": ["one", "two"]}),
    );
    assert_eq!(goal.turns, ["one", "two"]);
    let methods: Vec<String> = goal
        .methods
        .iter()
        .map(|m| format!("{}.{}({})", m.service, m.method, m.parameters.join(",")))
        .collect();
    assert_eq!(methods, ["B.Y(p,q)", "B.X()", "A.Z(r)"]);
}

#[test]
fn a_dollar_sign_in_a_row_is_no_reference() {
    let request = one_node(Task::Compose, &json!({"acts": [{"values": ["$5 ${1.x}"]}]}));
    let Some(v1::execute_plan_request::Source::Plan(plan)) = request.source else {
        panic!("a plan")
    };
    let Some(Kind::Model(model)) = &plan.nodes[0].kind else {
        panic!("a model node")
    };
    assert_eq!(model.input, r#"{"acts":[{"values":["$$5 $${1.x}"]}]}"#);
}

#[test]
fn a_plan_of_calls_takes_the_shape_of_the_task_data() {
    let tool = |id: &str, name: &str, arguments: &str| v1::Node {
        id: id.into(),
        kind: Some(Kind::Tool(v1::ToolCall {
            name: name.into(),
            arguments_json: arguments.into(),
        })),
        ..Default::default()
    };
    let plan = v1::Plan {
        nodes: vec![
            tool("1", "S_1.Find", r#"{"price":"$$5"}"#),
            tool("2", "S_1.Book", r#"{"name":"${1.name}"}"#),
        ],
    };
    assert_eq!(
        episode_output(&plan),
        json!([
            {"id": 1, "service": "S_1", "method": "Find", "parameters": {"price": "$5"}},
            {"id": 2, "service": "S_1", "method": "Book", "parameters": {"name": "${1.name}"}},
        ])
    );
}
