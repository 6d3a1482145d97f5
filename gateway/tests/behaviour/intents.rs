//! Intents: what a goal in words is made of beside its planner.
use crate::support::{
    model::{Act, Model, Seen, Specialist, down, say, slow, unsure},
    ms,
    plan::{Ran, goal},
    tools::{self, Reply},
    world::{Mesh, World},
};
use serde_json::json;
use shoal_kit::{config::Intent, status::Reason};
use shoal_proto::{
    time,
    v1::{self, State, execute_plan_request::Source, plan_event::Event},
};
use std::time::Duration;

/// The classifier's last decision, as it is told.
fn reason(router: &v1::NodeResult) -> &str {
    router.decisions.last().map_or("", |d| d.reason.as_str())
}

/// The ids of a plan's record, the calls ahead of its steps included.
async fn ids(world: &World, ran: &Ran) -> Vec<String> {
    let record = world.record(&ran.plan_id()).await.expect("known");
    record.nodes.into_iter().map(|n| n.node_id).collect()
}

/// Nothing run.
async fn decomposed(world: &World, text: &str) -> v1::DecomposeResponse {
    let goal = v1::Goal {
        text: text.into(),
        ..v1::Goal::default()
    };
    let request = v1::DecomposeRequest { goal: Some(goal) };
    world.plans().decompose(request).await.expect("planned").into_inner()
}

/// As `of_words`, with a planner that finds a request on each side of an "and".
async fn routed(score: f64) -> (Vec<Specialist>, tools::Tools, World) {
    let planner = |seen: &Seen| match seen.prompt().contains(" and ") {
        true => say("1. do: planned\n2. do: too"),
        false => say("1. do: planned"),
    };
    of_words(score, Duration::ZERO, planner).await
}

