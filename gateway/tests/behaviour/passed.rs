//! Who is not asked, and who gets no more time.
use crate::{
    routing::{both, once, pair, verdicts},
    support::{
        model::{Act, Model, down, say},
        ms,
        plan::{model, request},
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
