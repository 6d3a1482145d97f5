//! A specialist's folder, checked before ONNX Runtime opens a byte of it.
//!
//! A malformed model can crash the process or read files that are not its own (external data with `..`, a symlink, a hard
//! link to somebody else's file). So [`Folder::open`] reads `specialist.toml` and `N/card.toml`, proves that every file lies
//! inside the version's folder and has the sha256 that the card lists, walks the ONNX file for external data, and holds its inputs and outputs
//! against what the exporter wrote beside it. Only what has passed is handed on. Not covered: somebody who changes the files between the check
//! and the load, and has write access to the folder.
//!
//! Reading order: [`manifest`] (the two TOML files), `check` (what they may say), `inspect` (one file), `onnx` (external
//! data, inputs and outputs; `nodes`: what is noted on the way), [`exported`] (a decoder's shape) as `genai` and `optimum` read it and `interface`
//! finds it in the graph, here (all together), `files` (whether it is still what was read), `versions` (what else the folder holds), [`draft`] (the card
//! of an export that has none).

mod check;
pub mod draft;
mod error;
pub mod exported;
mod files;
mod genai;
mod inspect;
mod interface;
pub mod manifest;
mod nodes;
mod onnx;
mod optimum;
mod versions;

pub use error::Error;
pub(crate) use files::Files;
pub use versions::Version;

use crate::{filler::slots, sampling::calibration::Calibration};
use exported::Exported;
use interface::Interface;
use manifest::{Card, Kind, Manifest, Output, TEMPLATE};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Bytes of a text file that is read into memory. The largest is tokenizer.json: a 250,000-token vocabulary takes 34 MB.
const TEXT_BYTES: u64 = 64 << 20;

/// What an output is held to.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// Anything.
    Free,
    /// A JSON Schema.
    Schema(Value),
    /// An llguidance Lark grammar.
    Lark(String),
}

/// What a task's output is held to when a request does not say otherwise.
#[derive(Debug, Clone, PartialEq)]
pub enum Held {
    /// The same for every request.
    To(Form),
    /// A Lark grammar that this file, a Jinja template, makes of each request.
    Rendered(String),
}

/// One task of the specialist, with what its card says of it.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// What decoding is held to.
    pub held: Held,
    /// File of the template of what the answer must say, if the card names one: see [`crate::constrain::required`].
    pub required: Option<String>,
    /// JSON Schema of the answer, if the card names one; decoding may be held to a grammar all the same.
    pub output_schema: Option<Value>,
    /// File of the template that makes the answer; of a tagger and a filler, and of them always.
    pub template: Option<String>,
    /// JSON Schema of a JSON prompt, if it takes one.
    pub input_schema: Option<Value>,
    /// Under this confidence score an answer should go to a larger model; 0: never.
    pub confidence_threshold: f64,
    /// From log probabilities to that score.
    pub calibration: Calibration,
    /// Which split `scores` were taken on; empty if there are none.
    pub scores_split: String,
    /// Metrics by name.
    pub scores: BTreeMap<String, f64>,
}

/// A checked folder.
#[derive(Debug, Clone)]
pub struct Folder {
    /// The folder that holds `specialist.toml`.
    pub root: PathBuf,
    /// `specialist.toml`; its `active_version` is the one that was opened.
    pub manifest: Manifest,
    /// `N/card.toml`.
    pub card: Card,
    /// The tasks, in the manifest's order.
    pub tasks: Vec<Task>,
    /// The decoder's shape, from `genai_config.json`, or from `config.json` and the graph; of a generating model only.
    pub exported: Option<Exported>,
    /// The ONNX file.
    pub model: PathBuf,
    /// Whether a text's answer would depend on what runs beside it: see `interface`.
    pub(crate) dynamic_scales: bool,
    /// What the version's files were before they were read.
    pub(crate) files: Files,
    texts: BTreeMap<String, String>,
}

