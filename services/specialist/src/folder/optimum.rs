//! A folder that `optimum` exported: `config.json` and `generation_config.json` as transformers writes them, and a graph with a separate past
//! and present. What they leave open (layers, heads, sizes) the graph's own inputs say.
use super::{
    Error,
    exported::{Exported, Names, Number, OneOrMany, Past, Reading, within_window},
    interface::Interface,
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

/// Whether an export is refused by its files' names alone; `path` is what has them, a card or a folder.
pub(super) fn refused_by_name(has: impl Fn(&str) -> bool, path: &Path) -> Result<(), Error> {
    match OTHERS.iter().find(|(file, _)| has(file)) {
        None => Ok(()),
        Some((file, what)) => Err(Error::Card {
            path: path.to_owned(),
            message: format!(
                "it has \"{file}\" among its files: {what} is not supported; export with `optimum-cli export onnx --task \
                 text-generation-with-past`, which writes one {MODEL}"
            ),
        }),
    }
}

/// Refuses what is no decoder of text by what its `config.json` has. Before the rest: such a configuration may lack what a decoder's has.
fn refused_by_sections(reading: &Reading<'_>, config: &str) -> Result<(), Error> {
    let all: BTreeMap<String, Value> = reading.json(config)?;
    if all.get("is_encoder_decoder") == Some(&Value::Bool(true)) {
        return reading
            .fault("is_encoder_decoder: an encoder-decoder is not supported, only a decoder of text is".into());
    }
    let section = ["vision_config", "audio_config", "speech_config", "text_config"]
        .iter()
        .find(|s| all.contains_key(**s));
    match section {
        Some(section) => reading.fault(format!(
            "it has a section `{section}`: a model of images or sound is not supported, export its language model alone"
        )),
        None => Ok(()),
    }
}

/// Positions that a text may have: those that a decoder knows, within its window, as long as its rotary positions are what the graph has.
pub(super) fn positions(config: &str, path: &Path) -> Result<u64, Error> {
    let reading = Reading {
        path,
        context_tokens: 1,
    };
    refused_by_sections(&reading, config)?;
    let raw: Raw = reading.json(config)?;
    let known = raw.known(&reading)?;
    let scaled = raw.scaled(known).map(|(_, short)| short);
    Ok(within_window(
        scaled.min().map_or(known, |short| short.min(known)),
        raw.window(),
    ))
}

/// Reads both files (their texts, and the first one's path) and the graph's interface.
pub(super) fn parse(
    (config, path): (&str, &Path),
    (generation, generation_path): (Option<&str>, &Path),
    interface: &Interface,
    context_tokens: u32,
) -> Result<Exported, Error> {
    let reading = Reading { path, context_tokens };
    let second = Reading {
        path: generation_path,
        context_tokens,
    };
    refused_by_sections(&reading, config)?;
    let raw: Raw = reading.json(config)?;
    let generation: Generation = generation.map_or(Ok(Generation::default()), |text| second.json(text))?;
    second.beams(generation.num_beams)?;
    reading.window(raw.window())?;

    let positions = raw.known(&reading)?;
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

/// Positions that an encoder's text may have, as its `config.json` says; where it says none, they have no end.
pub(super) fn encoder_positions(config: &str, path: &Path) -> Result<Option<u64>, Error> {
    let reading = Reading {
        path,
        context_tokens: 1,
    };
    let said: Positions = reading.json(config)?;
    let Some(positions) = said.max_position_embeddings.or(said.n_positions).filter(|p| *p > 0) else {
        return Ok(None);
    };
    let unused = match BEHIND_PADDING.iter().any(|family| said.model_type.contains(family)) {
        true => said.pad_token_id.unwrap_or(1).saturating_add(1),
        false => 0,
    };
    Ok(Some(u64::try_from(positions.saturating_sub(unused)).unwrap_or(0)))
}

/// Holds an encoder's card to them.
pub(super) fn encoder_fits(config: &str, path: &Path, context_tokens: u32) -> Result<(), Error> {
    match encoder_positions(config, path)? {
        Some(positions) => Reading { path, context_tokens }.context(usize::try_from(positions).unwrap_or(usize::MAX)),
        None => Ok(()),
    }
}

impl Raw {
    /// Positions that the model knows.
    fn known(&self, reading: &Reading<'_>) -> Result<u64, Error> {
        match self.max_position_embeddings.or(self.n_positions) {
            Some(positions) => Ok(positions),
            None => reading
                .fault("it has neither `max_position_embeddings` nor `n_positions`: export the model again".into()),
        }
    }

    /// Its sliding window, unless that is switched off.
    fn window(&self) -> Option<i64> {
        self.sliding_window.filter(|_| self.use_sliding_window != Some(false))
    }

    /// Scalings that depend on how long the text has become, and up to where the graph has what holds: it is traced with a short one.
    fn scaled(&self, positions: u64) -> impl Iterator<Item = (&str, u64)> {
        let ropes = [&self.rope_scaling, &self.rope_parameters].into_iter().flatten();
        ropes.filter_map(move |rope| {
            let kind = rope.rope_type.as_deref().or(rope.kind.as_deref())?;
            let original = rope.original_max_position_embeddings;
            let short = original.or(self.original_max_position_embeddings).unwrap_or(positions);
            matches!(kind, "longrope" | "su" | "dynamic").then_some((kind, short))
        })
    }
}

/// Refuses a context over which a scaling changes.
fn rope(reading: &Reading<'_>, raw: &Raw, positions: u64) -> Result<(), Error> {
    for (kind, short) in raw.scaled(positions) {
        if u64::from(reading.context_tokens) > short {
            return reading.fault(format!(
                "rope scaling of type `{kind}` changes after {short} positions, and the graph has what holds before: lower [limits] \
                 context_tokens to {short}"
            ));
        }
    }
    Ok(())
}
