//! `shoal demo`, as a newcomer runs it.
use anyhow::{Context as _, Result};
use serde_json::Value;
use shoal_tests::{command, root};
use std::collections::BTreeSet;
use toml::Table;

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
    let handed_to = |target: &str| {
        let to = |e: &&Value| e["event"] == "node_escalated" && e["to"] == target;
        events.iter().filter(to).count()
    };
    assert!(handed_to("large") > 0, "a node visibly goes to the larger tier");

    // Every specialist of mesh.toml has something to do in it; the larger models what was handed on to them.
    let answered = |target: &str| summary["answered"][target].as_u64().unwrap_or(0);
    let config: Table = std::fs::read_to_string(root().join("mesh.toml"))?.parse()?;
    for name in config["specialist"].as_table().context("specialists")?.keys() {
        match name.as_str() {
            // Reached as the endpoint `large`.
            "tool_call_wide" => assert!(answered("large") > 0, "{summary}"),
            "generalist" => assert!(answered(name) > 0 || handed_to(name) == 0, "{summary}"),
            _ => assert!(answered(name) > 0, "{name} answered nothing: {summary}"),
        }
    }
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
    // Of the end, and not of the list that it starts with.
    let by = done.out.lines().find_map(|line| line.strip_prefix("answered by "));
    let by = by.with_context(|| format!("who answered is not said:\n{}", done.out))?;
    for name in ["concierge", "extract", "planner", "route", "splitter", "tool_call"] {
        assert!(
            by.split(", ").any(|one| one.starts_with(&format!("{name} "))),
            "{name} is not among: {by}"
        );
    }
    for word in ["processes healthy", "dependent edges", "outcomes acknowledged"] {
        assert!(done.out.contains(word), "`{word}` is not said:\n{}", done.out);
    }
    Ok(())
}
