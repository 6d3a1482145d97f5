//! The version that served before, kept loaded for a while: whoever goes back waits for no load.
use crate::{folder::Files, specialist::Specialist};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The version that served before the one that serves, until its time is up.
#[derive(Debug)]
pub(super) struct Previous {
    keep: Duration,
    kept: Option<(Arc<Specialist>, Instant)>,
}

impl Previous {
    /// Keeps one for so long; zero keeps none.
    pub(super) fn new(keep: Duration) -> Self {
        Self { keep, kept: None }
    }

    /// A version serves no new call from `now` on. Gives back what is not kept: it, or the one before it.
    pub(super) fn replaced(&mut self, version: Arc<Specialist>, now: Instant) -> Option<Arc<Specialist>> {
        match now.checked_add(self.keep) {
            Some(until) if until > now => self.kept.replace((version, until)).map(|(before, _)| before),
            _ => Some(version),
        }
    }

    /// The version of this number, if it is kept, still runs, and its files are those that it was loaded from.
    pub(super) fn take(&mut self, number: u32, files: &Files) -> Option<Arc<Specialist>> {
        let good = |kept: &Specialist| {
            let folder = kept.folder();
            folder.card.version == number && folder.files == *files && !kept.stopped().is_cancelled()
        };
        self.kept.take_if(|(kept, _)| good(kept)).map(|(kept, _)| kept)
    }

    /// Gives back what was kept: another version needs its place.
    pub(super) fn let_go(&mut self) -> Option<Arc<Specialist>> {
        self.kept.take().map(|(kept, _)| kept)
    }

    /// Gives back what was kept, when its time is up.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Arc<Specialist>> {
        self.kept.take_if(|(_, until)| *until <= now).map(|(kept, _)| kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_kit::{config, onnxruntime};
    use std::path::Path;

    const KEEP: Duration = Duration::from_secs(60);

    fn version() -> Arc<Specialist> {
        let library = onnxruntime::locate(&config::OnnxRuntime::default(), &|_| {}).expect("ONNX Runtime");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/tiny_classifier");
        let specialist = Specialist::load(&path, &config::Specialist::default(), &library.path);
        Arc::new(specialist.expect("a good folder"))
    }

    #[test]
    fn the_last_version_is_kept_for_its_time_and_the_one_before_it_no_longer() {
        let (first, second, now) = (version(), version(), Instant::now());
        let files = first.folder().files.clone();
        let mut previous = Previous::new(KEEP);
        assert!(previous.replaced(first.clone(), now).is_none());
        let before = previous.replaced(second.clone(), now).expect("one at a time");
        assert!(Arc::ptr_eq(&before, &first));
        assert!(previous.expired(now + KEEP / 2).is_none());
        let expired = previous.expired(now + KEEP).expect("its time is up");
        assert!(Arc::ptr_eq(&expired, &second));
        assert!(previous.take(1, &files).is_none(), "it is gone");
        assert!(previous.replaced(first, now).is_none() && previous.let_go().is_some());
        assert!(previous.let_go().is_none() && previous.take(1, &files).is_none());
        let mut none = Previous::new(Duration::ZERO);
        assert!(none.replaced(second, now).is_some(), "nothing is kept");
        assert!(none.take(1, &files).is_none());
    }

    #[test]
    fn only_the_version_that_is_wanted_is_given_back_of_files_as_they_were_and_once() {
        let kept = version();
        let files = kept.folder().files.clone();
        let mut previous = Previous::new(KEEP);
        assert!(previous.replaced(kept, Instant::now()).is_none());
        assert!(previous.take(2, &files).is_none(), "it is version 1");
        assert!(previous.take(1, &Files::default()).is_none());
        assert!(previous.take(1, &files).is_some());
        assert!(previous.take(1, &files).is_none(), "once");
    }
}
