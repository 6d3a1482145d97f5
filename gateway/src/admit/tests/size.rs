//! Requests that are too large, too many of something, or wrong in too many places.
use super::{faults::TOLD, *};
use shoal_kit::status::Violation;

#[test]
fn an_empty_plan_ten_thousand_nodes_and_a_hundred_megabytes_are_refused_at_once() {
    assert_eq!(fields(of_plan(Vec::new())), ["plan.nodes"]);
    assert_eq!(fields(v1::ExecutePlanRequest::default()), ["source"]);
    let many = (0..10_000).map(|i| model(&format!("n{i}"), "x")).collect();
    assert!(said(of_plan(many)).contains("10000 nodes; at most 256"));
    let text: String = (1..=10_000).map(|i| format!("{i}. tool_call: x\n")).collect();
    let request = |source| v1::ExecutePlanRequest {
        source: Some(source),
        ..v1::ExecutePlanRequest::default()
    };
    assert!(said(request(Wire::PlanText(text))).contains("more than 256 steps"));
    let large = "x".repeat(100 << 20);
    for source in [
        Wire::PlanText(large.clone()),
        Wire::Goal(v1::Goal {
            text: large.clone(),
            ..v1::Goal::default()
        }),
        Wire::Plan(v1::Plan {
            nodes: vec![model("a", &large)],
        }),
    ] {
        assert!(said(request(source)).contains("[gateway] max_input_bytes"));
    }
}

/// A plan whose one node waits for so many nodes without a name.
fn waiting(entries: usize) -> v1::ExecutePlanRequest {
    let mut node = model("a", "");
    node.after = vec![String::new(); entries];
    of_plan(vec![node])
}

fn violations(request: v1::ExecutePlanRequest) -> Vec<Violation> {
    match admit(request) {
        Err(Error::Invalid(violations)) => violations,
        other => panic!("not refused by field: {other:?}"),
    }
}

#[test]
fn a_million_entries_without_text_are_refused_in_few_words() {
    let goal = v1::Goal {
        text: "x".into(),
        methods: vec![v1::MethodSignature::default(); 1_000_000],
        ..v1::Goal::default()
    };
    let goal = v1::ExecutePlanRequest {
        source: Some(Wire::Goal(goal)),
        ..v1::ExecutePlanRequest::default()
    };
    for request in [waiting(1_000_000), goal, of_plan(vec![v1::Node::default(); 1_000_000])] {
        let told = violations(request);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].description.contains("max_input_bytes"), "{told:?}");
    }
    // Within the bytes that are taken.
    assert_eq!(fields(waiting(100_000)), ["plan.nodes[0].after"]);
    assert!(said(waiting(257)).contains("at most 256 nodes"));
}

#[test]
fn faults_past_the_sixteenth_are_counted() {
    let told = violations(waiting(200));
    assert_eq!(told.len(), TOLD);
    assert!(told[..15].iter().all(|v| v.field == "plan.nodes[0].after"), "{told:?}");
    assert_eq!(told[15].description, "has 185 more faults");
    assert_eq!(
        violations(waiting(16)).last().expect("told").field,
        "plan.nodes[0].after"
    );
    let methods = vec![v1::MethodSignature::default(); 300];
    let goal = v1::Goal {
        text: "x".into(),
        methods,
        ..v1::Goal::default()
    };
    let source = Some(Wire::Goal(goal));
    let told = violations(v1::ExecutePlanRequest {
        source,
        ..v1::ExecutePlanRequest::default()
    });
    assert_eq!((told.len(), told[15].description.as_str()), (16, "has 285 more faults"));
}

#[test]
fn a_step_that_joins_later_is_bounded_like_the_first() {
    let (config, none) = (config::Gateway::default(), BTreeSet::new());
    let admission = Admission {
        config: &config,
        catalogue: &Mesh { away: false },
        client_tools: &none,
    };
    let mut node = model("a", "");
    node.after = vec![String::new(); 100_000];
    assert!(node_bytes(&node) >= 800_000);
    let refused = admission.further(&node, 3, &mut Allowance::default());
    let Err(Error::Invalid(told)) = refused.map(drop) else {
        panic!("not refused by field")
    };
    assert_eq!((told.len(), told[0].field.as_str()), (1, "step[3].after"));
}

#[test]
fn schemas_of_one_plan_share_what_they_may_weigh() {
    let patterns: serde_json::Map<_, _> = (0..90)
        .map(|i| (format!("p{i}"), json!({"pattern": "^[a-z]*$"})))
        .collect();
    let schema = json!({"properties": patterns}).to_string();
    let with = |n: usize| {
        let node = |i: usize| {
            let mut node = model(&format!("n{i}"), "");
            if let Some(NodeKind::Model(call)) = &mut node.kind {
                call.output_schema_json.clone_from(&schema);
            }
            node
        };
        of_plan((0..n).map(node).collect())
    };
    admit(with(4)).expect("admitted");
    assert!(fields(with(9)).iter().all(|f| f.ends_with("output_schema_json")));
}
