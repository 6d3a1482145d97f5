//! `specialist.toml` and `card.toml`: ours, so an unknown key is a typo and refused with its line. What their values must be
//! is in `check`.
use super::{Error, inspect};
use crate::sampling::calibration::{self, Statistic};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, path::Path};

/// Bytes of a TOML file of ours: a card with a page of training notes is 10 KB.
const TOML_BYTES: u64 = 1 << 20;

/// `specialist.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The specialist's name.
    pub name: String,
    /// Tasks that it serves, at least one.
    pub tasks: Vec<String>,
    /// Which version folder is served.
    pub active_version: u32,
}

/// What the model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Text from text, token by token.
    Generate,
    /// Labels.
    Classify,
    /// Vectors.
    Embed,
    /// Text from text, or from an object's fields, in one run: a class and spans, put into words by a template.
    Tag,
    /// Text from an object's methods and conversation, in one run: calls, put into words by a template.
    Fill,
}

impl Kind {
    /// Whether a template makes its answers.
    #[must_use]
    pub fn templated(self) -> bool {
        matches!(self, Self::Tag | Self::Fill)
    }

    /// As the card and `Describe` write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Classify => "classify",
            Self::Embed => "embed",
            Self::Tag => "tag",
            Self::Fill => "fill",
        }
    }
}

/// `card.toml`: one version of a model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The specialist's name, as in the manifest.
    pub name: String,
    /// This version, as in the folder's name.
    pub version: u32,
    /// What the model does.
    pub kind: Kind,
    /// One line.
    pub description: String,
    /// SPDX id.
    pub licence: String,
    /// Sizes.
    pub limits: Limits,
    /// What a call costs.
    #[serde(default)]
    pub price: Price,
    /// Form of the output, by task.
    #[serde(default)]
    pub output: BTreeMap<String, Output>,
    /// Form of the input, by task.
    #[serde(default)]
    pub input: BTreeMap<String, Input>,
    /// When to doubt an answer, by task.
    #[serde(default)]
    pub calibration: BTreeMap<String, Calibration>,
    /// Evaluation, by task.
    #[serde(default)]
    pub scores: BTreeMap<String, Scores>,
    /// Free notes on how it was trained.
    #[serde(default)]
    pub training: toml::Table,
    /// What it was trained on.
    #[serde(default)]
    pub data: Vec<Data>,
    /// sha256 of every file, by name relative to the version's folder.
    pub files: BTreeMap<String, String>,
    /// Of a classifier.
    pub classify: Option<Classify>,
    /// Of an embedder.
    pub embed: Option<Embed>,
    /// Of a tagger.
    pub tag: Option<Tag>,
    /// Of a filler, by task.
    #[serde(default)]
    pub fill: BTreeMap<String, Filling>,
}

/// Sizes, in tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Prompt and answer together.
    pub context_tokens: u32,
    /// Answer at most; 0 for encoders. Of a tagger or a filler it must be 0: its answers are not decoded.
    #[serde(default)]
    pub max_new_tokens: u32,
}

/// US dollars per million tokens.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Prompt tokens.
    pub input_usd_per_million_tokens: f64,
    /// Generated tokens.
    pub output_usd_per_million_tokens: f64,
}

/// Form of a task's output: a schema, a grammar, or both, and what must be said; of a tagger or a filler a template, and a schema if it is
/// JSON.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// File with a JSON Schema: what the answer is. It holds decoding too, if there is no grammar.
    pub schema: Option<String>,
    /// File with a Lark grammar, which holds decoding; if its name ends in [`TEMPLATE`], a Jinja template of one.
    pub grammar: Option<String>,
    /// File with the Jinja template of what an answer must say: see [`crate::constrain::required`]. Of models that decode alone.
    pub required: Option<String>,
    /// File with the Jinja template that makes a tagger's or a filler's answer: see [`crate::tagger::answer`] and
    /// [`crate::filler::answer`]. Of no other kind.
    pub template: Option<String>,
}

/// How the name of a grammar template ends.
pub const TEMPLATE: &str = ".lark.jinja";

/// Form of a task's JSON input.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// File with a JSON Schema.
    pub schema: String,
}

/// When to doubt an answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Under this confidence score an answer should go to a larger model.
    pub confidence_threshold: f64,
    /// What `knots` map; given with them or not at all.
    pub statistic: Option<Statistic>,
    /// (statistic, probability of being right), ascending; without them the score is exp of the mean log probability.
    pub knots: Option<Vec<[f64; 2]>>,
    /// Share of answers at or over the threshold, when it was chosen. Told, not used.
    pub coverage: Option<f64>,
    /// Accuracy of those. Told, not used.
    pub accuracy_kept: Option<f64>,
    /// Mean distance between score and share of right answers, on rows that the map was not fitted on. Told, not used.
    pub expected_calibration_error: Option<f64>,
    /// What of it a map without fault would show on as many rows, by chance. Told, not used.
    pub calibration_error_floor: Option<f64>,
}

