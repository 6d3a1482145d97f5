//! The Python side as a child process: found, run with its progress shown, its last line read.
use super::{Lesson, Report};
use crate::exit::{Exit, Failure, Result};
use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};
use tokio_util::sync::CancellationToken;

/// Where the README's two commands put it.
const DEFAULT: &str = ".venv/bin/python";

/// The trainer's exit code for a candidate that its gate refused; the report came all the same.
const REFUSED: i32 = 3;

/// Its exit code for a fault of the data; it has said which.
const DATA: i32 = 65;

/// Its exit code for a flag that it cannot read.
const FLAG: i32 = 2;

/// Exit code of [`LOOKS`] where a module is missing: none that Python itself ends with.
const MISSING: i32 = 9;

/// Looks for modules, its arguments, without loading them.
const LOOKS: &str =
    "import importlib.util, sys; sys.exit(9 if None in map(importlib.util.find_spec, sys.argv[1:]) else 0)";

/// A Python that runs the trainer.
#[derive(Debug, Clone)]
pub(crate) struct Trainer {
    python: PathBuf,
}

impl Trainer {
    /// The Python that was named, or the one of `.venv` here.
    ///
    /// # Errors
    /// There is none: the message has the commands that set it up.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self> {
        if let Some(python) = named {
            return Ok(Self {
                python: python.to_owned(),
            });
        }
        let here = Path::new(DEFAULT);
        if !here.is_file() {
            return Err(Failure::usage(format!(
                "retraining needs Python with the trainer, and there is no {DEFAULT} here: make it once with\n  python3 -m venv .venv\n  \
                 .venv/bin/pip install --editable services/trainer\nor name another with --python"
            )));
        }
        // A relative path would be looked up in the child's folder; and not canonical, since a venv's python is a link.
        let python = std::path::absolute(here).map_err(|e| Failure::usage(e.to_string()))?;
        Ok(Self { python })
    }

    /// Trains and weighs, or only sorts the corrections. What it says on the way goes to standard error.
    pub(super) async fn run(&self, lesson: &Lesson, corrections: &Path, stop: &CancellationToken) -> Result<Report> {
        let mut command = Command::new(&self.python);
        // The module by itself loads no torch: a dry run needs nothing but Python.
        match lesson.dry_run {
            true => command.args(["-m", "shoal_trainer.retrain", "--dry-run"]),
            false => command.args(["-m", "shoal_trainer", "retrain"]),
        };
        if let Some(data) = &lesson.data {
            command.arg("--data").arg(data);
        }
        command
            .arg("--task")
            .arg(&lesson.task)
            .arg("--corrections")
            .arg(corrections);
        command
            .arg("--specialist")
            .arg(&lesson.folder)
            .arg("--work")
            .arg(&lesson.work);
        command.arg("--minutes").arg(lesson.minutes.to_string());
        command.arg("--steps").arg(lesson.steps.to_string());
        command.arg("--seed").arg(lesson.seed.to_string());
        // In a group of its own: Ctrl-C comes to us, and is passed on as an end without a traceback. If we are killed, the end of its
        // standard input says so.
        command.arg("--exit-with-parent");
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let python = self.python.display();
        let mut child = command
            .spawn()
            .map_err(|e| Failure::usage(format!("cannot start {python}: {e}; name another with --python")))?;
        // Taken out, because `Child::wait` would close it.
        let _lifeline = child.stdin.take();
        let out = child
            .stdout
            .take()
            .ok_or_else(|| Failure::internal("the trainer has no standard output"))?;
        let mut lines = BufReader::new(out).lines();
        let mut last = String::new();
        let reading = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if !last.is_empty() {
                    eprintln!("{last}");
                }
                last = line;
            }
            child.wait().await
        };
        let status = tokio::select! {
            status = reading => status.map_err(|e| Failure::internal(format!("the trainer: {e}")))?,
            () = stop.cancelled() => return Err(Failure::refused("interrupted; nothing was changed")),
        };
        if matches!(status.code(), Some(0 | FLAG | REFUSED | DATA)) || !self.lacks(lesson).await {
            return ended(status, &last);
        }
        Err(Failure::usage(format!(
            "{python} has no trainer, or not all that it needs; its words are above. Set it up with\n  {python} -m pip install --editable services/trainer"
        )))
    }

    /// Whether the trainer is not installed there. Anything else that it ended with, it has said itself.
    async fn lacks(&self, lesson: &Lesson) -> bool {
        let mut command = Command::new(&self.python);
        command.args(["-c", LOOKS, "shoal_trainer"]);
        if !lesson.dry_run {
            command.arg("torch");
        }
        command.kill_on_drop(true).stdin(Stdio::null());
        command
            .status()
            .await
            .is_ok_and(|status| status.code() == Some(MISSING))
    }
}

