//! Who is not asked, and who gets no more time.
use crate::{
    routing::{both, once, pair, verdicts},
    support::{
        metrics::Metrics,
        model::{Act, Model, down, say, slow, unsure},
        ms,
        plan::{model, request, within},
        until,
        world::Mesh,
    },
};
use serde_json::json;
use shoal_proto::v1::{
    State,
    decision::Verdict::{Chosen, Failed, PassedOver},
};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_or_cannot_be_asked_is_passed_over_with_the_reason() {
    let endpoint = crate::support::endpoint::Endpoint::saying("from outside").await;
    let other = Model::new("other", "something_else", |_, _| say("?")).start();
    let last = Model::new("last", "t", |_, _| say("inside")).start();
    let world = Mesh::new()
        .endpoint("outside", &endpoint.base_url, |e| {
            e.external = true;
            e.machine_only = true;
        })
        .endpoint("keyless", &endpoint.base_url, |e| {
            e.api_key_env = Some("SHOAL_TEST_NO_SUCH_KEY".into())
        })
        .specialist("other", &other.server.url())
        .specialist("last", &last.server.url())
        .task("t", &["keyless", "other", "outside", "last"])
        .start()
        .await;
    let mut node = model("a", "t", "x");
    node.private = true;
    let ran = world.run(request(vec![node.clone()])).await;
    let told = ran.decisions("a");
    for (i, (target, verdict, reason)) in [
        ("keyless", PassedOver, "$SHOAL_TEST_NO_SUCH_KEY"),
        ("other", PassedOver, "does not serve"),
        ("outside", PassedOver, "private content"),
        ("last", Chosen, ""),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!((told[i].0.as_str(), told[i].1), (target, verdict), "{told:?}");
        assert!(told[i].2.contains(reason), "{told:?}");
    }
    node.private = false;
    node.human_facing = true;
    let ran = world.run(request(vec![node.clone()])).await;
    assert!(ran.decisions("a")[2].2.contains("machine_only"), "{ran:?}");
    node.human_facing = false;
    let ran = world.run(request(vec![node])).await;
    assert_eq!(
        (ran.node("a").target.as_str(), ran.output("a")),
        ("outside", json!("from outside"))
    );
    assert_eq!((other.notes.count(), endpoint.seen().len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_off_target_is_passed_over_and_comes_back_by_itself() {
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = healthy.clone();
    let (small, _large, world) = pair(
        Model::new("small", "t", move |_, _| {
            if seen.load(std::sync::atomic::Ordering::SeqCst) {
                say("small")
            } else {
                down()
            }
        }),
        Model::new("large", "t", |_, _| say("large")),
        |m| m,
    )
    .await;
    for _ in 0..4 {
        assert_eq!(once(&world).await.output("a"), "large");
    }
    let ran = once(&world).await;
    assert_eq!(verdicts(&ran), both(PassedOver, Chosen), "{ran:?}");
    assert!(ran.decisions("a")[0].2.contains("breaker"), "{ran:?}");
    let asked = small.notes.count();
    healthy.store(true, std::sync::atomic::Ordering::SeqCst);
    tokio::time::sleep(ms(600)).await;
    assert_eq!(once(&world).await.output("a"), "small");
    assert!(small.notes.count() > asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_never_fast_enough_is_not_asked_while_somebody_else_can_be() {
    let (small, _large, world) = pair(
        Model::new("small", "t", |_, _| crate::support::model::slow(150)),
        Model::new("large", "t", |_, _| say("large")),
        |m| m,
    )
    .await;
    for _ in 0..8 {
        once(&world).await;
    }
    let asked = small.notes.count();
    let mut node = model("a", "t", "x");
    node.timeout = Some(shoal_proto::time::duration(ms(100)));
    let ran = world.run(request(vec![node])).await;
    assert_eq!((verdicts(&ran), small.notes.count()), (both(PassedOver, Chosen), asked));
    assert!(ran.decisions("a")[0].2.contains("never faster"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_target_leaves_time_for_the_next() {
    let (small, _large, world) = pair(
        Model::new("small", "t", |_, _| Act::Hang),
        Model::new("large", "t", |_, _| say("large")),
        |m| m,
    )
    .await;
    let ran = world
        .run(crate::support::plan::within(
            request(vec![model("a", "t", "x")]),
            ms(800),
        ))
        .await;
    assert_eq!((ran.state(), ran.output("a")), (State::Succeeded, json!("large")));
    assert_eq!(verdicts(&ran), both(Failed, Chosen));
    until("the hanging call is dropped", || {
        small.notes.dropped() == small.notes.count()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_could_not_answer_in_its_share_of_the_time_is_passed_over_for_who_can_in_all_of_it() {
    let first = Model::new("first", "t", |_, _| slow(1200)).start();
    let second = Model::new("second", "t", |_, _| slow(1000)).start();
    let world = Mesh::new()
        .specialist("first", &first.server.url())
        .specialist("second", &second.server.url())
        .task("t", &["first", "second"])
        .start()
        .await;
    let nodes = (0..10).map(|i| model(&format!("n{i}"), "t", "x")).collect();
    assert_eq!(world.run(request(nodes)).await.state(), State::Succeeded);
    // Half of it is not enough for either, and all of it is for both.
    let ran = world.run(within(request(vec![model("a", "t", "x")]), ms(1900))).await;
    let told = verdicts(&ran);
    assert_eq!(told, [("first".into(), PassedOver), ("second".into(), Chosen)]);
    assert_eq!((ran.state(), first.notes.count()), (State::Succeeded, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_answer_that_went_to_the_next_target_is_an_escalation() {
    let metrics = Metrics::counted();
    let fails = Model::new("fails", "sole_of_a_chain", |_, _| down()).start();
    let wavers = Model::new("wavers", "first_of_a_chain", |_, _| unsure("?", 0.1))
        .threshold(0.5)
        .start();
    let sure = Model::new("sure", "first_of_a_chain", |_, _| say("!")).start();
    let world = Mesh::new()
        .specialist("fails", &fails.server.url())
        .specialist("wavers", &wavers.server.url())
        .specialist("sure", &sure.server.url())
        .task("sole_of_a_chain", &["fails"])
        .task("first_of_a_chain", &["wavers", "sure"])
        .start()
        .await;
    let failed = world.run(request(vec![model("a", "sole_of_a_chain", "x")])).await;
    let moved = world.run(request(vec![model("a", "first_of_a_chain", "x")])).await;
    assert_eq!((failed.state(), moved.output("a")), (State::Failed, json!("!")));
    let counted = metrics.of("shoal_escalations");
    assert!(
        counted.contains("first_of_a_chain") && counted.contains("unsure"),
        "{counted}"
    );
    assert!(!counted.contains("sole_of_a_chain"), "{counted}");
}
