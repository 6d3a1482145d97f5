//! What a look at specialist.toml finds.
use std::{fs, io, path::Path, time::SystemTime};

/// specialist.toml as it was seen. Written again with the same words it counts as changed: that is how a mended version is tried
/// again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    modified: Option<SystemTime>,
    content: Result<Vec<u8>, io::ErrorKind>,
}

impl Seen {
    pub(super) fn of(root: &Path) -> Self {
        let path = root.join("specialist.toml");
        Self {
            modified: fs::metadata(&path).and_then(|m| m.modified()).ok(),
            content: fs::read(&path).map_err(|e| e.kind()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_file_that_is_written_again_counts_as_changed_and_one_that_is_left_alone_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("specialist.toml");
        let missing = Seen::of(folder.path());
        assert_eq!(missing, Seen::of(folder.path()));
        fs::write(&path, "active_version = 1").expect("written");
        let first = Seen::of(folder.path());
        assert_ne!(first, missing);
        assert_eq!(first, Seen::of(folder.path()));
        let file = fs::File::options().append(true).open(&path).expect("opened");
        let later = SystemTime::now() + Duration::from_secs(2);
        file.set_modified(later).expect("touched");
        assert_ne!(first, Seen::of(folder.path()));
    }
}
