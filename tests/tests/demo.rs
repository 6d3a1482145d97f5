//! `shoal demo`, as a newcomer runs it.
use anyhow::{Context as _, Result};
use shoal_tests::{command, root};
use std::collections::BTreeSet;

const BINARY: &str = env!("CARGO_BIN_EXE_shoal-under-test");

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_a_dozen_goals_with_dependent_edges_and_every_outcome_is_acknowledged() -> Result<()> {
    let data = tempfile::tempdir()?;
    let folder = data.path().display().to_string();
    let done = command::run(BINARY, &root(), &["demo", "--json", "--data", &folder], &[]).await?;
    assert_eq!(done.code, Some(0), "{}", done.err);
    let summary = done.last()?;
    let count = |key: &str| summary[key].as_u64().with_context(|| format!("no {key} in {summary}"));
    assert!(count("plans")? >= 12 && count("dependent_edges")? >= 4, "{summary}");
    assert!(
        count("right")? >= 4 && count("right")? <= count("succeeded")?,
        "{summary}"
    );
    let traces: BTreeSet<&str> = summary["trace_ids"]
        .as_array()
        .context("trace_ids")?
        .iter()
        .filter_map(|t| t.as_str())
        .collect();
    assert_eq!(traces.len() as u64, count("plans")?, "a trace a plan: {summary}");

    // What was acknowledged is in the file.
    let events = done.lines()?;
    let finished = events.iter().filter(|e| e["event"] == "node_finished").count() as u64;
    assert!(
        count("outcomes_acknowledged")? >= finished,
        "{finished} nodes finished: {summary}"
    );
    let escalated = events
        .iter()
        .any(|e| e["event"] == "node_escalated" && e["to"] == "large");
    assert!(escalated, "a node visibly goes to the larger tier");
    assert!(data.path().join("outcomes.sqlite").is_file());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_pipe_the_demo_writes_plain_lines_for_people() -> Result<()> {
    let data = tempfile::tempdir()?;
    let folder = data.path().display().to_string();
    let done = command::run(BINARY, &root(), &["demo", "--data", &folder], &[]).await?;
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(!done.out.contains('\u{1b}'), "no colour in a pipe");
    for word in ["processes healthy", "tool_call", "planner", "concierge", "outcomes"] {
        assert!(done.out.contains(word), "`{word}` is not said:\n{}", done.out);
    }
    Ok(())
}
