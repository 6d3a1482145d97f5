//! One specialist as `shoal up` starts it: a process of its own on free ports, ended with the value.
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use shoal_kit::channel;
use shoal_proto::v1::specialist_service_client::SpecialistServiceClient;
use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
};
use tonic::transport::Channel;

/// Loading some megabytes on a machine whose two cores do something else besides.
const START: Duration = Duration::from_secs(120);

/// Between two looks for the announcement.
const LOOK: Duration = Duration::from_millis(50);

/// A specialist that runs.
#[derive(Debug)]
pub struct Specialist {
    child: Child,
    grpc: String,
    http: String,
    _folder: TempDir,
}

impl Specialist {
    /// Starts `[specialist.NAME]` of a configuration, and waits until it serves.
    ///
    /// # Errors
    /// When it ends instead, or does not serve in time.
    pub async fn start(binary: &str, name: &str, configuration: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (config, announced) = (folder.path().join("mesh.toml"), folder.path().join("announced.json"));
        fs::write(&config, configuration)?;
        let mut child = Command::new(binary)
            .args([
                "specialist",
                name,
                "--listen",
                "127.0.0.1:0",
                "--http-listen",
                "127.0.0.1:0",
            ])
            .arg("--exit-with-parent")
            .arg("--config")
            .arg(&config)
            .arg("--announce")
            .arg(&announced)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {binary}"))?;
        let end = Instant::now() + START;
        loop {
            let said = fs::read(&announced).ok();
            let said = said.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            let at = |door: &str| said.as_ref().and_then(|said| said[door].as_str().map(str::to_owned));
            if let (Some(grpc), Some(http)) = (at("grpc"), at("http")) {
                return Ok(Self {
                    child,
                    grpc: format!("http://{grpc}"),
                    http,
                    _folder: folder,
                });
            }
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("{name} ended before it served ({status}); its own words are above");
            }
            ensure!(Instant::now() < end, "{name} does not serve within {START:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A client.
    ///
    /// # Errors
    /// When the address is no URI.
    pub fn client(&self) -> Result<SpecialistServiceClient<Channel>> {
        Ok(SpecialistServiceClient::new(channel::connect_lazy(&self.grpc)?))
    }

    /// What /metrics says.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn metrics(&self) -> Result<String> {
        let mut door = TcpStream::connect(&self.http).await?;
        let request = b"GET /metrics HTTP/1.1\r\nhost: specialist\r\nconnection: close\r\n\r\n";
        door.write_all(request).await?;
        let mut said = String::new();
        door.read_to_string(&mut said).await?;
        Ok(said)
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pid(&self) -> Result<u32> {
        self.child.id().context("the specialist has ended")
    }

    /// A number of /proc/PID/status: "VmRSS" (KiB).
    ///
    /// # Errors
    /// When it has ended, or there is no such line.
    pub fn status(&self, key: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        let number = line.context("no such line")?.trim().trim_end_matches("kB").trim();
        Ok(number.parse()?)
    }

    /// How many threads of a name it has: "engine" is one a version that is loaded.
    ///
    /// # Errors
    /// When it has ended.
    pub fn threads(&self, name: &str) -> Result<usize> {
        let mut found = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid()?))? {
            // One that has ended meanwhile has no name any more.
            let comm = fs::read_to_string(thread?.path().join("comm")).unwrap_or_default();
            found += usize::from(comm.trim_end() == name);
        }
        Ok(found)
    }

    /// Processor time of the process so far, in hundredths of a second: of all its threads, those that have ended included.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_ticks(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        // The name, in parentheses, may have spaces; utime and stime are the 12th and the 13th field behind it.
        let (_, rest) = stat.rsplit_once(')').context("a name")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |i: usize| anyhow::Ok(fields.get(i).context("a field")?.parse::<u64>()?);
        Ok(number(11)? + number(12)?)
    }
}
