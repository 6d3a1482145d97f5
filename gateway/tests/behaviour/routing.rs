//! Which target answers, and what is written down of it.
use crate::support::{
    model::{Act, Model, Specialist, down, say, unsure},
    ms,
    plan::{Ran, model, on_failure, request},
    store::{self, Disk},
    until,
    world::{Mesh, World},
};
use serde_json::json;
use shoal_kit::status::Reason;
use shoal_proto::v1::{
    self, State,
    decision::Verdict::{self, Chosen, Failed, Invalid, Unsure},
    failure_policy::Action,
    plan_event::Event,
};
use std::sync::Arc;

/// Two targets of the task `t`, `small` and `large`.
pub(crate) async fn pair(
    small: Model,
    large: Model,
    change: impl FnOnce(Mesh) -> Mesh,
) -> (Specialist, Specialist, World) {
    let (small, large) = (small.start(), large.start());
    let mesh = Mesh::new()
        .specialist("small", &small.server.url())
        .specialist("large", &large.server.url())
        .task("t", &["small", "large"]);
    let world = change(mesh).start().await;
    (small, large, world)
}

pub(crate) async fn once(world: &World) -> Ran {
    world.run(request(vec![model("a", "t", "x")])).await
}

pub(crate) fn verdicts(ran: &Ran) -> Vec<(String, Verdict)> {
    ran.decisions("a")
        .into_iter()
        .map(|(target, verdict, _)| (target, verdict))
        .collect()
}

