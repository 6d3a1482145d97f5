//! `shoal up` as its user runs it: separate processes on free ports, in a folder of its own, ended with the test.
use crate::{
    command::{self, Done},
    root,
};
use anyhow::{Context as _, Result, bail};
use shoal_kit::channel;
use shoal_proto::v1::{
    self, feedback_service_client::FeedbackServiceClient, mesh_service_client::MeshServiceClient,
    plan_service_client::PlanServiceClient,
};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
};
use toml::{Table, Value};
use tonic::transport::Channel;

/// From nothing to every process healthy, on a machine whose two cores do something else besides.
const START: Duration = Duration::from_secs(120);

/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(50);

/// A mesh that runs. Dropped, its supervisor's standard input closes, and every process leaves.
#[derive(Debug)]
pub struct Mesh {
    binary: String,
    folder: TempDir,
    child: Child,
    _lifeline: ChildStdin,
    /// The configuration that its gateway runs by, with real addresses.
    pub config: PathBuf,
    gateway: String,
    feedback: String,
}

impl Mesh {
    /// Starts the mesh of the repository's `mesh.toml`, after `change` was made to it.
    ///
    /// # Errors
    /// With the supervisor's words, when it does not come up.
    pub async fn up(binary: &str, environment: &[(&str, &str)], change: impl FnOnce(&mut Table)) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("mesh.toml");
        let mut config = base(folder.path())?;
        change(&mut config);
        std::fs::write(&file, toml::to_string(&config)?)?;
        let log = std::fs::File::create(folder.path().join("up.log"))?;
        let mut child = Command::new(binary)
            .args(["up", "--free-ports", "--exit-with-parent", "--config"])
            .arg(&file)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {binary}"))?;
        let lifeline = child.stdin.take().context("no standard input")?;
        let pid = child.id().context("it ended at once")?;
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line.contains("processes are healthy") {
                    return Ok(true);
                }
            }
            anyhow::Ok(false)
        };
        if !tokio::time::timeout(START, ready)
            .await
            .context("not healthy in time")??
        {
            let said = std::fs::read_to_string(folder.path().join("up.log")).unwrap_or_default();
            bail!("the mesh did not come up: {said}");
        }
        let config = folder.path().join(format!("data/run-{pid}/mesh.toml"));
        let table: Table = std::fs::read_to_string(&config)?.parse()?;
        let address = |section: &str| {
            let listen = table.get(section).and_then(|s| s.get("listen")).and_then(Value::as_str);
            listen
                .map(|l| format!("http://{l}"))
                .with_context(|| format!("[{section}] listen"))
        };
        let (gateway, feedback) = (address("gateway")?, address("feedback")?);
        Ok(Self {
            binary: binary.to_owned(),
            folder,
            child,
            _lifeline: lifeline,
            config,
            gateway,
            feedback,
        })
    }

    /// Runs a command of the binary against this mesh.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub async fn shoal(&self, args: &[&str]) -> Result<Done> {
        self.shoal_with(args, &[]).await
    }

    /// The same, with extra environment variables.
    ///
    /// # Errors
    /// As [`Mesh::shoal`].
    pub async fn shoal_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Result<Done> {
        let config = self.config.display().to_string();
        let mut all = args.to_vec();
        all.extend(["--config", config.as_str()]);
        command::run(&self.binary, &root(), &all, environment).await
    }

    /// The folder that everything of this mesh is in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The supervisor's process id.
    #[must_use]
    pub fn supervisor(&self) -> Option<u32> {
        self.child.id()
    }

    /// The store's address, a URL.
    #[must_use]
    pub fn feedback(&self) -> &str {
        &self.feedback
    }

    /// A client of the gateway's plans.
    ///
    /// # Errors
    /// When the address is no URI.
    pub fn plans(&self) -> Result<PlanServiceClient<Channel>> {
        Ok(PlanServiceClient::new(channel::connect_lazy(&self.gateway)?))
    }

    /// A client of the store.
    ///
    /// # Errors
    /// When the address is no URI.
    pub fn store(&self) -> Result<FeedbackServiceClient<Channel>> {
        Ok(FeedbackServiceClient::new(channel::connect_lazy(&self.feedback)?))
    }

    /// Every process, as the gateway sees it.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub async fn status(&self) -> Result<Vec<v1::ProcessStatus>> {
        let mut client = MeshServiceClient::new(channel::connect_lazy(&self.gateway)?);
        Ok(client.get_status(v1::GetStatusRequest {}).await?.into_inner().processes)
    }

    /// The process id of a process.
    ///
    /// # Errors
    /// When the gateway does not answer or knows none of that name.
    pub async fn pid(&self, name: &str) -> Result<u32> {
        let all = self.status().await?;
        let found = all.iter().find(|p| p.name == name && p.pid != 0);
        found.map(|p| p.pid).with_context(|| format!("no {name} in {all:?}"))
    }

    /// Kills a process of this mesh without a word of warning, and says which it was.
    ///
    /// # Errors
    /// When it is not known or cannot be killed.
    pub async fn kill(&self, name: &str) -> Result<u32> {
        let pid = self.pid(name).await?;
        let done = Command::new("kill").args(["-9", &pid.to_string()]).status().await?;
        anyhow::ensure!(done.success(), "kill -9 {pid}: {done}");
        Ok(pid)
    }

    /// Waits until `name` serves again under another process id than `before`.
    ///
    /// # Errors
    /// When it has not within half a minute.
    pub async fn healed(&self, name: &str, before: u32) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let now = self.status().await.unwrap_or_default();
            if now
                .iter()
                .any(|p| p.name == name && p.state == "serving" && p.pid != before)
            {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("{name} has not come back: {now:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The stored outcomes of a plan, once there are at least `wanted`, or what there is after a while.
    ///
    /// # Errors
    /// When the store does not answer at all.
    pub async fn outcomes(&self, plan_id: &str, wanted: usize) -> Result<Vec<v1::Outcome>> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let request = v1::ListOutcomesRequest {
                plan_id: plan_id.to_owned(),
            };
            let answer = self.store()?.list_outcomes(request).await;
            match answer {
                Ok(found) if found.get_ref().outcomes.len() >= wanted || Instant::now() > until => {
                    return Ok(found.into_inner().outcomes);
                }
                Err(status) if Instant::now() > until => return Err(status.into()),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

/// The repository's configuration, with every path absolute and everything that is written in `folder`.
fn base(folder: &Path) -> Result<Table> {
    let root = root().canonicalize()?;
    let mut config: Table = std::fs::read_to_string(root.join("mesh.toml"))?.parse()?;
    let absolute = |path: &str| Value::from(root.join(path).display().to_string());
    for specialist in config
        .get_mut("specialist")
        .and_then(Value::as_table_mut)
        .into_iter()
        .flatten()
    {
        if let Some(path) = specialist.1.get_mut("folder") {
            *path = absolute(path.as_str().unwrap_or_default());
        }
    }
    let data = folder.join("data");
    let written = |name: &str| Value::from(data.join(name).display().to_string());
    for (section, key, value) in [
        (
            "concierge",
            "services",
            absolute("services/concierge/data/services.json"),
        ),
        (
            "concierge",
            "results",
            absolute("services/concierge/data/tool_results.jsonl.gz"),
        ),
        ("feedback", "store", written("outcomes.sqlite")),
        ("gateway", "spool", written("spool")),
    ] {
        set(&mut config, section, key, value);
    }
    Ok(config)
}

/// Sets `[section] key`.
pub fn set(config: &mut Table, section: &str, key: &str, value: impl Into<Value>) {
    let table = config.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(table) = table {
        table.insert(key.to_owned(), value.into());
    }
}

/// Leaves tools and outcomes only: a mesh that starts in a moment, for what needs no model.
pub fn without_models(config: &mut Table) {
    // Intents are told by a task, and what they are for is one.
    if let Some(gateway) = config.get_mut("gateway").and_then(toml::Value::as_table_mut) {
        gateway.remove("intents");
    }
    for section in ["specialist", "endpoint", "task"] {
        config.remove(section);
    }
}
