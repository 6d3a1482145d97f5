//! `genai_config.json`: the shape of an exported decoder, as `onnxruntime_genai.models.builder` writes it.
//!
//! It is not ours, so keys that we do not use are passed over, but for those of models that this engine would decode wrongly. What we use
//! decides buffer sizes and must be sane.
use super::{
    Error,
    exported::{Exported, Names, Number, OneOrMany, Past, Reading, within_window},
};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

#[derive(Deserialize)]
struct Raw {
    model: RawModel,
    #[serde(default)]
    search: RawSearch,
}

#[derive(Default, Deserialize)]
struct RawSearch {
    past_present_share_buffer: Option<bool>,
    num_beams: Option<u64>,
}

#[derive(Deserialize)]
struct RawModel {
    context_length: u64,
    vocab_size: u64,
    eos_token_id: OneOrMany,
    #[serde(default)]
    bos_token_id: Option<u32>,
    decoder: RawDecoder,
    /// Sections of other models beside the decoder, and keys that are of no use here.
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
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
    sliding_window: Option<RawWindow>,
    pipeline: Option<Value>,
}

#[derive(Deserialize)]
struct RawWindow {
    window_size: Option<i64>,
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

/// Sections of `model` that stand for a model beside the decoder, and what such a model is.
const BESIDE: [(&str, &str); 6] = [
    ("encoder", "an encoder-decoder"),
    ("encoder_decoder_init", "an encoder-decoder"),
    ("vision", "a model of images"),
    ("speech", "a model of sound"),
    ("embedding", "a model whose embeddings are a graph of their own"),
    ("draft", "a model with a draft model"),
];

/// Positions that a text may have: those that the model knows, within its window.
pub(super) fn positions(text: &str, path: &Path) -> Result<u64, Error> {
    let reading = Reading {
        path,
        context_tokens: 1,
    };
    let Raw { model, .. } = reading.json(text)?;
    let window = model.decoder.sliding_window.and_then(|w| w.window_size);
    Ok(within_window(model.context_length, window))
}

/// Parses and holds the numbers against reason and against `context_tokens`. What only the graph says is filled in by `interface`.
pub(super) fn parse(text: &str, path: &Path, context_tokens: u32) -> Result<Exported, Error> {
    let reading = Reading { path, context_tokens };
    let Raw { model, search } = reading.json(text)?;
    let RawModel {
        context_length,
        vocab_size,
        eos_token_id,
        bos_token_id,
        decoder,
        more,
    } = model;
    if let Some((section, what)) = BESIDE
        .iter()
        .find(|(section, _)| more.get(*section).is_some_and(Value::is_object))
    {
        return reading.fault(format!(
            "it has a section `{section}`: {what} is not supported, only a decoder of text is"
        ));
    }
    if decoder.pipeline.is_some() {
        return reading
            .fault("it has a `pipeline`: a decoder in several files is not supported, export it as one".into());
    }
    reading.window(decoder.sliding_window.and_then(|w| w.window_size))?;
    reading.beams(search.num_beams)?;
    let context_length = reading.within("context_length", context_length, 1 << 24)?;
    let vocabulary = reading.within("vocab_size", vocab_size, 1 << 24)?;
    let head_size = reading.within("head_size", decoder.head_size, 1 << 12)?;
    let layers = reading.within("num_hidden_layers", decoder.num_hidden_layers, 1 << 10)?;
    let heads = reading.within("num_attention_heads", decoder.num_attention_heads, 1 << 12)?;
    let kv_heads = reading.within("num_key_value_heads", decoder.num_key_value_heads, 1 << 12)?;
    reading.heads(heads, kv_heads)?;
    reading.context(context_length)?;
    let eos = eos_token_id.into_vec();
    reading.eos(&eos, vocabulary)?;
    // ONNX Runtime goes by the name's end: another one is another format, which the check of the ONNX file does not read.
    if !decoder.filename.ends_with(".onnx") {
        return reading.fault(format!("`filename` is {:?}: name an .onnx file", decoder.filename));
    }
    let (inputs, outputs, usual) = (decoder.inputs, decoder.outputs, Names::default());
    let names = Names {
        input_ids: inputs.input_ids.unwrap_or(usual.input_ids),
        attention_mask: inputs.attention_mask.unwrap_or(usual.attention_mask),
        position_ids: inputs.position_ids.unwrap_or(usual.position_ids),
        past_key: inputs.past_key_names.unwrap_or(usual.past_key),
        past_value: inputs.past_value_names.unwrap_or(usual.past_value),
        logits: outputs.logits.unwrap_or(usual.logits),
        present_key: outputs.present_key_names.unwrap_or(usual.present_key),
        present_value: outputs.present_value_names.unwrap_or(usual.present_value),
    };
    Ok(Exported {
        source: "genai_config.json",
        filename: decoder.filename,
        context_length,
        layers,
        kv_heads,
        head_size,
        vocabulary,
        eos,
        bos: bos_token_id,
        past: match search.past_present_share_buffer {
            Some(false) => Past::Apart { padded: false },
            // Configurations older than the key are of graphs that share.
            Some(true) | None => Past::InPlace,
        },
        number: Number::Single,
        names,
    })
}
