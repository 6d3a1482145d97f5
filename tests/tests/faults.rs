//! kill -9 at bad moments: nothing that was acknowledged is lost or doubled, no plan hangs past its deadline, the mesh heals alone.
use anyhow::{Context as _, Result};
use futures::{StreamExt as _, future, stream};
use shoal_proto::v1::{self, execute_plan_request::Source, plan_event::Event};
use shoal_tests::mesh::{Mesh, without_models};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use tokio::sync::watch;

const BINARY: &str = env!("CARGO_BIN_EXE_shoal-under-test");

/// Plans that end before a kill, and how many at least end after it: enough for a breaker to open on a specialist that is away.
const BEFORE: usize = 40;
const AFTER: usize = 80;
/// How many at once: so many are always running when somebody is killed.
const AT_ONCE: usize = 8;

/// A plan's deadline, and by how much its stream may outlive it: the way back, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(3);

const TRIP: &str = r#"1. Restaurants_2.FindRestaurants(category="Coffeehouse", location="Newark")
2. RideSharing_1.GetRide(destination=$1.address, number_of_riders="2", shared_ride="True")
"#;

/// What one client saw of its plan.
#[derive(Debug, Default)]
struct Seen {
    plan_id: String,
    /// Outcome ids of nodes that were told to be finished.
    finished: BTreeSet<String>,
    ended: bool,
    succeeded: bool,
    took: Duration,
}

