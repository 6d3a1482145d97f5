//! How plans end before their time: by their deadline, by their client, by somebody else, by a sibling.
use crate::support::{
    model::{Act, Model, Specialist, down, slow},
    ms,
    plan::{Ran, model, on_failure, request, tool, within},
    tools::{self, Reply},
    until,
    world::{Mesh, World},
};
use serde_json::json;
use shoal_kit::{deadline, status::Reason};
use shoal_proto::v1::{self, State, failure_policy::Action};
use std::{sync::atomic::Ordering, time::Instant};
use tonic::{Code, Request};

async fn hanging() -> (Specialist, World) {
    let hang = Model::new("hang", "hang", |_, _| Act::Hang).start();
    let world = Mesh::new()
        .specialist("hang", &hang.server.url())
        .task("hang", &["hang"])
        .start()
        .await;
    (hang, world)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_ends_the_plan_and_every_call_of_it() {
    let (hang, world) = hanging().await;
    let tools = tools::start(&[("S.Never", true)], |_, _| Reply::Never);
    let both = Mesh::new()
        .specialist("hang", &hang.server.url())
        .task("hang", &["hang"])
        .tools(&tools.server.url())
        .start()
        .await;
    drop(world);
    let nodes = vec![
        model("a", "hang", "x"),
        tool("t", "S.Never", json!({})),
        model("b", "hang", "after ${a}"),
    ];
    let began = Instant::now();
    let ran = both.run(within(request(nodes), ms(400))).await;
    let took = began.elapsed();
    assert!(took >= ms(390) && took < ms(700), "{took:?}");
    assert_eq!(
        (ran.state(), ran.finished().fault.expect("fault").code),
        (State::Cancelled, Code::DeadlineExceeded as i32)
    );
    for id in ["a", "t", "b"] {
        assert_eq!(ran.node(id).state(), State::Cancelled, "{id}");
    }
    until("both calls are dropped", || {
        hang.notes.dropped() == 1 && tools.notes.dropped.load(Ordering::SeqCst) == 1
    })
    .await;
    let told = hang.notes.seen()[0].timeout.expect("a timeout");
    assert!(
        told <= ms(400) && told > ms(200),
        "the callee knows when it is over: {told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attempt_starts_after_the_deadline() {
    let flaky = Model::new("flaky", "flaky", |_, _| slow_failure()).start();
    let world = Mesh::new()
        .specialist("flaky", &flaky.server.url())
        .task("flaky", &["flaky"])
        .start()
        .await;
    let mut node = model("a", "flaky", "x");
    node.max_attempts = 5;
    let began = tokio::time::Instant::now();
    let ran = world.run(within(request(vec![node]), ms(300))).await;
    assert_ne!(ran.state(), State::Succeeded);
    tokio::time::sleep(ms(400)).await;
    let late: Vec<_> = flaky
        .notes
        .seen()
        .into_iter()
        .filter(|s| s.at > began + ms(310))
        .collect();
    assert!(late.is_empty() && flaky.notes.count() >= 1, "{late:?}");
}

fn slow_failure() -> Act {
    std::thread::sleep(ms(80));
    down()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_grpc_timeout_counts_and_one_that_cannot_be_read_is_refused() {
    let (hang, world) = hanging().await;
    let mut call = Request::new(request(vec![model("a", "hang", "x")]));
    deadline::set(&mut call, ms(300));
    let began = Instant::now();
    let stream = world.plans().execute_plan(call).await.expect("admitted").into_inner();
    let ran = Ran::through(stream).await;
    assert!(began.elapsed() < ms(600) && ran.state() == State::Cancelled, "{ran:?}");
    until("the call is dropped", || hang.notes.dropped() == 1).await;
    let mut garbled = Request::new(request(vec![model("a", "hang", "x")]));
    garbled
        .metadata_mut()
        .insert("grpc-timeout", "soon".parse().expect("ascii"));
    let refused = world.plans().execute_plan(garbled).await.expect_err("garbled");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_own_timeout_is_its_failure_and_its_policy_decides() {
    let (hang, world) = hanging().await;
    let quick = Model::new("quick", "quick", |_, _| slow(5)).start();
    let world = {
        drop(world);
        Mesh::new()
            .specialist("hang", &hang.server.url())
            .specialist("quick", &quick.server.url())
            .task("hang", &["hang"])
            .task("quick", &["quick"])
            .start()
            .await
    };
    let timed = |action: Action, task: &str| {
        let mut node = on_failure(model("a", "hang", "x"), action, "", task);
        node.timeout = Some(shoal_proto::time::duration(ms(150)));
        request(vec![node])
    };
    let failed = world.run(timed(Action::Fail, "")).await;
    let fault = failed.node("a").fault.expect("fault");
    assert_eq!(
        (failed.state(), failed.node("a").state()),
        (State::Failed, State::Failed)
    );
    assert_eq!(fault.code, Code::DeadlineExceeded as i32);
    assert!(fault.message.contains("timeout of 150ms"), "{fault:?}");
    assert_eq!(world.run(timed(Action::Skip, "")).await.state(), State::Succeeded);
    let fell_back = world.run(timed(Action::FallBack, "quick")).await;
    assert_eq!(
        (fell_back.state(), fell_back.node("a").target.as_str()),
        (State::Succeeded, "quick")
    );
    until("the calls are dropped", || hang.notes.dropped() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_cancels_its_plan_down_to_the_specialist() {
    let (hang, world) = hanging().await;
    let stream = world
        .open(request(vec![model("a", "hang", "x")]))
        .await
        .expect("admitted");
    until("it runs", || hang.notes.live() == 1).await;
    drop(stream);
    until("the call is dropped", || hang.notes.dropped() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_plan_goes_on_and_is_found_again_and_cancelled() {
    let (hang, world) = hanging().await;
    let detached = v1::ExecutePlanRequest {
        detach: true,
        plan_id: "mine".into(),
        ..request(vec![model("a", "hang", "x")])
    };
    drop(world.open(detached).await.expect("admitted"));
    until("it runs", || hang.notes.live() == 1).await;
    let record = world.record("mine").await.expect("known");
    assert_eq!(
        (record.state(), record.nodes[0].state()),
        (State::Running, State::Running)
    );
    assert_eq!(record.nodes[0].target, "hang");
    let watched = tokio::spawn(Ran::through(world.watch("mine", 0).await.expect("known")));
    assert_eq!(world.cancel("mine").await.expect("cancelled"), State::Cancelled);
    let ran = watched.await.expect("watched");
    assert_eq!((ran.state(), ran.reason().as_str()), (State::Cancelled, "CANCELLED"));
    assert_eq!(ran.finished().fault.expect("fault").message, "the test says so");
    until("the call is dropped", || hang.notes.dropped() == 1).await;
    assert_eq!(
        world.cancel("mine").await.expect("again"),
        State::Cancelled,
        "idempotent"
    );
    assert_eq!(
        world.cancel("nobody").await.expect_err("unknown").code(),
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sibling_cancels_what_runs_and_the_specialist_notices() {
    let hang = Model::new("hang", "hang", |_, _| Act::Hang).start();
    let tools = tools::start(&[("S.M", true)], |_, _| {
        Reply::Refuse(Reason::NotFound {
            reason: "NO_MATCH",
            message: "nothing fits".into(),
        })
    });
    let world = Mesh::new()
        .specialist("hang", &hang.server.url())
        .task("hang", &["hang"])
        .tools(&tools.server.url())
        .start()
        .await;
    let nodes = vec![
        model("a", "hang", "x"),
        tool("t", "S.M", json!({"a": "b"})),
        model("b", "hang", "${a}"),
    ];
    let ran = world.run(request(nodes)).await;
    assert_eq!((ran.state(), ran.reason().as_str()), (State::Failed, "NO_MATCH"));
    assert_eq!(
        (ran.node("a").state(), ran.node("b").state()),
        (State::Cancelled, State::Cancelled)
    );
    until("nothing runs any more", || hang.notes.live() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_leaves_lets_plans_end_and_cuts_off_those_that_do_not() {
    let hang = Model::new("hang", "hang", |_, _| Act::Hang).start();
    let quick = Model::new("quick", "quick", |_, _| slow(300)).start();
    let world = Mesh::new()
        .specialist("hang", &hang.server.url())
        .specialist("quick", &quick.server.url())
        .task("hang", &["hang"])
        .task("quick", &["quick"])
        .change(|c| c.gateway.drain = ms(800))
        .start()
        .await;
    let ends = world
        .open(request(vec![model("a", "quick", "x")]))
        .await
        .expect("admitted");
    let hangs = world
        .open(request(vec![model("a", "hang", "x")]))
        .await
        .expect("admitted");
    until("both run", || hang.notes.live() == 1 && quick.notes.live() == 1).await;
    let (ends, hangs) = (tokio::spawn(Ran::through(ends)), tokio::spawn(Ran::through(hangs)));
    let began = Instant::now();
    world.stop().await;
    assert!(began.elapsed() < ms(4000), "{:?}", began.elapsed());
    assert_eq!(ends.await.expect("watched").state(), State::Succeeded);
    let cut = hangs.await.expect("watched");
    assert_eq!(cut.state(), State::Cancelled);
    // Nobody has given up: it is to be tried again, elsewhere or later.
    let fault = cut.finished().fault.expect("fault");
    assert_eq!(fault.code, Code::Unavailable as i32);
    assert!(fault.message.contains("shutting down"), "{fault:?}");
}
