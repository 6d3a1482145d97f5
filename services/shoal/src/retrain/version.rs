//! An accepted candidate's way into service: a place beside the other versions, the switch, and the wait until it is served.
//!
//! A version is there whole or not at all: it is copied under a name that no version has, and renamed. The switch is one rename too,
//! so whoever reads `specialist.toml` meanwhile reads the old one or the new one.
use super::Lesson;
use crate::{
    client,
    exit::{Failure, Result},
};
use shoal_kit::channel;
use shoal_proto::v1::{DescribeRequest, specialist_service_client::SpecialistServiceClient};
use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How long a running specialist may take to serve what was activated: it looks every second or two, and loads a model.
const FOLLOW: Duration = Duration::from_secs(60);

/// Between two questions.
const ASK: Duration = Duration::from_millis(200);

/// Copies the candidate's files to `folder/VERSION`.
///
/// # Errors
/// Another was there first, or the folder cannot be written; then nothing has changed.
pub(super) fn place(candidate: &Path, folder: &Path, version: u32) -> Result<()> {
    let (there, staging) = (
        folder.join(version.to_string()),
        folder.join(format!(".candidate-{version}")),
    );
    if there.exists() {
        return Err(Failure::refused(format!(
            "{} is there already: another retraining was quicker; run this one again",
            there.display()
        )));
    }
    let copied = copy(candidate, &staging).and_then(|()| fs::rename(&staging, &there));
    if copied.is_err() {
        let _ = fs::remove_dir_all(&staging);
    }
    copied.map_err(|e| {
        Failure::usage(format!(
            "cannot write {}: {e}; the candidate is still in {}",
            there.display(),
            candidate.display()
        ))
    })
}

/// The files of a folder to a new one, on the disk when it returns.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let file = to.join(entry.file_name());
        fs::copy(entry.path(), &file)?;
        fs::File::open(&file)?.sync_all()?;
    }
    fs::File::open(to)?.sync_all()
}

/// Sets `active_version` in `folder/specialist.toml`; the rest of the file stays as it is.
///
/// # Errors
/// The file cannot be read or written, or has no such line.
pub(super) fn activate(folder: &Path, version: u32) -> Result<()> {
    let (file, new) = (folder.join("specialist.toml"), folder.join(".specialist.toml.new"));
    let failed = |e: io::Error| Failure::usage(format!("cannot change {}: {e}", file.display()));
    let text = fs::read_to_string(&file).map_err(failed)?;
    let is_switch = |line: &str| line.split('=').next().is_some_and(|key| key.trim() == "active_version");
    if !text.lines().any(is_switch) {
        return Err(Failure::usage(format!(
            "{} has no line `active_version = N`",
            file.display()
        )));
    }
    let changed: String = text
        .lines()
        .map(|line| {
            if is_switch(line) {
                format!("active_version = {version}\n")
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    let write = || {
        fs::write(&new, &changed)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, &file)
    };
    write().map_err(failed)
}

/// The version that the specialist at `address` serves; `None` if none answers.
pub(super) async fn served(address: &str) -> Option<u32> {
    let mut client = SpecialistServiceClient::new(channel::connect_lazy(address).ok()?);
    let card = client.describe(client::short(DescribeRequest {})).await.ok()?;
    Some(card.into_inner().version)
}

/// Waits until the running specialist serves `version`.
///
/// # Errors
/// It has not in time, or somebody interrupted: the version is active all the same.
pub(super) async fn follow(lesson: &Lesson, version: u32, stop: &CancellationToken) -> Result<()> {
    let until = Instant::now() + FOLLOW;
    while served(&lesson.address).await != Some(version) {
        if Instant::now() >= until {
            return Err(Failure::unavailable(format!(
                "{} at {} does not serve version {version} after {FOLLOW:?}: restart it; the version is active",
                lesson.name, lesson.address
            )));
        }
        tokio::select! {
            () = tokio::time::sleep(ASK) => {}
            () = stop.cancelled() => return Err(Failure::refused("interrupted; the new version is active")),
        }
    }
    eprintln!("{} at {} serves version {version}", lesson.name, lesson.address);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("folder")
            .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_candidate_is_placed_whole_and_never_over_another() {
        let root = tempfile::tempdir().expect("folder");
        let (candidate, folder) = (root.path().join("candidate"), root.path().join("m"));
        for made in [&candidate, &folder] {
            fs::create_dir(made).expect("made");
        }
        fs::write(candidate.join("model.onnx"), "weights").expect("written");
        place(&candidate, &folder, 2).expect("placed");
        assert_eq!(
            fs::read_to_string(folder.join("2/model.onnx")).expect("read"),
            "weights"
        );
        assert_eq!(names(&folder), ["2"], "nothing else is left there");
        assert!(place(&candidate, &folder, 2).is_err_and(|f| f.exit == Exit::Refused));
        assert!(place(&root.path().join("nowhere"), &folder, 3).is_err_and(|f| f.exit == Exit::Usage));
        assert_eq!(names(&folder), ["2"], "a failure leaves nothing");
    }

    #[test]
    fn the_switch_changes_one_line_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("specialist.toml");
        fs::write(
            &file,
            "# ours\nname = \"m\"\nactive_version = 1  # the first\ntasks = [\"t\"]\n",
        )
        .expect("written");
        activate(folder.path(), 12).expect("switched");
        assert_eq!(
            fs::read_to_string(&file).expect("read"),
            "# ours\nname = \"m\"\nactive_version = 12\ntasks = [\"t\"]\n"
        );
        assert_eq!(names(folder.path()), ["specialist.toml"]);
        fs::write(&file, "name = \"m\"\n").expect("written");
        assert!(activate(folder.path(), 2).is_err_and(|f| f.message.contains("active_version")));
    }

    #[tokio::test]
    async fn where_nothing_runs_nothing_is_served() {
        assert_eq!(served("http://127.0.0.1:1").await, None);
    }
}
