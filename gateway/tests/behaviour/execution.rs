//! What runs when, and on what.
use crate::support::{
    model::{self, Act, Model, say, slow},
    ms,
    plan::{model, on_failure, plan_text, request, tool},
    tools::{self, Reply},
    world::Mesh,
};
use serde_json::json;
use shoal_kit::status::Reason;
use shoal_proto::v1::{self, State, failure_policy::Action, plan_event::Event};
use std::time::Duration;

/// A model that takes as many milliseconds as it is asked for.
fn clock() -> model::Specialist {
    let millis = |seen: &model::Seen, _: usize| {
        let prompt = seen.prompt();
        slow(
            prompt
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .expect("milliseconds"),
        )
    };
    Model::new("clock", "wait", millis).start()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skewed_diamond_takes_as_long_as_its_critical_path() {
    let clock = clock();
    let world = Mesh::new()
        .specialist("clock", &clock.server.url())
        .task("wait", &["clock"])
        .start()
        .await;
    world.run(request(vec![model("warm", "wait", "1")])).await;
    // Level by level it would take 100 + 700 + 700 + 100: the two long nodes are on different levels, and only one of them on each path.
    let nodes = vec![
        model("top", "wait", "100"),
        model("long", "wait", "700 ${top}"),
        model("short", "wait", "20 ${top}"),
        model("late", "wait", "700 ${short}"),
        model("end", "wait", "100 ${long} ${late}"),
    ];
    let critical = ms(100 + 20 + 700 + 100);
    // What else runs on the machine can only add: the quickest of a few runs is the executor's own time.
    let mut quickest = std::time::Duration::MAX;
    for _ in 0..5 {
        let ran = world.run(request(nodes.clone())).await;
        assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
        let elapsed = ran.finished().elapsed.expect("elapsed");
        quickest = quickest.min(shoal_proto::time::std_duration(&elapsed).expect("duration"));
        if quickest < critical.mul_f64(1.05) {
            break;
        }
    }
    assert!(
        quickest >= critical && quickest < critical.mul_f64(1.05),
        "{quickest:?} for a critical path of {critical:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependent_call_has_what_the_tool_really_answered() {
    for answer in ["12 Elm Street", "another place"] {
        let answered = json!({"name": "Ada's", "address": {"street": answer, "number": 7}});
        let tools = tools::start(&[("S.Find", true), ("S.Ride", false)], move |call, _| {
            match call.name.as_str() {
                "S.Find" => Reply::Text(answered.to_string()),
                _ => Reply::Text("{\"ok\":true}".into()),
            }
        });
        let world = Mesh::new().tools(&tools.server.url()).start().await;
        let ran = world
            .run(plan_text("1. S.Find(a=\"coffee\")\n2. S.Ride(a=$1.address.street, b=\"to ${1.name} for $$5, ${1.address.number}\")"))
            .await;
        assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
        let arguments = tools.notes.arguments("S.Ride");
        assert_eq!(arguments, [json!({"a": answer, "b": "to Ada's for $5, 7"})]);
        assert_eq!(ran.node("2").input_json, arguments[0].to_string());
        assert_eq!(ran.node("2").depends_on, ["1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_before_its_siblings_have_ended_and_events_tell_the_story_in_order() {
    let clock = clock();
    let world = Mesh::new()
        .specialist("clock", &clock.server.url())
        .task("wait", &["clock"])
        .start()
        .await;
    let nodes = vec![
        model("slow", "wait", "400"),
        model("quick", "wait", "10"),
        model("next", "wait", "10 ${quick}"),
    ];
    let ran = world.run(request(nodes)).await;
    let started = |id: &'static str| move |e: &Event| matches!(e, Event::NodeStarted(s) if s.node_id == id && s.target == "clock");
    let finished = |id: &'static str| move |e: &Event| matches!(e, Event::NodeFinished(f) if f.result.as_ref().is_some_and(|r| r.node_id == id));
    assert_eq!(ran.position("accepted", |e| matches!(e, Event::Accepted(_))), 0);
    let added = ran
        .events
        .iter()
        .filter(|e| matches!(e.event, Some(Event::NodeAdded(_))))
        .count();
    assert_eq!(added, 3);
    assert!(ran.position("next starts", started("next")) < ran.position("slow ends", finished("slow")));
    assert!(ran.position("quick ends", finished("quick")) < ran.position("next starts", started("next")));
    let usage = ran.finished().usage.expect("usage");
    assert_eq!((usage.input_tokens, usage.output_tokens), (30, 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_policy_does_what_it_says() {
    let broken = Model::new("broken", "break", |_, _| {
        Act::Fail(Reason::Internal {
            message: "broken".into(),
        })
    })
    .start();
    let echo = Model::new("echo", "echo", |seen, _| say(format!("said {}", seen.prompt()))).start();
    let world = Mesh::new()
        .specialist("broken", &broken.server.url())
        .specialist("echo", &echo.server.url())
        .task("break", &["broken"])
        .task("echo", &["echo"])
        .start()
        .await;
    let failing = || model("a", "break", "x");
    let after = || vec![model("b", "echo", "got ${a}"), model("c", "echo", "free")];
    let with = |first: v1::Node| request([vec![first], after()].concat());

    let fail = world.run(with(failing())).await;
    assert_eq!(
        (fail.state(), fail.node("a").state(), fail.node("b").state()),
        (State::Failed, State::Failed, State::Cancelled)
    );
    assert!(
        fail.finished().fault.expect("fault").message.starts_with("node `a`: "),
        "{fail:?}"
    );

    let skip = world.run(with(on_failure(failing(), Action::Skip, "", ""))).await;
    assert_eq!(
        (skip.state(), skip.node("a").state()),
        (State::Succeeded, State::Failed)
    );
    assert_eq!(
        (skip.node("b").state(), skip.node("c").state()),
        (State::Skipped, State::Succeeded)
    );
    assert_eq!(skip.node("b").fault.expect("fault").reason, "SKIPPED");

    let default = world
        .run(with(on_failure(failing(), Action::Default, "\"a stand-in\"", "")))
        .await;
    assert_eq!(
        (default.state(), default.node("a").state()),
        (State::Succeeded, State::Succeeded)
    );
    assert_eq!(default.output("b"), "said got a stand-in");
    assert!(default.node("a").fault.is_some(), "it says why it is a stand-in");

    let fall_back = world
        .run(with(on_failure(failing(), Action::FallBack, "", "echo")))
        .await;
    assert_eq!(
        (fall_back.state(), fall_back.node("a").state()),
        (State::Succeeded, State::Succeeded)
    );
    assert_eq!(
        (fall_back.output("a"), fall_back.node("a").target.as_str()),
        (json!("said x"), "echo")
    );
    let targets: Vec<String> = fall_back.decisions("a").into_iter().map(|d| d.0).collect();
    assert_eq!(targets, ["broken", "echo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_a_model_yields_runs_if_somebody_offers_the_tool_and_is_the_output_if_nobody_does() {
    let caller = Model::new("caller", "tool_call", |seen, _| match seen.prompt().as_str() {
        "find" => say(r#"{"service":"S","method":"Find","parameters":{"a":"$5 ${x}"}}"#),
        "fail" => say(r#"{"tool":"S.Fail","arguments":{"a":"x"}}"#),
        _ => say(r#"{"tool":"PlayMusic","arguments":{"artist":"Ada"}}"#),
    })
    .start();
    let tools = tools::start(&[("S.Find", true), ("S.Fail", true)], |call, _| {
        if call.name == "S.Find" {
            Reply::Text("{\"street\":\"Elm\"}".into())
        } else {
            Reply::Text("nonsense".into())
        }
    });
    let world = Mesh::new()
        .specialist("caller", &caller.server.url())
        .task("tool_call", &["caller"])
        .tools(&tools.server.url())
        .start()
        .await;
    let ran = world
        .run(plan_text(
            "1. tool_call: find\n2. tool_call: play\n3. S.Find(a=$1.street)",
        ))
        .await;
    assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
    assert_eq!(
        ran.output("1"),
        json!({"service": "S", "method": "Find", "parameters": {"a": "$5 ${x}"}})
    );
    assert_eq!(
        (ran.output("1-call"), ran.node("1-call").kind.as_str()),
        (json!({"street": "Elm"}), "tool")
    );
    assert_eq!(ran.node("1-call").depends_on, ["1"]);
    assert_eq!(
        ran.output("2"),
        json!({"tool": "PlayMusic", "arguments": {"artist": "Ada"}})
    );
    // What refers to the step has the tool's answer, and what the model said is taken literally.
    assert_eq!(
        tools.notes.arguments("S.Find"),
        [json!({"a": "$5 ${x}"}), json!({"a": "Elm"})]
    );
    assert!(ran.nodes().iter().all(|n| n.node_id != "2-call"));

    let failed = world
        .run(request(vec![
            model("1", "tool_call", "fail"),
            model("2", "tool_call", "after ${1}"),
        ]))
        .await;
    assert_eq!(
        (failed.state(), failed.reason().as_str()),
        (State::Failed, "TOOL_ANSWER_INVALID")
    );
    let policy = on_failure(model("1", "tool_call", "fail"), Action::Default, "{\"x\":1}", "");
    let stood_in = world
        .run(request(vec![policy, model("2", "tool_call", "after ${1.x}")]))
        .await;
    assert_eq!(
        (stood_in.state(), stood_in.output("1-call")),
        (State::Succeeded, json!({"x": 1}))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_that_finds_nothing_and_one_that_grows_past_every_bound_fail_their_node_and_say_why() {
    let tools = tools::start(&[("S.Big", true)], |_, _| {
        Reply::Text(format!("{{\"x\":\"{}\"}}", "y".repeat(900_000)))
    });
    let echo = Model::new("echo", "echo", |_, _| say("ok")).start();
    let world = Mesh::new()
        .specialist("echo", &echo.server.url())
        .task("echo", &["echo"])
        .tools(&tools.server.url())
        .start()
        .await;
    let missing = world
        .run(request(vec![
            tool("big", "S.Big", json!({})),
            model("m", "echo", "${big.street}"),
        ]))
        .await;
    assert_eq!(missing.reason(), "REFERENCE_MISSING");
    assert!(
        missing.finished().fault.expect("fault").message.contains("it has x"),
        "{missing:?}"
    );
    let bomb = world
        .run(request(vec![
            tool("big", "S.Big", json!({})),
            model("m", "echo", &"${big.x}".repeat(1000)),
        ]))
        .await;
    assert_eq!(bomb.reason(), "INPUT_TOO_LARGE");
    assert_eq!(echo.notes.count(), 0, "it was never asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn priority_slack_sampling_and_a_schema_reach_the_specialist() {
    const LIMIT: i64 = 60;
    let echo = Model::new("echo", "echo", |_, _| say("{\"a\":1}")).start();
    let world = Mesh::new()
        .specialist("echo", &echo.server.url())
        .task("echo", &["echo"])
        .start()
        .await;
    let mut node = model("a", "echo", "{\"q\": 1}");
    if let Some(v1::node::Kind::Model(call)) = &mut node.kind {
        call.sampling = Some(v1::Sampling {
            max_tokens: Some(7),
            seed: Some(3),
            ..v1::Sampling::default()
        });
        call.output_schema_json = r#"{"type":"object","required":["a"]}"#.into();
    }
    let mut plan = request(vec![node]);
    plan.limits = Some(v1::PlanLimits {
        priority: v1::Priority::Interactive.into(),
        deadline: Some(shoal_proto::time::duration(ms(LIMIT as u64 * 1000))),
        ..v1::PlanLimits::default()
    });
    let ran = world.run(plan).await;
    assert_eq!((ran.state(), ran.output("a")), (State::Succeeded, json!({"a": 1})));
    let seen = &echo.notes.seen()[0];
    assert_eq!(seen.request.priority(), v1::Priority::Interactive);
    // Nothing comes after it: it may wait for nearly all of the plan's time.
    let slack = seen.request.slack.expect("the gateway knows it").seconds;
    assert!((LIMIT / 2..=LIMIT).contains(&slack), "{slack} s of {LIMIT}");
    let sampling = seen.request.sampling.clone().expect("sampling");
    assert_eq!((sampling.max_tokens, sampling.seed), (Some(7), Some(3)));
    assert!(matches!(
        seen.request.prompt.as_ref().and_then(|p| p.content.as_ref()),
        Some(v1::prompt::Content::Json(_))
    ));
    let form = seen.request.constraint.as_ref().and_then(|c| c.form.as_ref());
    assert!(matches!(form, Some(v1::constraint::Form::JsonSchema(s)) if s.contains("required")));
    assert!(
        seen.timeout
            .is_some_and(|t| t > Duration::from_secs(50) && t <= Duration::from_secs(60)),
        "{seen:?}"
    );
}
