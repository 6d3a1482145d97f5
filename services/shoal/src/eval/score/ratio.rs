//! The two kinds of figure: a share of rows, and a micro F1 over all rows.
use std::collections::BTreeSet;

/// The share of rows that are right.
#[derive(Default)]
pub(super) struct Share {
    hit: u64,
    of: u64,
}

impl Share {
    pub(super) fn add(&mut self, right: bool) {
        self.hit += u64::from(right);
        self.of += 1;
    }

    #[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^53")]
    pub(super) fn value(&self) -> Option<f64> {
        (self.of > 0).then(|| self.hit as f64 / self.of as f64)
    }
}

/// Micro F1 over pairs of sets.
#[derive(Default)]
pub(super) struct F1 {
    hit: u64,
    gold: u64,
    predicted: u64,
}

impl F1 {
    pub(super) fn add<T: Ord>(&mut self, gold: &BTreeSet<T>, predicted: &BTreeSet<T>) {
        self.hit += gold.intersection(predicted).count() as u64;
        self.gold += gold.len() as u64;
        self.predicted += predicted.len() as u64;
    }

    /// Twice the hits, and what both sides have.
    pub(super) fn weight(self) -> (u64, u64) {
        (2 * self.hit, self.gold + self.predicted)
    }

    #[expect(clippy::cast_precision_loss, reason = "set sizes are far below 2^53")]
    pub(super) fn value(&self) -> Option<f64> {
        let total = self.gold + self.predicted;
        Some(if total == 0 {
            1.0
        } else {
            (2 * self.hit) as f64 / total as f64
        })
    }
}
