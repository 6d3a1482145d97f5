use super::*;
use serde_json::json;
use shoal_proto::v1::{failure_policy::Action, node::Kind as NodeKind};

mod any;
mod arguments;
mod size;

/// A mesh that routes `tool_call`, `route` and `plan`, offers `S.M` (an argument `x`, a text) and has a server that is away.
struct Mesh {
    away: bool,
}

impl Catalogue for Mesh {
    fn tasks(&self) -> Vec<&str> {
        vec!["plan", "route", "tool_call"]
    }

    fn tool(&self, name: &str) -> Known {
        let schema =
            r#"{"type":"object","properties":{"x":{"type":"string"}},"required":["x"],"additionalProperties":false}"#;
        match name {
            "S.M" => Known::Registered(Some(Arc::new(Schema::compile(schema).expect("schema")))),
            _ if self.away => Known::Unlisted("concierge".into()),
            _ => Known::Unknown(vec!["S.M".into()]),
        }
    }
}

fn admit_on(mesh: &Mesh, request: v1::ExecutePlanRequest, open: bool) -> Result<Admitted, Error> {
    let (config, none) = (config::Gateway::default(), BTreeSet::from(["Client.Tool".to_owned()]));
    let admission = Admission {
        config: &config,
        catalogue: mesh,
        client_tools: &none,
    };
    admission.request(request, None, open)
}

fn admit(request: v1::ExecutePlanRequest) -> Result<Admitted, Error> {
    admit_on(&Mesh { away: false }, request, false)
}

fn of_plan(nodes: Vec<v1::Node>) -> v1::ExecutePlanRequest {
    v1::ExecutePlanRequest {
        source: Some(Wire::Plan(v1::Plan { nodes })),
        ..v1::ExecutePlanRequest::default()
    }
}

fn model(id: &str, input: &str) -> v1::Node {
    let call = v1::ModelCall {
        task: "tool_call".into(),
        input: input.into(),
        ..v1::ModelCall::default()
    };
    v1::Node {
        id: id.into(),
        kind: Some(NodeKind::Model(call)),
        ..v1::Node::default()
    }
}

fn tool(id: &str, name: &str, arguments: &str) -> v1::Node {
    let call = v1::ToolCall {
        name: name.into(),
        arguments_json: arguments.into(),
    };
    v1::Node {
        id: id.into(),
        kind: Some(NodeKind::Tool(call)),
        ..v1::Node::default()
    }
}

/// The fields that are told, in order.
fn fields(request: v1::ExecutePlanRequest) -> Vec<String> {
    match admit(request) {
        Err(Error::Invalid(violations)) => violations.into_iter().map(|v| v.field).collect(),
        other => panic!("not refused by field: {other:?}"),
    }
}

fn said(request: v1::ExecutePlanRequest) -> String {
    admit(request).expect_err("refused").to_string()
}

