//! What a decoder stands on: keys and values of rows, and a graph that goes on from them.
use super::{Error, shared_kv::Element};
use crate::engine::{Row, Together};
use half::{f16, slice::HalfFloatSliceExt as _};
use ort::value::PrimitiveTensorElementType;
use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

/// As [`crate::engine::Decoder`], whose words on errors hold here too.
pub(super) trait Kv: Send {
    /// Reads `tokens` into row `slot` behind its first `past` positions; gives the last one's logits, `[vocabulary]`.
    fn prefill(&mut self, slot: usize, past: usize, tokens: &[u32]) -> Result<&[f32], Error>;

    /// Reads whole prompts into the rows from `first` on, where [`Self::together`] allows it; gives `[prompts.len(), vocabulary]`.
    fn prefill_together(&mut self, first: usize, prompts: &[&[u32]]) -> Result<&[f32], Error>;

    /// Which prompts one run may read.
    fn together(&self) -> Together;

    /// Reads one token into each of the first `rows.len()` rows; gives `[rows, vocabulary]`.
    fn step(&mut self, rows: &[Row]) -> Result<&[f32], Error>;

    /// Copies the first `length` positions of row `from` over row `to`.
    fn copy_row(&mut self, from: usize, to: usize, length: usize) -> Result<(), Error>;

    /// Nanoseconds inside ONNX Runtime's own runs, as they add up.
    fn inside(&self) -> Arc<AtomicU64>;
}

/// What keys, values and logits are made of.
pub(super) trait Float:
    Element + PrimitiveTensorElementType + Copy + Default + fmt::Debug + Send + 'static
{
    /// The numbers in single precision, in `wide` unless that is what they are.
    fn widen<'a>(numbers: &'a [Self], wide: &'a mut Vec<f32>) -> &'a [f32];

    /// The numbers in single precision, behind what is in `wide`.
    fn append(numbers: &[Self], wide: &mut Vec<f32>);
}

impl Float for f32 {
    fn widen<'a>(numbers: &'a [Self], _: &'a mut Vec<f32>) -> &'a [f32] {
        numbers
    }

    fn append(numbers: &[Self], wide: &mut Vec<f32>) {
        wide.extend_from_slice(numbers);
    }
}

impl Float for f16 {
    fn widen<'a>(numbers: &'a [Self], wide: &'a mut Vec<f32>) -> &'a [f32] {
        wide.resize(numbers.len(), 0.0);
        numbers.convert_to_f32_slice(wide);
        wide
    }

    fn append(numbers: &[Self], wide: &mut Vec<f32>) {
        wide.extend(numbers.iter().map(|n| n.to_f32()));
    }
}
