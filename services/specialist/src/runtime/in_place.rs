//! Rows of one buffer that the graph appends to in place: prefill one row, step all together.
use super::{
    Error,
    kv::{Float, Kv},
    layout::{Layout, Names},
    shared_kv::{Placement, SharedKv},
};
use crate::engine::{Row, Together};
use ort::session::Session;
use std::sync::{Arc, atomic::AtomicU64};

/// A step's mask is as long as a multiple of this: what is bound once then stays for so many steps. To bind takes 3 to 4 microseconds of a step.
/// Longer than its longest row the mask is as it is for all others: attention goes by the ones in it.
const MASK_STEP: usize = 64;

/// A graph whose past and present are the same memory.
pub(super) struct InPlace<T: Float> {
    kv: SharedKv<T>,
    layout: Layout,
    together: Together,
    /// The last logits, of a graph whose own are not in single precision.
    wide: Vec<f32>,
}

impl<T: Float> InPlace<T> {
    pub(super) fn new(session: Session, layout: Layout, names: Names, placement: Placement) -> Result<Self, Error> {
        let together = match (&placement, layout.last_only) {
            // What CUDA's kernels make of padding was never seen.
            (Placement::Device(..), _) => Together::Never,
            (Placement::Host { .. }, true) => Together::Equal,
            (Placement::Host { .. }, false) => Together::Padded,
        };
        Ok(Self {
            kv: SharedKv::new(session, layout, names, placement)?,
            layout,
            together,
            wide: Vec::new(),
        })
    }
}

impl<T: Float> Kv for InPlace<T> {
    fn prefill(&mut self, slot: usize, past: usize, tokens: &[u32]) -> Result<&[f32], Error> {
        let (columns, total) = (tokens.len(), past + tokens.len());
        let inputs = self.kv.inputs(1, columns, total);
        for (i, token) in tokens.iter().enumerate() {
            inputs.ids[i] = i64::from(*token);
            inputs.positions[i] = (past + i) as i64;
        }
        inputs.mask.fill(1);
        let logits = self.kv.run(slot, 1, columns, total)?;
        let last = if self.layout.last_only {
            logits
        } else {
            &logits[(columns - 1) * self.layout.vocabulary..]
        };
        Ok(T::widen(last, &mut self.wide))
    }

    fn prefill_together(&mut self, first: usize, prompts: &[&[u32]]) -> Result<&[f32], Error> {
        let (rows, longest) = (prompts.len(), prompts.iter().map(|p| p.len()).max().unwrap_or(0));
        let inputs = self.kv.inputs(rows, longest, longest);
        inputs.ids.fill(0);
        inputs.mask.fill(0);
        for (i, prompt) in prompts.iter().enumerate() {
            for (j, token) in prompt.iter().enumerate() {
                inputs.ids[i * longest + j] = i64::from(*token);
                inputs.mask[i * longest + j] = 1;
            }
            for j in 0..longest {
                inputs.positions[i * longest + j] = j as i64;
            }
        }
        let (vocabulary, last_only) = (self.layout.vocabulary, self.layout.last_only);
        let logits = self.kv.run(first, rows, longest, longest)?;
        if last_only {
            return Ok(T::widen(logits, &mut self.wide));
        }
        self.wide.clear();
        for (i, prompt) in prompts.iter().enumerate() {
            let last = (i * longest + prompt.len() - 1) * vocabulary;
            T::append(&logits[last..last + vocabulary], &mut self.wide);
        }
        Ok(&self.wide)
    }

    fn together(&self) -> Together {
        self.together
    }

    fn step(&mut self, rows: &[Row]) -> Result<&[f32], Error> {
        let longest = 1 + rows.iter().map(|r| r.length).max().unwrap_or(0);
        let total = longest.next_multiple_of(MASK_STEP).min(self.layout.positions);
        let inputs = self.kv.inputs(rows.len(), 1, total);
        for (i, row) in rows.iter().enumerate() {
            inputs.ids[i] = i64::from(row.token);
            inputs.positions[i] = row.length as i64;
            let (past, behind) = inputs.mask[i * total..][..total].split_at_mut(row.length + 1);
            past.fill(1);
            behind.fill(0);
        }
        let logits = self.kv.run(0, rows.len(), 1, total)?;
        Ok(T::widen(logits, &mut self.wide))
    }

    fn copy_row(&mut self, from: usize, to: usize, length: usize) -> Result<(), Error> {
        self.kv.copy_row(from, to, length)
    }

    fn inside(&self) -> Arc<AtomicU64> {
        self.kv.inside()
    }
}
