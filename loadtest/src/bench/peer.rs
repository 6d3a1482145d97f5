//! Another engine, in a process of its own: one JSON object a line (loadtest/peers/lines.py is the other side).
use super::process::cpu_seconds_of;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// Scripts of the peers, from the repository's root.
const SCRIPTS: &str = "loadtest/peers";

/// What `loadtest/peers/setup` made: a venv each for the engines and for MLServer.
const INSTALLED: &str = "target/peers";

/// What makes a peer's venv and the decoder.
pub(crate) const SETUP: &str = "loadtest/peers/setup";

/// A peer loads a hundred megabytes at most; torch is not among what it imports.
const START: Duration = Duration::from_secs(120);

/// One job takes seconds. A peer that hangs is told from one on a slow machine after this long.
const JOB: Duration = Duration::from_secs(600);

/// Something that the benchmark needs is not there.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// The folder of the synthetic decoder.
pub(crate) fn decoder() -> PathBuf {
    Path::new(INSTALLED).join("bench_decoder")
}

/// That `path` is there, or which command makes it.
///
/// # Errors
/// [`Missing`].
pub(crate) fn needed(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let path = path.display();
    Err(Missing(format!(
        "{path} is not there: run `{SETUP}` in the repository's root first"
    ))
    .into())
}

/// A started peer. It ends with this value.
#[derive(Debug)]
pub(crate) struct Peer {
    name: &'static str,
    settings: Value,
    /// Killed when dropped.
    child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What a job came to.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    /// On the peer's own clock, from the prompts in hand to the last token.
    pub(crate) seconds: f64,
    /// Tokens of each row.
    pub(crate) tokens: Vec<Vec<u32>>,
    /// The whole object.
    pub(crate) object: Value,
}

impl Answer {
    /// Tokens a second, all rows together.
    pub(crate) fn rate(&self) -> f64 {
        rate(&self.tokens, self.seconds)
    }

    fn and(mut self, mut next: Self) -> Self {
        let inside = |answer: &Self| answer.object["inside"].as_f64();
        if let (Some(before), Some(now)) = (inside(&self), inside(&next)) {
            next.object["inside"] = json!(before + now);
        }
        self.tokens.append(&mut next.tokens);
        Self {
            seconds: self.seconds + next.seconds,
            tokens: self.tokens,
            object: next.object,
        }
    }
}

/// Tokens a second, all rows together.
#[expect(clippy::cast_precision_loss, reason = "tokens are few")]
pub(crate) fn rate(tokens: &[Vec<u32>], seconds: f64) -> f64 {
    tokens.iter().map(Vec::len).sum::<usize>() as f64 / seconds
}

impl Peer {
    /// Starts `script` in the venv `venv` on a version's folder, with `more` arguments, and waits until it has loaded it.
    ///
    /// # Errors
    /// [`Missing`] without the venv; whatever the peer says instead of being ready.
    pub(crate) async fn start(
        name: &'static str,
        venv: &str,
        script: &str,
        model: &Path,
        threads: usize,
        more: &[&str],
    ) -> Result<Self> {
        let python = Path::new(INSTALLED).join(venv).join("bin/python");
        let script = Path::new(SCRIPTS).join(script);
        needed(&python)?;
        needed(&script)?;
        let mut child = Command::new(python)
            .arg(script)
            .arg("--model")
            .arg(model)
            .args(["--threads", &threads.to_string()])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let requests = child.stdin.take().context("it has a standard input")?;
        let mut answers = BufReader::new(child.stdout.take().context("it has a standard output")?).lines();
        let first = timeout(START, answers.next_line())
            .await
            .map_err(|_| anyhow!("{name} is not ready within {START:?}"))??;
        let first = first.with_context(|| format!("{name} ended before it was ready; its own words are above"))?;
        Ok(Self {
            name,
            settings: ready(&first).with_context(|| name.to_owned())?,
            child,
            requests,
            answers,
        })
    }