pub(crate) fn both(first: Verdict, second: Verdict) -> Vec<(String, Verdict)> {
    vec![("small".into(), first), ("large".into(), second)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sure_answer_of_the_smallest_is_taken_and_the_larger_is_not_asked() {
    let (_small, large, world) = pair(
        Model::new("small", "t", |_, _| unsure("yes", 0.9)).threshold(0.83),
        Model::new("large", "t", |_, _| say("larger")),
        |m| m,
    )
    .await;
    let ran = once(&world).await;
    assert_eq!(verdicts(&ran), [("small".to_owned(), Chosen)]);
    let decision = &ran.node("a").decisions[0];
    assert_eq!((decision.confidence, decision.threshold), (Some(0.9), Some(0.83)));
    assert_eq!((ran.node("a").model.as_str(), large.notes.count()), ("small@1", 0));
    assert!(ran.node("a").endpoint.starts_with("127.0.0.1:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn doubt_a_broken_schema_and_a_failure_each_move_a_node_on_with_their_reason() {
    let schema = r#"{"type":"object","required":["tool"]}"#;
    type Make = fn() -> Model;
    let cases: [(Make, Verdict, &str, &str); 3] = [
        (
            || Model::new("small", "t", |_, _| unsure("{\"tool\":1}", 0.61)).threshold(0.83),
            Unsure,
            "confidence 0.61 under threshold 0.83",
            "{\"tool\":1}",
        ),
        (
            || Model::new("small", "t", |_, _| say("{}")),
            Invalid,
            "breaks its schema",
            "{}",
        ),
        (
            || {
                Model::new("small", "t", |_, _| {
                    Act::Fail(Reason::Internal {
                        message: "broken".into(),
                    })
                })
            },
            Failed,
            "broken",
            "",
        ),
    ];
    for (small, verdict, reason, first_said) in cases {
        let disk = Arc::new(Disk::default());
        let feedback = store::start(&disk);
        let formed = |m: Model| m.task(|t| t.output_schema_json = schema.into());
        let (_small, _large, world) = pair(
            formed(small()),
            formed(Model::new("large", "t", |_, _| say("{\"tool\":2}"))),
            |m| m.feedback(&feedback.url()),
        )
        .await;
        let ran = once(&world).await;
        assert_eq!(verdicts(&ran), both(verdict, Chosen), "{ran:?}");
        assert!(ran.decisions("a")[0].2.contains(reason), "{:?}", ran.decisions("a"));
        assert_eq!(
            (ran.output("a"), ran.node("a").target.as_str()),
            (json!({"tool": 2}), "large")
        );
        let escalated = ran.events.iter().find_map(|e| match &e.event {
            Some(Event::NodeEscalated(x)) => Some((
                x.from.clone(),
                x.to.clone(),
                x.decision.clone().expect("decision").verdict(),
            )),
            _ => None,
        });
        assert_eq!(escalated, Some(("small".into(), "large".into(), verdict)));
        until("the outcome is stored", || !disk.all().is_empty()).await;
        let outcome = disk.node(&ran.plan_id(), "a").expect("stored");
        assert_eq!(
            (outcome.escalated_from_output_json.as_str(), outcome.valid),
            (first_said, Some(true))
        );
        assert_eq!(outcome.decisions.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_ones_doubt_is_told_and_its_answer_taken() {
    let (_small, _large, world) = pair(
        Model::new("small", "t", |_, _| unsure("small", 0.1)).threshold(0.5),
        Model::new("large", "t", |_, _| unsure("large", 0.2)).threshold(0.5),
        |m| m,
    )
    .await;
    let ran = once(&world).await;
    assert_eq!(
        (verdicts(&ran), ran.output("a")),
        (both(Unsure, Chosen), json!("large"))
    );
    assert!(
        ran.decisions("a")[1]
            .2
            .contains("0.2 under threshold 0.5, and nobody else"),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubted_answer_is_taken_after_all_if_nobody_after_it_has_one() {
    let (_small, _large, world) = pair(
        Model::new("small", "t", |_, _| unsure("small", 0.1)).threshold(0.5),
        Model::new("large", "t", |_, _| down()),
        |m| m,
    )
    .await;
    let ran = once(&world).await;
    let expected = [both(Unsure, Failed), vec![("small".to_owned(), Chosen)]].concat();
    assert_eq!((verdicts(&ran), ran.output("a")), (expected, json!("small")));
    assert!(ran.decisions("a")[2].2.contains("taken after all"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubted_answer_is_taken_when_time_runs_out_on_the_next() {
    let (_small, _large, world) = pair(
        Model::new("small", "t", |_, _| unsure("small", 0.1)).threshold(0.5),
        Model::new("large", "t", |_, _| Act::Hang),
        |m| m,
    )
    .await;
    let mut node = model("a", "t", "x");
    node.timeout = Some(shoal_proto::time::duration(crate::support::ms(300)));
    let ran = world.run(request(vec![node])).await;
    let expected = [both(Unsure, Failed), vec![("small".to_owned(), Chosen)]].concat();
    assert_eq!(
        (ran.state(), verdicts(&ran), ran.output("a")),
        (State::Succeeded, expected, json!("small"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_doubted_answer_is_lost_however_long_a_node_took_to_begin() {
    let (_small, _large, world) = pair(
        Model::new("small", "t", |_, _| unsure("small", 0.1)).threshold(0.5),
        Model::new("large", "t", |_, _| Act::Hang),
        |m| m.change(|c| c.gateway.max_input_bytes = 2 << 20),
    )
    .await;
    // Taking so much input in takes longer than a tick of the timer, which is a millisecond. So a bound that was computed before it
    // strikes a tick or more before one that was computed after it: there must be one only.
    let mut node = model("a", "t", &"x".repeat(1_200_000));
    node.timeout = Some(shoal_proto::time::duration(ms(1500)));
    let ran = world.run(request(vec![node])).await;
    let expected = [both(Unsure, Failed), vec![("small".to_owned(), Chosen)]].concat();
    assert_eq!(
        (ran.state(), verdicts(&ran), ran.output("a")),
        (State::Succeeded, expected, json!("small"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_own_threshold_wins_over_the_cards_and_doubt_can_be_switched_off() {
    let models = || {
        (
            Model::new("small", "t", |_, _| unsure("small", 0.6)).threshold(0.5),
            Model::new("large", "t", |_, _| say("large")),
        )
    };
    let (small, large) = models();
    let (_s, _l, strict) = pair(small, large, |m| {
        m.change(|c| c.task.get_mut("t").expect("task").confidence_threshold = Some(0.9))
    })
    .await;
    assert_eq!(verdicts(&once(&strict).await), both(Unsure, Chosen));
    let (_small, large) = models();
    let doubted = Model::new("small", "t", |_, _| unsure("small", 0.1)).threshold(0.5);
    let (_s, _l, sure) = pair(doubted, large, |m| {
        m.change(|c| c.task.get_mut("t").expect("task").confidence_threshold = Some(0.0))
    })
    .await;
    let ran = once(&sure).await;
    assert_eq!(
        verdicts(&ran),
        [("small".to_owned(), Chosen)],
        "zero is a threshold too"
    );
    assert_eq!(ran.node("a").decisions[0].threshold, None);
    let (small, large) = models();
    let (_s, _l, trusting) = pair(small, large, |m| {
        m.change(|c| {
            let task = c.task.get_mut("t").expect("task");
            (task.confidence_threshold, task.escalate) = (Some(0.9), false);
        })
    })
    .await;
    let ran = once(&trusting).await;
    assert_eq!(verdicts(&ran), [("small".to_owned(), Chosen)]);
    assert!(ran.decisions("a")[0].2.contains("escalate = false"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_schema_moves_on_even_where_doubt_does_not_and_the_nodes_own_schema_counts() {
    let (_small, _large, world) = pair(
        Model::new("small", "t", |_, _| say("{\"x\":1}")),
        Model::new("large", "t", |_, _| say("{\"y\":1}")),
        |m| m.change(|c| c.task.get_mut("t").expect("task").escalate = false),
    )
    .await;
    let mut node = model("a", "t", "x");
    if let Some(v1::node::Kind::Model(call)) = &mut node.kind {
        call.output_schema_json = r#"{"type":"object","required":["y"]}"#.into();
    }
    let ran = world.run(request(vec![node.clone()])).await;
    assert_eq!(
        (verdicts(&ran), ran.output("a")),
        (both(Invalid, Chosen), json!({"y": 1}))
    );
    if let Some(v1::node::Kind::Model(call)) = &mut node.kind {
        call.output_schema_json = r#"{"type":"object","required":["z"]}"#.into();
    }
    let ran = world.run(request(vec![node])).await;
    assert_eq!((ran.state(), ran.reason().as_str()), (State::Failed, "OUTPUT_INVALID"));
    assert_eq!(verdicts(&ran), both(Invalid, Invalid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classifier_answers_with_its_label_and_is_doubted_like_any() {
    let classifier = |score: f64| {
        Model::new("labels", "route", move |seen, _| {
            unsure(if seen.prompt() == "hi" { "greeting" } else { "oos" }, score)
        })
        .card(|c| c.kind = "classify".into())
        .threshold(0.5)
        .start()
    };
    let (sure, doubtful) = (classifier(0.8), classifier(0.4));
    let large = Model::new("large", "route", |_, _| say("larger")).start();
    for (labels, expected) in [(&sure, "greeting"), (&doubtful, "larger")] {
        let world = Mesh::new()
            .specialist("labels", &labels.server.url())
            .specialist("large", &large.server.url())
            .task("route", &["labels", "large"])
            .start()
            .await;
        let ran = world.run(request(vec![model("a", "route", "hi")])).await;
        assert_eq!(ran.output("a"), expected);
        let asked = &labels.notes.seen()[0].request;
        assert!(
            asked.priority() == v1::Priority::Normal && asked.slack.is_some(),
            "{asked:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_targets_text_is_told_while_it_is_decoded() {
    let pieces = |score: f64, words: &'static [&'static str]| {
        Act::Pieces(words.iter().map(|w| (ms(5), (*w).to_owned())).collect(), score)
    };
    let (_small, _large, world) = pair(
        Model::new("small", "t", move |_, _| pieces(0.1, &["one ", "two ", "three"])).threshold(0.5),
        Model::new("large", "t", move |_, _| pieces(0.9, &["another ", "text"])),
        |m| m,
    )
    .await;
    let ran = once(&world).await;
    assert_eq!(
        (ran.told("a").as_str(), ran.output("a")),
        ("one two three", json!("another text"))
    );
    let alone = Mesh::new();
    let broken = Model::new("broken", "t", move |_, n| {
        if n == 0 {
            Act::Break("one ".into())
        } else {
            pieces(0.9, &["one ", "two"])
        }
    })
    .start();
    let world = alone
        .specialist("broken", &broken.server.url())
        .task("t", &["broken"])
        .start()
        .await;
    let mut drawn = model("a", "t", "x");
    if let Some(v1::node::Kind::Model(call)) = &mut drawn.kind {
        call.sampling = Some(v1::Sampling {
            temperature: Some(0.8),
            ..Default::default()
        });
    }
    let ran = world.run(request(vec![drawn])).await;
    assert_eq!(
        (ran.told("a").as_str(), ran.output("a"), broken.notes.count()),
        ("one two", json!("one two"), 2)
    );
    // What was told of the first attempt holds only if the second draws the same.
    let seeds: Vec<Option<u64>> = broken
        .notes
        .seen()
        .iter()
        .map(|seen| seen.request.sampling.as_ref().and_then(|s| s.seed))
        .collect();
    assert!(seeds[0].is_some() && seeds[0] == seeds[1], "{seeds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_is_an_outcome_of_its_own_and_a_stand_in_is_none_to_learn_from() {
    let disk = Arc::new(Disk::default());
    let feedback = store::start(&disk);
    let broken = Model::new("broken", "t", |_, _| {
        Act::Fail(Reason::Internal {
            message: "broken".into(),
        })
    })
    .start();
    let other = Model::new("other", "u", |_, _| say("other")).start();
    let world = Mesh::new()
        .specialist("broken", &broken.server.url())
        .specialist("other", &other.server.url())
        .task("t", &["broken"])
        .task("u", &["other"])
        .feedback(&feedback.url())
        .start()
        .await;
    let ran = world
        .run(request(vec![on_failure(
            model("a", "t", "x"),
            Action::FallBack,
            "",
            "u",
        )]))
        .await;
    until("two outcomes", || disk.all().len() == 2).await;
    let stored = disk.of(&ran.plan_id());
    let told: Vec<_> = stored
        .iter()
        .map(|o| (o.name.as_str(), o.state(), o.decisions.len(), o.output_json.as_str()))
        .collect();
    assert_eq!(
        told,
        [("t", State::Failed, 1, ""), ("u", State::Succeeded, 1, "\"other\"")]
    );
    assert_eq!(stored[1].outcome_id, ran.node("a").outcome_id);
    let ran = world
        .run(request(vec![on_failure(
            model("a", "t", "x"),
            Action::Default,
            "7",
            "",
        )]))
        .await;
    until("a third outcome", || disk.all().len() == 3).await;
    let stood_in = disk.node(&ran.plan_id(), "a").expect("stored");
    assert_eq!((stood_in.state(), stood_in.output_json.as_str()), (State::Failed, ""));
}