impl Calibration {
    /// The map from log probabilities to the score.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn map(&self) -> Result<calibration::Calibration, String> {
        match (self.statistic, &self.knots) {
            (None, None) => Ok(calibration::Calibration::default()),
            (Some(statistic), Some(knots)) => calibration::Calibration::new(statistic, knots),
            (Some(_), None) => Err("`statistic` without `knots` maps nothing: give both or neither".into()),
            (None, Some(_)) => Err(
                "`knots` without `statistic`: say what they map, \"mean_logprob\", \"sum_logprob\" or \"min_logprob\""
                    .into(),
            ),
        }
    }
}

/// An evaluation: split, rows, and any number of metrics.
#[derive(Debug, Clone, Deserialize)]
pub struct Scores {
    /// For example "dev".
    pub split: String,
    /// Rows evaluated.
    #[serde(default)]
    pub rows: u64,
    #[serde(flatten)]
    rest: BTreeMap<String, f64>,
}

impl Scores {
    /// Metrics by the names of score.py.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        self.rest.clone()
    }
}

/// A corpus.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Its name.
    pub name: String,
    /// Where it is from.
    pub source: String,
    /// SPDX id.
    pub licence: String,
    /// Of the file that was used.
    #[serde(default)]
    pub sha256: String,
}

/// Of a classifier.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classify {
    /// Names of the model's outputs, in its order.
    pub labels: Vec<String>,
    /// Least score of a label, by name; others have none. A label under its own comes after all that are not: with one for
    /// every label but "other", an unsure text is "other".
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub thresholds: BTreeMap<String, f64>,
}

/// How an embedder's token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean of the tokens that are not padding.
    Mean,
    /// The first token.
    Cls,
    /// The last token that is not padding.
    Last,
}

/// Of an embedder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embed {
    /// How token vectors become one.
    pub pooling: Pooling,
    /// Whether vectors have unit length.
    #[serde(default)]
    pub normalise: bool,
    /// Length of a vector.
    pub dimensions: u32,
}

/// Of a tagger: joint sequence classification and token tagging (joint BERT: Chen, Zhuo and Wang, arXiv 1902.10909).
///
/// Its `model.onnx` gives `tag_logits: [rows, tokens, 1 + 2 * labels] f32`, in the order O, B-label, I-label, B-label, I-label, ...
/// and, if there are classes, `class_logits: [rows, classes] f32`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Names of the model's class outputs, in its order. Empty: it has none.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Names of what spans are, in the model's order, at least one.
    pub labels: Vec<String>,
    /// Labels that a class may have, by class. A class that is not listed may have all.
    #[serde(default)]
    pub allowed: BTreeMap<String, Vec<String>>,
    /// Which fields of an object it reads. Without them it reads texts.
    pub input: Option<TagInput>,
}

/// The fields of an object that a tagger reads; others may be there and are not looked at. With `before` the tokenizer's
/// post-processor puts the two texts together.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagInput {
    /// The text whose runs are spans.
    pub text: String,
    /// A text that was said before it: read, and never part of a span.
    pub before: Option<String>,
    /// A list of the labels that may be found this time. Names that the model does not know are not looked at.
    pub labels: Option<String>,
}

/// A filler's task: schema-guided slot filling ([`crate::filler`]). It names the fields of an object that are read; others may be there
/// and are not looked at. What calls may hold is in `slots.json` beside the model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filling {
    /// `{service: {method: [parameter, ...]}}`.
    pub methods: String,
    /// What was said: texts of the user, or `{"speaker": "user" or "system", "text"}`.
    pub turns: String,
    /// Whether a value may be what an earlier call returned.
    pub references: bool,
    /// Probability from which on a method is called, over 0 and under 1.
    #[serde(default = "even")]
    pub called: f64,
    /// The file of the Jinja that makes such an object, as JSON, of an input that is none: of `input`, a text or an object. Without it the
    /// input is such an object itself.
    pub input: Option<String>,
    /// Whether exactly one method is called, the likeliest.
    #[serde(default)]
    pub single: bool,
    /// Whether a value is nothing but a run of the last turn's words.
    #[serde(default)]
    pub literal: bool,
}

fn even() -> f64 {
    0.5
}

/// Reads one of the two files.
pub(super) fn read<T: DeserializeOwned>(root: &Path, name: &str) -> Result<T, Error> {
    let (path, text) = inspect::unlisted(root, name, TOML_BYTES)?;
    toml::from_str(&text).map_err(|e| Error::Syntax {
        path,
        message: e.to_string().trim_end().to_owned(),
    })
}
