//! What an exported decoder is: the sizes that decide buffers, the names of its tensors, and how its graph takes what was read before.
//!
//! Two exporters write it down in two ways: `genai` and `optimum` read them. `interface` holds it against the graph itself.
use super::Error;
use serde::Deserialize;
use std::path::Path;

/// The decoder's shape and the names of its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The file that says so: `genai_config.json` or `config.json`.
    pub source: &'static str,
    /// The ONNX file.
    pub filename: String,
    /// Positions that the model knows.
    pub context_length: usize,
    /// Layers, each with a key and a value cache.
    pub layers: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_size: usize,
    /// Logits per position.
    pub vocabulary: usize,
    /// Tokens that end a text, at least one.
    pub eos: Vec<u32>,
    /// Token that starts a text.
    pub bos: Option<u32>,
    /// How the graph takes past keys and values.
    pub past: Past,
    /// What keys, values and logits are made of.
    pub number: Number,
    /// Tensor names.
    pub names: Names,
}

/// How a graph takes the keys and values of what was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Past and present are one buffer of the whole context, which the graph appends to in place.
    InPlace,
    /// The present is a new tensor: the past, and what was read behind it.
    Apart {
        /// Rows of unequal lengths may be run together, the shorter ones padded: the graph is told positions, and masks what it must not
        /// see. Without it only rows of equal length are.
        padded: bool,
    },
}

/// What a graph's keys, values and logits are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// 32-bit floating point.
    Single,
    /// 16-bit floating point (IEEE 754).
    Half,
}

/// Names of the graph's inputs and outputs; `%d` stands for the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `[rows, columns] i64`.
    pub input_ids: String,
    /// `[rows, total] i64`.
    pub attention_mask: String,
    /// `[rows, columns] i64`; used if the graph has it.
    pub position_ids: String,
    /// `[rows, kv_heads, context, head_size]`; of a past that is apart, as many positions as were read.
    pub past_key: String,
    /// Likewise.
    pub past_value: String,
    /// `[rows, columns, vocabulary]`.
    pub logits: String,
    /// As `past_key`, with what is read now behind it.
    pub present_key: String,
    /// Likewise.
    pub present_value: String,
}

impl Default for Names {
    /// What both exporters write unless told otherwise.
    fn default() -> Self {
        Self {
            input_ids: "input_ids".into(),
            attention_mask: "attention_mask".into(),
            position_ids: "position_ids".into(),
            past_key: "past_key_values.%d.key".into(),
            past_value: "past_key_values.%d.value".into(),
            logits: "logits".into(),
            present_key: "present.%d.key".into(),
            present_value: "present.%d.value".into(),
        }
    }
}

impl Names {
    /// (past, present) of each key cache and each value cache, layer by layer.
    pub(crate) fn caches(&self, layers: usize) -> impl Iterator<Item = (String, String)> + '_ {
        let pairs = [
            (&self.past_key, &self.present_key),
            (&self.past_value, &self.present_value),
        ];
        (0..layers).flat_map(move |layer| {
            let of = move |pattern: &str| pattern.replace("%d", &layer.to_string());
            pairs.map(move |(past, present)| (of(past), of(present)))
        })
    }
}

/// A token id, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    pub(super) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// Positions of which the window, if there is one, holds all.
pub(super) fn within_window(positions: u64, window: Option<i64>) -> u64 {
    let window = window.and_then(|w| u64::try_from(w).ok()).filter(|w| *w > 0);
    window.map_or(positions, |w| w.min(positions))
}

/// What both exporters' files are held to; each error names the file.
pub(super) struct Reading<'a> {
    pub(super) path: &'a Path,
    /// What the card allows, or one that is not written yet would.
    pub(super) context_tokens: u32,
}

impl Reading<'_> {
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, text: &str) -> Result<T, Error> {
        serde_json::from_str(text).map_err(|e| Error::Syntax {
            path: self.path.to_owned(),
            message: e.to_string(),
        })
    }

    pub(super) fn fault<T>(&self, message: String) -> Result<T, Error> {
        Err(Error::Card {
            path: self.path.to_owned(),
            message,
        })
    }

    /// Upper bounds are far beyond any small model: they are there to keep products of them from overflowing.
    pub(super) fn within(&self, what: &str, value: u64, most: u64) -> Result<usize, Error> {
        if (1..=most).contains(&value) {
            return Ok(value as usize);
        }
        self.fault(format!(
            "{what} is {value}: it must lie between 1 and {most}; export the model again"
        ))
    }

    pub(super) fn heads(&self, heads: usize, kv_heads: usize) -> Result<(), Error> {
        if heads.is_multiple_of(kv_heads) {
            return Ok(());
        }
        self.fault(format!(
            "{heads} attention heads cannot share {kv_heads} key/value heads; export the model again"
        ))
    }

    pub(super) fn context(&self, context_length: usize) -> Result<(), Error> {
        let context = self.context_tokens;
        if context as usize <= context_length {
            return Ok(());
        }
        self.fault(format!(
            "card.toml allows {context} tokens, the model knows {context_length} positions: lower [limits] context_tokens"
        ))
    }

    pub(super) fn eos(&self, eos: &[u32], vocabulary: usize) -> Result<(), Error> {
        if !eos.is_empty() && eos.iter().all(|id| (*id as usize) < vocabulary) {
            return Ok(());
        }
        self.fault(format!(
            "eos_token_id {eos:?} must be one or more ids under vocab_size ({vocabulary})"
        ))
    }

    /// A window that is shorter than the card's context would have to be moved along: nothing here does.
    pub(super) fn window(&self, window: Option<i64>) -> Result<(), Error> {
        let context = self.context_tokens;
        match window {
            Some(window) if window > 0 && window < i64::from(context) => self.fault(format!(
                "a sliding window of {window} positions under the card's {context} is not supported: lower [limits] context_tokens to {window}"
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn beams(&self, beams: Option<u64>) -> Result<(), Error> {
        match beams {
            Some(beams) if beams > 1 => self.fault(format!(
                "num_beams is {beams}: beam search is not supported, this engine samples one sequence a call; make it 1"
            )),
            _ => Ok(()),
        }
    }
}
