//! The version that served before, kept loaded for a while: whoever goes back waits for no load.
use crate::specialist::Specialist;
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// A version, and the files that it was loaded from as they were then.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) specialist: Arc<Specialist>,
    files: Files,
}

impl Version {
    /// `files` were looked at before it was loaded.
    pub(super) fn new(specialist: Specialist, files: Files) -> Self {
        Self {
            specialist: Arc::new(specialist),
            files,
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.specialist.folder().card.version
    }
}

/// What a folder's files are known by: path, size, and when each was written or put in its place (ctime, in seconds and nanoseconds).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Files(Vec<(PathBuf, u64, i64, i64)>);

impl Files {
    /// Those of one version's folder. What cannot be read is not there: a load says what is wrong with it.
    pub(super) fn of(folder: &Path) -> Self {
        let mut files = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                } else if let Ok(found) = fs::metadata(entry.path()) {
                    files.push((entry.path(), found.size(), found.ctime(), found.ctime_nsec()));
                }
            }
        }
        files.sort();
        Self(files)
    }
}

/// The version that served before the one that serves, until its time is up.
#[derive(Debug)]
pub(super) struct Previous {
    keep: Duration,
    kept: Option<(Version, Instant)>,
}

impl Previous {
    /// Keeps one for so long; zero keeps none.
    pub(super) fn new(keep: Duration) -> Self {
        Self { keep, kept: None }
    }

    /// A version serves no new call from `now` on. Gives back what is not kept: it, or the one before it.
    pub(super) fn replaced(&mut self, version: Version, now: Instant) -> Option<Version> {
        match now.checked_add(self.keep) {
            Some(until) if until > now => self.kept.replace((version, until)).map(|(before, _)| before),
            _ => Some(version),
        }
    }

    /// The version of this number, if it is kept, still runs, and its files are those that it was loaded from.
    pub(super) fn take(&mut self, number: u32, files: &Files) -> Option<Version> {
        let good = |version: &Version| {
            version.number() == number && version.files == *files && !version.specialist.stopped().is_cancelled()
        };
        self.kept.take_if(|(kept, _)| good(kept)).map(|(kept, _)| kept)
    }

    /// Gives back what was kept: another version needs its place.
    pub(super) fn let_go(&mut self) -> Option<Version> {
        self.kept.take().map(|(kept, _)| kept)
    }

    /// Gives back what was kept, when its time is up.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Version> {
        self.kept.take_if(|(_, until)| *until <= now).map(|(kept, _)| kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_kit::{config, onnxruntime};

    const KEEP: Duration = Duration::from_secs(60);

    fn version(files: &Files) -> Version {
        let library = onnxruntime::locate(&config::OnnxRuntime::default(), &|_| {}).expect("ONNX Runtime");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/tiny_classifier");
        let specialist = Specialist::load(&path, &config::Specialist::default(), &library.path).expect("a good folder");
        Version::new(specialist, files.clone())
    }

    #[test]
    fn the_last_version_is_kept_for_its_time_and_the_one_before_it_no_longer() {
        let (files, now) = (Files::default(), Instant::now());
        let mut previous = Previous::new(KEEP);
        let (first, second) = (version(&files), version(&files));
        assert!(previous.replaced(first.clone(), now).is_none());
        let before = previous.replaced(second.clone(), now).expect("one at a time");
        assert!(Arc::ptr_eq(&before.specialist, &first.specialist));
        assert!(previous.expired(now + KEEP / 2).is_none());
        let expired = previous.expired(now + KEEP).expect("its time is up");
        assert!(Arc::ptr_eq(&expired.specialist, &second.specialist));
        assert!(previous.take(1, &files).is_none(), "it is gone");
        assert!(previous.replaced(first, now).is_none() && previous.let_go().is_some());
        assert!(previous.let_go().is_none() && previous.take(1, &files).is_none());
        let mut none = Previous::new(Duration::ZERO);
        assert!(none.replaced(second, now).is_some(), "nothing is kept");
        assert!(none.take(1, &files).is_none());
    }

    #[test]
    fn what_was_written_again_since_is_not_given_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |file: &str| fs::write(folder.path().join(file), "1").expect("written");
        write("card.toml");
        let before = Files::of(folder.path());
        assert_eq!(before, Files::of(folder.path()));
        fs::create_dir(folder.path().join("onnx")).expect("made");
        write("onnx/model.onnx");
        let after = Files::of(folder.path());
        assert_ne!(before, after);
        let mut previous = Previous::new(KEEP);
        assert!(previous.replaced(version(&before), Instant::now()).is_none());
        assert!(previous.take(2, &before).is_none(), "it is version 1");
        assert!(previous.take(1, &after).is_none());
        let taken = previous.take(1, &before).expect("kept, of files as they were");
        assert_eq!(taken.number(), 1);
        assert!(previous.take(1, &before).is_none(), "once");
    }
}
