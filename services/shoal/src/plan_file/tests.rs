//! Plan files as people write them, right and wrong.
use super::*;

fn nodes(request: v1::ExecutePlanRequest) -> Vec<v1::Node> {
    match request.source {
        Some(v1::execute_plan_request::Source::Plan(plan)) => plan.nodes,
        other => panic!("not a typed plan: {other:?}"),
    }
}

#[test]
fn every_key_of_a_plan_file_reaches_the_wire() {
    let request = parse(
        r#"
        id: my-plan
        limits: {deadline: 1.5m, max_tokens: 7, max_cost_usd: 0.5, priority: batch}
        nodes:
          - {id: a, tool: S.M, arguments: {x: "${b.y}", n: 2}, timeout: 500ms, max_attempts: 3, on_failure: skip, private: true}
          - {id: b, model: extract, input: {user: hi}, after: [a], human_facing: true, sampling: {max_tokens: 5, stop: [x]},
             output_schema: {type: object}, on_failure: {default: {y: 1}}}
          - {id: c, model: tool_call, input: play jazz, on_failure: {fall_back: route}}
        "#,
    )
    .expect("a plan");
    assert_eq!(request.plan_id, "my-plan");
    let limits = request.limits.expect("limits");
    assert_eq!(limits.deadline.map(|d| d.seconds), Some(90));
    assert_eq!((limits.max_tokens, limits.priority()), (7, v1::Priority::Batch));
    let [a, b, c] = &nodes(request)[..] else {
        panic!("three nodes")
    };
    let Some(v1::node::Kind::Tool(tool)) = &a.kind else {
        panic!("a tool")
    };
    assert_eq!(
        (tool.name.as_str(), tool.arguments_json.as_str()),
        ("S.M", r#"{"x":"${b.y}","n":2}"#)
    );
    assert_eq!(a.timeout.map(|t| t.nanos), Some(500_000_000));
    assert!(a.private && !a.human_facing && a.max_attempts == 3);
    let Some(v1::node::Kind::Model(model)) = &b.kind else {
        panic!("a model")
    };
    assert_eq!(
        (model.input.as_str(), model.output_schema_json.as_str()),
        (r#"{"user":"hi"}"#, r#"{"type":"object"}"#)
    );
    assert_eq!(model.sampling.as_ref().and_then(|s| s.max_tokens), Some(5));
    assert_eq!(
        b.on_failure.as_ref().map(|p| p.default_json.as_str()),
        Some(r#"{"y":1}"#)
    );
    assert_eq!(b.after, ["a"]);
    assert_eq!(c.on_failure.as_ref().map(|p| p.fallback_task.as_str()), Some("route"));
}

#[test]
fn a_plan_file_is_refused_with_the_reason() {
    for (text, says) in [
        ("nodes: [{id: a, tool: S.M, timeout: 5 parsecs}]", "500ms"),
        ("nodes: [{id: a, tool: S.M, argumnets: {}}]", "argumnets"),
        ("nodes: [{id: a}]", "either `tool`"),
        ("nodes: [{id: a, model: t}]", "needs `input`"),
        ("nodes: [{id: a, tool: S.M, model: t, input: x}]", "either `tool`"),
        ("steps: []", "steps"),
        (
            "nodes: [{id: a, tool: S.M, on_failure: {default: 1, fall_back: t, typo: x}}]",
            "typo",
        ),
        (
            "nodes: [{id: a, tool: S.M, on_failure: {fall_back: 1}}]",
            "fall_back: TASK",
        ),
        ("nodes: [{id: a, tool: S.M, on_failure: retry}]", "write fail, skip"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.contains(says), "{text}: {error}");
    }
}
