//! The whole mesh on one machine: every process started, watched, restarted, and ended, as children of this one.
//!
//! Order of starting: feedback, concierge and specialists together; once each has said where it is and is healthy, the
//! gateway, whose configuration then names their addresses. Order of ending: the gateway first (running plans still have
//! their specialists), feedback last (the spool can still empty).
//!
//! Rooms: `layout` decides what runs and rewrites the configuration, `run_folder` is where that is written, `keeper` keeps
//! one process alive, `backoff` says when to try again, `ready` asks for health; `trial` starts one specialist by itself, to see whether it can be served.
//! A child never outlives us: its standard input is a pipe that closes with us.
mod backoff;
mod keeper;
mod layout;
mod ready;
mod run_folder;
mod trial;
mod up;

pub use backoff::Backoff;
pub use layout::{Addresses, Kind, Process, processes};
pub(crate) use ready::check;
pub(crate) use trial::trial;
pub use up::UpArgs;
pub(crate) use up::{show, some, up};

use crate::{
    client,
    exit::{Failure, Result},
};
use futures::{StreamExt as _, future, stream::FuturesUnordered};
use keeper::{Keeper, Logs, Outside};
use run_folder::RunFolder;
use shoal_kit::config::MeshConfig;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How long a process may take from its start to its first healthy answer. Loading the largest model that one machine runs
/// from a cold disk takes tens of seconds; a process that needs longer than this is stuck.
const START: Duration = Duration::from_secs(120);

/// What is said of a start that was given up.
const STOPPED: &str = "stopped before every process was healthy";

/// What decides how a mesh is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Take free ports instead of the configured ones.
    pub free_ports: bool,
    /// Logs go to standard error instead of files.
    pub verbose: bool,
    /// Where logs, announcements and the generated configuration go. Default: the folder of the feedback store.
    pub data: Option<PathBuf>,
}

/// A mesh that runs. End it with [`Mesh::stop`]; if it is dropped instead, its processes are told to end and not waited for.
#[derive(Debug)]
pub struct Mesh {
    /// The configuration that the gateway runs by: every address is a real one.
    pub config: MeshConfig,
    /// Where each process listens, by name, in order of starting.
    pub addresses: Vec<(String, Addresses)>,
    /// Where the children's logs are.
    pub logs: PathBuf,
    keepers: Vec<(Kind, Keeper)>,
    run: RunFolder,
}

impl Mesh {
    /// Starts everything and returns once every process is healthy. If one is not, all are ended again.
    ///
    /// # Errors
    /// A process ended or did not become healthy: its last words are in the message.
    pub async fn start(config: MeshConfig, options: Options, cancel: CancellationToken) -> Result<Self> {
        let mut config = layout::absolute(config)?;
        let needs_models = layout::processes(&config)
            .iter()
            .any(|p| matches!(p.kind, Kind::Specialist));
        if needs_models {
            let located = tokio::select! {
                located = crate::onnxruntime::locate(&config.onnxruntime) => located?,
                () = cancel.cancelled() => return Err(Failure::refused(STOPPED)),
            };
            config.onnxruntime.path = Some(located.path);
        }
        if options.free_ports {
            layout::free_ports(&mut config);
        }
        let store = config.feedback.store.parent().map(Path::to_owned).unwrap_or_default();
        let data = std::path::absolute(options.data.unwrap_or(store)).map_err(|e| Failure::usage(e.to_string()))?;
        let logs = data.join("logs");
        let unwritable = |folder: &Path, e: std::io::Error| {
            let folder = folder.display();
            Failure::usage(format!("cannot write {folder}: {e}; give another folder with --data"))
        };
        std::fs::create_dir_all(&logs).map_err(|e| unwritable(&logs, e))?;
        RunFolder::sweep(&data);
        let run = RunFolder::take(&data).map_err(|e| unwritable(&data, e))?;
        let mesh = Self {
            config,
            addresses: Vec::new(),
            logs,
            keepers: Vec::new(),
            run,
        };
        let outside = mesh.outside(options.verbose)?;
        mesh.bring_up(outside, cancel).await
    }

