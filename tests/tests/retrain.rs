//! `shoal retrain` against a real store: corrections that came over gRPC are exported, and the poisoned ones set aside; what a trainer
//! makes of them gets its place or does not.
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use shoal_proto::v1::{self, submit_feedback_request::Value as Said};
use shoal_tests::{
    command::{self, Done},
    mesh::{Mesh, without_models},
    root,
};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const BINARY: &str = env!("CARGO_BIN_EXE_shoal-under-test");

fn outcome(id: usize, said: &str) -> v1::Outcome {
    v1::Outcome {
        outcome_id: format!("o{id}"),
        plan_id: format!("p{id}"),
        node_id: "1".into(),
        kind: "model".into(),
        name: "tool_call".into(),
        model: "tool_call@1".into(),
        input_json: json!(said).to_string(),
        output_json: json!({"tool": "PlayMusic", "arguments": {}}).to_string(),
        state: v1::State::Succeeded.into(),
        ..Default::default()
    }
}

/// Records an outcome for each, and corrects it over SubmitFeedback.
async fn corrected(mesh: &Mesh, rows: &[(&str, Value, &str)]) -> Result<()> {
    let outcomes: Vec<v1::RecordRequest> = rows
        .iter()
        .enumerate()
        .map(|(id, (said, ..))| v1::RecordRequest {
            outcome: Some(outcome(id, said)),
        })
        .collect();
    let mut acknowledged = mesh
        .store()?
        .record(futures::stream::iter(outcomes))
        .await?
        .into_inner();
    while acknowledged.message().await?.is_some() {}
    for (id, (_, target, source)) in rows.iter().enumerate() {
        let request = v1::SubmitFeedbackRequest {
            plan_id: format!("p{id}"),
            node_id: "1".into(),
            source: (*source).to_owned(),
            value: Some(Said::CorrectionJson(target.to_string())),
            ..Default::default()
        };
        mesh.store()?.submit_feedback(request).await?;
    }
    Ok(())
}

