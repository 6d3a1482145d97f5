//! The card of an export that has none. Its kind, what it may read and write, and which files it is made of are read from what the exporter wrote
//! and from the graph, by what holds a finished folder to the same; what neither says is asked for and never guessed.
//!
//! [`Draft::of`] reads the exporter's folder, in which links are followed: it is the user's own. What it names is then copied to a version's folder, where
//! [`Draft::card`] lists each file with its sum, and [`super::Folder::open`] has the last word.
mod decoder;
mod encoder;
mod graph;
mod written;

use super::{
    Error,
    interface::Interface,
    manifest::{Classify, Embed, Kind, Pooling},
    onnx,
};
use crate::prompt::CHAT;
use serde_json::Value;
use std::{
    fs, io,
    path::{Component, Path},
};
pub use written::About;

const CONFIG: &str = "config.json";
const GENAI: &str = "genai_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// What an export's card will say.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What the model does; never `Tag` or `Fill`, whose cards say what no exporter writes.
    pub kind: Kind,
    /// What its exporter calls it: "LlamaForCausalLM", or "llama".
    pub architecture: String,
    /// Prompt and answer together, in tokens.
    pub context_tokens: u32,
    /// As many as the model allows; `None` where nothing says an end.
    pub known_tokens: Option<u64>,
    /// Answer at most, in tokens; 0 of an encoder.
    pub max_new_tokens: u32,
    /// Names of the files that it is made of, from the exporter's folder.
    pub files: Vec<String>,
    /// Of a classifier.
    pub classify: Option<Classify>,
    /// Of an embedder.
    pub embed: Option<Embed>,
}

/// What an exporter may have left open, or the user wants otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said {
    /// Prompt and answer together, in tokens; at most what the model knows.
    pub context_tokens: Option<u32>,
    /// How an embedder's token vectors become one.
    pub pooling: Option<Pooling>,
}

impl Draft {
    /// Reads an exporter's folder.
    ///
    /// # Errors
    /// What cannot be served, by name; what is missing; what must be said beside it.
    pub fn of(folder: &Path, said: Said) -> Result<Self, Error> {
        let export = Export { folder, said };
        if !folder.is_dir() {
            return Err(match folder.exists() {
                false => Error::Missing {
                    path: folder.to_owned(),
                },
                true => Error::NotRegular {
                    path: folder.to_owned(),
                    wanted: "directory",
                },
            });
        }
        for (made, what) in [
            ("card.toml", "a version of a specialist"),
            ("specialist.toml", "a specialist's own folder"),
        ] {
            if export.has(made) {
                return export.fault(
                    made,
                    format!("this is {what}, which is served as it is: name the folder that has specialist.toml in [specialist.NAME] folder"),
                );
            }
        }
        export.needs(TOKENIZER)?;
        let mut draft = match export.text(GENAI)? {
            Some(genai) => export.by_genai(&genai)?,
            None => export.by_graph()?,
        };
        let texts = [TOKENIZER, TOKENIZER_CONFIG, CHAT].map(str::to_owned);
        draft.files.extend(texts.into_iter().filter(|file| export.has(file)));
        draft.files.sort();
        draft.files.dedup();
        Ok(draft)
    }
}

/// An exporter's folder.
struct Export<'a> {
    folder: &'a Path,
    said: Said,
}

impl Export<'_> {
    fn has(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    fn needs(&self, name: &str) -> Result<(), Error> {
        match self.has(name) {
            true => Ok(()),
            false => Err(Error::Missing {
                path: self.folder.join(name),
            }),
        }
    }

    fn fault<T>(&self, name: &str, message: String) -> Result<T, Error> {
        Err(Error::Card {
            path: self.folder.join(name),
            message,
        })
    }

    /// A small file's content, if it is there.
    fn text(&self, name: &str) -> Result<Option<String>, Error> {
        let path = self.folder.join(name);
        let bytes = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Unreadable { path, source }),
        };
        let limit = super::TEXT_BYTES;
        if bytes > limit {
            return Err(Error::TooLarge { path, bytes, limit });
        }
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(source) => Err(Error::Unreadable { path, source }),
        }
    }

    fn json(&self, name: &str) -> Result<Option<Value>, Error> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match serde_json::from_str(&text) {
            Ok(json) => Ok(Some(json)),
            Err(e) => Err(Error::Syntax {
                path: self.folder.join(name),
                message: e.to_string(),
            }),
        }
    }

    /// The graph `name`, and the files that it and its weights are.
    fn graph(&self, name: &str) -> Result<(Interface, Vec<String>), Error> {
        self.stays(name)?;
        self.needs(name)?;
        let (interface, data) = onnx::read(self.folder, name)?;
        let files: Vec<String> = [name.to_owned()].into_iter().chain(data).collect();
        for file in &files {
            self.stays(file)?;
            self.needs(file)?;
        }
        Ok((interface, files))
    }

    /// Refuses a name that leaves the folder.
    fn stays(&self, name: &str) -> Result<(), Error> {
        let mut steps = Path::new(name).components();
        match !name.is_empty() && steps.all(|step| matches!(step, Component::Normal(_))) {
            true => Ok(()),
            false => Err(Error::Escapes {
                root: self.folder.to_owned(),
                name: name.to_owned(),
            }),
        }
    }

    /// Tokens of a text: as many as the user says, or else as the model knows, up to `most`. `source` says how many it knows.
    fn context(&self, source: &str, known: Option<u64>, most: u64) -> Result<u32, Error> {
        let refused =
            |most: u64| format!("the model knows {most} positions: give at most as many with --context-tokens");
        match (self.said.context_tokens, known) {
            (Some(said), Some(known)) if u64::from(said) > known => self.fault(source, refused(known)),
            (Some(said), _) => Ok(said),
            // At least the one token that a card must allow: an absurd number is refused with the whole card.
            (None, known) => Ok(u32::try_from(known.unwrap_or(most).min(most))
                .unwrap_or(u32::MAX)
                .max(1)),
        }
    }
}

/// What an exporter calls its model.
fn architecture(config: &Value) -> String {
    let named = config["architectures"][0].as_str();
    let named = named
        .or_else(|| config["model_type"].as_str())
        .or_else(|| config["type"].as_str());
    named.unwrap_or("a model").to_owned()
}
