//! An accepted candidate's place beside the other versions. It is there whole or not at all: copied under a name that no version has,
//! and renamed.
use crate::exit::{Failure, Result};
use std::{fs, io, path::Path};

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
}
