//! Goals: what the planner is asked, what its text becomes, and when.
use crate::support::{
    endpoint::Endpoint,
    model::{Act, Model, Specialist, say, slow, unsure},
    ms,
    plan::{Ran, goal, within},
    store::{self, Disk},
    tools::{self, Reply},
    until,
    world::{Mesh, World},
};
use serde_json::json;
use shoal_kit::status;
use shoal_proto::v1::{self, State, decision::Verdict, execute_plan_request::Source, plan_event::Event};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tonic::Code;

fn worker() -> Specialist {
    Model::new("worker", "do", |_, _| slow(30)).start()
}

/// A planner and a worker.
async fn planned(planner: Model, change: impl FnOnce(Mesh) -> Mesh) -> (Specialist, Specialist, World) {
    let (planner, worker) = (planner.start(), worker());
    let mesh = Mesh::new()
        .specialist("planner", &planner.server.url())
        .specialist("worker", &worker.server.url())
        .task("plan", &["planner"])
        .task("episode", &["planner"])
        .task("do", &["worker"]);
    let world = change(mesh).start().await;
    (planner, worker, world)
}

/// The planner's own call, as GetPlan has it.
async fn call(world: &World, ran: &Ran) -> v1::NodeResult {
    let record = world.record(&ran.plan_id()).await.expect("known");
    assert_eq!(record.nodes[0].node_id, "planner");
    record.nodes[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_run_while_the_planner_still_writes() {
    let lines = vec![
        (ms(10), "1. do: a\n".to_owned()),
        (ms(300), "2. do: with ${1}".to_owned()),
        (ms(10), " and more\n3. do: c".to_owned()),
    ];
    let (planner, worker, world) = planned(
        Model::new("planner", "plan", move |_, _| Act::Pieces(lines.clone(), 0.9)),
        |m| m,
    )
    .await;
    let ran = world.run(goal("two things")).await;
    assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
    let ended = |id: &'static str| move |e: &Event| matches!(e, Event::NodeFinished(f) if f.result.as_ref().is_some_and(|r| r.node_id == id));
    let added = |id: &'static str| move |e: &Event| matches!(e, Event::NodeAdded(a) if a.node.as_ref().is_some_and(|n| n.id == id));
    assert!(
        ran.position("1 ends", ended("1")) < ran.position("3 joins", added("3")),
        "{ran:?}"
    );
    assert!(
        ran.nodes().iter().all(|n| n.node_id != "planner"),
        "its own call is no step of the plan"
    );
    assert_eq!(ran.node("2").input_json, "\"with done and more\"");
    assert_eq!(ran.node("2").depends_on, ["1"]);
    let record = world.record(&ran.plan_id()).await.expect("known");
    let told = record.nodes[0].clone();
    assert_eq!(
        (told.kind.as_str(), told.name.as_str(), told.target.as_str()),
        ("model", "plan", "planner")
    );
    assert_eq!(
        told.output_json,
        json!("1. do: a\n2. do: with ${1} and more\n3. do: c").to_string()
    );
    assert_eq!(
        (planner.notes.seen()[0].prompt().as_str(), worker.notes.count()),
        ("two things", 3)
    );
    let ids: Vec<_> = record.nodes.iter().map(|n| n.node_id.as_str()).collect();
    assert_eq!(ids, ["planner", "1", "2", "3"]);
    assert_eq!(
        ran.finished().usage.expect("usage").input_tokens,
        40,
        "the planner's tokens count"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_planned_from_its_turns_and_methods() {
    let tools = tools::start(&[("S_1.Find", true), ("S_1.Book", false)], |call, _| {
        match call.name.as_str() {
            "S_1.Find" => Reply::Text("{\"name\":\"Ada's\"}".into()),
            _ => Reply::Text("{}".into()),
        }
    });
    let text = "1. S_1.Find(a=\"coffee\")\n2. S_1.Book(a=$1.name)";
    let (planner, _worker, world) = planned(Model::new("planner", "episode", move |_, _| say(text)), |m| {
        m.tools(&tools.server.url())
    })
    .await;
    let conversation = |methods| v1::ExecutePlanRequest {
        source: Some(Source::Goal(v1::Goal {
            turns: vec!["a table".into(), "for two".into()],
            methods,
            ..v1::Goal::default()
        })),
        ..v1::ExecutePlanRequest::default()
    };
    let ran = world.run(conversation(Vec::new())).await;
    assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
    assert_eq!(tools.notes.arguments("S_1.Book"), [json!({"a": "Ada's"})]);
    let asked = &planner.notes.seen()[0];
    assert!(matches!(
        asked.request.prompt.as_ref().and_then(|p| p.content.as_ref()),
        Some(v1::prompt::Content::Json(_))
    ));
    // Every registered tool, since the goal names none.
    assert_eq!(
        asked.prompt(),
        r#"{"methods":{"S_1":{"Book":["a","b"],"Find":["a","b"]}},"turns":["a table","for two"]}"#
    );
    let only_find = vec![v1::MethodSignature {
        service: "S_1".into(),
        method: "Find".into(),
        parameters: vec!["a".into()],
    }];
    let ran = world.run(conversation(only_find)).await;
    assert_eq!(
        (ran.state(), ran.reason().as_str()),
        (State::Failed, "PLAN_TEXT_GARBLED")
    );
    assert!(planner.notes.seen()[1].prompt().contains(r#""S_1":{"Find":["a"]}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_no_plan_fails_the_plan_with_what_was_written() {
    for text in [
        "play some jazz",
        "1. do: a\n3. do: b",
        "1. nobody: a",
        "1. No.Tool()",
        "",
    ] {
        let (_planner, _worker, world) = planned(Model::new("planner", "plan", move |_, _| say(text)), |m| m).await;
        let ran = world.run(goal("something")).await;
        let fault = ran.finished().fault.expect("fault");
        assert_eq!(
            (ran.state(), fault.reason.as_str()),
            (State::Failed, "PLAN_TEXT_GARBLED"),
            "{text}: {ran:?}"
        );
        assert_eq!(fault.code, Code::FailedPrecondition as i32);
        assert!(fault.message.contains(text), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_a_planner_garbles_ends_the_plan_while_earlier_steps_run() {
    let lines = vec![
        (ms(10), "1. hang: a\n".to_owned()),
        (ms(100), "nonsense\n".to_owned()),
        (Duration::from_secs(60), "2. do: b".to_owned()),
    ];
    let hang = Model::new("hang", "hang", |_, _| Act::Hang).start();
    let (planner, _worker, world) = planned(
        Model::new("planner", "plan", move |_, _| Act::Pieces(lines.clone(), 0.9)),
        |m| m.specialist("hang", &hang.server.url()).task("hang", &["hang"]),
    )
    .await;
    let ran = world.run(goal("something")).await;
    assert_eq!(
        (ran.state(), ran.reason().as_str()),
        (State::Failed, "PLAN_TEXT_GARBLED"),
        "{ran:?}"
    );
    assert!(ran.finished().fault.expect("fault").message.contains("line 2"));
    assert_eq!(
        (ran.node("1").state(), call(&world, &ran).await.state()),
        (State::Cancelled, State::Cancelled)
    );
    until("everything is dropped", || {
        hang.notes.dropped() == 1 && planner.notes.dropped() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbled_or_doubtful_text_moves_on_to_the_next_planner_and_no_step_of_it_has_run() {
    for (first, verdict) in [
        (say("1. do: wrong\nnonsense"), Verdict::Invalid),
        (unsure("1. do: wrong", 0.2), Verdict::Unsure),
        (Act::Cut("1. do: wrong\n2. do: wrong\n".into()), Verdict::Invalid),
    ] {
        let larger = Endpoint::saying("1. do: right").await;
        let disk = Arc::new(Disk::default());
        let feedback = store::start(&disk);
        let (_planner, worker, world) = planned(
            Model::new("planner", "plan", move |_, _| first.clone()).threshold(0.5),
            |m| {
                m.endpoint("larger", &larger.base_url, |_| {})
                    .task("plan", &["planner", "larger"])
                    .feedback(&feedback.url())
            },
        )
        .await;
        let ran = world.run(goal("something")).await;
        assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
        let call = call(&world, &ran).await;
        assert_eq!(call.target, "larger");
        let decisions: Vec<_> = call.decisions.iter().map(v1::Decision::verdict).collect();
        assert_eq!(decisions, [verdict, Verdict::Chosen]);
        let prompts: Vec<_> = worker.notes.seen().iter().map(|s| s.prompt()).collect();
        assert_eq!(prompts, ["right"]);
        until("the planner's call is an outcome", || {
            disk.node(&ran.plan_id(), "planner").is_some()
        })
        .await;
        let outcome = disk.node(&ran.plan_id(), "planner").expect("stored");
        assert_eq!(
            (outcome.input_json.as_str(), outcome.output_json.as_str()),
            ("\"something\"", "\"1. do: right\"")
        );
        assert!(outcome.escalated_from_output_json.contains("wrong") && outcome.valid == Some(true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planner_that_breaks_off_is_asked_again_and_goes_on_where_it_was() {
    let (planner, worker, world) = planned(
        Model::new("planner", "plan", |_, n| {
            if n == 0 {
                Act::Break("1. do: a\n2. d".into())
            } else {
                say("1. do: a\n2. do: b")
            }
        }),
        |m| m,
    )
    .await;
    let ran = world.run(goal("something")).await;
    assert_eq!((ran.state(), planner.notes.count()), (State::Succeeded, 2), "{ran:?}");
    let mut prompts: Vec<_> = worker.notes.seen().iter().map(|s| s.prompt()).collect();
    prompts.sort();
    assert_eq!(prompts, ["a", "b"], "each step ran once");
    assert_eq!(
        call(&world, &ran).await.output_json,
        json!("1. do: a\n2. do: b").to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn decompose_gives_the_plan_and_runs_nothing() {
    let disk = Arc::new(Disk::default());
    let feedback = store::start(&disk);
    // Nobody offers the tool: that is for whoever executes the plan to mind.
    let text = "1. Far.Away(a=\"$$5\")\n2. do: with ${1.x}";
    let (_planner, worker, world) = planned(Model::new("planner", "plan", move |_, _| say(text)), |m| {
        m.feedback(&feedback.url())
    })
    .await;
    let request = |text: &str| v1::DecomposeRequest {
        goal: Some(v1::Goal {
            text: text.into(),
            ..v1::Goal::default()
        }),
    };
    let answer = world
        .plans()
        .decompose(request("go"))
        .await
        .expect("planned")
        .into_inner();
    assert_eq!(answer.plan_text, text);
    let nodes = answer.plan.expect("plan").nodes;
    let Some(v1::node::Kind::Tool(call)) = &nodes[0].kind else {
        panic!("a tool")
    };
    assert_eq!(
        (call.name.as_str(), call.arguments_json.as_str()),
        ("Far.Away", r#"{"a":"$$5"}"#)
    );
    let planner = answer.planner.expect("planner");
    assert_eq!(
        (planner.node_id.as_str(), planner.state(), planner.target.as_str()),
        ("planner", State::Succeeded, "planner")
    );
    assert_eq!(worker.notes.count(), 0);
    until("its call is an outcome", || {
        disk.all().iter().any(|o| o.outcome_id == planner.outcome_id)
    })
    .await;
    assert_eq!(
        world.plans().decompose(request(" ")).await.expect_err("empty").code(),
        Code::InvalidArgument
    );
    assert_eq!(
        world
            .plans()
            .decompose(v1::DecomposeRequest::default())
            .await
            .expect_err("none")
            .code(),
        Code::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn decompose_says_what_a_garbled_text_was_and_dropping_it_stops_the_planner() {
    let (_planner, _worker, world) = planned(Model::new("planner", "plan", |_, _| say("hello there")), |m| m).await;
    let request = || v1::DecomposeRequest {
        goal: Some(v1::Goal {
            text: "x".into(),
            ..v1::Goal::default()
        }),
    };
    let garbled = world.plans().decompose(request()).await.expect_err("garbled");
    assert_eq!(
        (garbled.code(), status::error_reason(&garbled).as_deref()),
        (Code::FailedPrecondition, Some("PLAN_TEXT_GARBLED"))
    );
    assert!(garbled.message().contains("hello there"), "{garbled:?}");
    // Two whole lines of more: neither Decompose nor an execution takes them for the plan.
    let (_planner, _worker, world) = planned(
        Model::new("planner", "plan", |_, _| Act::Cut("1. do: a\n2. do: b\n".into())),
        |m| m,
    )
    .await;
    let cut = world.plans().decompose(request()).await.expect_err("cut off");
    assert!(cut.message().contains("cut off (length)"), "{cut:?}");
    let ran = world.run(goal("x")).await;
    assert_eq!(
        (ran.state(), ran.reason().as_str()),
        (State::Failed, "PLAN_TEXT_GARBLED")
    );
    let (planner, _worker, world) = planned(Model::new("planner", "plan", |_, _| Act::Hang), |m| m).await;
    let call = tokio::spawn(async move { world.plans().decompose(request()).await.map(drop) });
    until("it runs", || planner.notes.live() == 1).await;
    call.abort();
    until("it is dropped", || planner.notes.dropped.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_planner_has_the_plans_deadline_and_no_more() {
    let (planner, _worker, world) = planned(Model::new("planner", "plan", |_, _| Act::Hang), |m| m).await;
    let detached = v1::ExecutePlanRequest {
        plan_id: "mine".into(),
        ..within(goal("x"), ms(300))
    };
    let stream = world.open(detached).await.expect("admitted");
    until("it runs", || planner.notes.live() == 1).await;
    let record = world.record("mine").await.expect("known");
    assert_eq!(
        (record.nodes[0].node_id.as_str(), record.nodes[0].state()),
        ("planner", State::Running)
    );
    assert_eq!(record.nodes[0].target, "planner");
    let ran = Ran::through(stream).await;
    assert_eq!(
        (ran.state(), call(&world, &ran).await.state()),
        (State::Cancelled, State::Cancelled)
    );
    until("it is dropped", || planner.notes.dropped() == 1).await;
}