    /// Processor time that it used so far, in seconds.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds_of(self.child.id().context("the peer has ended")?)
    }

    /// How it is set up, as it says itself.
    pub(crate) fn settings(&self) -> &Value {
        &self.settings
    }

    /// Has one job done for one batch after the other, as one: times, tokens and the time inside ONNX Runtime together. The object is the last one's.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn ask_all(&mut self, job: &str, requests: impl IntoIterator<Item = Value>) -> Result<Answer> {
        let mut all: Option<Answer> = None;
        for request in requests {
            let next = self.ask(job, request).await?;
            all = Some(match all {
                None => next,
                Some(before) => before.and(next),
            });
        }
        all.context("a job for nothing")
    }

    /// Has one job done.
    ///
    /// # Errors
    /// What the peer says, or that it says nothing.
    pub(crate) async fn ask(&mut self, job: &str, mut request: Value) -> Result<Answer> {
        let name = self.name;
        request["job"] = json!(job);
        let line = format!("{request}\n");
        self.requests.write_all(line.as_bytes()).await?;
        self.requests.flush().await?;
        let line = timeout(JOB, self.answers.next_line())
            .await
            .map_err(|_| anyhow!("{name} has not done `{job}` within {JOB:?}"))??;
        let line = line.with_context(|| format!("{name} ended in `{job}`; its own words are above"))?;
        answer(&line).with_context(|| format!("{name}, `{job}`"))
    }
}

/// The settings in a peer's first line.
fn ready(line: &str) -> Result<Value> {
    let object: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
    match &object["ready"] {
        Value::Object(_) => Ok(object["ready"].clone()),
        _ => bail!("its first line is not {{\"ready\": SETTINGS}}: {line}"),
    }
}

/// A job's answer.
fn answer(line: &str) -> Result<Answer> {
    let object: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
    if let Some(error) = object["error"].as_str() {
        bail!("{error}");
    }
    let seconds = object["seconds"].as_f64().context("it has no `seconds`")?;
    ensure!(seconds > 0.0, "it took {seconds} seconds");
    let rows = object["tokens"].as_array().context("it has no `tokens`")?;
    let id = |v: &Value| {
        v.as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .context("a token is no id")
    };
    let tokens = rows
        .iter()
        .map(|row| row.as_array().context("a row is no list")?.iter().map(id).collect())
        .collect::<Result<_>>()?;
    Ok(Answer {
        seconds,
        tokens,
        object,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_says_that_it_is_ready_and_how_it_is_set_up() {
        let settings = ready(r#"{"ready": {"intra_op_threads": 2}}"#).expect("ready");
        assert_eq!(settings["intra_op_threads"], json!(2));
        for line in ["", "hello", "{}", r#"{"ready": true}"#, r#"{"error": "no"}"#] {
            assert!(ready(line).is_err(), "{line}");
        }
    }

    #[test]
    fn an_answer_has_its_seconds_and_every_rows_tokens() {
        let two = answer(r#"{"seconds": 0.5, "tokens": [[1, 2, 3], [4]], "width": 4}"#).expect("an answer");
        assert_eq!((two.seconds, two.rate()), (0.5, 8.0));
        assert_eq!(two.tokens, [vec![1, 2, 3], vec![4]]);
        assert_eq!(two.object["width"], json!(4));
    }

    #[test]
    fn what_a_peer_cannot_do_is_told_in_its_own_words() {
        let error = answer(r#"{"error": "RuntimeError: no such batch"}"#).expect_err("an error");
        assert_eq!(error.to_string(), "RuntimeError: no such batch");
        for line in [
            "nonsense",
            "{}",
            r#"{"seconds": 0, "tokens": []}"#,
            r#"{"seconds": 1}"#,
            r#"{"seconds": 1, "tokens": [1]}"#,
            r#"{"seconds": 1, "tokens": [[-1]]}"#,
        ] {
            assert!(answer(line).is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_missing_names_the_command_that_makes_it() {
        let error = needed(Path::new("no/such/venv")).expect_err("missing");
        assert!(error.downcast_ref::<Missing>().is_some());
        assert!(error.to_string().contains(SETUP));
    }
}
