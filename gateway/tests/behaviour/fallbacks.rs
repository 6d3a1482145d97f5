//! What is kept of a node that fell back, and of one that is cut off: each part once, under the name of who was asked.
use crate::support::{
    model::{Act, Model, Specialist, say},
    ms,
    plan::{Ran, model, on_failure, request, within},
    store::{self, Disk},
    tools::{self, Reply},
    until,
    world::Mesh,
};
use shoal_kit::status::Reason;
use shoal_proto::v1::{self, State, failure_policy::Action};
use std::{
    fs,
    sync::{Arc, atomic::Ordering},
};

/// What task `second` does.
fn second(act: Act) -> Specialist {
    Model::new("second", "second", move |_, _| act.clone()).start()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fallback_of_a_call_is_kept_with_what_it_was_asked() {
    let disk = Arc::new(Disk::default());
    let feedback = store::start(&disk);
    let caller = Model::new("caller", "tool_call", |_, _| {
        say(r#"{"tool":"S.Book","arguments":{"a":"b"}}"#)
    })
    .start();
    let second = second(say("no table"));
    let tools = tools::start(&[("S.Book", false)], |_, _| {
        Reply::Refuse(Reason::NotFound {
            reason: "NO_MATCH",
            message: "nothing fits".into(),
        })
    });
    let world = Mesh::new()
        .specialist("caller", &caller.server.url())
        .specialist("second", &second.server.url())
        .task("tool_call", &["caller"])
        .task("second", &["second"])
        .tools(&tools.server.url())
        .feedback(&feedback.url())
        .start()
        .await;
    let node = on_failure(model("4", "tool_call", "book a table"), Action::FallBack, "", "second");
    let ran = world.run(request(vec![node])).await;
    assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
    let of_the_call = || -> Vec<v1::Outcome> {
        let stored = disk.of(&ran.plan_id()).into_iter();
        stored.filter(|o| o.node_id == "4-call").collect()
    };
    until("both parts of the call are stored", || of_the_call().len() == 2).await;
    let kept: Vec<_> = of_the_call()
        .into_iter()
        .map(|o| (o.kind, o.name, o.input_json, o.output_json))
        .collect();
    let part = |kind: &str, name: &str, input: &str, output: &str| {
        (kind.to_owned(), name.to_owned(), input.to_owned(), output.to_owned())
    };
    assert_eq!(
        kept,
        [
            part("tool", "S.Book", r#"{"a":"b"}"#, ""),
            part("model", "second", "\"book a table\"", "\"no table\""),
        ]
    );
    assert_eq!(ran.node("4-call").input_json, r#"{"a":"b"}"#, "the node's own is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_that_fails_or_is_cut_off_is_kept_alone() {
    let broken = Act::Fail(Reason::Internal {
        message: "broken".into(),
    });
    for (act, state, asked) in [(broken, State::Failed, 1), (Act::Hang, State::Cancelled, 0)] {
        let disk = Arc::new(Disk::default());
        let feedback = store::start(&disk);
        let first = Model::new("first", "first", |_, _| say("perhaps"))
            .task(|t| t.output_schema_json = r#"{"type":"object"}"#.into())
            .start();
        let second = second(act);
        let world = Mesh::new()
            .specialist("first", &first.server.url())
            .specialist("second", &second.server.url())
            .task("first", &["first"])
            .task("second", &["second"])
            .feedback(&feedback.url())
            .start()
            .await;
        let node = on_failure(model("a", "first", "x"), Action::FallBack, "", "second");
        let ran = world.run(within(request(vec![node]), ms(1000))).await;
        until("both parts are stored", || disk.all().len() == 2).await;
        let stored = disk.of(&ran.plan_id());
        let kept: Vec<_> = stored
            .iter()
            .map(|o| (o.name.as_str(), o.state(), o.decisions.len()))
            .collect();
        assert_eq!(kept, [("first", State::Failed, 1), ("second", state, asked)]);
        let told = ran.node("a");
        assert_eq!(
            (told.name.as_str(), told.state(), told.decisions.len()),
            ("first", state, 1 + asked)
        );
        assert_eq!(stored[1].outcome_id, told.outcome_id);
        let spent = |usage: Option<v1::Usage>| usage.map_or(0, |u| u.input_tokens + u.output_tokens);
        assert!(spent(stored[0].usage) > 0);
        assert_eq!(
            stored.iter().map(|o| spent(o.usage)).sum::<u64>(),
            spent(told.usage),
            "nothing is counted twice"
        );
        if state == State::Failed {
            let fault = |fault: &Option<v1::Fault>| fault.clone().expect("a fault").message;
            assert!(!fault(&stored[1].fault).contains("and its fallback"));
            assert!(fault(&told.fault).contains("and its fallback"));
        }
    }
}

/// A segment is full and the next one cannot be begun: an outcome waits for the disk while its node is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_while_its_outcome_is_written_is_told_as_it_ended() {
    let disk = Arc::new(Disk::default());
    // Nothing is acknowledged: what is on the disk stays there.
    disk.mute.store(true, Ordering::SeqCst);
    let feedback = store::start(&disk);
    let folder = tempfile::tempdir().expect("folder");
    let spool = folder.path().join("spool");
    let (large, away) = ("x".repeat(3 << 18), spool.clone());
    let echo = Model::new("echo", "echo", move |seen, _| match seen.prompt().as_str() {
        "hang" => Act::Hang,
        "last" => {
            fs::remove_dir_all(&away).expect("removed");
            say("last")
        }
        _ => say(large.clone()),
    })
    .start();
    let world = Mesh::new()
        .specialist("echo", &echo.server.url())
        .task("echo", &["echo"])
        .feedback(&feedback.url())
        .start_in(spool.clone(), None)
        .await;
    let mut last = model("last", "echo", "last");
    let many = (0..6).map(|n| model(&format!("large{n}"), "echo", &n.to_string()));
    let mut nodes: Vec<v1::Node> = many.collect();
    last.after = nodes.iter().map(|n| n.id.clone()).collect();
    nodes.extend([last, model("hang", "echo", "hang")]);
    let plan = v1::ExecutePlanRequest {
        plan_id: "mine".into(),
        ..request(nodes)
    };
    let watched = tokio::spawn(Ran::through(world.open(plan).await.expect("admitted")));
    until("the last has answered", || !spool.exists()).await;
    // Longer than an answer takes, and less than an outcome is waited for.
    tokio::time::sleep(ms(150)).await;
    world.cancel("mine").await.expect("cancelled");
    let ran = watched.await.expect("watched");
    assert_eq!(
        (ran.state(), ran.node("hang").state()),
        (State::Cancelled, State::Cancelled)
    );
    assert_eq!(
        (ran.node("last").state(), ran.output("last")),
        (State::Succeeded, "last".into())
    );
    fs::create_dir(&spool).expect("folder");
    until("the disk takes it again", || disk.node("mine", "last").is_some()).await;
    let kept = disk.node("mine", "last").expect("stored");
    assert_eq!(
        (kept.state(), kept.outcome_id),
        (State::Succeeded, ran.node("last").outcome_id)
    );
    assert_eq!(
        disk.of("mine").iter().filter(|o| o.node_id == "last").count() + disk.again.load(Ordering::SeqCst),
        1,
        "once"
    );
}
