//! A specialist in a process of its own, as `shoal up` would start it.
use super::{
    machine::{field, kilobytes},
    peer::Missing,
    workload::ROWS,
};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

/// Loading a model of a hundred megabytes on a busy machine, and fetching nothing.
const START: Duration = Duration::from_secs(120);

/// Between two looks for the announcement.
const LOOK: Duration = Duration::from_millis(20);

/// A process that serves one folder. It ends with this value.
#[derive(Debug)]
pub(crate) struct Served {
    child: Child,
    /// Where it is, `http://host:port`.
    pub(crate) grpc: String,
    _scratch: TempDir,
}

/// The binary that is measured: the one named, or the one beside this program.
///
/// # Errors
/// [`Missing`], with the command that builds it.
pub(crate) fn binary(named: Option<&Path>) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("shoal"),
    };
    if path.is_file() {
        return Ok(path);
    }
    let path = path.display();
    Err(Missing(format!(
        "{path} is not there: run `cargo build --release`, or name a binary with --shoal"
    ))
    .into())
}

impl Served {
    /// Starts it on free ports of the loopback and waits until it has loaded.
    ///
    /// # Errors
    /// When it ends, or does not say where it is.
    pub(crate) async fn start(shoal: &Path, folder: &Path, threads: usize) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let (announced, config) = (scratch.path().join("announced.json"), scratch.path().join("mesh.toml"));
        // JSON's strings are TOML's too. Whole: a path in a configuration is from where that lies.
        let folder = serde_json::json!(folder.canonicalize()?);
        let settings = format!(
            "[telemetry]\nlog = \"warn\"\n\n[specialist.{NAME}]\nfolder = {folder}\nslots = {ROWS}\nintra_op_threads = {threads}\n"
        );
        fs::write(&config, settings)?;
        let mut child = Command::new(shoal)
            .args([
                "specialist",
                NAME,
                "--listen",
                "127.0.0.1:0",
                "--http-listen",
                "127.0.0.1:0",
                "--exit-with-parent",
            ])
            .arg("--config")
            .arg(&config)
            .arg("--announce")
            .arg(&announced)
            .stdout(Stdio::null())
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| shoal.display().to_string())?;
        let end = Instant::now() + START;
        let grpc = loop {
            if let Some(grpc) = fs::read_to_string(&announced).ok().and_then(|text| address(&text)) {
                break grpc;
            }
            if let Some(status) = child.try_wait()? {
                bail!("the specialist ended before it served ({status}); its own words are above");
            }
            if Instant::now() > end {
                bail!("the specialist does not serve within {START:?}");
            }
            sleep(LOOK).await;
        };
        Ok(Self {
            child,
            grpc,
            _scratch: scratch,
        })
    }

    /// Resident memory now, in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let pid = self.child.id().context("the specialist has ended")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kilobytes = field(&status, "VmRSS").as_deref().and_then(kilobytes);
        Ok(kilobytes.context("the specialist has no VmRSS")? * 1024)
    }
}

/// What the specialist is called.
const NAME: &str = "bench";

/// Of an announcement, where gRPC is.
fn address(text: &str) -> Option<String> {
    let announced: Value = serde_json::from_str(text).ok()?;
    Some(format!("http://{}", announced["grpc"].as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_says_where_grpc_is_and_half_of_one_nothing() {
        let whole = r#"{"name":"bench","pid":7,"grpc":"127.0.0.1:4000","http":"127.0.0.1:4001"}"#;
        assert_eq!(address(whole).as_deref(), Some("http://127.0.0.1:4000"));
        assert_eq!(address(&whole[..20]), None);
        assert_eq!(address("{}"), None);
    }

    #[test]
    fn a_binary_that_is_not_there_says_what_builds_it() {
        let error = binary(Some(Path::new("no/such/shoal"))).expect_err("missing");
        assert!(
            error
                .downcast_ref::<Missing>()
                .is_some_and(|m| m.0.contains("cargo build"))
        );
    }
}
