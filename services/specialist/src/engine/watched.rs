//! A decoder whose failures are counted, and the end of one that is broken for good.
use super::{Decoder, Row, Shape, owner::Owner};
use crate::faults::Faults;
use tracing::error;

/// A decoder, and what failed of it.
pub(super) struct Watched<D> {
    decoder: D,
    faults: Faults,
}

impl<D> Watched<D> {
    pub(super) fn new(decoder: D) -> Self {
        Self {
            decoder,
            faults: Faults::default(),
        }
    }
}

impl<D: Decoder> Decoder for Watched<D> {
    type Error = D::Error;

    fn shape(&self) -> Shape {
        self.decoder.shape()
    }

    fn prefill(&mut self, slot: usize, past: usize, tokens: &[u32]) -> Result<&[f32], D::Error> {
        let ran = self.decoder.prefill(slot, past, tokens);
        self.faults.heard(&ran);
        ran
    }

    fn prefill_together(&mut self, first: usize, prompts: &[&[u32]]) -> Result<&[f32], D::Error> {
        let ran = self.decoder.prefill_together(first, prompts);
        self.faults.heard(&ran);
        ran
    }

    fn step(&mut self, rows: &[Row]) -> Result<&[f32], D::Error> {
        let ran = self.decoder.step(rows);
        self.faults.heard(&ran);
        ran
    }

    fn copy_row(&mut self, from: usize, to: usize, length: usize) -> Result<(), D::Error> {
        self.decoder.copy_row(from, to, length)
    }
}

impl<D: Decoder> Owner<D> {
    /// Whether not even the end-of-sequence token can be read, after runs that failed.
    pub(super) fn is_broken(&mut self) -> bool {
        if !self.decoder.faults.are_suspicious() {
            return false;
        }
        let end = [self.eos.first().copied().unwrap_or(0)];
        // While every prompt slot is taken: another round, in which they are read or fail.
        let Some(place) = self.prefixes.begin(&end) else {
            return false;
        };
        let failed = self.decoder.prefill(place.slot, 0, &end).map(drop);
        self.prefixes.forget(place.slot);
        self.prefixes.end(place.slot);
        match failed {
            Ok(()) => false,
            Err(error) => {
                error!(%error, "nothing can be run any more: the model stops");
                true
            }
        }
    }
}
