//! The spool of a mesh that is started for one call. It is a folder of its own beside the configured one, which a gateway that is up
//! already holds: `spool-local-PID`.
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// What such a folder's name begins with.
const NAME: &str = "spool-local-";

/// The lock of a gateway that uses a spool; what else is there are outcomes.
const LOCK: &str = "lock";

/// The folder for this process. An earlier one with outcomes that were never delivered, whose gateway is gone, becomes it, so that they
/// are delivered now; further ones wait for the next call.
pub(super) fn spool(configured: &Path) -> PathBuf {
    let own = configured.with_file_name(format!("{NAME}{}", std::process::id()));
    let Some(folder) = own.parent() else { return own };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|n| n.starts_with(NAME)) {
            continue;
        }
        let left = entry.path();
        // Held while it is moved: of two commands that start at once, one takes it.
        let Some(_held) = take(&left) else { continue };
        if undelivered(&left) && (left == own || fs::rename(&left, &own).is_ok()) {
            break;
        }
    }
    own
}

/// Removes the folder if everything in it was delivered.
pub(super) fn leave(spool: &Path) {
    let Some(_held) = take(spool) else { return };
    let mut names = fs::read_dir(spool)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name());
    if names.all(|name| name == LOCK) {
        let _ = fs::remove_dir_all(spool);
    } else if undelivered(spool) {
        eprintln!(
            "outcomes that feedback has not taken are in {}; the next command with --local delivers them",
            spool.display()
        );
    }
}

/// The folder's lock, if no gateway holds it.
fn take(spool: &Path) -> Option<File> {
    let lock = File::options().append(true).open(spool.join(LOCK)).ok()?;
    lock.try_lock().ok()?;
    Some(lock)
}

/// Whether a segment is left. What was set aside as undeliverable is for people.
fn undelivered(spool: &Path) -> bool {
    let mut names = fs::read_dir(spool).into_iter().flatten().flatten().map(|e| e.path());
    names.any(|path| path.extension().is_some_and(|e| e == "seg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A spool with these files beside its lock.
    fn left(folder: &Path, name: &str, files: &[&str]) -> PathBuf {
        let spool = folder.join(name);
        fs::create_dir(&spool).expect("made");
        for file in [&[LOCK][..], files].concat() {
            fs::write(spool.join(file), file).expect("written");
        }
        spool
    }

    #[test]
    fn what_an_earlier_call_did_not_deliver_is_this_calls_spool_unless_it_is_held() {
        let folder = tempfile::tempdir().expect("folder");
        let configured = folder.path().join("spool");
        let held = left(folder.path(), "spool-local-0", &["1.seg"]);
        let aside = left(folder.path(), "spool-local-1", &["undeliverable"]);
        let other = left(folder.path(), "spool", &["1.seg"]);
        let lock = take(&held).expect("free");
        let own = spool(&configured);
        assert!(!own.exists() && held.exists() && aside.exists() && other.exists());
        drop(lock);
        assert_eq!(spool(&configured), own);
        assert!(own.join("1.seg").exists() && !held.exists(), "it was moved");
        assert!(aside.exists() && other.exists());
    }

    #[test]
    fn a_spool_is_removed_once_all_of_it_is_delivered() {
        let folder = tempfile::tempdir().expect("folder");
        let empty = left(folder.path(), "spool-local-1", &[]);
        let full = left(folder.path(), "spool-local-2", &["1.seg"]);
        let aside = left(folder.path(), "spool-local-3", &["undeliverable"]);
        let held = left(folder.path(), "spool-local-4", &[]);
        let _lock = take(&held).expect("free");
        for spool in [&empty, &full, &aside, &held] {
            leave(spool);
        }
        assert!(!empty.exists());
        assert!(full.exists() && aside.exists() && held.exists());
    }
}