async fn one(mesh: &Mesh, text: &str) -> Seen {
    let began = Instant::now();
    let mut seen = Seen::default();
    let request = v1::ExecutePlanRequest {
        source: Some(Source::PlanText(text.to_owned())),
        limits: Some(v1::PlanLimits {
            deadline: Some(shoal_proto::time::duration(DEADLINE)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let Ok(mut plans) = mesh.plans() else { return seen };
    if let Ok(stream) = plans.execute_plan(request).await {
        let mut stream = stream.into_inner();
        while let Some(Ok(event)) = stream.next().await {
            seen.plan_id.clone_from(&event.plan_id);
            match event.event {
                Some(Event::NodeFinished(v1::NodeFinished { result: Some(result) }))
                    if !result.outcome_id.is_empty() =>
                {
                    seen.finished.insert(result.outcome_id);
                }
                Some(Event::Finished(end)) => {
                    (seen.ended, seen.succeeded) = (true, end.state() == v1::State::Succeeded);
                }
                _ => {}
            }
        }
    }
    seen.took = began.elapsed();
    seen
}

/// Runs the load, kills `victim` in the middle of it, and then holds the store to what clients were told. Plans are in the order of their ends.
async fn survives(mesh: &Mesh, victim: &str, text: &str) -> Result<Vec<Seen>> {
    let (count, mut counted) = watch::channel(0);
    let over = AtomicBool::new(false);
    let load = stream::repeat(())
        .take_while(|()| future::ready(!over.load(Ordering::Relaxed)))
        .map(|()| one(mesh, text))
        .buffer_unordered(AT_ONCE)
        .inspect(|_| count.send_modify(|n| *n += 1))
        .collect::<Vec<Seen>>();
    let kill = async {
        counted.wait_for(|n| *n >= BEFORE).await?;
        let killed = mesh.kill(victim).await;
        let before = *counted.borrow();
        counted.wait_for(|n| *n >= before + AFTER).await?;
        over.store(true, Ordering::Relaxed);
        killed
    };
    let (seen, killed) = tokio::join!(load, kill);
    mesh.healed(victim, killed?).await?;
    let early = seen.iter().take(BEFORE).filter(|s| !s.succeeded).collect::<Vec<_>>();
    assert!(early.is_empty(), "failed before {victim} was killed: {early:?}");
    let slowest = seen.iter().map(|s| s.took).max().unwrap_or_default();
    assert!(slowest < DEADLINE + LATE, "a plan hung for {slowest:?}");
    for plan in seen.iter().filter(|s| !s.finished.is_empty()) {
        let stored = mesh.outcomes(&plan.plan_id, plan.finished.len()).await?;
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        stored
            .iter()
            .for_each(|o| *times.entry(&o.outcome_id).or_default() += 1);
        assert!(
            times.values().all(|&n| n == 1),
            "an outcome was stored twice: {times:?}"
        );
        let lost: Vec<_> = plan
            .finished
            .iter()
            .filter(|id| !times.contains_key(id.as_str()))
            .collect();
        assert!(
            lost.is_empty(),
            "plan {} lost {lost:?} after {victim} was killed",
            plan.plan_id
        );
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_feedback_loses_no_outcome_and_fails_no_plan() -> Result<()> {
    let mesh = Mesh::up(BINARY, &[], without_models).await?;
    let seen = survives(&mesh, "feedback", TRIP).await?;
    let failed: Vec<&Seen> = seen.iter().filter(|s| !s.succeeded).collect();
    assert!(failed.is_empty(), "plans go on while feedback is away: {failed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_gateway_loses_no_outcome_that_a_client_was_told_of() -> Result<()> {
    let mesh = Mesh::up(BINARY, &[], without_models).await?;
    let seen = survives(&mesh, "gateway", TRIP).await?;
    let broke_off = seen.iter().filter(|s| !s.plan_id.is_empty() && !s.ended).count();
    assert!(broke_off > 0, "the kill met no plan that ran");
    let after = one(&mesh, TRIP).await;
    assert!(after.succeeded, "{after:?}");
    Ok(())
}

/// The reason of a decision to pass over a target whose calls are broken off.
const BROKEN_OFF: &str = "its breaker is open";

#[tokio::test(flavor = "multi_thread")]
async fn killing_a_specialist_ends_no_plan_late_opens_its_breaker_and_nobody_else_notices() -> Result<()> {
    let mesh = Mesh::up(BINARY, &[], |_| ()).await?;
    let over = AtomicBool::new(false);
    let load = async {
        let text = "1. tool_call: play some jazz\n2. tool_call: what is the weather in Oslo\n";
        let seen = survives(&mesh, "tool_call", text).await;
        over.store(true, Ordering::Relaxed);
        seen
    };
    // Of another specialist, from before the kill until after the healing.
    let beside = async {
        let mut seen = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let text = "1. route: play some jazz\n2. route: book me a flight\n";
            seen.push(one(&mesh, text).await);
        }
        seen
    };
    let (seen, beside) = tokio::join!(load, beside);
    let seen = seen?;
    assert!(
        seen.iter().all(|s| s.ended),
        "every plan's stream ended with its last event"
    );
    let failed: Vec<&Seen> = beside.iter().filter(|s| !s.succeeded).collect();
    assert!(beside.len() > 5 && failed.is_empty(), "of {}: {failed:?}", beside.len());
    let mut broken_off = false;
    for plan in seen.iter().filter(|s| !s.finished.is_empty()) {
        let stored = mesh.outcomes(&plan.plan_id, plan.finished.len()).await?;
        let mut decisions = stored.iter().flat_map(|o| &o.decisions);
        broken_off |= decisions.any(|d| d.target == "tool_call" && d.reason == BROKEN_OFF);
    }
    assert!(broken_off, "calls to a process that is away are broken off");
    let after = mesh.shoal(&["run", "--json", "play some jazz"]).await?;
    assert_eq!(after.code, Some(0), "{after:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_supervisor_is_killed_its_processes_leave_too() -> Result<()> {
    let mesh = Mesh::up(BINARY, &[], without_models).await?;
    let gateway = mesh.pid("gateway").await?;
    let supervisor = mesh.supervisor().context("it runs")?;
    std::process::Command::new("kill")
        .args(["-9", &supervisor.to_string()])
        .status()?;
    let until = Instant::now() + Duration::from_secs(20);
    let alive = || std::path::Path::new(&format!("/proc/{gateway}/stat")).exists();
    while alive() {
        assert!(Instant::now() < until, "the gateway outlived its supervisor");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
