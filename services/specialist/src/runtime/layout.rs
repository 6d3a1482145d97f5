//! Sizes and names of what a decoder binds.
use std::ffi::CString;

/// Precision of a tensor of floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// f32.
    Single,
    /// f16.
    Half,
}

impl Precision {
    /// Bytes of a number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Single => 4,
            Self::Half => 2,
        }
    }
}

/// Sizes of the buffer, in elements, rows or positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Sequences, whether they decode or are being read.
    pub rows: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Positions of a row.
    pub positions: usize,
    /// Numbers per head.
    pub head_size: usize,
    /// Logits per position.
    pub vocabulary: usize,
    /// Tokens of one prefill at most.
    pub chunk: usize,
    /// What the caches hold.
    pub cache: Precision,
    /// What the logits are.
    pub logits: Precision,
    /// The graph gives logits of the last position only.
    pub last_only: bool,
}

impl Layout {
    /// Elements of one row of one cache.
    pub(super) fn stride(&self) -> usize {
        self.kv_heads * self.positions * self.head_size
    }
}

/// Tensor names.
#[derive(Debug)]
pub(super) struct Names {
    pub ids: CString,
    pub mask: CString,
    /// Only if the graph has it.
    pub positions: Option<CString>,
    pub logits: CString,
    /// (past, present) of each key cache and each value cache.
    pub caches: Vec<(CString, CString)>,
}

/// What one run reads.
pub(super) struct Inputs<'a> {
    /// `[rows, columns]`.
    pub ids: &'a mut [i64],
    /// `[rows, total]`, right-padded with zeros.
    pub mask: &'a mut [i64],
    /// `[rows, columns]`.
    pub positions: &'a mut [i64],
}
