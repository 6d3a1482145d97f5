//! Outcomes: what is kept, across outages, torn tails and kills, and never twice.
use crate::support::{
    model::{Act, Model, Specialist, say},
    ms,
    plan::{model, request},
    process::anywhere,
    store::{self, Disk},
    until,
    world::{Mesh, World},
};
use shoal_kit::status;
use shoal_proto::v1::State;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};
use tonic::Code;

pub(crate) fn echo() -> Specialist {
    Model::new("echo", "echo", |seen, _| say(format!("said {}", seen.prompt()))).start()
}

pub(crate) fn mesh(echo: &Specialist, feedback: &str) -> Mesh {
    Mesh::new()
        .specialist("echo", &echo.server.url())
        .task("echo", &["echo"])
        .feedback(feedback)
}

/// Runs so many plans of two nodes; gives their ids.
async fn run(world: &World, plans: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..plans {
        let ran = world
            .run(request(vec![model("a", "echo", "x"), model("b", "echo", "${a}")]))
            .await;
        assert_eq!(ran.state(), State::Succeeded);
        ids.push(ran.plan_id());
    }
    ids
}

fn segments(spool: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(spool).expect("spool").map(|e| e.expect("entry").path());
    let mut found: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "seg")).collect();
    found.sort();
    found
}