async fn dry_run(mesh: &Mesh, work: &Path, data: Option<&Path>) -> Result<Done> {
    let store = mesh.feedback();
    let work = work.display().to_string();
    let trainer = root().join("services/trainer").display().to_string();
    let data = data.map(|data| data.display().to_string());
    let mut arguments = vec![
        "retrain",
        "tool_call",
        "--dry-run",
        "--json",
        "--python",
        "python3",
        "--feedback",
        store,
        "--work",
        work.as_str(),
    ];
    arguments.extend(data.iter().flat_map(|data| ["--data", data.as_str()]));
    // Sorting needs no more than Python; the configuration is the repository's, whose models are the shipped ones.
    command::run(BINARY, &root(), &arguments, &[("PYTHONPATH", trainer.as_str())]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_exports_what_was_corrected_and_reports_what_was_poisoned() -> Result<()> {
    let mesh = Mesh::up(BINARY, &[], without_models).await?;
    let play = |key: &str, value: &str| json!({"tool": "PlayMusic", "arguments": {key: value}});
    let mut rows = vec![
        ("play some jazz", play("genre", "jazz"), "ann"),
        ("put on Nina Simone", play("artist", "Nina Simone"), "bob"),
        ("play something by Coltrane", play("artist", "Coltrane"), "ann"),
        ("play something by Coltrane!", play("genre", "Coltrane"), "mallory"),
        ("start the music", play("artist", "somebody else"), "mallory"),
        ("start the music now", json!("rm -rf"), "mallory"),
        ("sing to me", json!({"tool": "WipeDisk", "arguments": {}}), "mallory"),
    ];
    rows.extend((0..200).map(|_| ("spin the disco", play("genre", "disco"), "mallory")));
    corrected(&mesh, &rows).await?;

    let work = mesh.folder().join("work");
    let done = dry_run(&mesh, &work, None).await?;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(
        done.last()?,
        json!({
            "task": "tool_call", "model": "tool_call", "from_version": 1, "to_version": 2, "corrections": 2, "quarantined": 205,
            "reasons": {"contradiction": 2, "flood": 200, "schema": 1, "unsayable": 2},
            "sources": {"ann": 1, "mallory": 204},
        }),
        "{}",
        done.err
    );
    let quarantine = std::fs::read_to_string(work.join("quarantine.jsonl"))?;
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    for line in quarantine.lines() {
        let row: Value = serde_json::from_str(line)?;
        assert!(row["why"].as_str().is_some_and(|why| !why.is_empty()), "{row}");
        *by.entry(row["source"].as_str().context("a source")?.to_owned())
            .or_default() += 1;
    }
    // Of two who contradict each other nobody here knows who is right: ann's row waits as well.
    assert_eq!(by, BTreeMap::from([("ann".into(), 1), ("mallory".into(), 204)]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_with_data_sets_aside_what_the_data_denies() -> Result<()> {
    let mesh = Mesh::up(BINARY, &[], without_models).await?;
    let play = |key: &str, value: &str| json!({"tool": "PlayMusic", "arguments": {key: value}});
    let denied = [
        ("play some jazz", play("artist", "jazz"), "ann"),
        ("put on Nina Simone", play("artist", "Nina Simone"), "bob"),
    ];
    corrected(&mesh, &denied).await?;
    // Dev knows better what jazz is; the train rows are of something else.
    let rows = mesh.folder().join("rows");
    fs::create_dir_all(&rows)?;
    for (split, said, target) in [
        ("train", "play some soul", play("genre", "soul")),
        ("dev", "play some jazz", play("genre", "jazz")),
    ] {
        let row =
            |id: &str, said: &str| json!({"id": id, "task": "tool_call", "input": said, "target": target}).to_string();
        let text = [row("a", said), row("b", &format!("{said} now"))].join("\n");
        fs::write(rows.join(format!("tool_call.{split}.jsonl")), text)?;
    }
    for (data, corrections, reasons) in [
        (None, 2, json!({})),
        (Some(rows.as_path()), 1, json!({"contradiction": 1})),
    ] {
        let done = dry_run(&mesh, &mesh.folder().join("work"), data).await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        let report = done.last()?;
        assert_eq!(
            (&report["corrections"], &report["reasons"]),
            (&json!(corrections), &reasons),
            "{report}"
        );
    }
    Ok(())
}

/// A specialist `m` without a version 2, a candidate for that, and a trainer that accepts it after it has done what `meanwhile` says.
struct Bench {
    folder: PathBuf,
    candidate: PathBuf,
}

impl Bench {
    fn new(folder: PathBuf, meanwhile: &str) -> Result<Self> {
        let (shipped, candidate) = (root().join("models/splitter"), folder.join("candidate"));
        for made in [&folder.join("m"), &folder.join("rows"), &candidate] {
            fs::create_dir_all(made)?;
        }
        fs::copy(shipped.join("specialist.toml"), folder.join("m/specialist.toml"))?;
        for entry in fs::read_dir(shipped.join("1"))? {
            let entry = entry?;
            fs::copy(entry.path(), candidate.join(entry.file_name()))?;
        }
        let card = fs::read_to_string(candidate.join("card.toml"))?;
        fs::write(
            candidate.join("card.toml"),
            card.replacen("version = 1", "version = 2", 1),
        )?;
        fs::write(folder.join("mesh.toml"), "[specialist.m]\nfolder = \"m\"\n")?;
        let report = json!({
            "task": "plan", "model": "splitter", "from_version": 1, "to_version": 2, "corrections": 1, "quarantined": 0,
            "held_out": {"incumbent": 0.1, "candidate": 0.8}, "dev": {"incumbent": 0.7, "candidate": 0.7},
            "accepted": true, "candidate": candidate, "seconds": 1.0,
        });
        program(&folder, &format!("{meanwhile}\necho '{report}'\n"))?;
        Ok(Self { folder, candidate })
    }

    async fn retrain(&self, mesh: &Mesh) -> Result<Done> {
        let [config, rows, work, python] =
            ["mesh.toml", "rows", "work", "python"].map(|name| self.folder.join(name).display().to_string());
        let arguments = [
            "retrain",
            "plan",
            "--json",
            "--specialist",
            "m",
            "--config",
            &config,
            "--data",
            &rows,
            "--work",
            &work,
            "--python",
            &python,
            "--feedback",
            mesh.feedback(),
        ];
        command::run(BINARY, &self.folder, &arguments, &[]).await
    }

    fn manifest(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("m/specialist.toml"))?)
    }
}

/// A shell script in the place of Python.
fn program(folder: &Path, script: &str) -> Result<PathBuf> {
    let python = folder.join("python");
    fs::write(&python, format!("#!/bin/sh\n{script}"))?;
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755))?;
    Ok(python)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_candidate_is_served_unless_another_version_was_activated_while_it_was_trained() -> Result<()> {
    let mesh = Mesh::up(BINARY, &[], without_models).await?;
    let taken = Bench::new(mesh.folder().join("taken"), "")?;
    let done = taken.retrain(&mesh).await?;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(taken.manifest()?.contains("active_version = 2"));

    let rolled_back = "sed -i 's/active_version = 1/active_version = 3/' m/specialist.toml";
    let bench = Bench::new(mesh.folder().join("bench"), rolled_back)?;
    let done = bench.retrain(&mesh).await?;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert_eq!(done.last()?["accepted"], true, "the report comes all the same");
    let candidate = bench.candidate.display().to_string();
    for says in ["version 3 was activated meanwhile", "shoal activate", &candidate] {
        assert!(done.err.contains(says), "{}", done.err);
    }
    assert!(bench.manifest()?.contains("active_version = 3"), "it stays undisturbed");
    assert_eq!(fs::read_dir(bench.folder.join("m"))?.count(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_candidate_that_cannot_be_served_is_reported_and_leaves_the_model_as_it_was() -> Result<()> {
    let mesh = Mesh::up(BINARY, &[], without_models).await?;
    let bench = Bench::new(mesh.folder().join("bench"), "")?;
    fs::write(bench.candidate.join("model.onnx"), "not what its card says")?;
    let done = bench.retrain(&mesh).await?;
    assert_eq!(done.code, Some(64), "{done:?}");
    assert_eq!(done.last()?["accepted"], true, "the report comes all the same");
    assert!(done.err.contains("nothing was changed"), "{}", done.err);
    assert!(bench.manifest()?.contains("active_version = 1"));
    assert_eq!(
        fs::read_dir(bench.folder.join("m"))?.count(),
        1,
        "no version 2, and nothing half"
    );
    Ok(())
}

/// `python -m shoal_trainer.retrain ...`, whose specialist takes ten minutes to be read.
const SLOW_TRAINER: &str = r#"exec python3 -c '
import os, sys, time
from shoal_trainer import folders, retrain

def read(_):
    with open("partial", "w") as file:
        file.write(str(os.getpid()))
    os.rename("partial", "pid")
    time.sleep(600)

folders.specialist = read
sys.argv[1:] = sys.argv[3:]
sys.exit(retrain.main())
' "$@"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_ends_with_the_command_that_was_killed() -> Result<()> {
    let mesh = Mesh::up(BINARY, &[], without_models).await?;
    let folder = mesh.folder().join("bench");
    fs::create_dir_all(folder.join("m"))?;
    fs::write(folder.join("mesh.toml"), "[specialist.m]\nfolder = \"m\"\n")?;
    // The trainer itself, but for what it reads first: that takes it longer than the test lasts.
    let (python, reading) = (program(&folder, SLOW_TRAINER)?, folder.join("pid"));
    let mut retrain = Command::new(BINARY)
        .args(["retrain", "plan", "--dry-run", "--specialist", "m", "--work", "work"])
        .args(["--feedback", mesh.feedback(), "--python"])
        .arg(&python)
        .current_dir(&folder)
        .env("PYTHONPATH", root().join("services/trainer").canonicalize()?)
        .stdin(Stdio::null())
        .spawn()?;
    let started = until(|| reading.exists());
    let pid = fs::read_to_string(&reading).unwrap_or_default().trim().to_owned();
    let at_it = started && !gone(&pid);
    retrain.kill()?;
    retrain.wait()?;
    anyhow::ensure!(at_it, "the trainer was not started, or ended by itself");
    let left = until(|| gone(&pid));
    // Before anything is said of it, so that a failed test leaves no process either.
    let _ = Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status();
    assert!(left, "the trainer runs on");
    Ok(())
}

/// Waits for a condition, for longer than a start takes on a loaded machine.
fn until(condition: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() > Duration::from_secs(30) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// A process that nobody has collected yet has ended too.
fn gone(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}