/// What the trainer's end means, and its report.
fn ended(status: ExitStatus, last: &str) -> Result<Report> {
    match status.code() {
        Some(0 | REFUSED) => serde_json::from_str(last)
            .map_err(|e| Failure::internal(format!("the trainer's last line is no report ({e}): {last}"))),
        Some(DATA) => Err(Failure {
            exit: Exit::Refused,
            message: "the trainer found nothing that it could train with or on; its words are above".into(),
        }),
        Some(FLAG) => Err(Failure::usage(
            "the trainer cannot take what it was told; its words are above",
        )),
        _ => Err(Failure::internal(format!(
            "the trainer ended with {status}; its words are above"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    fn lesson(data: Option<&str>, dry_run: bool) -> Lesson {
        Lesson {
            task: "t".into(),
            name: "m".into(),
            folder: "m".into(),
            section: Default::default(),
            data: data.map(PathBuf::from),
            dry_run,
            work: ".".into(),
            minutes: 1.0,
            steps: 0,
            seed: 1,
        }
    }

    /// A trainer that does what a shell script says, of a dry run.
    async fn says(script: &str) -> Result<Report> {
        says_of(&lesson(None, true), script).await
    }

    /// A trainer that does what a shell script says.
    async fn says_of(lesson: &Lesson, script: &str) -> Result<Report> {
        let folder = tempfile::tempdir().expect("folder");
        let python = folder.path().join("python");
        fs::write(&python, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("executable");
        let trainer = Trainer::find(Some(&python)).expect("found");
        trainer.run(lesson, Path::new("c"), &CancellationToken::new()).await
    }

    const REPORT: &str = r#"echo progress; echo '{"task":"t","model":"m","from_version":1,"to_version":2,"corrections":1,"quarantined":0}'"#;

    #[tokio::test]
    async fn the_last_line_is_the_report_of_a_refused_candidate_too() {
        for code in [0, REFUSED] {
            let report = says(&format!("{REPORT}; exit {code}")).await.expect("a report");
            assert_eq!((report.to_version, report.accepted), (2, None));
        }
    }

    #[tokio::test]
    async fn a_dry_run_has_the_data_too_if_there_is_any_and_trains_nothing() {
        for (data, dry_run, asked) in [
            (None, true, "-m shoal_trainer.retrain --dry-run --task t "),
            (
                Some("rows"),
                true,
                "-m shoal_trainer.retrain --dry-run --data rows --task t ",
            ),
            (Some("rows"), false, "-m shoal_trainer retrain --data rows --task t "),
        ] {
            let script = format!("case \"$*\" in \"{asked}\"*) {REPORT};; *) exit 2;; esac");
            let report = says_of(&lesson(data, dry_run), &script).await;
            assert!(report.is_ok(), "{asked}: {report:?}");
        }
    }

    #[tokio::test]
    async fn a_fault_of_the_data_is_told_apart_from_a_broken_trainer() {
        assert!(says("exit 65").await.is_err_and(|f| f.exit == Exit::Refused));
        assert!(says("exit 2").await.is_err_and(|f| f.exit == Exit::Usage));
        let broken = says("exit 1").await.expect_err("broken");
        assert_eq!(broken.exit, Exit::Internal);
        assert!(!broken.message.contains("pip install"), "{broken}");
        let absent = says("case $1 in -c) exit 9;; *) exit 1;; esac")
            .await
            .expect_err("not installed");
        assert!(
            absent.exit == Exit::Usage && absent.message.contains("-m pip install --editable services/trainer"),
            "{absent}"
        );
        assert!(says("echo no json").await.is_err_and(|f| f.exit == Exit::Internal));
        let nobody = Trainer::find(Some(Path::new("no/such/python"))).expect("taken at its word");
        let missing = nobody
            .run(&lesson(None, true), Path::new("c"), &CancellationToken::new())
            .await;
        assert!(missing.is_err_and(|f| f.exit == Exit::Usage && f.message.contains("--python")));
    }
}
