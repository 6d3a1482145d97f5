//! The folder of one mesh's generated files, `run-PID`, and the file lock that says that its mesh lives.
//!
//! The lock, and not the process id: a mesh in another container may use the same data folder, and its ids are not ours.
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The file that is locked.
const LOCK: &str = "lock";

/// Folders that are tried before it is called a fault: more meshes than that do not share a data folder and a process id.
const TRIES: u32 = 16;

/// The folder, held until it is dropped.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes and takes `run-PID`, or, if a mesh that lives has that, `run-PID-N`.
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
            fs::create_dir_all(&path)?;
            if let Some(lock) = hold(&path)? {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(io::Error::other(format!("{name} is held by another mesh")))
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
            if ours && matches!(hold(&entry.path()), Ok(Some(_))) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// The lock of a folder; none if it is held, or was swept away under us.
fn hold(folder: &Path) -> io::Result<Option<File>> {
    let path = folder.join(LOCK);
    let lock = match File::options().create(true).append(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
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
        let [lives, killed, old, other] =
            ["run-4000000000", "run-4000000001", "run-4000000002-1", "run-of-mine"].map(|n| data.path().join(n));
        for folder in [&lives, &killed, &old, &other] {
            fs::create_dir(folder).expect("made");
            fs::write(folder.join("mesh.toml"), "").expect("written");
        }
        let lock = hold(&lives).expect("opened").expect("free");
        drop(hold(&killed).expect("opened").expect("free"));
        RunFolder::sweep(data.path());
        assert!(lives.join("mesh.toml").exists(), "its mesh lives");
        assert!(!killed.exists() && !old.exists() && other.exists());
        drop(lock);
        RunFolder::sweep(data.path());
        assert!(!lives.exists());
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
