//! The first way through, as separate processes with real models: a goal -> splitter -> specialist -> tool -> a node that needs the
//! tool's answer -> outcomes on disk -> one trace.
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use shoal_tests::{
    collector::{Collector, Span},
    mesh::Mesh,
};
use std::collections::BTreeSet;

const BINARY: &str = env!("CARGO_BIN_EXE_shoal-under-test");

/// Two requests in one sentence, then a conversation's calls with an edge across services.
const GOAL: &str = "Play some jazz by Miles Davis and then book a table for two at a bistro in Oslo";
const TRIP: &str = r#"1. Restaurants_2.FindRestaurants(category="Coffeehouse", location="Newark")
2. Restaurants_2.ReserveRestaurant(restaurant_name=$1.restaurant_name, location="Newark", number_of_seats="2", time="11:30")
3. RideSharing_1.GetRide(destination=$2.address, number_of_riders="2", shared_ride="True")
"#;

fn node<'a>(last: &'a Value, id: &str) -> Result<&'a Value> {
    let nodes = last["nodes"].as_array().context("nodes")?;
    nodes
        .iter()
        .find(|n| n["id"] == id)
        .with_context(|| format!("no node {id} in {last}"))
}

/// One root, every other span's parent in the same trace, and no span twice.
fn whole(spans: &[Span]) -> Result<(), String> {
    let ids: BTreeSet<&str> = spans.iter().map(|s| s.id.as_str()).collect();
    let roots: Vec<&Span> = spans.iter().filter(|s| s.parent.is_empty()).collect();
    let orphans: Vec<&Span> = spans
        .iter()
        .filter(|s| !s.parent.is_empty() && !ids.contains(s.parent.as_str()))
        .collect();
    match () {
        () if roots.len() != 1 => Err(format!("{} roots: {roots:#?}", roots.len())),
        () if !orphans.is_empty() => Err(format!("orphans: {orphans:#?}")),
        () if ids.len() != spans.len() => Err("a span came twice".to_owned()),
        () => Ok(()),
    }
}

/// The ids of the spans of that service.
fn services(spans: &[Span]) -> BTreeSet<&str> {
    spans.iter().map(|s| s.service.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_runs_through_planner_specialists_and_tools_into_the_store_and_one_trace() -> Result<()> {
    let (collector, url) = Collector::start().await?;
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
    let mesh = Mesh::up(BINARY, &environment, |_| ()).await?;

    let goal = mesh.shoal_with(&["run", "--json", GOAL], &environment).await?;
    assert_eq!(goal.code, Some(0), "{goal:?}");
    let events = goal.lines()?;
    let last = events.last().context("no last object")?;
    assert_eq!(last["state"], "succeeded", "{goal:?}");
    let nodes = last["nodes"].as_array().context("nodes")?;
    assert!(
        nodes.iter().any(|n| n["kind"] == "model" && n["name"] == "tool_call"),
        "{last}"
    );
    assert!(
        nodes.iter().all(|n| n["output"]["tool"].is_string()),
        "every step ended in a call: {last}"
    );

    let plan = mesh.folder().join("trip.plan");
    std::fs::write(&plan, TRIP)?;
    let trip = mesh
        .shoal_with(&["run", "--json", &plan.display().to_string()], &environment)
        .await?;
    assert_eq!(trip.code, Some(0), "{trip:?}");
    let done = trip.last()?;
    let (table, ride) = (node(&done, "2")?, node(&done, "3")?);
    assert_eq!(
        ride["input"]["destination"], table["output"]["address"],
        "the cab goes to the table's address"
    );
    assert_eq!(ride["depends_on"], json!(["2"]));

    // Ahead of a goal's nodes: who told its intent, and the planner.
    for (run, ahead) in [(&goal, 2), (&trip, 0)] {
        let last = run.last()?;
        let plan_id = last["plan_id"].as_str().context("plan_id")?;
        let wanted = last["nodes"].as_array().context("nodes")?.len() + ahead;
        let outcomes = mesh.outcomes(plan_id, wanted).await?;
        assert_eq!(
            outcomes.len(),
            wanted,
            "one outcome a node, and those ahead of them: {outcomes:#?}"
        );
        let trace = outcomes[0].trace_id.clone();
        assert!(
            outcomes.iter().all(|o| o.trace_id == trace),
            "one trace id for the plan"
        );

        let expected: &[&str] = if ahead > 0 {
            &[
                "shoal-run",
                "shoal-gateway",
                "shoal-route",
                "shoal-splitter",
                "shoal-tool_call",
            ]
        } else {
            &["shoal-run", "shoal-gateway", "shoal-concierge"]
        };
        // Each process sends its spans every five seconds, at a time of its own: a trace is complete only once the last of them has.
        let all_sent = |spans: &[Span]| {
            let seen = services(spans);
            whole(spans).is_ok() && expected.iter().all(|service| seen.contains(service))
        };
        let spans = collector.settled(&trace, all_sent).await;
        whole(&spans).map_err(anyhow::Error::msg)?;
        let seen = services(&spans);
        assert!(
            expected.iter().all(|s| seen.contains(s)),
            "{expected:?} are not all in {seen:?}"
        );
        if ahead > 0 {
            assert!(
                spans.iter().any(|s| s.name == "prefill"),
                "the trace reaches the model's own run"
            );
        }
        let content = spans
            .iter()
            .filter(|s| s.attributes.keys().any(|k| k.ends_with("put.value")));
        assert_eq!(
            content.count(),
            0,
            "prompts and outputs stay off spans unless switched on"
        );
    }
    Ok(())
}
