//! One process kept alive.
//!
//! ```text
//! starting --healthy--> running --ends--> pausing --> starting (same addresses) ...
//!     \--ends or never healthy--> Err (first start only)           any --stop--> stdin closed, waited for, killed
//!     \--nobody waits for it any more--> killed
//! ```
use super::{
    Backoff,
    layout::{Addresses, Kind, Process, to_bind},
    ready,
};
use crate::exit::{Exit, Failure, Result};
use serde::Deserialize;
use shoal_kit::{environment, task};
use std::{
    fs::{self, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    process::{Child, ChildStdin, Command},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

/// How long past its own drain time a child may take before it is killed. The gateway takes longest: 2 s until plans that it cut off have
/// ended, 1 s for their last outcomes, and 2 s to flush its traces. The other 3 s are for a machine that is busy.
const GRACE: Duration = Duration::from_secs(8);

/// Between two looks for a child's announcement.
const LOOK: Duration = Duration::from_millis(10);

/// How a process begins what it says to people.
const SAID: &str = "shoal: ";

/// How much of a log is quoted when a process does not start.
const LAST_WORDS_BYTES: u64 = 2048;

/// What a child shares with its siblings.
#[derive(Debug, Clone)]
pub(super) struct Outside {
    /// This program: every process of the mesh is one of its subcommands.
    pub(super) program: PathBuf,
    /// Where announcements go.
    pub(super) run: PathBuf,
    pub(super) logs: Logs,
}

/// Where children's logs go.
#[derive(Debug, Clone)]
pub(super) enum Logs {
    /// Our own standard error; each line names its process.
    Inherit,
    /// NAME.log in this folder, appended to.
    Folder(PathBuf),
    /// The same in one that goes with the start: its words are quoted, and nobody is sent there.
    Passing(PathBuf),
}

/// A running process and the task that restarts it.
#[derive(Debug)]
pub(super) struct Keeper {
    name: String,
    addresses: Addresses,
    /// Dropped, it tells the process to leave: a mesh that nobody stops is not kept alive by its keepers.
    stop: DropGuard,
    watch: JoinHandle<()>,
}

/// What [`shoal_kit::serve::announce`] writes.
#[derive(Debug, Deserialize)]
struct Announcement {
    pid: u32,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Keeper {
    /// Starts the process and returns once it is healthy; from then on it is restarted whenever it ends.
    pub(super) async fn start(process: Process, config: PathBuf, outside: Outside) -> (Kind, Result<Self>) {
        let kind = process.kind;
        (kind, Self::first(process, config, outside).await)
    }

    async fn first(mut process: Process, config: PathBuf, outside: Outside) -> Result<Self> {
        process.addresses = Addresses {
            grpc: to_bind(process.addresses.grpc),
            http: to_bind(process.addresses.http),
        };
        let name = process.name.clone();
        let mut start = Start {
            process,
            config,
            outside,
            log_from: 0,
        };
        start.log_from = start
            .log()
            .and_then(|log| Some(fs::metadata(log).ok()?.len()))
            .unwrap_or(0);
        let (mut child, lifeline) = start.spawn()?;
        let mut starting = Starting {
            child: &mut child,
            healthy: false,
        };
        let announced = tokio::select! {
            announced = start.announced(starting.child.id()) => announced,
            status = starting.child.wait() => return Err(start.died(status.ok())),
        };
        // A restart takes the same addresses: others have been told.
        start.process.addresses = Addresses {
            grpc: announced.grpc,
            http: announced.http,
        };
        tokio::select! {
            () = ready::healthy(announced.grpc) => {}
            status = starting.child.wait() => return Err(start.died(status.ok())),
        }
        starting.healthy = true;
        drop(starting);
        let addresses = start.process.addresses;
        let stop = CancellationToken::new();
        let watch = task::spawn("process keeper", keep(start, child, lifeline, stop.clone()));
        Ok(Self {
            name,
            addresses,
            stop: stop.drop_guard(),
            watch,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Ends the process: its standard input is closed, and it has its drain time before it is killed.
    pub(super) async fn stop(self) {
        drop(self.stop);
        let _ = self.watch.await;
    }
}

async fn keep(start: Start, mut child: Child, mut lifeline: ChildStdin, stop: CancellationToken) {
    let (name, mut backoff) = (start.process.name.clone(), Backoff::default());
    // The first is healthy already; of those after it, how long they loaded is no sign of having started well.
    let mut healthy = Some(Instant::now());
    loop {
        let status = tokio::select! {
            status = ended(&mut child, start.process.addresses.grpc, &mut healthy) => status,
            () = stop.cancelled() => return end(&name, child, lifeline, start.process.drain).await,
        };
        let pause = backoff.pause(healthy.take().map_or(Duration::ZERO, |since| since.elapsed()));
        warn!(child = name, status, restart_in = ?pause, "process died; restarting it");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        (child, lifeline) = loop {
            match start.spawn() {
                Ok(started) => break started,
                Err(error) => warn!(child = name, %error, "cannot start the process again"),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause(Duration::ZERO)) => {}
                () = stop.cancelled() => return,
            }
        };
        info!(child = name, child_pid = child.id(), "process restarted");
    }
}

/// Waits for the child's end; notes meanwhile since when it is healthy.
async fn ended(child: &mut Child, grpc: SocketAddr, healthy: &mut Option<Instant>) -> String {
    let words = |status: std::io::Result<ExitStatus>| status.map_or_else(|e| e.to_string(), |s| s.to_string());
    if healthy.is_none() {
        tokio::select! {
            () = ready::healthy(grpc) => *healthy = Some(Instant::now()),
            status = child.wait() => return words(status),
        }
    }
    words(child.wait().await)
}

async fn end(name: &str, mut child: Child, lifeline: ChildStdin, drain: Duration) {
    drop(lifeline);
    if tokio::time::timeout(drain + GRACE, child.wait()).await.is_err() {
        warn!(child = name, "process did not end by itself; killing it");
        let _ = child.kill().await;
    }
}

/// A child that no keeper watches yet. If its start is given up, by an error or because nobody waits for it any more, it is killed:
/// it has no work to end, and one that is stuck would not see that its standard input has ended.
struct Starting<'a> {
    child: &'a mut Child,
    healthy: bool,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if !self.healthy {
            // An error is a child that has ended.
            let _ = self.child.start_kill();
        }
    }
}

/// How to start a process, again and again.
struct Start {
    process: Process,
    config: PathBuf,
    outside: Outside,
    /// Length of the log before the first start: what is older are not this mesh's words.
    log_from: u64,
}

impl Start {
    fn announcement(&self) -> PathBuf {
        self.outside.run.join(format!("{}.json", self.process.name))
    }

    fn log(&self) -> Option<PathBuf> {
        match &self.outside.logs {
            Logs::Inherit => None,
            Logs::Folder(folder) | Logs::Passing(folder) => Some(folder.join(format!("{}.log", self.process.name))),
        }
    }

    /// The child, and the pipe whose end is its signal to leave: held apart, because `Child::wait` would close it.
    fn spawn(&self) -> Result<(Child, ChildStdin)> {
        let name = &self.process.name;
        let announcement = self.announcement();
        let _ = fs::remove_file(&announcement);
        let stderr = match self.log() {
            None => Stdio::inherit(),
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(&path);
                file.map_err(|e| Failure::usage(format!("cannot write {}: {e}", path.display())))?
                    .into()
            }
        };
        let mut command = Command::new(&self.outside.program);
        command.args(self.process.command());
        command.arg("--config").arg(&self.config);
        command.arg("--listen").arg(self.process.addresses.grpc.to_string());
        command
            .arg("--http-listen")
            .arg(self.process.addresses.http.to_string());
        command.arg("--announce").arg(&announcement).arg("--exit-with-parent");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr);
        // Ctrl-C in a terminal goes to every process of the group; the order of ending is ours to keep.
        command.process_group(0).kill_on_drop(false);
        // What the environment says is already in the generated file; left here it would win over the addresses in it.
        for (variable, _) in environment::with_prefix("SHOAL_").filter(|(v, _)| v.contains("__")) {
            command.env_remove(variable);
        }
        let mut child = command
            .spawn()
            .map_err(|e| Failure::internal(format!("cannot start {name}: {e}")))?;
        let lifeline = child
            .stdin
            .take()
            .ok_or_else(|| Failure::internal(format!("{name} has no standard input")))?;
        Ok((child, lifeline))
    }

    /// Waits for the child's announcement.
    async fn announced(&self, pid: Option<u32>) -> Announcement {
        let path = self.announcement();
        loop {
            let read = fs::read(&path)
                .ok()
                .and_then(|text| serde_json::from_slice::<Announcement>(&text).ok());
            if let Some(announcement) = read.filter(|a| pid.is_none_or(|pid| pid == a.pid)) {
                return announcement;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What to say of a process that ended before it was healthy.
    fn died(&self, status: Option<ExitStatus>) -> Failure {
        let code = status.and_then(|s| s.code());
        let exit = code.and_then(Exit::of_code).unwrap_or(Exit::Unavailable);
        let how = status.map_or_else(|| "without a status".into(), |s| s.to_string());
        let words = self
            .log()
            .and_then(|path| last_words(&path, self.log_from))
            .unwrap_or_default();
        let stays = self.log().filter(|_| matches!(self.outside.logs, Logs::Folder(_)));
        let log = stays
            .map(|p| format!("\nits log is {}", p.display()))
            .unwrap_or_default();
        Failure {
            exit,
            message: format!("{} ended before it was healthy ({how}){words}{log}", self.process.name),
        }
    }
}

/// The lines of a log that a person can use: what the process itself said to people, or else its last lines.
fn last_words(path: &Path, from: u64) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(LAST_WORDS_BYTES))))
        .ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let said = |line: &&str| line.starts_with(SAID);
    let tail: Vec<&str> = match lines.iter().rposition(said) {
        // A process ends with its last word, which may have several lines.
        Some(last) => lines[..last]
            .iter()
            .copied()
            .filter(said)
            .chain(lines[last..].to_vec())
            .collect(),
        None => lines[lines.len().saturating_sub(3)..].to_vec(),
    };
    let tail = tail.into_iter().map(|line| line.strip_prefix(SAID).unwrap_or(line));
    Some(tail.fold(":".to_owned(), |all, line| format!("{all}\n  {line}")))
}

#[cfg(test)]
mod tests;
