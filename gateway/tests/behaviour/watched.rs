//! Plans by their id: begun once, watched by many, forgotten in the end; and the budgets that bound them.
use crate::support::{
    model::{Act, Model, Specialist, say},
    ms,
    plan::{Ran, model, request},
    until,
    world::{Mesh, World},
};
use shoal_kit::status;
use shoal_proto::v1::{self, State, decision::Verdict};
use tonic::Code;

async fn echo(change: impl FnOnce(Mesh) -> Mesh) -> (Specialist, World) {
    let echo = Model::new("echo", "echo", |seen, _| match seen.prompt().as_str() {
        "hang" => Act::Hang,
        "long" => Act::Pieces((0..400).map(|_| (ms(0), "word ".to_owned())).collect(), 0.9),
        other => say(format!("said {other}")),
    })
    .start();
    let mesh = Mesh::new()
        .specialist("echo", &echo.server.url())
        .task("echo", &["echo"]);
    let world = change(mesh).start().await;
    (echo, world)
}

fn named(plan_id: &str, input: &str) -> v1::ExecutePlanRequest {
    v1::ExecutePlanRequest {
        plan_id: plan_id.into(),
        ..request(vec![model("a", "echo", input)])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_under_the_same_id_runs_once_and_other_content_is_refused() {
    let (echo, world) = echo(|m| m).await;
    let (first, second) = tokio::join!(world.run(named("mine", "x")), world.run(named("mine", "x")));
    assert_eq!(first.events, second.events);
    let third = world.run(named("mine", "x")).await;
    assert_eq!((third.events == first.events, echo.notes.count()), (true, 1));
    let taken = world.refused(named("mine", "y")).await;
    assert_eq!(
        (taken.code(), status::error_reason(&taken).as_deref()),
        (Code::AlreadyExists, Some("PLAN_ID_TAKEN"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_client_of_a_plan_keeps_it_running_when_the_first_one_goes() {
    let (echo, world) = echo(|m| m).await;
    let first = world.open(named("mine", "hang")).await.expect("begun");
    until("it runs", || echo.notes.live() == 1).await;
    let second = world.open(named("mine", "hang")).await.expect("joined");
    drop(first);
    tokio::time::sleep(ms(150)).await;
    assert_eq!(echo.notes.dropped(), 0);
    drop(second);
    until("it is dropped", || echo.notes.dropped() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_client_may_detach_a_plan_that_the_first_one_did_not() {
    let (echo, world) = echo(|m| m).await;
    let first = world.open(named("mine", "hang")).await.expect("begun");
    until("it runs", || echo.notes.live() == 1).await;
    let detached = v1::ExecutePlanRequest {
        detach: true,
        ..named("mine", "hang")
    };
    let second = world.open(detached).await.expect("joined");
    let third = world.open(named("mine", "hang")).await.expect("joined");
    drop((first, second, third));
    tokio::time::sleep(ms(150)).await;
    assert_eq!((echo.notes.live(), echo.notes.dropped()), (1, 0));
    assert_eq!(world.cancel("mine").await.expect("it runs on"), State::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_plan_too_many_is_told_when_to_come_back_and_a_place_is_free_after_an_end() {
    let (echo, world) = echo(|m| m.change(|c| c.gateway.max_plans = 1)).await;
    let running = world.open(named("first", "hang")).await.expect("begun");
    until("it runs", || echo.notes.live() == 1).await;
    let refused = world.refused(named("second", "x")).await;
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        status::retry_after(&refused).is_some() && refused.message().contains("max_plans"),
        "{refused:?}"
    );
    let goal = v1::DecomposeRequest {
        goal: Some(v1::Goal {
            text: "x".into(),
            ..v1::Goal::default()
        }),
    };
    assert_eq!(
        world.plans().decompose(goal).await.expect_err("no planner").code(),
        Code::InvalidArgument
    );
    drop(running);
    until("it is dropped", || echo.notes.dropped() == 1).await;
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while world.open(named("second", "x")).await.is_err() {
        assert!(std::time::Instant::now() < end, "the place stays taken");
        tokio::time::sleep(ms(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_holds_up_nobody_and_a_late_one_sees_everything() {
    let (_echo, world) = echo(|m| m).await;
    let nodes = || {
        (0..60)
            .map(|i| model(&format!("n{i}"), "echo", "long"))
            .collect::<Vec<_>>()
    };
    let plan = v1::ExecutePlanRequest {
        plan_id: "mine".into(),
        detach: true,
        ..request(nodes())
    };
    // A client that reads nothing, while the plan tells thousands of events.
    let unread = world.open(plan).await.expect("begun");
    let quick = Ran::through(world.watch("mine", 0).await.expect("known")).await;
    assert_eq!(quick.state(), State::Succeeded);
    assert!(quick.events.len() > 2000, "{}", quick.events.len());
    let late = Ran::through(world.watch("mine", 0).await.expect("known")).await;
    assert_eq!(late.events, quick.events);
    let slow = Ran::through(unread).await;
    assert_eq!(slow.events, quick.events);
    let tail: Vec<_> = {
        use futures::StreamExt as _;
        let after = quick.events.len() as u64 - 1;
        world.watch("mine", after).await.expect("known").collect().await
    };
    assert_eq!(tail.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_budget_ends_model_calls_and_is_never_exceeded() {
    let (echo, world) = echo(|m| m).await;
    let limited = |max_tokens, max_cost_usd| {
        let nodes = (0..6).map(|i| {
            let mut node = model(&format!("n{i}"), "echo", "x");
            if i > 0 {
                node.after = vec![format!("n{}", i - 1)];
            }
            node
        });
        v1::ExecutePlanRequest {
            limits: Some(v1::PlanLimits {
                max_tokens,
                max_cost_usd,
                ..v1::PlanLimits::default()
            }),
            ..request(nodes.collect())
        }
    };
    // Each call uses fifteen tokens.
    let ran = world.run(limited(40, 0.0)).await;
    let usage = ran.finished().usage.expect("usage");
    assert_eq!(ran.state(), State::Failed);
    assert!(usage.input_tokens + usage.output_tokens <= 45, "{usage:?}");
    let fault = ran.finished().fault.expect("fault");
    assert_eq!(fault.code, Code::ResourceExhausted as i32);
    assert!(fault.message.contains("limits.max_tokens"), "{fault:?}");
    let refused = ran
        .nodes()
        .into_iter()
        .find(|n| n.state() == State::Failed)
        .expect("one failed");
    assert_eq!(refused.decisions[0].verdict(), Verdict::PassedOver);
    // What is left bounds what may be generated.
    let most = echo.notes.seen()[0]
        .request
        .sampling
        .as_ref()
        .and_then(|s| s.max_tokens);
    assert!(most.is_some_and(|n| n < 40), "{most:?}");
    let ran = world.run(limited(0, 0.00005)).await;
    assert!(ran.state() == State::Failed && ran.finished().fault.expect("fault").message.contains("max_cost_usd"));
    assert_eq!(world.run(limited(10_000, 1.0)).await.state(), State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_side_by_side_share_a_budget_that_all_of_them_fit_in() {
    let (_echo, world) = echo(|m| m).await;
    // Each uses fifteen tokens, and may use more than there are.
    let nodes = (0..5).map(|i| model(&format!("n{i}"), "echo", "x"));
    let limits = v1::PlanLimits {
        max_tokens: 90,
        ..v1::PlanLimits::default()
    };
    let plan = v1::ExecutePlanRequest {
        limits: Some(limits),
        ..request(nodes.collect())
    };
    let ran = world.run(plan).await;
    assert_eq!(ran.state(), State::Succeeded, "{:?}", ran.finished());
    assert!(ran.nodes().iter().all(|n| n.output_json == "\"said x\""), "{ran:?}");
}
