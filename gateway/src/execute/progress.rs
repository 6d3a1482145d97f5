//! How far a node has come, beside its trail: whoever drops its future still finds that it fell back, or how it had ended.
use super::policy::Fell;
use shoal_proto::v1;
use std::sync::OnceLock;

/// See the module.
#[derive(Default)]
pub(crate) struct Progress {
    fell: OnceLock<Fell>,
    ended: OnceLock<v1::NodeResult>,
}

impl Progress {
    /// It falls back. Its way up to here is an outcome of its own, and no part of the one at its end.
    pub(super) fn fall_back(&self, fell: Fell) {
        drop(self.fell.set(fell));
    }

    /// What is kept at the end of a node of which `told` is told.
    pub(super) fn kept(&self, told: &v1::NodeResult) -> v1::NodeResult {
        self.fell.get().map_or_else(|| told.clone(), |fell| fell.alone(told))
    }

    /// It has ended, and its outcome is about to be kept.
    pub(super) fn end(&self, told: v1::NodeResult) {
        drop(self.ended.set(told));
    }

    /// What is to be told, if it has ended.
    pub(super) fn ended(&self) -> Option<&v1::NodeResult> {
        self.ended.get()
    }
}