impl Folder {
    /// Reads and checks `path` (the folder that holds `specialist.toml`).
    ///
    /// # Errors
    /// The first fault found; each says what to do about it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::check(path, Self::manifest(path)?)
    }

    /// The same for a version that need not be the active one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_version(path: &Path, version: u32) -> Result<Self, Error> {
        let manifest = Self::manifest(path)?;
        Self::check(
            path,
            Manifest {
                active_version: version,
                ..manifest
            },
        )
    }

    /// The same with what [`Self::manifest`] read before: the file may say something else by now.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn open_as(path: &Path, manifest: Manifest) -> Result<Self, Error> {
        Self::check(path, manifest)
    }

    /// Reads and checks `specialist.toml` alone.
    ///
    /// # Errors
    /// The first fault found in it.
    pub fn manifest(path: &Path) -> Result<Manifest, Error> {
        let manifest: Manifest = manifest::read(path, "specialist.toml")?;
        manifest.check(&path.join("specialist.toml"))?;
        Ok(manifest)
    }

    fn check(path: &Path, manifest: Manifest) -> Result<Self, Error> {
        let version = inspect::directory(path, &manifest.active_version.to_string())?;
        let files = Files::of(&version);
        let card: Card = manifest::read(&version, "card.toml")?;
        card.check(&manifest, &version.join("card.toml"))?;

        let mut checked = Checked {
            root: &version,
            card: &card,
            texts: BTreeMap::new(),
        };
        let mut exported = match card.kind {
            Kind::Generate if checked.is_optimum() => {
                optimum::refused_by_name(|file| card.files.contains_key(file), &version.join("card.toml"))?;
                None
            }
            Kind::Generate => Some(genai::parse(
                &checked.text("genai_config.json")?,
                &version.join("genai_config.json"),
                card.limits.context_tokens,
            )?),
            Kind::Classify | Kind::Embed | Kind::Tag | Kind::Fill => {
                if let Some(config) = checked.optional("config.json")? {
                    optimum::encoder_fits(&config, &version.join("config.json"), card.limits.context_tokens)?;
                }
                None
            }
        };
        let onnx = exported
            .as_ref()
            .map_or(optimum::MODEL, |e| e.filename.as_str())
            .to_owned();
        checked.listed("tokenizer.json")?;
        checked.listed(&onnx)?;
        if card.kind == Kind::Fill {
            checked.text(slots::FILE)?;
        }
        // Every listed file, needed or not: a card that lists what is not there, or is not what it says, is not to be trusted.
        for (name, sha256) in &card.files {
            inspect::matches(&version, name, sha256)?;
        }
        let interface = onnx::check(&version, &onnx, &card)?;
        if card.kind == Kind::Generate {
            let mut decoder = match exported.take() {
                Some(exported) => exported,
                None => checked.optimum(&interface)?,
            };
            interface.hold(&mut decoder, card.limits.context_tokens, &version.join(&onnx))?;
            exported = Some(decoder);
        }
        let tasks = manifest
            .tasks
            .iter()
            .map(|task| checked.task(task))
            .collect::<Result<Vec<_>, _>>()?;
        for optional in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
            checked.optional(optional)?;
        }
        let model = version.join(&onnx);
        let texts = checked.texts;
        Ok(Self {
            root: path.to_owned(),
            manifest,
            card,
            tasks,
            exported,
            model,
            dynamic_scales: interface.dynamic_scales,
            files,
            texts,
        })
    }

    /// The content of a small file that was there and matched its checksum.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// Gives up the texts: once a model is loaded, a tokenizer's is tens of megabytes that nobody reads.
    pub(crate) fn forget_texts(&mut self) {
        self.texts.clear();
    }

    /// "name@version".
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{}@{}", self.card.name, self.card.version)
    }
}

/// Text files are read once: what was hashed is what is used.
struct Checked<'a> {
    root: &'a Path,
    card: &'a Card,
    texts: BTreeMap<String, String>,
}

