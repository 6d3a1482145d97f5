//! Intents: what a goal in words is made of ahead of its planner.
use crate::support::{
    model::{Act, Model, Specialist, say, slow, unsure},
    plan::goal,
    tools::{self, Reply},
    world::{Mesh, World},
};
use serde_json::json;
use shoal_kit::{config::Intent, status::Reason};
use shoal_proto::v1::{self, State, execute_plan_request::Source};

/// A planner, a worker, tools of two services, and a classifier that is as sure as `score` of what a goal's first word says.
async fn routed(score: f64) -> (Vec<Specialist>, tools::Tools, World) {
    let labels = Model::new("labels", "route", move |seen, _| match seen.prompt().split_once(' ') {
        Some(("away", _)) => Act::Fail(Reason::Internal {
            message: "broken".into(),
        }),
        Some((label, _)) => unsure(label, score),
        None => unsure("oos", score),
    });
    let labels = labels.card(|c| c.kind = "classify".into()).threshold(0.5).start();
    let planner = Model::new("planner", "plan", |_, _| say("1. do: planned")).start();
    let talker = Model::new("talker", "episode", |_, _| say("1. S_1.Find(a=\"coffee\")")).start();
    let worker = Model::new("worker", "do", |_, _| slow(30)).start();
    let caller = Model::new("caller", "tool_call", |_, _| {
        say(r#"{"tool":"S_1.Find","arguments":{}}"#)
    })
    .start();
    let tools = tools::start(&[("S_1.Find", true), ("T_1.Find", true)], |_, _| {
        Reply::Text("{}".into())
    });
    let intents = [
        ("find", "episode", vec!["S_1".to_owned()]),
        ("do", "do", vec![]),
        ("call", "tool_call", vec![]),
    ];
    let mesh = Mesh::new()
        .specialist("labels", &labels.server.url())
        .specialist("planner", &planner.server.url())
        .specialist("talker", &talker.server.url())
        .specialist("worker", &worker.server.url())
        .task("route", &["labels"])
        .task("plan", &["planner"])
        .task("episode", &["talker"])
        .task("do", &["worker"])
        .specialist("caller", &caller.server.url())
        .task("tool_call", &["caller"])
        .tools(&tools.server.url())
        .change(|c| {
            for (label, task, services) in intents {
                let intent = Intent {
                    task: task.into(),
                    services,
                };
                c.gateway.intents.insert(label.into(), intent);
            }
        });
    let world = mesh.start().await;
    (vec![labels, planner, talker, worker, caller], tools, world)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goals_intent_chooses_its_planner_and_tools_or_makes_one_step_of_it() {
    let (models, tools, world) = routed(0.9).await;
    let ids = |record: &v1::GetPlanResponse| record.nodes.iter().map(|n| n.node_id.clone()).collect::<Vec<_>>();
    // The planner of conversations, with the tools of the intent's service alone.
    let ran = world.run(goal("find a cafe")).await;
    assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
    let record = world.record(&ran.plan_id()).await.expect("known");
    assert_eq!(ids(&record), ["router", "planner", "1"]);
    assert_eq!(
        (record.nodes[0].name.as_str(), record.nodes[0].output_json.as_str()),
        ("route", "\"find\"")
    );
    let asked = models[2].notes.seen()[0].prompt();
    assert_eq!(
        asked,
        r#"{"methods":{"S_1":{"Find":["a","b"]}},"turns":["find a cafe"]}"#
    );
    assert_eq!(tools.notes.arguments("S_1.Find"), [json!({"a": "coffee"})]);
    assert_eq!(
        ran.finished().usage.expect("usage").input_tokens,
        10,
        "the planner's; the classifier's stub counts none"
    );
    // One step, and no planner.
    let ran = world.run(goal("do it for $5")).await;
    let record = world.record(&ran.plan_id()).await.expect("known");
    assert_eq!(
        (ran.state(), ids(&record)),
        (State::Succeeded, vec!["router".into(), "1".into()])
    );
    assert_eq!(ran.node("1").input_json, "\"do it for $5\"");
    assert_eq!((models[1].notes.count(), models[2].notes.count()), (0, 1));
    // Nothing known of it, and nobody to ask: planned as if there were no intents.
    for text in ["joke please", "away with it"] {
        let ran = world.run(goal(text)).await;
        let record = world.record(&ran.plan_id()).await.expect("known");
        assert_eq!(
            (ran.state(), ids(&record).len(), record.nodes[1].name.as_str()),
            (State::Succeeded, 3, "plan"),
            "{text}"
        );
        assert_eq!(ran.node("1").input_json, "\"planned\"");
    }
    // The same ways, and nothing run.
    let decompose = |text: &str| {
        let request = v1::DecomposeRequest {
            goal: Some(v1::Goal {
                text: text.into(),
                ..v1::Goal::default()
            }),
        };
        let mut plans = world.plans();
        async move { plans.decompose(request).await.expect("planned").into_inner() }
    };
    let found = decompose("find a cafe").await;
    assert_eq!(
        (
            found.plan_text.as_str(),
            found.planner.is_some(),
            found.router.is_some()
        ),
        ("1. S_1.Find(a=\"coffee\")", true, true)
    );
    let whole = decompose("do it").await;
    assert_eq!(
        (
            whole.plan_text.as_str(),
            whole.planner.is_some(),
            whole.router.is_some()
        ),
        ("1. do: do it", false, true)
    );
    assert_eq!(tools.notes.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_that_is_doubted_is_none() {
    let (models, _tools, world) = routed(0.4).await;
    let ran = world.run(goal("find a cafe")).await;
    assert_eq!(
        (ran.state(), ran.node("1").input_json.as_str()),
        (State::Succeeded, "\"planned\"")
    );
    assert_eq!(models[1].notes.seen()[0].prompt(), "find a cafe");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_that_names_methods_has_no_other_called_whatever_its_intent_and_its_steps_say() {
    let (models, tools, world) = routed(0.9).await;
    let naming = |text: &str, service: &str| v1::ExecutePlanRequest {
        source: Some(Source::Goal(v1::Goal {
            text: text.into(),
            methods: vec![v1::MethodSignature {
                service: service.into(),
                method: "Find".into(),
                parameters: vec!["a".into()],
            }],
            ..v1::Goal::default()
        })),
        ..v1::ExecutePlanRequest::default()
    };
    // The intent's services are none of the goal's methods: the goal goes to its planner as it is.
    let ran = world.run(naming("find a cafe", "T_1")).await;
    assert_eq!(
        (ran.state(), ran.node("1").input_json.as_str()),
        (State::Succeeded, "\"planned\"")
    );
    assert_eq!((models[2].notes.count(), tools.notes.seen().len()), (0, 0));
    // What both allow, in the goal's own words.
    assert_eq!(world.run(naming("find a cafe", "S_1")).await.state(), State::Succeeded);
    assert_eq!(
        models[2].notes.seen()[0].prompt(),
        r#"{"methods":{"S_1":{"Find":["a"]}},"turns":["find a cafe"]}"#
    );
    assert_eq!(tools.notes.arguments("S_1.Find").len(), 1);
    // A step that yields a call to another: the call is its output.
    for (service, calls) in [("T_1", 1), ("S_1", 2)] {
        let ran = world.run(naming("call it", service)).await;
        assert_eq!(
            (ran.state(), &ran.output("1")["tool"]),
            (State::Succeeded, &json!("S_1.Find")),
            "{ran:?}"
        );
        assert_eq!(tools.notes.seen().len(), calls, "{service}");
    }
}