    async fn bring_up(mut self, outside: Outside, cancel: CancellationToken) -> Result<Self> {
        let started = tokio::select! {
            started = tokio::time::timeout(START, self.start_all(&outside)) => started,
            () = cancel.cancelled() => Ok(Err(Failure::refused(STOPPED))),
        };
        let failure = match started {
            Ok(Ok(())) => return Ok(self),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::unavailable(format!(
                "not every process was healthy after {START:?}; see the logs in {}",
                self.logs.display()
            )),
        };
        self.stop().await;
        Err(failure)
    }

    async fn start_all(&mut self, outside: &Outside) -> Result<()> {
        let processes = layout::processes(&self.config);
        let (gateway, others): (Vec<Process>, Vec<Process>) =
            processes.into_iter().partition(|p| p.kind == Kind::Gateway);
        let before: BTreeMap<String, Addresses> = others
            .iter()
            .chain(&gateway)
            .map(|p| (p.name.clone(), p.addresses))
            .collect();

        let file = self.write_config("backends.toml")?;
        let order: Vec<String> = others.iter().map(|p| p.name.clone()).collect();
        let starts = others
            .into_iter()
            .map(|p| Keeper::start(p, file.clone(), outside.clone()));
        // Each is in `keepers` as soon as it runs, so that it is ended again if another fails, or if all of this is given up while
        // others still start; those are killed with their futures.
        let mut starts: FuturesUnordered<_> = starts.collect();
        while let Some((kind, started)) = starts.next().await {
            self.keepers.push((kind, started?));
        }
        // People read them in the order of the configuration, not in that of becoming healthy.
        self.keepers
            .sort_by_key(|(_, keeper)| order.iter().position(|name| name == keeper.name()));
        let known = self.keepers.iter().map(|(_, k)| (k.name().to_owned(), k.addresses()));
        self.addresses = known.collect();
        for (name, now) in &self.addresses {
            layout::rewire(&mut self.config, name, before.get(name).copied(), *now);
        }
        let file = self.write_config("mesh.toml")?;
        for process in gateway {
            let (kind, started) = Keeper::start(process, file.clone(), outside.clone()).await;
            let keeper = started?;
            layout::rewire(&mut self.config, "gateway", None, keeper.addresses());
            self.addresses.push(("gateway".into(), keeper.addresses()));
            self.keepers.push((kind, keeper));
        }
        // For people, and for clients: `shoal --config` with this file finds the mesh.
        self.write_config("mesh.toml").map(drop)
    }

    fn outside(&self, verbose: bool) -> Result<Outside> {
        let program = std::env::current_exe().map_err(|e| Failure::internal(format!("where is this program? {e}")))?;
        let logs = if verbose {
            Logs::Inherit
        } else {
            Logs::Folder(self.logs.clone())
        };
        Ok(Outside {
            program,
            run: self.run.path().to_owned(),
            logs,
        })
    }

    fn write_config(&self, name: &str) -> Result<PathBuf> {
        let path = self.run.path().join(name);
        let text = toml::to_string(&self.config).map_err(|e| Failure::internal(format!("configuration: {e}")))?;
        let text = format!("# Written by `shoal` for the processes that it runs; not to be edited.\n{text}");
        std::fs::write(&path, text).map_err(|e| Failure::usage(format!("cannot write {}: {e}", path.display())))?;
        Ok(path)
    }

    /// The gateway's gRPC address as a URL.
    #[must_use]
    pub fn gateway(&self) -> String {
        client::reachable(self.config.gateway.listen)
    }

    /// The feedback service's URL, here or elsewhere; empty if no outcomes are kept.
    #[must_use]
    pub fn feedback(&self) -> String {
        self.config.gateway.feedback.clone()
    }

    /// The configuration file that the gateway runs by.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.run.path().join("mesh.toml")
    }

    /// Ends every process: gateway, then the rest, feedback last. Each has its own drain time, then it is killed.
    pub async fn stop(mut self) {
        for stage in [Kind::Gateway, Kind::Specialist, Kind::Concierge, Kind::Feedback] {
            let (now, later) = std::mem::take(&mut self.keepers)
                .into_iter()
                .partition(|(kind, _)| *kind == stage);
            self.keepers = later;
            let now: Vec<(Kind, Keeper)> = now;
            future::join_all(now.into_iter().map(|(_, keeper)| keeper.stop())).await;
        }
        // The generated configuration is of no use any more; logs and outcomes stay.
        self.run.remove();
    }
}

#[cfg(test)]
mod tests;
