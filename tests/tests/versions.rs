//! `shoal activate` against a mesh that runs: versions come and go, the process stays.
use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use serde_json::Value;
use shoal_proto::v1::{self, execute_plan_request::Source, plan_event::Event};
use shoal_tests::{
    command,
    mesh::{Mesh, set, without_models},
    root,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_shoal-under-test");

const NAME: &str = "tiny_decoder";

/// The tiny decoder in so many versions that differ in nothing but their number.
struct Folder(TempDir);

impl Folder {
    fn of(versions: u32) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let fixture = root().join("tests/fixtures/models").join(NAME);
        fs::copy(fixture.join("specialist.toml"), folder.path().join("specialist.toml"))?;
        for version in 1..=versions {
            let to = folder.path().join(version.to_string());
            fs::create_dir(&to)?;
            for file in fs::read_dir(fixture.join("1"))? {
                let file = file?;
                fs::copy(file.path(), to.join(file.file_name()))?;
            }
            let card = fs::read_to_string(to.join("card.toml"))?;
            fs::write(
                to.join("card.toml"),
                card.replace("version = 1", &format!("version = {version}")),
            )?;
        }
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn active(&self) -> Result<String> {
        let text = fs::read_to_string(self.path().join("specialist.toml"))?;
        Ok(text
            .lines()
            .find(|l| l.starts_with("active_version"))
            .unwrap_or_default()
            .to_owned())
    }

    /// Spoils a version's template; `listed`: so that its card still says the truth, and only the load finds it.
    fn spoil(&self, version: u32, listed: bool) -> Result<()> {
        let (folder, template) = (self.path().join(version.to_string()), "{% for x in %}");
        fs::write(folder.join("chat_template.jinja"), template)?;
        if listed {
            let card = fs::read_to_string(folder.join("card.toml"))?;
            let line = card
                .lines()
                .find(|l| l.starts_with("\"chat_template.jinja\""))
                .context("listed")?;
            let sum = "\"chat_template.jinja\" = \"2574ee6f6b3f82dd2ef6c6615366d4d8221fc663664666f6b508f9fab2800a8a\"";
            fs::write(folder.join("card.toml"), card.replace(line, sum))?;
        }
        Ok(())
    }
}

/// A mesh of that one specialist.
async fn mesh(folder: &Folder) -> Result<Mesh> {
    mesh_with(folder, |config| set(config, "gateway", "feedback", "")).await
}

/// The same after a change.
async fn mesh_with(folder: &Folder, change: impl FnOnce(&mut toml::Table)) -> Result<Mesh> {
    let path = folder.path().display().to_string();
    Mesh::up(BINARY, &[], |config| {
        without_models(config);
        config.remove("tools");
        change(config);
        let text = format!("[specialist.{NAME}]\nfolder = {path:?}\nslots = 4\n[task.echo]\nchain = [\"{NAME}\"]\n");
        config.extend(text.parse::<toml::Table>().expect("it is TOML"));
    })
    .await
}

/// Runs `shoal activate`, which must end well, and gives its JSON.
async fn activate(mesh: &Mesh, args: &[&str]) -> Result<Value> {
    let mut all = vec!["activate", NAME, "--json"];
    all.extend(args);
    let done = mesh.shoal(&all).await?;
    assert_eq!(done.code, Some(0), "{args:?}: {done:?}");
    done.last()
}

/// Which model answers a plan's node.
async fn answers(mesh: &Mesh) -> Result<String> {
    Ok(asked(mesh).await?.1.model)
}

/// A plan of one node, and how that ended.
async fn asked(mesh: &Mesh) -> Result<(String, v1::NodeResult)> {
    let request = v1::ExecutePlanRequest {
        source: Some(Source::PlanText("1. echo: hello world\n".into())),
        ..Default::default()
    };
    let mut events = mesh.plans()?.execute_plan(request).await?.into_inner();
    while let Some(event) = events.next().await {
        let event = event?;
        if let Some(Event::NodeFinished(v1::NodeFinished { result: Some(result) })) = event.event {
            return Ok((event.plan_id, result));
        }
    }
    anyhow::bail!("no node finished")
}

/// The version by `shoal status`.
async fn status(mesh: &Mesh) -> Result<String> {
    let done = mesh.shoal(&["status", "--json"]).await?;
    let rows = done.last()?;
    let row = rows.as_array().and_then(|all| all.iter().find(|r| r["name"] == NAME));
    Ok(row.context("a row")?["version"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn activate_switches_a_specialist_that_runs_and_gives_back_what_it_refuses() -> Result<()> {
    let folder = Folder::of(4)?;
    folder.spoil(3, false)?;
    folder.spoil(4, true)?;
    let mesh = mesh(&folder).await?;
    let pid = mesh.pid(NAME).await?;
    let listed = activate(&mesh, &[]).await?;
    assert_eq!((&listed["active_version"], &listed["serving"]), (&1.into(), &1.into()));
    assert_eq!(listed["versions"].as_array().map(Vec::len), Some(4));
    for version in [2, 1, 2] {
        let done = activate(&mesh, &[&version.to_string()]).await?;
        let identity = format!("{NAME}@{version}");
        assert_eq!(
            (&done["model"], &done["running"]),
            (&identity.clone().into(), &true.into())
        );
        assert!(done["seconds"].as_f64().is_some_and(|s| s < 60.0), "{done}");
        assert_eq!(folder.active()?, format!("active_version = {version}"));
        assert_eq!(
            (status(&mesh).await?, answers(&mesh).await?),
            (identity.clone(), identity)
        );
    }

    // What the check finds is never written; what only the load finds is written back.
    for (version, code, words) in [
        ("3", 64, vec!["chat_template.jinja has sha256", "restore the file"]),
        (
            "4",
            1,
            vec!["does not compile", "specialist.toml names version 2 again"],
        ),
        ("5", 64, vec!["5 is missing"]),
    ] {
        let done = mesh.shoal(&["activate", NAME, version]).await?;
        assert_eq!(done.code, Some(code), "{done:?}");
        assert!(words.iter().all(|w| done.err.contains(w)), "{version}: {}", done.err);
        assert_eq!(folder.active()?, "active_version = 2");
    }
    let done = mesh.shoal(&["activate", NAME, "1"]).await?;
    assert!(done.out.contains("tiny_decoder@1 serves, "), "{done:?}");
    assert_eq!(mesh.pid(NAME).await?, pid, "it never left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_takes_its_process_down_is_taken_back_and_the_supervisor_brings_the_old_one_up() -> Result<()> {
    let folder = Folder::of(2)?;
    // No start of it succeeds either: until the file names the old one, the specialist is away.
    folder.spoil(2, true)?;
    let mesh = mesh(&folder).await?;
    // The process looks at the file twice a second: now and then it has refused the version before it is killed, and serves the old one still.
    for _ in 0..5 {
        let before = mesh.pid(NAME).await?;
        let done = killed_while_it_switches(&mesh, &folder, before).await?;
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.err.contains("specialist.toml names version 1 again"), "{done:?}");
        assert_eq!(folder.active()?, "active_version = 1");
        mesh.healed(NAME, before).await?;
        assert_eq!(answers(&mesh).await?, format!("{NAME}@1"));
        if !done.err.contains("refused") {
            assert!(done.err.contains("ended before it served version 2"), "{done:?}");
            return Ok(());
        }
    }
    anyhow::bail!("five times the version was refused before the process was killed")
}

/// What `shoal activate` says, told to serve version 2 by a process that is killed meanwhile.
async fn killed_while_it_switches(mesh: &Mesh, folder: &Folder, pid: u32) -> Result<command::Done> {
    let killed = async {
        let until = Instant::now() + Duration::from_secs(20);
        while folder.active()? != "active_version = 2" {
            anyhow::ensure!(Instant::now() < until, "it was never activated");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // As the kernel does where memory is short: before the process can say a word.
        let mut kill = std::process::Command::new("kill");
        anyhow::ensure!(kill.args(["-9", &pid.to_string()]).status()?.success());
        Ok(())
    };
    let (done, killed) = tokio::join!(mesh.shoal(&["activate", NAME, "2"]), killed);
    killed?;
    done
}

/// A trainer that takes the active version for its candidate, and accepts it.
const TRAINER: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --work) work=$2 ;; --specialist) from=$2 ;; --corrections) rows=$2 ;; esac
  shift
done
mkdir "$work/candidate" && cp -r "$from/1" "$work/candidate/2" || exit
sed 's/^version = 1/version = 2/' "$from/1/card.toml" >"$work/candidate/2/card.toml"
figures='"held_out":{"incumbent":0,"candidate":1},"dev":{"incumbent":1,"candidate":1},"seconds":1,"accepted":true'
echo '{"task":"echo","model":"tiny_decoder","from_version":1,"to_version":2,"quarantined":0,'"$figures"',"corrections":'$(wc -l <"$rows")',"candidate":"'"$work"'/candidate/2"}'
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_retraining_exports_what_was_corrected_and_its_accepted_version_serves() -> Result<()> {
    let folder = Folder::of(1)?;
    let mesh = mesh_with(&folder, |_| ()).await?;
    let (plan_id, answered) = asked(&mesh).await?;
    assert_eq!(answered.model, format!("{NAME}@1"));
    mesh.outcomes(&plan_id, 1).await?;
    let corrected = [
        "feedback",
        "submit",
        &plan_id,
        "1",
        "--correction",
        "\"hello\"",
        "--source",
        "ann",
    ];
    let done = mesh.shoal(&corrected).await?;
    assert_eq!(done.code, Some(0), "{done:?}");

    let (python, work) = (mesh.folder().join("python"), mesh.folder().join("work"));
    fs::write(&python, TRAINER)?;
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755))?;
    let (python, work, data) = (
        python.display().to_string(),
        work.display().to_string(),
        mesh.folder().display().to_string(),
    );
    let retrain = [
        "retrain", "echo", "--json", "--python", &python, "--work", &work, "--data", &data,
    ];
    let done = mesh.shoal(&retrain).await?;
    assert_eq!(done.code, Some(0), "{done:?}");
    let report = done.last()?;
    assert_eq!(
        (&report["corrections"], &report["accepted"]),
        (&1.into(), &true.into()),
        "{report}"
    );
    let rows = fs::read_to_string(Path::new(&work).join("corrections.jsonl"))?;
    let row: Value = serde_json::from_str(rows.trim())?;
    assert_eq!(
        (&row["input"], &row["target"]),
        (&"hello world".into(), &"hello".into()),
        "{row}"
    );

    assert_eq!(folder.active()?, "active_version = 2");
    let listed = activate(&mesh, &[]).await?;
    assert_eq!(
        (&listed["serving"], &listed["refused"]),
        (&2.into(), &Value::Null),
        "{listed}"
    );
    assert_eq!(answers(&mesh).await?, format!("{NAME}@2"));
    Ok(())
}