#[test]
fn a_plan_is_admitted_with_everything_that_it_says() {
    let mut last = tool("b", "S.M", r#"{"x": "${a.y}"}"#);
    last.timeout = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    last.max_attempts = 3;
    last.private = true;
    last.on_failure = Some(v1::FailurePolicy {
        action: Action::Default.into(),
        default_json: "{\"z\": 1}".into(),
        ..v1::FailurePolicy::default()
    });
    let admitted = admit(v1::ExecutePlanRequest {
        plan_id: "mine".into(),
        limits: Some(v1::PlanLimits {
            deadline: Some(prost_types::Duration { seconds: 7, nanos: 0 }),
            max_tokens: 9,
            max_cost_usd: 0.5,
            priority: v1::Priority::Batch.into(),
        }),
        ..of_plan(vec![model("a", "play"), last])
    })
    .expect("admitted");
    assert_eq!(
        (admitted.plan_id.as_deref(), admitted.bounds.deadline),
        (Some("mine"), Duration::from_secs(7))
    );
    assert_eq!(
        (admitted.bounds.max_tokens, admitted.bounds.max_cost_usd),
        (Some(9), Some(0.5))
    );
    let Source::Steps(graph, steps) = admitted.source else {
        panic!("steps")
    };
    assert_eq!(graph.dependencies(1), [0]);
    let node = &steps[1].node;
    assert_eq!(
        (node.timeout, node.max_attempts, node.private),
        (Some(Duration::from_secs(2)), Some(3), true)
    );
    assert_eq!(node.on_failure, graph::OnFailure::Default(json!({"z": 1})));
}

#[test]
fn every_breach_is_told_at_once_with_its_field() {
    let mut bad = model("bad id", "${ghost.x} ${");
    bad.timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    bad.max_attempts = 6;
    if let Some(NodeKind::Model(call)) = &mut bad.kind {
        call.task = "nobody".into();
        call.output_schema_json = "{".into();
    }
    let told = fields(v1::ExecutePlanRequest {
        plan_id: "not an id".into(),
        limits: Some(v1::PlanLimits {
            deadline: Some(prost_types::Duration { seconds: 601, nanos: 0 }),
            max_cost_usd: -1.0,
            priority: 9,
            ..v1::PlanLimits::default()
        }),
        ..of_plan(vec![
            bad,
            tool("t", "No.Tool", "[1]"),
            tool("t", "S.M", r#"{"y": 1}"#),
            v1::Node::default(),
        ])
    });
    for field in [
        "plan_id",
        "limits.deadline",
        "limits.max_cost_usd",
        "limits.priority",
        "plan.nodes[0].id",
        "plan.nodes[0].timeout",
        "plan.nodes[0].max_attempts",
        "plan.nodes[0].model.task",
        "plan.nodes[0].model.input",
        "plan.nodes[0].model.output_schema_json",
        "plan.nodes[1].tool.arguments_json",
        "plan.nodes[1].tool.name",
        "plan.nodes[2].id",
        "plan.nodes[2].tool.arguments_json",
        "plan.nodes[3].kind",
        "plan.nodes[3].id",
    ] {
        assert!(told.iter().any(|f| f == field), "{field} is not among {told:#?}");
    }
}

#[test]
fn how_to_decode_is_held_to_the_contracts_ranges() {
    let mut bad = model("a", "");
    if let Some(NodeKind::Model(call)) = &mut bad.kind {
        call.sampling = Some(v1::Sampling {
            temperature: Some(f32::NAN),
            top_p: Some(0.0),
            max_tokens: Some(0),
            stop: vec![String::new(); 9],
            ..v1::Sampling::default()
        });
    }
    let told = fields(of_plan(vec![bad]));
    for field in ["max_tokens", "temperature", "top_p", "stop", "stop[0]", "stop[7]"] {
        let field = format!("plan.nodes[0].model.sampling.{field}");
        assert!(told.contains(&field), "{field} is not among {told:#?}");
    }
}

#[test]
fn a_cycle_an_unknown_reference_a_taken_id_and_the_planners_name_are_refused() {
    assert!(said(of_plan(vec![model("a", "${b}"), model("b", "${a}")])).contains("cycle: "));
    assert_eq!(
        fields(of_plan(vec![model("a", "${later.x}")])),
        ["plan.nodes[0].model.input"]
    );
    assert_eq!(
        fields(of_plan(vec![model("a", ""), model("a", "")])),
        ["plan.nodes[1].id"]
    );
    assert_eq!(fields(of_plan(vec![model(PLANNER, "")])), ["plan.nodes[0].id"]);
    let mut after = model("a", "");
    after.after = vec!["nowhere".into()];
    assert_eq!(fields(of_plan(vec![after])), ["plan.nodes[0].after"]);
}

#[test]
fn values_from_the_future_are_refused_and_never_guessed() {
    let mut node = model("a", "");
    node.on_failure = Some(v1::FailurePolicy {
        action: 77,
        ..v1::FailurePolicy::default()
    });
    assert_eq!(fields(of_plan(vec![node])), ["plan.nodes[0].on_failure.action"]);
}

#[test]
fn each_policy_needs_what_it_says_and_nothing_else() {
    let policy = |action: Action, default_json: &str, fallback_task: &str| {
        Some(v1::FailurePolicy {
            action: action.into(),
            default_json: default_json.into(),
            fallback_task: fallback_task.into(),
        })
    };
    let with = |node: v1::Node, policy| {
        of_plan(vec![v1::Node {
            on_failure: policy,
            ..node
        }])
    };
    for good in [
        policy(Action::Unspecified, "", ""),
        policy(Action::Skip, "", ""),
        policy(Action::Default, "null", ""),
        policy(Action::FallBack, "", "route"),
    ] {
        admit(with(model("a", ""), good)).expect("admitted");
    }
    let at = |field: &str| vec![format!("plan.nodes[0].on_failure.{field}")];
    assert_eq!(
        fields(with(model("a", ""), policy(Action::Default, "", ""))),
        at("default_json")
    );
    assert_eq!(
        fields(with(model("a", ""), policy(Action::Default, "text", ""))),
        at("default_json")
    );
    assert_eq!(
        fields(with(model("a", ""), policy(Action::Skip, "1", ""))),
        at("default_json")
    );
    assert_eq!(
        fields(with(model("a", ""), policy(Action::FallBack, "", "nobody"))),
        at("fallback_task")
    );
    assert_eq!(
        fields(with(model("a", ""), policy(Action::Fail, "", "route"))),
        at("fallback_task")
    );
    assert_eq!(
        fields(with(
            tool("a", "S.M", r#"{"x":"y"}"#),
            policy(Action::FallBack, "", "route")
        )),
        at("action")
    );
}

#[test]
fn a_tool_is_unknown_only_once_every_server_has_been_asked() {
    let request = || of_plan(vec![tool("a", "Some.Tool", "{}")]);
    assert!(matches!(
        admit_on(&Mesh { away: true }, request(), false),
        Err(Error::Away { .. })
    ));
    assert!(matches!(
        admit_on(&Mesh { away: false }, request(), false),
        Err(Error::Invalid(_))
    ));
    let wrong = of_plan(vec![tool("a", "Some.Tool", "{}"), model("a", "")]);
    assert!(
        matches!(admit_on(&Mesh { away: true }, wrong, false), Err(Error::Invalid(_))),
        "a breach is a breach"
    );
}

#[test]
fn plan_text_is_read_checked_and_told_by_line_and_step() {
    let text = |text: &str| v1::ExecutePlanRequest {
        source: Some(Wire::PlanText(text.into())),
        ..v1::ExecutePlanRequest::default()
    };
    let Ok(Admitted {
        source: Source::Steps(graph, steps),
        ..
    }) = admit(text("1. S.M(x=\"y\")\n2. tool_call: to $$1.x and ${1.x}"))
    else {
        panic!("admitted")
    };
    assert_eq!((graph.len(), graph.dependencies(1)), (2, &[0][..]));
    let Some(NodeKind::Model(call)) = &steps[1].wire.kind else {
        panic!("a model step")
    };
    assert_eq!(call.input, "to $$1.x and ${1.x}");
    assert!(said(text("1. S.M(x=")).contains("plan_text: line 1, column"));
    assert!(said(text("")).contains("empty"));
    assert!(said(text("1. nobody: x")).contains("plan_text step 1: no task `nobody`"));
    assert!(said(text("1. No.Tool()")).contains("no tool `No.Tool`"));
}

#[test]
fn the_callers_timeout_shortens_the_deadline_and_never_lengthens_it() {
    let config = config::Gateway::default();
    let bounds = |asked: Option<i64>, left: Option<u64>| {
        let limits = v1::PlanLimits {
            deadline: asked.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            ..v1::PlanLimits::default()
        };
        let mut faults = Faults::default();
        let bounds = limits::bounds(Some(&limits), left.map(Duration::from_secs), &config, &mut faults);
        (bounds.deadline.as_secs(), faults.violations.len())
    };
    assert_eq!(bounds(None, None), (60, 0));
    assert_eq!(bounds(Some(30), Some(90)), (30, 0));
    assert_eq!(bounds(Some(30), Some(5)), (5, 0));
    assert_eq!(bounds(None, Some(9000)), (60, 0));
    assert_eq!(bounds(Some(601), None).1, 1, "over max_deadline");
}

#[test]
fn a_streamed_plan_may_open_empty_and_a_goal_needs_words() {
    assert!(admit_on(&Mesh { away: false }, of_plan(Vec::new()), true).is_ok());
    let goal = |goal| v1::ExecutePlanRequest {
        source: Some(Wire::Goal(goal)),
        ..v1::ExecutePlanRequest::default()
    };
    assert_eq!(fields(goal(v1::Goal::default())), ["goal.text"]);
    let turns = v1::Goal {
        turns: vec!["hi".into()],
        ..v1::Goal::default()
    };
    assert!(
        said(goal(turns)).contains("[task.episode]"),
        "nobody plans conversations here"
    );
    let methods = v1::Goal {
        text: "x".into(),
        methods: vec![v1::MethodSignature {
            service: "S 1".into(),
            ..v1::MethodSignature::default()
        }],
        ..v1::Goal::default()
    };
    assert_eq!(fields(goal(methods)), ["goal.methods[0]"]);
}
