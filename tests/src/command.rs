//! One command of the binary, to its end.
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};
use tokio::process::Command;

/// No command of these tests takes longer; one that does hangs.
const LIMIT: Duration = Duration::from_secs(300);

/// What a command came to.
#[derive(Debug)]
pub struct Done {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Done {
    /// The last line of standard output as JSON.
    ///
    /// # Errors
    /// With everything that was said, when it is none.
    pub fn last(&self) -> Result<Value> {
        let line = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("no JSON last: {self:?}"))
    }

    /// Every line of standard output as JSON.
    ///
    /// # Errors
    /// When one is none.
    pub fn lines(&self) -> Result<Vec<Value>> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect()
    }
}

/// Runs `binary` with `args` in `folder`, with extra environment variables.
///
/// # Errors
/// When it cannot be started or does not end.
pub async fn run(binary: &str, folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Result<Done> {
    let child = Command::new(binary)
        .args(args)
        .current_dir(folder)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {binary}"))?;
    let Output { status, stdout, stderr } = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .with_context(|| format!("{args:?} has not ended after {LIMIT:?}"))??;
    Ok(Done {
        code: status.code(),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
    })
}