impl Checked<'_> {
    fn listed(&self, name: &str) -> Result<&str, Error> {
        let sha256 = self.card.files.get(name);
        if let Some(sha256) = sha256 {
            return Ok(sha256);
        }
        // A location such as `../x` is named for what it is, not for being unlisted.
        let path = inspect::inside(self.root, name)?;
        Err(Error::Unlisted { path })
    }

    fn text(&mut self, name: &str) -> Result<String, Error> {
        if let Some(text) = self.texts.get(name) {
            return Ok(text.clone());
        }
        let text = inspect::text(self.root, name, self.listed(name)?, TEXT_BYTES)?;
        self.texts.insert(name.to_owned(), text.clone());
        Ok(text)
    }

    /// A file that need not be there; but if it is, it must be listed.
    fn optional(&mut self, name: &str) -> Result<Option<String>, Error> {
        if self.card.files.contains_key(name) {
            return self.text(name).map(Some);
        }
        match self.root.join(name).symlink_metadata() {
            Err(_) => Ok(None),
            Ok(_) => Err(Error::Unlisted {
                path: self.root.join(name),
            }),
        }
    }

    /// `optimum` writes transformers' own `config.json`, and no `genai_config.json`; a folder with both is read by the latter.
    fn is_optimum(&self) -> bool {
        self.card.files.contains_key("config.json") && !self.card.files.contains_key("genai_config.json")
    }

    fn optimum(&mut self, interface: &Interface) -> Result<Exported, Error> {
        let config = self.text("config.json")?;
        let generation = self.optional("generation_config.json")?;
        let paths = ["config.json", "generation_config.json"].map(|name| self.root.join(name));
        optimum::parse(
            (&config, &paths[0]),
            (generation.as_deref(), &paths[1]),
            interface,
            self.card.limits.context_tokens,
        )
    }

    fn json(&mut self, name: &str) -> Result<Value, Error> {
        let text = self.text(name)?;
        serde_json::from_str(&text).map_err(|e| Error::Syntax {
            path: self.root.join(name),
            message: e.to_string(),
        })
    }

    fn fault(&self, message: String) -> Error {
        Error::Card {
            path: self.root.join("card.toml"),
            message,
        }
    }

    /// `[output.NAME]`, which must be of the kind.
    fn output(&self, name: &str) -> Result<Output, Error> {
        let output = self.card.output.get(name).cloned();
        let named = output.as_ref().map(|o| {
            (
                o.schema.is_some(),
                o.grammar.is_some() || o.required.is_some(),
                o.template.is_some(),
            )
        });
        let told = match (self.card.kind.templated(), named) {
            (true, Some((_, true, _))) => Some(
                "names a grammar or what is required: a tagger or a filler decodes nothing that it could hold, take it out",
            ),
            (true, None | Some((_, _, false))) => Some(
                "names no template: name the Jinja file that makes answers of what was read, as a tagger or a filler needs it for each task",
            ),
            (false, Some((_, _, true))) => {
                Some("names a template: only a tagger's and a filler's answers are made by one, take it out")
            }
            (false, Some((false, false, _))) => {
                Some("names neither a schema nor a grammar, and nothing required: name one, or take it out")
            }
            _ => None,
        };
        match told {
            Some(told) => Err(self.fault(format!("[output.{name}] {told}"))),
            None => Ok(output.unwrap_or_default()),
        }
    }

    fn task(&mut self, name: &str) -> Result<Task, Error> {
        let Output {
            schema,
            grammar,
            required,
            template,
        } = self.output(name)?;
        let input = self.card.fill.get(name).and_then(|way| way.input.clone());
        for file in [&required, &template, &input].into_iter().flatten() {
            self.text(file)?;
        }
        let output_schema = schema.map(|file| self.json(&file)).transpose()?;
        let held = match (grammar, &output_schema) {
            (Some(file), _) if file.ends_with(TEMPLATE) => {
                self.text(&file)?;
                Held::Rendered(file)
            }
            (Some(file), _) => Held::To(Form::Lark(self.text(&file)?)),
            // Such an answer has its template's form: there is no decoding to hold.
            (None, Some(schema)) if template.is_none() => Held::To(Form::Schema(schema.clone())),
            (None, _) => Held::To(Form::Free),
        };
        let input_schema = match self.card.input.get(name).map(|i| i.schema.clone()) {
            Some(file) => Some(self.json(&file)?),
            None => None,
        };
        let scores = self.card.scores.get(name);
        let calibration = self.card.calibration.get(name);
        Ok(Task {
            name: name.to_owned(),
            held,
            required,
            output_schema,
            template,
            input_schema,
            confidence_threshold: calibration.map_or(0.0, |c| c.confidence_threshold),
            calibration: match calibration.map(manifest::Calibration::map) {
                None => Calibration::default(),
                Some(map) => map.map_err(|reason| self.fault(format!("[calibration.{name}] {reason}")))?,
            },
            scores_split: scores.map(|s| s.split.clone()).unwrap_or_default(),
            scores: scores.map(|s| s.metrics()).unwrap_or_default(),
        })
    }
}
