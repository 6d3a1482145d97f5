//! The folder of one mesh's generated files, `run-PID`, and the file lock that says that its mesh lives.
//!
//! The lock, and not the process id: a mesh in another container may use the same data folder, and its ids are not ours.
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The file that is locked. A folder is ours, to take over or to remove, only if it has one: a data folder may be one of the user's, with
/// folders of any name in it.
const LOCK: &str = "shoal.lock";

/// Folders that are tried before it is called a fault: more meshes than that do not share a data folder and a process id.
const TRIES: u32 = 16;

/// The folder, held until it is dropped.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes and takes `run-PID`, or, if that is a living mesh's or somebody else's, `run-PID-N`.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn take(data: &Path) -> io::Result<Self> {
        let name = format!("run-{}", std::process::id());
        for number in 0..TRIES {
            let path = data.join(match number {
                0 => name.clone(),
                n => format!("{name}-{n}"),
            });
            let made = match fs::create_dir(&path) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(error),
            };
            if let Some(lock) = hold(&path, made)? {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(io::Error::other(format!(
            "{name} is taken, as are the {} next to it",
            TRIES - 1
        )))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The generated configuration is of no use any more; logs and outcomes stay.
    pub(super) fn remove(self) {
        let _ = fs::remove_dir_all(&self.path);
    }

    /// Removes what meshes that were killed have left.
    pub(super) fn sweep(data: &Path) {
        for entry in fs::read_dir(data).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let ours = name
                .to_str()
                .and_then(|n| n.strip_prefix("run-"))
                .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
            if ours && matches!(hold(&entry.path(), false), Ok(Some(_))) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// The lock of a folder, which only one that was just made lacks; none if it is held, or was swept away under us, or the folder is not ours.
fn hold(folder: &Path, made: bool) -> io::Result<Option<File>> {
    let path = folder.join(LOCK);
    let lock = match File::options().create(made).append(true).open(&path) {
        // A file of that name, too, is nobody's run.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        opened => opened?,
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    // Who sweeps may have removed the file between our opening and locking it.
    let there = fs::metadata(&path).is_ok_and(|now| lock.metadata().is_ok_and(|held| held.ino() == now.ino()));
    Ok(there.then_some(lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_swept_once_nobody_holds_it_whatever_its_process_id() {
        let data = tempfile::tempdir().expect("folder");
        // No process has such an id: as little as one of another container.
        let [lives, killed, old] =
            ["run-4000000000", "run-4000000001", "run-4000000002-1"].map(|n| data.path().join(n));
        for folder in [&lives, &killed, &old] {
            fs::create_dir(folder).expect("made");
            fs::write(folder.join("mesh.toml"), "").expect("written");
        }
        let lock = hold(&lives, true).expect("opened").expect("free");
        for folder in [&killed, &old] {
            drop(hold(folder, true).expect("opened").expect("free"));
        }
        RunFolder::sweep(data.path());
        assert!(lives.join("mesh.toml").exists(), "its mesh lives");
        assert!(!killed.exists() && !old.exists());
        drop(lock);
        RunFolder::sweep(data.path());
        assert!(!lives.exists());
    }

    #[test]
    fn folders_of_the_users_are_neither_swept_nor_taken() {
        let data = tempfile::tempdir().expect("folder");
        let own = format!("run-{}", std::process::id());
        let theirs = ["run-2026-11-01", "run-1", "run-", "run-of-mine", &own].map(|n| data.path().join(n));
        for folder in &theirs {
            fs::create_dir(folder).expect("made");
            fs::write(folder.join("lock"), "a lock of another program").expect("written");
        }
        fs::write(data.path().join("run-2"), "a file").expect("written");
        RunFolder::sweep(data.path());
        let run = RunFolder::take(data.path()).expect("taken");
        assert!(!theirs.iter().any(|folder| folder == run.path()));
        run.remove();
        assert!(theirs.iter().all(|folder| folder.join("lock").exists()) && data.path().join("run-2").exists());
    }

    #[test]
    fn a_mesh_takes_no_folder_that_another_holds() {
        let data = tempfile::tempdir().expect("folder");
        let first = RunFolder::take(data.path()).expect("taken");
        let second = RunFolder::take(data.path()).expect("taken");
        assert!(first.path() != second.path() && second.path().exists());
        let path = first.path().to_owned();
        first.remove();
        assert!(!path.exists());
        assert_eq!(RunFolder::take(data.path()).expect("taken").path(), path);
    }
}
