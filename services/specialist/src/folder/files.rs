//! Whether a folder is still what it was when it was read.
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What a folder's files are known by: path, size, and when each was written or put in its place (ctime, in seconds and nanoseconds).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files(Vec<(PathBuf, u64, i64, i64)>);

impl Files {
    /// Those of one version's folder. What cannot be read is not there: a load says what is wrong with it.
    pub(crate) fn of(version: &Path) -> Self {
        let mut files = Vec::new();
        let mut folders = vec![version.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                } else if let Ok(found) = fs::metadata(entry.path()) {
                    let path = entry.path();
                    let name = path.strip_prefix(version).unwrap_or(&path).to_owned();
                    files.push((name, found.size(), found.ctime(), found.ctime_nsec()));
                }
            }
        }
        files.sort();
        Self(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_new_or_was_written_again_makes_another_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |file: &str| fs::write(folder.path().join(file), "1").expect("written");
        write("card.toml");
        let first = Files::of(folder.path());
        assert_eq!(first, Files::of(folder.path()));
        fs::create_dir(folder.path().join("onnx")).expect("made");
        write("onnx/model.onnx");
        let second = Files::of(folder.path());
        assert_ne!(first, second);
        // The same word again, put in its place as careful writers do.
        write("new");
        fs::rename(folder.path().join("new"), folder.path().join("card.toml")).expect("renamed");
        assert_ne!(second, Files::of(folder.path()));
    }
}
