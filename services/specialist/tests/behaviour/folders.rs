//! Folders made for one test: a fixture's copy with something changed.
use crate::world::{config, fixture, library};
use shoal_specialist::specialist::{LoadError, Specialist};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// A fixture's copy, to be changed.
pub(crate) struct Copy {
    root: TempDir,
}

impl Copy {
    /// A copy of the fixture `name`.
    pub(crate) fn of(name: &str) -> Self {
        let root = TempDir::new().expect("a folder");
        copy(&fixture(name), root.path());
        Self { root }
    }

    /// A path in the copy.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Replaces the first `from` in a text file.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).expect("readable");
        assert!(text.contains(from), "{name} has no {from:?}");
        fs::write(self.path(name), text.replacen(from, to, 1)).expect("written");
    }

    /// Copies a version's folder.
    pub(crate) fn duplicate(&self, from: &str, to: &str) {
        copy(&self.path(from), &self.path(to));
    }

    /// Puts the first version of another fixture in a version's place.
    pub(crate) fn replace(&self, version: &str, name: &str) {
        fs::remove_dir_all(self.path(version)).expect("removed");
        copy(&fixture(name).join("1"), &self.path(version));
    }

    /// Writes a file of version 1 and lists its true sum.
    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        self.write_in("1", name, content);
    }

    /// The same in another version.
    pub(crate) fn write_in(&self, version: &str, name: &str, content: &[u8]) {
        use sha2::Digest as _;
        let path = self.path(version);
        fs::write(path.join(name), content).expect("written");
        let sum: String = sha2::Sha256::digest(content)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let card = fs::read_to_string(path.join("card.toml")).expect("readable");
        let kept: Vec<&str> = card
            .lines()
            .filter(|l| !l.starts_with(&format!("\"{name}\" =")))
            .collect();
        let files = kept
            .join("\n")
            .replacen("[files]", &format!("[files]\n\"{name}\" = \"{sum}\""), 1);
        fs::write(path.join("card.toml"), files).expect("written");
    }

    /// Why it does not load, before ONNX Runtime is touched: the library does not even exist.
    pub(crate) fn refused(&self) -> String {
        let nowhere = Path::new("/nonexistent/libonnxruntime.so");
        match Specialist::load(self.root.path(), &config(1), nowhere) {
            Ok(_) => panic!("loaded"),
            Err(error) => error.to_string(),
        }
    }

    /// Loads it.
    pub(crate) fn load(&self, slots: usize) -> Result<Specialist, LoadError> {
        Specialist::load(self.root.path(), &config(slots), library())
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }
}

/// Whether the words say all of it.
#[track_caller]
pub(crate) fn has(words: &str, parts: &[&str]) {
    assert!(
        parts.iter().all(|p| words.contains(p)),
        "{words:?} lacks one of {parts:?}"
    );
}
