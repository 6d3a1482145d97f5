//! A folder that `optimum` exported: `config.json` and `generation_config.json` as transformers writes them, and a graph with a separate past
//! and present. What they leave open (layers, heads, sizes) the graph's own inputs say.
use super::{
    Error,
    exported::{Exported, Names, Number, OneOrMany, Past, Reading},
    interface::Interface,
    manifest::Card,
};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// The ONNX file of such a folder.
pub(super) const MODEL: &str = "model.onnx";

/// Files of exports whose decoder is not one graph with one branch.
const OTHERS: [(&str, &str); 4] = [
    (
        "decoder_model_merged.onnx",
        "a merged decoder chooses between two branches by an input",
    ),
    (
        "decoder_with_past_model.onnx",
        "a decoder in two files, without and with past,",
    ),
    ("decoder_model.onnx", "a decoder in two files, without and with past,"),
    ("encoder_model.onnx", "an encoder-decoder"),
];

#[derive(Deserialize)]
struct Raw {
    max_position_embeddings: Option<u64>,
    n_positions: Option<u64>,
    vocab_size: u64,
    num_attention_heads: Option<u64>,
    eos_token_id: Option<OneOrMany>,
    bos_token_id: Option<u32>,
    sliding_window: Option<i64>,
    use_sliding_window: Option<bool>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
    original_max_position_embeddings: Option<u64>,
}

#[derive(Default, Deserialize)]
struct Rope {
    rope_type: Option<String>,
    /// What it was called before; many files have both.
    #[serde(rename = "type")]
    kind: Option<String>,
    original_max_position_embeddings: Option<u64>,
}

#[derive(Default, Deserialize)]
struct Generation {
    eos_token_id: Option<OneOrMany>,
    bos_token_id: Option<u32>,
    num_beams: Option<u64>,
}

/// Whether the card's files are of an export that is refused by its files' names alone.
pub(super) fn refused_by_name(card: &Card, path: &Path) -> Result<(), Error> {
    match OTHERS.iter().find(|(file, _)| card.files.contains_key(*file)) {
        None => Ok(()),
        Some((file, what)) => Err(Error::Card {
            path: path.to_owned(),
            message: format!(
                "[files] has \"{file}\": {what} is not supported; export with `optimum-cli export onnx --task text-generation-with-past`, \
                 which writes one {MODEL}"
            ),
        }),
    }
}

/// Reads both files (their texts, and the first one's path) and the graph's interface.
pub(super) fn parse(
    (config, path): (&str, &Path),
    (generation, generation_path): (Option<&str>, &Path),
    interface: &Interface,
    card: &Card,
) -> Result<Exported, Error> {
    let reading = Reading { path, card };
    let second = Reading {
        path: generation_path,
        card,
    };
    // Before the rest: such a configuration may lack what a decoder's has.
    let all: BTreeMap<String, Value> = reading.json(config)?;
    if all.get("is_encoder_decoder") == Some(&Value::Bool(true)) {
        return reading
            .fault("is_encoder_decoder: an encoder-decoder is not supported, only a decoder of text is".into());
    }
    let section = ["vision_config", "audio_config", "speech_config", "text_config"]
        .iter()
        .find(|s| all.contains_key(**s));
    if let Some(section) = section {
        return reading.fault(format!(
            "it has a section `{section}`: a model of images or sound is not supported, export its language model alone"
        ));
    }
    let raw: Raw = reading.json(config)?;
    let generation: Generation = generation.map_or(Ok(Generation::default()), |text| second.json(text))?;
    second.beams(generation.num_beams)?;
    reading.window(raw.sliding_window.filter(|_| raw.use_sliding_window != Some(false)))?;

    let positions = raw.max_position_embeddings.or(raw.n_positions);
    let Some(positions) = positions else {
        return reading
            .fault("it has neither `max_position_embeddings` nor `n_positions`: export the model again".into());
    };
    let context_length = reading.within("max_position_embeddings", positions, 1 << 24)?;
    reading.context(context_length)?;
    rope(&reading, &raw, positions)?;
    let vocabulary = reading.within("vocab_size", raw.vocab_size, 1 << 24)?;
    let names = Names::default();
    let layers = interface.layers(&names.past_key);
    let layers = reading.within(
        "the graph's number of `past_key_values.N.key` inputs",
        layers as u64,
        1 << 10,
    )?;
    let first = names.past_key.replace("%d", "0");
    let [_, Some(kv_heads), _, Some(head_size)] = interface.dims(&first) else {
        return reading.fault(format!(
            "`{first}` of {MODEL} must have the shape [rows, heads, positions, size] with numbers for heads and size: export with dynamic \
             axes for rows and positions alone"
        ));
    };
    let kv_heads = reading.within("the graph's number of key/value heads", kv_heads, 1 << 12)?;
    let head_size = reading.within("the graph's head size", head_size, 1 << 12)?;
    if let Some(heads) = raw.num_attention_heads {
        reading.heads(reading.within("num_attention_heads", heads, 1 << 12)?, kv_heads)?;
    }
    // transformers generates by the second file; the first one's ids are what it was made of.
    let eos = generation
        .eos_token_id
        .or(raw.eos_token_id)
        .map_or(Vec::new(), OneOrMany::into_vec);
    reading.eos(&eos, vocabulary)?;
    Ok(Exported {
        source: "config.json",
        filename: MODEL.into(),
        context_length,
        layers,
        kv_heads,
        head_size,
        vocabulary,
        eos,
        bos: generation.bos_token_id.or(raw.bos_token_id),
        past: Past::Apart { padded: false },
        number: Number::Single,
        names,
    })
}

#[derive(Deserialize)]
struct Positions {
    #[serde(default)]
    model_type: String,
    max_position_embeddings: Option<i64>,
    n_positions: Option<i64>,
    pad_token_id: Option<i64>,
}

/// Families whose first token has the position behind that of the padding token, whose own is its id.
const BEHIND_PADDING: [&str; 8] = [
    "roberta",
    "camembert",
    "xmod",
    "mpnet",
    "longformer",
    "ibert",
    "data2vec-text",
    "luke",
];

/// Holds an encoder's card to the positions that its `config.json` says; where it says none, they have no end.
pub(super) fn encoder_fits(config: &str, path: &Path, card: &Card) -> Result<(), Error> {
    let reading = Reading { path, card };
    let said: Positions = reading.json(config)?;
    let Some(positions) = said.max_position_embeddings.or(said.n_positions).filter(|p| *p > 0) else {
        return Ok(());
    };
    let unused = match BEHIND_PADDING.iter().any(|family| said.model_type.contains(family)) {
        true => said.pad_token_id.unwrap_or(1).saturating_add(1),
        false => 0,
    };
    reading.context(usize::try_from(positions.saturating_sub(unused)).unwrap_or(0))
}

/// A scaling that depends on how long the text has become is in the graph as it is for short ones.
fn rope(reading: &Reading<'_>, raw: &Raw, positions: u64) -> Result<(), Error> {
    for rope in [&raw.rope_scaling, &raw.rope_parameters].into_iter().flatten() {
        let Some(kind @ ("longrope" | "su" | "dynamic")) = rope.rope_type.as_deref().or(rope.kind.as_deref()) else {
            continue;
        };
        let original = rope
            .original_max_position_embeddings
            .or(raw.original_max_position_embeddings);
        let short = original.unwrap_or(positions);
        if u64::from(reading.card.limits.context_tokens) > short {
            return reading.fault(format!(
                "rope scaling of type `{kind}` changes after {short} positions, and the graph has what holds before: lower [limits] \
                 context_tokens to {short}"
            ));
        }
    }
    Ok(())
}