/// A configuration with one specialist that nobody runs.
async fn nobody(folder: &Folder, args: &[&str]) -> Result<command::Done> {
    at(folder, "127.0.0.1:0", args).await
}

/// The same, should one run there.
async fn at(folder: &Folder, listen: &str, args: &[&str]) -> Result<command::Done> {
    let file: PathBuf = folder.path().join("mesh.toml");
    let path = folder.path().display().to_string();
    let own = format!("[specialist.{NAME}]\nfolder = {path:?}\nlisten = \"{listen}\"\n");
    fs::write(&file, own + "[specialist.away]\nendpoints = [\"http://127.0.0.1:9\"]\n")?;
    let file = file.display().to_string();
    let mut all = vec!["activate"];
    all.extend(args);
    all.extend(["--config", &file]);
    command::run(BINARY, folder.path(), &all, &[]).await
}

#[tokio::test]
async fn without_a_process_the_file_is_written_and_the_words_say_so() -> Result<()> {
    let folder = Folder::of(2)?;
    let done = nobody(&folder, &[NAME, "2"]).await?;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("is not in the configuration"), "{done:?}");
    assert_eq!(folder.active()?, "active_version = 2");
    let done = nobody(&folder, &[NAME]).await?;
    let line = |version: &str| done.out.lines().find(|l| l.starts_with(version)).unwrap_or_default();
    assert!(
        line("2").contains("active") && !line("1").contains("active"),
        "{done:?}"
    );
    for (name, words) in [
        ("stranger", "there are: away, tiny_decoder"),
        ("away", "is served elsewhere"),
    ] {
        let done = nobody(&folder, &[name, "2"]).await?;
        assert_eq!(done.code, Some(64), "{done:?}");
        assert!(done.err.contains(words), "{done:?}");
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_switched_unwatched_because_a_process_is_too_busy_to_say_what_it_serves() -> Result<()> {
    let folder = Folder::of(2)?;
    // Connections are made by the operating system, and nobody takes them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let listen = silent.local_addr()?.to_string();
    let done = at(&folder, &listen, &[NAME, "2"]).await?;
    assert_eq!(done.code, Some(69), "{done:?}");
    assert!(done.err.contains(&listen) && done.err.contains("--wait 0"), "{done:?}");
    assert_eq!(folder.active()?, "active_version = 1");
    let done = at(&folder, &listen, &[NAME, "2", "--wait", "0"]).await?;
    assert_eq!(
        (done.code, folder.active()?.as_str()),
        (Some(0), "active_version = 2"),
        "{done:?}"
    );
    Ok(())
}
