//! A specialist in a process of its own, as `shoal up` would start it.
use super::{
    machine::{field, kilobytes},
    peer::Missing,
    runtime,
    workload::ROWS,
};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use shoal_kit::config::Provider;
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

/// What a process is to serve, and under which budget.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Specialist<'a> {
    /// The model's folder.
    pub(crate) folder: &'a Path,
    /// Threads inside an operator.
    pub(crate) threads: usize,
    /// Behind all who are not.
    pub(crate) background: bool,
    /// Cores that it may use; all, if there are none here.
    pub(crate) cpus: &'a [usize],
    /// Where it runs.
    pub(crate) provider: Provider,
    /// MiB that its CUDA arena may take; 0 is no limit.
    pub(crate) gpu_mem_limit_mb: u64,
}

impl<'a> Specialist<'a> {
    /// As others are, with so many threads inside an operator.
    pub(crate) fn of(folder: &'a Path, threads: usize) -> Self {
        Self {
            folder,
            threads,
            background: false,
            cpus: &[],
            provider: Provider::Cpu,
            gpu_mem_limit_mb: 0,
        }
    }

    fn table(&self, name: &str) -> Result<String> {
        // JSON's strings are TOML's too. Whole: a path in a configuration is from where that lies.
        let folder = serde_json::json!(self.folder.canonicalize()?);
        let (threads, background, cpus, limit) = (self.threads, self.background, self.cpus, self.gpu_mem_limit_mb);
        let provider = self.provider.name();
        Ok(format!(
            "\n[specialist.{name}]\nfolder = {folder}\nslots = {ROWS}\nintra_op_threads = {threads}\nbackground = {background}\ncpus = {cpus:?}\nprovider = \"{provider}\"\ngpu_mem_limit_mb = {limit}\n"
        ))
    }
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
    /// Starts one on free ports of the loopback and waits until it has loaded.
    ///
    /// # Errors
    /// When it ends, or does not say where it is.
    pub(crate) async fn start(shoal: &Path, folder: &Path, threads: usize) -> Result<Self> {
        let mut all = Self::several(shoal, &[Specialist::of(folder, threads)]).await?;
        all.pop().context("one was started")
    }

    /// Starts all of them, each told of the others, as `shoal up` tells them.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) async fn several(shoal: &Path, specialists: &[Specialist<'_>]) -> Result<Vec<Self>> {
        let name = |i: usize| format!("bench{i}");
        let mut settings = String::from("[telemetry]\nlog = \"warn\"\n");
        for (i, specialist) in specialists.iter().enumerate() {
            settings += &specialist.table(&name(i))?;
        }
        let all = (0..specialists.len()).map(|i| Self::one(shoal, name(i), &settings));
        futures::future::try_join_all(all).await
    }

    async fn one(shoal: &Path, name: String, settings: &str) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let (announced, config) = (scratch.path().join("announced.json"), scratch.path().join("mesh.toml"));
        fs::write(&config, settings)?;
        let mut child = Command::new(shoal)
            .args([
                "specialist",
                name.as_str(),
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
            // Whatever else the environment says of it: one run has one ONNX Runtime.
            .env("SHOAL_ONNXRUNTIME__PATH", runtime::library().await?)
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

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
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

    /// Processor time that the process used so far, in seconds: of all its threads, those that have ended included.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds_of(self.child.id().context("the specialist has ended")?)
    }
}

/// Processor time of a process so far, in seconds.
///
/// # Errors
/// When it is gone.
pub(crate) fn cpu_seconds_of(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    cpu_seconds(&stat).context("/proc/PID/stat is not as it was")
}

/// Units of /proc/PID/stat's times a second: USER_HZ, which Linux holds at 100 on every architecture that ONNX Runtime is published for.
const TICKS: f64 = 100.0;

/// utime and stime of a /proc/PID/stat: the 14th and the 15th field, of which the second, the name in parentheses, may have spaces.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((fields.next()?.ok()? + fields.next()?.ok()?) / TICKS)
}

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
    fn processor_time_is_read_behind_a_name_with_spaces() {
        let stat = "7 (shoal (a b) c) S 1 7 7 0 -1 4194304 900 0 3 0 250 50 0 0 20 0 9 0 12345 1000 200";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (shoal) S 1"), None);
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