fn complete(disk: &Disk, plans: &[String]) -> bool {
    plans.iter().all(|plan| disk.of(plan).len() == 2)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_says_everything_that_its_node_was() {
    let (disk, echo) = (Arc::new(Disk::default()), echo());
    let feedback = store::start(&disk);
    let world = mesh(&echo, &feedback.url()).start().await;
    let ran = world
        .run(request(vec![model("a", "echo", "x"), model("b", "echo", "${a}")]))
        .await;
    until("both are stored", || disk.all().len() == 2).await;
    let (told, kept) = (ran.node("b"), disk.node(&ran.plan_id(), "b").expect("stored"));
    assert_eq!(
        (kept.outcome_id.as_str(), kept.trace_id.len()),
        (told.outcome_id.as_str(), 32)
    );
    assert_eq!(
        (kept.kind.as_str(), kept.name.as_str(), kept.model.as_str()),
        ("model", "echo", "echo@1")
    );
    assert_eq!(
        (kept.input_json.as_str(), kept.output_json.as_str()),
        ("\"said x\"", "\"said said x\"")
    );
    assert_eq!(
        (kept.depends_on.as_slice(), kept.state()),
        (&["a".to_owned()][..], State::Succeeded)
    );
    assert_eq!(
        (kept.usage, kept.confidence, kept.elapsed),
        (told.usage, told.confidence, told.elapsed)
    );
    assert!(kept.finished_at.is_some() && kept.started_after.is_some() && kept.decisions.len() == 1);
    // What never ran leaves none.
    let hang = Model::new("echo", "echo", |_, _| Act::Hang).start();
    let world = mesh(&hang, &feedback.url()).start().await;
    let cut = crate::support::plan::within(
        request(vec![model("a", "echo", "x"), model("b", "echo", "${a}")]),
        ms(200),
    );
    let ran = world.run(cut).await;
    until("the cancelled one is stored", || disk.all().len() == 3).await;
    let kept = disk.of(&ran.plan_id());
    assert_eq!(
        (kept.len(), kept[0].node_id.as_str(), kept[0].state()),
        (1, "a", State::Cancelled)
    );
    assert_eq!(
        (kept[0].input_json.as_str(), kept[0].target.as_str()),
        ("\"x\"", "echo"),
        "as far as it had got"
    );
    assert!(ran.node("b").outcome_id.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_may_be_away_for_a_while_and_nothing_is_lost_or_doubled() {
    let (disk, echo) = (Arc::new(Disk::default()), echo());
    let feedback = store::start(&disk);
    let address = feedback.address;
    let world = mesh(&echo, &feedback.url()).start().await;
    let mut plans = run(&world, 3).await;
    until("the first are stored", || complete(&disk, &plans)).await;
    feedback.kill();
    plans.extend(run(&world, 5).await);
    assert_eq!(disk.all().len(), 6, "nobody is there to store them");
    let feedback = store::start_at(address, &disk);
    until("the rest is stored", || complete(&disk, &plans)).await;
    // Acknowledgements that get lost on the way make copies, which feedback knows by their ids.
    disk.mute.store(true, Ordering::SeqCst);
    plans.extend(run(&world, 3).await);
    until("stored and not acknowledged", || complete(&disk, &plans)).await;
    feedback.kill();
    disk.mute.store(false, Ordering::SeqCst);
    let _feedback = store::start_at(address, &disk);
    until("they were sent again", || disk.again.load(Ordering::SeqCst) >= 6).await;
    assert_eq!(disk.all().len(), 22);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_and_never_acknowledged_is_sent_again() {
    let (disk, echo) = (Arc::new(Disk::default()), echo());
    disk.deaf.store(true, Ordering::SeqCst);
    let feedback = store::start(&disk);
    let address = feedback.address;
    let world = mesh(&echo, &feedback.url()).start().await;
    let plans = run(&world, 4).await;
    until("everything was sent", || disk.unheard.load(Ordering::SeqCst) == 8).await;
    // Killed before its commit.
    feedback.kill();
    disk.deaf.store(false, Ordering::SeqCst);
    let _feedback = store::start_at(address, &disk);
    until("everything is stored", || complete(&disk, &plans)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_had_told_is_delivered_by_the_next_one() {
    let (disk, echo) = (Arc::new(Disk::default()), echo());
    let folder = tempfile::tempdir().expect("folder");
    // Feedback is away, so that everything is in the spool when the gateway dies.
    let nobody = store::start(&disk);
    let (address, url) = (nobody.address, nobody.url());
    nobody.kill();
    let world = mesh(&echo, &url).start_in(folder.path().join("spool"), None).await;
    let plans = run(&world, 4).await;
    // SIGKILL: the folder as it is now, without anything that an orderly end would do.
    let left = folder.path().join("left");
    fs::create_dir(&left).expect("folder");
    for segment in segments(&folder.path().join("spool")) {
        fs::copy(&segment, left.join(segment.file_name().expect("name"))).expect("copied");
    }
    // And what was being written when it died.
    let last = segments(&left).pop().expect("a segment");
    let mut torn = fs::read(&last).expect("read");
    torn.extend_from_slice(&[200, 0, 0, 0, 1, 2, 3, 4, 5]);
    fs::write(&last, torn).expect("torn");
    let next = mesh(&echo, &url).start_in(left.clone(), None).await;
    let _feedback = store::start_at(address, &disk);
    until("everything is delivered", || complete(&disk, &plans)).await;
    assert_eq!(disk.all().len(), 8);
    let more = run(&next, 1).await;
    until("and the next ones too", || complete(&disk, &more)).await;
    next.stop().await;
    assert!(segments(&left).is_empty(), "what is acknowledged is deleted");
    // The first gateway, which did not really die, still has its copies: feedback knows them all.
    until("the copies are known", || disk.again.load(Ordering::SeqCst) == 8).await;
    assert_eq!(disk.all().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_plans_and_takes_them_again_once_feedback_is_back() {
    let (disk, echo) = (Arc::new(Disk::default()), echo());
    let feedback = store::start(&disk);
    let (address, url) = (feedback.address, feedback.url());
    feedback.kill();
    let world = mesh(&echo, &url)
        .change(|c| c.gateway.spool_max_bytes = 1500)
        .start()
        .await;
    let mut plans = Vec::new();
    let refused = loop {
        assert!(plans.len() < 50, "it is never full");
        match world
            .open(request(vec![model("a", "echo", "x"), model("b", "echo", "${a}")]))
            .await
        {
            Ok(stream) => plans.push(crate::support::plan::Ran::through(stream).await.plan_id()),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        status::retry_after(&refused).is_some() && refused.message().contains("spool_max_bytes"),
        "{refused:?}"
    );
    let _feedback = store::start_at(address, &disk);
    until("everything is stored", || complete(&disk, &plans)).await;
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while world.open(request(vec![model("a", "echo", "x")])).await.is_err() {
        assert!(std::time::Instant::now() < end, "it stays full");
        tokio::time::sleep(ms(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_cannot_be_used_is_found_before_anything_is_served() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("a file");
    fs::write(&file, "").expect("written");
    let mut config = Mesh::new().feedback("http://127.0.0.1:9").config;
    config.gateway.spool = file;
    let said = format!("{:#}", shoal_gateway::check(&config).expect_err("no folder"));
    assert!(said.contains("[gateway] spool"), "{said}");
    assert!(shoal_gateway::Gateway::build(&config).is_err());
    config.gateway.spool = folder.path().join("spool");
    shoal_gateway::check(&config).expect("usable");
    let _held = shoal_gateway::Gateway::build(&config).expect("built");
    let said = format!("{:#}", shoal_gateway::check(&config).expect_err("held"));
    assert!(said.contains("another gateway"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_plan_is_rebuilt_from_its_outcomes() {
    let (disk, echo) = (Arc::new(Disk::default()), echo());
    let feedback = store::start(&disk);
    let world = mesh(&echo, &feedback.url())
        .change(|c| c.gateway.plans_kept = 1)
        .start()
        .await;
    let plans = run(&world, 2).await;
    until("stored", || complete(&disk, &plans)).await;
    let known = world.record(&plans[1]).await.expect("held");
    let rebuilt = world.record(&plans[0]).await.expect("stored");
    assert!(!known.from_outcomes && rebuilt.from_outcomes);
    assert_eq!((rebuilt.state(), rebuilt.nodes.len()), (State::Succeeded, 2));
    assert_eq!(rebuilt.nodes[1].output_json, known.nodes[1].output_json);
    assert_eq!(world.cancel(&plans[0]).await.expect("ended"), State::Succeeded);
    let forgotten = world.watch(&plans[0], 0).await.expect_err("forgotten");
    assert_eq!(forgotten.code(), Code::NotFound);
    assert!(forgotten.message().contains("GetPlan has"), "{forgotten}");
    assert_eq!(
        world.record("nobody").await.expect_err("unknown").code(),
        Code::NotFound
    );
    assert_eq!(
        world.record("not an id").await.expect_err("no id").code(),
        Code::InvalidArgument
    );
    feedback.kill();
    assert_eq!(
        world.record(&plans[0]).await.expect_err("away").code(),
        Code::Unavailable
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plans_end_counts_what_is_acknowledged_by_then() {
    let (disk, echo) = (
        Arc::new(Disk::default()),
        Model::new("echo", "echo", |_, _| crate::support::model::slow(200)).start(),
    );
    let feedback = store::start_at(anywhere(), &disk);
    let world = mesh(&echo, &feedback.url()).start().await;
    let ran = world
        .run(request(vec![model("a", "echo", "x"), model("b", "echo", "${a}")]))
        .await;
    // The first was acknowledged while the second ran.
    assert!((1..=2).contains(&ran.finished().outcomes_acknowledged), "{ran:?}");
}