/// A planner, a worker, tools of two services, and a classifier that is as sure as `score`, after so long, of what a goal's first word says.
async fn of_words(
    score: f64,
    after: Duration,
    planner: impl Fn(&Seen) -> Act + Send + Sync + 'static,
) -> (Vec<Specialist>, tools::Tools, World) {
    let labels = Model::new("labels", "route", move |seen, _| match seen.prompt().split_once(' ') {
        Some(("away", _)) => Act::Fail(Reason::Internal {
            message: "broken".into(),
        }),
        Some((label, _)) => Act::Say(label.into(), after, score),
        None => unsure("oos", score),
    });
    let labels = labels.card(|c| c.kind = "classify".into()).threshold(0.5).start();
    let planner = Model::new("planner", "plan", move |seen, _| planner(seen)).start();
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
    // The planner of conversations, with the tools of the intent's service alone.
    let ran = world.run(goal("find a cafe")).await;
    assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
    let record = world.record(&ran.plan_id()).await.expect("known");
    assert_eq!(ids(&world, &ran).await, ["router", "planner", "intent-planner", "1"]);
    assert_eq!(
        (record.nodes[0].name.as_str(), record.nodes[0].output_json.as_str()),
        ("route", "\"find\"")
    );
    assert!(reason(&record.nodes[0]).ends_with("followed: the planner found one step"));
    assert_eq!(
        (record.nodes[1].name.as_str(), record.nodes[2].name.as_str()),
        ("plan", "episode")
    );
    let asked = models[2].notes.seen()[0].prompt();
    assert_eq!(
        asked,
        r#"{"methods":{"S_1":{"Find":["a","b"]}},"turns":["find a cafe"]}"#
    );
    assert_eq!(tools.notes.arguments("S_1.Find"), [json!({"a": "coffee"})]);
    assert_eq!(
        ran.finished().usage.expect("usage").input_tokens,
        20,
        "the planners'; the classifier's stub counts none"
    );
    // One step, and no planner of its own.
    let ran = world.run(goal("do it for $5")).await;
    assert_eq!(ids(&world, &ran).await, ["router", "planner", "1"]);
    assert_eq!(
        (ran.state(), ran.node("1").input_json.as_str()),
        (State::Succeeded, "\"do it for $5\"")
    );
    assert_eq!((models[1].notes.count(), models[2].notes.count()), (2, 1));
    // Nothing known of it, and nobody to ask: planned as if there were no intents.
    for text in ["joke please", "away with it"] {
        let ran = world.run(goal(text)).await;
        let record = world.record(&ran.plan_id()).await.expect("known");
        assert_eq!(
            (ran.state(), record.nodes.len(), record.nodes[1].name.as_str()),
            (State::Succeeded, 3, "plan"),
            "{text}"
        );
        assert!(!reason(&record.nodes[0]).contains("followed"), "{text}");
        assert_eq!(ran.node("1").input_json, "\"planned\"");
    }
    // The same ways, and nothing run.
    let found = decomposed(&world, "find a cafe").await;
    let by = |call: Option<v1::NodeResult>| call.map(|call| call.name).unwrap_or_default();
    assert!(reason(found.router.as_ref().expect("asked")).ends_with("followed: the planner found one step"));
    assert_eq!(
        (found.plan_text.as_str(), by(found.planner), by(found.intent_planner)),
        ("1. S_1.Find(a=\"coffee\")", "plan".into(), "episode".into())
    );
    let whole = decomposed(&world, "do it").await;
    assert_eq!(
        (whole.plan_text.as_str(), by(whole.planner), by(whole.intent_planner)),
        ("1. do: do it", "plan".into(), String::new())
    );
    assert_eq!(tools.notes.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_is_not_followed_where_the_planner_finds_a_second_request() {
    let (models, tools, world) = routed(0.9).await;
    for text in ["find a cafe and a film", "do it and that"] {
        let ran = world.run(goal(text)).await;
        assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
        assert_eq!(ids(&world, &ran).await, ["router", "planner", "1", "2"]);
        let inputs = ["1", "2"].map(|id| ran.node(id).input_json);
        assert_eq!(inputs, ["\"planned\"", "\"too\""], "{text}");
        let record = world.record(&ran.plan_id()).await.expect("known");
        let told = reason(&record.nodes[0]);
        assert!(
            told.ends_with("not followed: the planner found more than one step"),
            "{told}"
        );
    }
    let found = decomposed(&world, "find a cafe and a film").await;
    assert_eq!(
        (found.plan_text.as_str(), found.intent_planner),
        ("1. do: planned\n2. do: too", None)
    );
    assert!(reason(&found.router.expect("asked")).ends_with("more than one step"));
    assert_eq!((models[2].notes.count(), tools.notes.seen().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_step_waits_for_no_intent_and_a_single_one_does() {
    // The planner has written all but its end long before the classifier answers.
    let planner = |seen: &Seen| match seen.prompt().contains(" and ") {
        true => say("1. do: planned\n2. do: too"),
        false => say("1. do: planned"),
    };
    let (models, _tools, world) = of_words(0.9, ms(800), planner).await;
    let ran = world.run(goal("find a cafe and a film")).await;
    assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
    let record = world.record(&ran.plan_id()).await.expect("known");
    let time = |wire: Option<&prost_types::Duration>| wire.and_then(time::std_duration).expect("told");
    let (router, step) = (&record.nodes[0], &record.nodes[2]);
    let answered = time(router.started_after.as_ref()) + time(router.elapsed.as_ref());
    assert!(time(step.started_after.as_ref()) < answered, "{record:?}");
    assert!(reason(&record.nodes[0]).ends_with("more than one step"), "{record:?}");
    let ran = world.run(goal("find a cafe")).await;
    assert_eq!(ids(&world, &ran).await, ["router", "planner", "intent-planner", "1"]);
    assert_eq!((ran.state(), models[3].notes.count()), (State::Succeeded, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_a_planner_that_still_writes_runs_only_once_its_intent_cannot_take_the_goal() {
    let pieces = |_: &Seen| {
        let lines = [(10, "1. do: planned\n"), (300, "2. do: too\n"), (300, "3. do: more")];
        Act::Pieces(lines.map(|(after, line)| (ms(after), line.to_owned())).to_vec(), 0.9)
    };
    let (_models, _tools, world) = of_words(0.9, Duration::ZERO, pieces).await;
    for (text, waits) in [("find a cafe", true), ("joke please", false)] {
        let ran = world.run(goal(text)).await;
        assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
        let started = ran.position("1 starts", |e| matches!(e, Event::NodeStarted(s) if s.node_id == "1"));
        let joins = |id: &'static str| {
            ran.position(
                "it joins",
                move |e| matches!(e, Event::NodeAdded(a) if a.node.as_ref().is_some_and(|n| n.id == id)),
            )
        };
        assert_eq!(started > joins("2"), waits, "{text}: {ran:?}");
        assert!(started < joins("3"), "the second step settles it: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_whose_planner_fails_fails_for_nobody_knows_how_many_requests_it_holds() {
    let (models, tools, world) = of_words(0.9, Duration::ZERO, |_| down()).await;
    let ran = world.run(goal("find a cafe")).await;
    assert_eq!(ran.state(), State::Failed, "{ran:?}");
    assert_eq!((models[2].notes.count(), tools.notes.seen().len()), (0, 0));
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
