//! `specialist.toml` and `card.toml`: ours, so an unknown key is a typo and refused with its line.
use super::{Error, inspect};
use serde::{Deserialize, de::DeserializeOwned};
use std::{collections::BTreeMap, path::Path};

/// Bytes of a TOML file of ours: a card with a page of training notes is 10 KB.
const TOML_BYTES: u64 = 1 << 20;

/// `specialist.toml`.
#[derive(Debug, Clone, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Text from text, token by token.
    Generate,
    /// Labels.
    Classify,
    /// Vectors.
    Embed,
}

impl Kind {
    /// As the card and `Describe` write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Classify => "classify",
            Self::Embed => "embed",
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
}

/// Sizes, in tokens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Prompt and answer together.
    pub context_tokens: u32,
    /// Answer at most; 0 for encoders.
    #[serde(default)]
    pub max_new_tokens: u32,
}

/// US dollars per million tokens.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Prompt tokens.
    pub input_usd_per_million_tokens: f64,
    /// Generated tokens.
    pub output_usd_per_million_tokens: f64,
}

/// Form of a task's output: one of the two.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// File with a JSON Schema.
    pub schema: Option<String>,
    /// File with a Lark grammar.
    pub grammar: Option<String>,
}

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
    /// Share of answers at or over the threshold, when it was chosen.
    pub coverage: Option<f64>,
    /// Accuracy of those.
    pub accuracy_kept: Option<f64>,
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
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classify {
    /// Names of the model's outputs, in its order.
    pub labels: Vec<String>,
}

/// How an embedder's token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Clone, Deserialize)]
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

/// Reads one of the two files.
pub(super) fn read<T: DeserializeOwned>(root: &Path, name: &str) -> Result<T, Error> {
    let (path, text) = inspect::unlisted(root, name, TOML_BYTES)?;
    toml::from_str(&text).map_err(|e| Error::Syntax {
        path,
        message: e.to_string().trim_end().to_owned(),
    })
}

/// Names go into metrics, file names and plan text.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl Manifest {
    pub(super) fn check(&self, path: &Path) -> Result<(), Error> {
        let fault = |message: String| {
            Err(Error::Card {
                path: path.to_owned(),
                message,
            })
        };
        if let Some(bad) = [&self.name].into_iter().chain(&self.tasks).find(|n| !is_name(n)) {
            return fault(format!("`{bad}` is no name: use 1 to 64 letters, digits, `_` and `-`"));
        }
        if self.tasks.is_empty() {
            return fault("`tasks` is empty: name at least one task".into());
        }
        if (1..self.tasks.len()).any(|i| self.tasks[..i].contains(&self.tasks[i])) {
            return fault("`tasks` names a task twice".into());
        }
        Ok(())
    }
}

impl Card {
    pub(super) fn check(&self, manifest: &Manifest, path: &Path) -> Result<(), Error> {
        let fault = |message: String| {
            Err(Error::Card {
                path: path.to_owned(),
                message,
            })
        };
        if (self.name.as_str(), self.version) != (manifest.name.as_str(), manifest.active_version) {
            let (is, wanted) = (
                format!("{}@{}", self.name, self.version),
                format!("{}@{}", manifest.name, manifest.active_version),
            );
            return fault(format!(
                "the card is of {is}, the folder of {wanted}: make `name` and `version` agree"
            ));
        }
        let tables = self
            .output
            .keys()
            .chain(self.input.keys())
            .chain(self.calibration.keys())
            .chain(self.scores.keys());
        if let Some(stray) = tables.into_iter().find(|t| !manifest.tasks.contains(t)) {
            return fault(format!(
                "a table is of task `{stray}`, which specialist.toml does not serve"
            ));
        }
        let prices = [
            self.price.input_usd_per_million_tokens,
            self.price.output_usd_per_million_tokens,
        ];
        if prices.iter().any(|p| !p.is_finite() || *p < 0.0) {
            return fault("[price] must be 0 or more US dollars".into());
        }
        if self
            .calibration
            .values()
            .any(|c| !(0.0..=1.0).contains(&c.confidence_threshold))
        {
            return fault("confidence_threshold must lie between 0 and 1".into());
        }
        if let Some((name, _)) = self
            .files
            .iter()
            .find(|(_, sum)| sum.len() != 64 || !sum.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return fault(format!("[files] \"{name}\" must be a sha256 in 64 hex digits"));
        }
        if self.limits.context_tokens == 0 {
            return fault("[limits] context_tokens must be 1 or more".into());
        }
        match (self.kind, &self.classify, &self.embed) {
            (Kind::Generate, None, None) => {
                let (new, context) = (self.limits.max_new_tokens, self.limits.context_tokens);
                if new == 0 || new >= context {
                    return fault(format!(
                        "[limits] max_new_tokens is {new}: it must lie between 1 and context_tokens ({context}), less one"
                    ));
                }
                Ok(())
            }
            (Kind::Classify, Some(c), None) if !c.labels.is_empty() => Ok(()),
            (Kind::Embed, None, Some(e)) if e.dimensions > 0 => Ok(()),
            (kind, ..) => fault(format!(
                "kind is \"{}\": give [classify] labels for \"classify\", [embed] for \"embed\", neither for \"generate\"",
                kind.name()
            )),
        }
    }
}
