//! An accepted candidate's place beside the other versions. It is there whole or not at all: copied under a name that no version has,
//! checked there, and renamed.
use crate::exit::{Exit, Failure, Result};
use shoal_specialist::folder::Folder;
use std::{fs, io, path::Path};

/// Copies the candidate's files to `folder/VERSION`, if they can be served and `from` is the active version still.
///
/// # Errors
/// The candidate is at fault, another version was activated meanwhile or was there first, or the folder cannot be written; then nothing
/// has changed.
pub(super) fn place(candidate: &Path, folder: &Path, from: u32, version: u32) -> Result<()> {
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
    let unwritable = |e: io::Error| Failure::usage(format!("cannot write {}: {e}", there.display()));
    let staged = staging.join(version.to_string());
    let placed = stage(candidate, folder, &staging, &staged)
        .map_err(unwritable)
        .and_then(|()| fit(&staging, version))
        // Last, so that what is activated during the copy is seen.
        .and_then(|()| unchanged(folder, from, &there))
        .and_then(|()| fs::rename(&staged, &there).map_err(unwritable));
    let _ = fs::remove_dir_all(&staging);
    placed.map_err(|failure| Failure {
        message: format!(
            "{failure}; nothing was changed, and the candidate is in {}",
            candidate.display()
        ),
        ..failure
    })
}

/// The candidate in a specialist's folder of its own, where it can be checked as it will be served.
fn stage(candidate: &Path, folder: &Path, staging: &Path, staged: &Path) -> io::Result<()> {
    let _ = fs::remove_dir_all(staging);
    fs::create_dir(staging)?;
    fs::copy(folder.join("specialist.toml"), staging.join("specialist.toml"))?;
    copy(candidate, staged)?;
    fs::File::open(staging)?.sync_all()
}

fn fit(staging: &Path, version: u32) -> Result<()> {
    let opened = Folder::open_version(staging, version);
    opened
        .map(drop)
        .map_err(|e| Failure::usage(format!("the candidate cannot be served: {e}")))
}

/// Whoever activated a version while this one was trained had a reason.
fn unchanged(folder: &Path, from: u32, there: &Path) -> Result<()> {
    let manifest = Folder::manifest(folder).map_err(|e| Failure::usage(e.to_string()))?;
    if manifest.active_version == from {
        return Ok(());
    }
    Err(Failure {
        exit: Exit::Refused,
        message: format!(
            "version {} was activated meanwhile, and the candidate was trained from version {from} (to take it all the same, copy it to {} \
             and run `shoal activate`)",
            manifest.active_version,
            there.display()
        ),
    })
}

/// The files of a folder to a new one, on the disk when it returns.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let file = to.join(entry.file_name());
        fs::copy(entry.path(), &file)?;
        fs::File::open(&file)?.sync_all()?;
    }
    fs::File::open(to)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("folder")
            .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// A shipped model as the candidate for version 2 of a specialist of the same name.
    fn candidate(root: &Path) -> (PathBuf, PathBuf) {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/splitter");
        let (candidate, folder) = (root.join("candidate"), root.join("m"));
        fs::create_dir(&folder).expect("made");
        fs::copy(shipped.join("specialist.toml"), folder.join("specialist.toml")).expect("copied");
        copy(&shipped.join("1"), &candidate).expect("copied");
        let card = fs::read_to_string(candidate.join("card.toml")).expect("card");
        fs::write(
            candidate.join("card.toml"),
            card.replacen("version = 1", "version = 2", 1),
        )
        .expect("written");
        (candidate, folder)
    }

    #[test]
    fn a_candidate_is_placed_whole_and_never_over_another() {
        let root = tempfile::tempdir().expect("folder");
        let (candidate, folder) = candidate(root.path());
        place(&candidate, &folder, 1, 2).expect("placed");
        assert!(folder.join("2/model.onnx").exists());
        assert_eq!(names(&folder), ["2", "specialist.toml"], "nothing else is left there");
        assert!(place(&candidate, &folder, 1, 2).is_err_and(|f| f.exit == Exit::Refused));
        assert!(place(&root.path().join("nowhere"), &folder, 1, 3).is_err_and(|f| f.exit == Exit::Usage));
        assert_eq!(names(&folder), ["2", "specialist.toml"], "a failure leaves nothing");
    }

    #[test]
    fn a_candidate_at_fault_gets_no_place() {
        let root = tempfile::tempdir().expect("folder");
        let (candidate, folder) = candidate(root.path());
        fs::write(candidate.join("model.onnx"), "other weights").expect("written");
        let failure = place(&candidate, &folder, 1, 2).expect_err("refused");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("nothing was changed"), "{failure}");
        assert_eq!(names(&folder), ["specialist.toml"]);
    }

    #[test]
    fn a_candidate_gets_no_place_where_another_version_was_activated_meanwhile() {
        let root = tempfile::tempdir().expect("folder");
        let (candidate, folder) = candidate(root.path());
        let failure = place(&candidate, &folder, 7, 2).expect_err("refused");
        assert_eq!(failure.exit, Exit::Refused);
        let says = [
            "version 1 was activated".to_owned(),
            candidate.display().to_string(),
            "shoal activate".to_owned(),
        ];
        assert!(says.iter().all(|s| failure.message.contains(s)), "{failure}");
        assert_eq!(names(&folder), ["specialist.toml"]);
    }
}
