//! What a model must do to be decoded over slots.
use std::fmt;

/// Sizes of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows that decode together: the first ones of the KV buffer.
    pub slots: usize,
    /// Rows after those, at least one, in which prompts are read before they decode.
    pub prompt_slots: usize,
    /// Bytes of KV at one position of a row.
    pub position_bytes: usize,
    /// Positions of a row.
    pub context_tokens: usize,
    /// Logits per position.
    pub vocabulary: usize,
    /// Prompt tokens of one prefill at most.
    pub chunk: usize,
    /// Which prompts one prefill may read together.
    pub together: Together,
}

/// Which prompts, all of them without a past, one run may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Together {
    /// One.
    Never,
    /// Prompts of equal length: the graph gives the logits of its last column, which would be a shorter prompt's padding.
    Equal,
    /// Any.
    Padded,
}

/// One live row of a decode step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The token to read.
    pub token: u32,
    /// Positions of the row that are filled already; the token goes after them.
    pub length: usize,
}

/// A model that decodes over slots. Row `i` of every call is slot `i`.
pub trait Decoder: Send + 'static {
    /// What can go wrong. After an error the content of the slots that the call was to write is undefined, that of no other:
    /// [`Self::prefill`]'s slot, [`Self::prefill_together`]'s, [`Self::step`]'s rows, the slot that [`Self::copy_row`] copies to.
    type Error: fmt::Display;

    /// Its sizes.
    fn shape(&self) -> Shape;

    /// Reads `tokens` (1 to [`Shape::chunk`]) into `slot` after its first `past` positions; gives the last one's logits,
    /// `[vocabulary]`.
    ///
    /// # Errors
    /// When the runtime fails.
    fn prefill(&mut self, slot: usize, past: usize, tokens: &[u32]) -> Result<&[f32], Self::Error>;

    /// Reads whole prompts into the slots from `first` on, one each, as [`Shape::together`] allows and within [`Shape::chunk`], padding
    /// counted; gives the last token's logits of each, `[prompts.len(), vocabulary]`.
    ///
    /// # Errors
    /// When the runtime fails.
    fn prefill_together(&mut self, first: usize, prompts: &[&[u32]]) -> Result<&[f32], Self::Error>;

    /// Reads one token into each of the first `rows.len()` slots; gives `[rows, vocabulary]`.
    ///
    /// # Errors
    /// When the runtime fails.
    fn step(&mut self, rows: &[Row]) -> Result<&[f32], Self::Error>;

    /// Copies the first `length` positions of slot `from` over slot `to`.
    ///
    /// # Errors
    /// When the runtime fails.
    fn copy_row(&mut self, from: usize, to: usize, length: usize) -> Result<(), Self::Error>;
}
