//! `genai_config.json`: the shape of an exported decoder, as `onnxruntime_genai.models.builder` writes it.
//!
//! It is not ours, so keys that we do not use are passed over. What we use decides buffer sizes and must be sane.
use super::{Error, manifest::Card};
use serde::Deserialize;
use std::path::Path;

/// The decoder's shape and the names of its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genai {
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
    /// Tensor names.
    pub names: Names,
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
    /// `[rows, kv_heads, context, head_size]`.
    pub past_key: String,
    /// Likewise.
    pub past_value: String,
    /// `[rows, columns, vocabulary]`.
    pub logits: String,
    /// As `past_key`.
    pub present_key: String,
    /// Likewise.
    pub present_value: String,
}

#[derive(Deserialize)]
struct Raw {
    model: RawModel,
}

#[derive(Deserialize)]
struct RawModel {
    context_length: u64,
    vocab_size: u64,
    eos_token_id: OneOrMany,
    #[serde(default)]
    bos_token_id: Option<u32>,
    decoder: RawDecoder,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Deserialize)]
struct RawDecoder {
    filename: String,
    head_size: u64,
    num_hidden_layers: u64,
    num_key_value_heads: u64,
    num_attention_heads: u64,
    #[serde(default)]
    inputs: RawInputs,
    #[serde(default)]
    outputs: RawOutputs,
}

#[derive(Default, Deserialize)]
struct RawInputs {
    input_ids: Option<String>,
    attention_mask: Option<String>,
    position_ids: Option<String>,
    past_key_names: Option<String>,
    past_value_names: Option<String>,
}

#[derive(Default, Deserialize)]
struct RawOutputs {
    logits: Option<String>,
    present_key_names: Option<String>,
    present_value_names: Option<String>,
}

impl Genai {
    /// Parses and holds the numbers against reason and against the card.
    pub(super) fn parse(text: &str, path: &Path, card: &Card) -> Result<Self, Error> {
        let raw: Raw = serde_json::from_str(text).map_err(|e| Error::Syntax {
            path: path.to_owned(),
            message: e.to_string(),
        })?;
        let RawModel {
            context_length,
            vocab_size,
            eos_token_id,
            bos_token_id,
            decoder,
        } = raw.model;
        let within = |what: &str, value: u64, most: u64| -> Result<usize, Error> {
            if (1..=most).contains(&value) {
                return Ok(value as usize);
            }
            Err(Error::Card {
                path: path.to_owned(),
                message: format!("{what} is {value}: it must lie between 1 and {most}; export the model again"),
            })
        };
        // Upper bounds are far beyond any small model: they are there to keep products of them from overflowing.
        let context_length = within("context_length", context_length, 1 << 24)?;
        let vocabulary = within("vocab_size", vocab_size, 1 << 24)?;
        let head_size = within("head_size", decoder.head_size, 1 << 12)?;
        let layers = within("num_hidden_layers", decoder.num_hidden_layers, 1 << 10)?;
        let heads = within("num_attention_heads", decoder.num_attention_heads, 1 << 12)?;
        let kv_heads = within("num_key_value_heads", decoder.num_key_value_heads, 1 << 12)?;
        let fault = |message: String| {
            Err(Error::Card {
                path: path.to_owned(),
                message,
            })
        };
        if heads % kv_heads != 0 {
            return fault(format!(
                "{heads} attention heads cannot share {kv_heads} key/value heads; export the model again"
            ));
        }
        let context = card.limits.context_tokens;
        if context as usize > context_length {
            return fault(format!(
                "card.toml allows {context} tokens, the model knows {context_length} positions: lower [limits] context_tokens"
            ));
        }
        let eos = match eos_token_id {
            OneOrMany::One(id) => vec![id],
            OneOrMany::Many(ids) => ids,
        };
        if eos.is_empty() || eos.iter().any(|id| *id as usize >= vocabulary) {
            return fault(format!(
                "eos_token_id {eos:?} must be one or more ids under vocab_size ({vocabulary})"
            ));
        }
        // ONNX Runtime goes by the name's end: another one is another format, which the check of the ONNX file does not read.
        if !decoder.filename.ends_with(".onnx") {
            return fault(format!("`filename` is {:?}: name an .onnx file", decoder.filename));
        }
        let or = |name: Option<String>, default: &str| name.unwrap_or_else(|| default.to_owned());
        let (inputs, outputs) = (decoder.inputs, decoder.outputs);
        let names = Names {
            input_ids: or(inputs.input_ids, "input_ids"),
            attention_mask: or(inputs.attention_mask, "attention_mask"),
            position_ids: or(inputs.position_ids, "position_ids"),
            past_key: or(inputs.past_key_names, "past_key_values.%d.key"),
            past_value: or(inputs.past_value_names, "past_key_values.%d.value"),
            logits: or(outputs.logits, "logits"),
            present_key: or(outputs.present_key_names, "present.%d.key"),
            present_value: or(outputs.present_value_names, "present.%d.value"),
        };
        Ok(Self {
            filename: decoder.filename,
            context_length,
            layers,
            kv_heads,
            head_size,
            vocabulary,
            eos,
            bos: bos_token_id,
            names,
        })
    }
}
