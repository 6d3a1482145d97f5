//! A specialist that switches its version while it is asked.
use crate::{
    routing::{both, once, pair, verdicts},
    support::{
        model::{Model, Specialist, say, unsure},
        plan::{model, request},
        until,
        world::World,
    },
};
use shoal_proto::v1::decision::Verdict::{Chosen, Unsure};

async fn switching() -> (Specialist, Specialist, World) {
    let all = pair(
        Model::new("small", "t", |_, _| unsure("yes", 0.6)).threshold(0.5),
        Model::new("large", "t", |_, _| say("larger")),
        |m| m,
    )
    .await;
    until("both are described", || all.0.described() > 0 && all.1.described() > 0).await;
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_of_a_new_version_is_judged_by_the_new_versions_threshold() {
    let (small, _large, world) = switching().await;
    let ran = once(&world).await;
    assert_eq!(verdicts(&ran), [("small".to_owned(), Chosen)]);
    assert_eq!(ran.node("a").decisions[0].threshold, Some(0.5));

    small.switch(|card| card.tasks[0].confidence_threshold = 0.7);
    let ran = once(&world).await;
    assert_eq!(verdicts(&ran), both(Unsure, Chosen), "{ran:?}");
    assert_eq!(ran.node("a").decisions[0].threshold, Some(0.7));

    // And back: the card is known, nobody needs to be asked for it.
    small.switch(|card| {
        card.version = 1;
        card.tasks[0].confidence_threshold = 0.5;
    });
    let ran = once(&world).await;
    assert_eq!(verdicts(&ran), [("small".to_owned(), Chosen)]);
    assert_eq!(ran.node("a").decisions[0].threshold, Some(0.5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_versions_card_is_asked_for_once_and_not_by_every_answer() {
    let (small, _large, world) = switching().await;
    let before = small.described();
    small.switch(|card| card.tasks[0].confidence_threshold = 0.55);
    let nodes = (0..40).map(|i| model(&format!("n{i}"), "t", "x")).collect();
    let ran = world.run(request(nodes)).await;
    for i in 0..40 {
        let decision = &ran.node(&format!("n{i}")).decisions[0];
        assert_eq!((decision.threshold, decision.verdict()), (Some(0.55), Chosen), "n{i}");
    }
    assert!(small.notes.count() >= 40);
    // Once for the version, and once by the look of every five seconds if it falls into these milliseconds.
    let asked = small.described() - before;
    assert!((1..=2).contains(&asked), "asked {asked} times");
}
