//! One loaded model: its folder, and what runs it.
use crate::{
    encoder::{self, Encoder},
    engine::{Engine, Ticket, queue::Urgency},
    error::Error,
    filler::{self, Filler},
    folder::{Folder, Form, Task, manifest::Kind},
    generator::Generator,
    prompt::Prompt,
    runtime::{self, OrtEncoder},
    sampling::Sampling,
    tagger::{self, Tagger},
    telemetry::Counters,
};
use serde_json::Value;
use shoal_kit::config;
use shoal_proto::v1;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokenizers::Tokenizer;
use tokio_util::sync::CancellationToken;
use tracing::Span;

/// Why a specialist did not start. None can be mended by trying again.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Mend the folder.
    #[error(transparent)]
    Folder(#[from] crate::folder::Error),
    /// Mend a file of the folder.
    #[error("{file} of {model}: {message}")]
    File {
        /// "name@version".
        model: String,
        /// Which file.
        file: String,
        /// What is wrong.
        message: String,
    },
    /// Mend ONNX Runtime, or the model.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The operating system had no thread to give.
    #[error("no thread for the model: {0}")]
    Thread(#[from] std::io::Error),
}

/// The token that a model was trained to pass over where a text has ended: most graphs are told by `attention_mask`, but a classifier of the decoder
/// types looks for the last token that is not this one.
fn pad_token(tokenizer: &Tokenizer, folder: &Folder) -> u32 {
    if let Some(padding) = tokenizer.get_padding() {
        return padding.pad_id;
    }
    let config = folder.text("tokenizer_config.json");
    let config: Value = config
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let entry = &config["pad_token"];
    let token = entry.as_str().or_else(|| entry["content"].as_str());
    token.and_then(|token| tokenizer.token_to_id(token)).unwrap_or(0)
}

/// What to generate, before it is tokenized.
#[derive(Debug)]
pub struct Ask {
    /// A task of the model; empty if it has only one.
    pub task: String,
    /// The prompt.
    pub prompt: Prompt,
    /// How to decode.
    pub sampling: Sampling,
    /// What the output is held to; `None`: what the card says of the task.
    pub form: Option<Form>,
    /// How soon the answer is wanted.
    pub urgency: Urgency,
    /// The span that `prefill` and `decode` become children of.
    pub span: Span,
}

/// A loaded model.
#[derive(Debug)]
pub struct Specialist {
    folder: Folder,
    model: Model,
    provider: config::Provider,
    library: PathBuf,
}

#[derive(Debug)]
enum Model {
    Generator(Box<Generator>),
    Encoder(Box<Encoder>),
    Tagger(Box<Tagger>),
    Filler(Box<Filler>),
}

impl Specialist {
    /// Checks and loads the folder at `path`.
    ///
    /// # Errors
    /// As [`Folder::open`] and [`Self::of`].
    pub fn load(path: &Path, config: &config::Specialist, library: &Path) -> Result<Self, LoadError> {
        Self::of(Folder::open(path)?, config, library)
    }

    /// Loads a checked folder. Nothing of ONNX Runtime is touched before all its texts have been read.
    ///
    /// # Errors
    /// The first fault, saying what to do.
    pub fn of(mut folder: Folder, config: &config::Specialist, library: &Path) -> Result<Self, LoadError> {
        let text = folder.text("tokenizer.json").unwrap_or_default();
        let mut tokenizer = Tokenizer::from_bytes(text).map_err(|e| LoadError::File {
            model: folder.identity(),
            file: "tokenizer.json".into(),
            message: e.to_string(),
        })?;
        let pad_token = pad_token(&tokenizer, &folder);
        // Cutting and padding are ours: a file's own settings, which are whatever it was last used with, would hide a text that does not fit.
        let _ = tokenizer.with_truncation(None);
        tokenizer.with_padding(None);
        let options = runtime::Options {
            provider: config.provider,
            intra_op_threads: config.intra_op_threads.max(1),
            // Where no budget was settled, as one that is alone on its machine.
            spin: config.spin.unwrap_or(config.intra_op_threads > 1),
            steps: folder.exported.is_some(),
            gpu_mem_limit_bytes: usize::try_from(config.gpu_mem_limit_mb.saturating_mul(1 << 20)).unwrap_or(usize::MAX),
            pad_token,
        };
        let model = match &folder.exported {
            None if folder.card.kind == Kind::Tag => {
                let tagger = tagger::load(&folder, tokenizer, config, library, &options)?;
                Model::Tagger(Box::new(tagger))
            }
            None if folder.card.kind == Kind::Fill => {
                let filler = filler::load(&folder, tokenizer, config, library, &options)?;
                Model::Filler(Box::new(filler))
            }
            None => {
                let outputs = [encoder::outputs(folder.card.kind)];
                let model = OrtEncoder::open(library, &folder.model, &[], &outputs, &options)?;
                let encoder = Encoder::start(&folder, tokenizer, model, config.queue_tokens)?;
                Model::Encoder(Box::new(encoder))
            }
            Some(exported) => {
                let generator = Generator::load(&folder, exported, tokenizer, config, library, &options)?;
                Model::Generator(Box::new(generator))
            }
        };
        folder.forget_texts();
        Ok(Self {
            folder,
            model,
            provider: config.provider,
            library: library.to_owned(),
        })
    }

    /// The checked folder; its texts are gone.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// "name@version".
    #[must_use]
    pub fn identity(&self) -> String {
        self.folder.identity()
    }

    /// Where it runs.
    #[must_use]
    pub fn provider(&self) -> config::Provider {
        self.provider
    }

    /// The ONNX Runtime that it was loaded with: a process can hold one.
    pub(crate) fn library(&self) -> &Path {
        &self.library
    }

    /// The slot engine, of a model that decodes.
    #[must_use]
    pub fn engine(&self) -> Option<&Engine> {
        match &self.model {
            Model::Generator(generator) => Some(generator.engine()),
            Model::Encoder(_) | Model::Tagger(_) | Model::Filler(_) => None,
        }
    }

    /// Time inside ONNX Runtime's own runs so far, of a model that decodes: what is left of a round is the engine's.
    #[must_use]
    pub fn inside_runtime(&self) -> Option<Duration> {
        match &self.model {
            Model::Generator(generator) => Some(generator.inside()),
            Model::Encoder(_) | Model::Tagger(_) | Model::Filler(_) => None,
        }
    }

    /// What it did so far; lives on when the model is gone.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        match &self.model {
            Model::Generator(generator) => generator.engine().counters(),
            Model::Tagger(tagger) => tagger.counters(),
            Model::Filler(filler) => filler.counters(),
            Model::Encoder(encoder) => encoder.counters(),
        }
    }

    /// Cancelled when the thread that runs the model has ended: there are no answers after that.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        match &self.model {
            Model::Generator(generator) => generator.engine().stopped(),
            Model::Encoder(encoder) => encoder.stopped(),
            Model::Tagger(tagger) => tagger.stopped(),
            Model::Filler(filler) => filler.stopped(),
        }
    }

    /// US dollars for so many tokens.
    #[must_use]
    pub fn cost_usd(&self, input_tokens: usize, output_tokens: usize) -> f64 {
        let price = &self.folder.card.price;
        (input_tokens as f64 * price.input_usd_per_million_tokens
            + output_tokens as f64 * price.output_usd_per_million_tokens)
            / 1e6
    }

    /// The task named, or the only one.
    ///
    /// # Errors
    /// `Invalid`, naming the tasks that there are.
    pub fn task(&self, name: &str) -> Result<&Task, Error> {
        let tasks = &self.folder.tasks;
        let found = match (name, &tasks[..]) {
            ("", [only]) => Some(only),
            _ => tasks.iter().find(|t| t.name == name),
        };
        found.ok_or_else(|| {
            let all: Vec<_> = tasks.iter().map(|t| t.name.as_str()).collect();
            Error::invalid(
                "task",
                format!(
                    "`{name}` is no task of {}; it serves {}",
                    self.identity(),
                    all.join(", ")
                ),
            )
        })
    }

    /// Reads the contract's form of a prompt; the work of a long one is done aside, and one that no context holds is refused by its bytes.
    ///
    /// # Errors
    /// `Unsupported` of a classifier or an embedder, `Invalid`, with the field, `Busy` when too much waits to be read, `Expired`.
    pub async fn prompt(&self, wire: Option<v1::Prompt>, urgency: Urgency) -> Result<Prompt, Error> {
        match &self.model {
            Model::Generator(generator) => generator.prompt(wire, urgency).await,
            Model::Tagger(tagger) => tagger.prompt(wire, urgency).await,
            Model::Filler(filler) => filler.prompt(wire, urgency).await,
            Model::Encoder(_) => Err(self.unsupported("generate")),
        }
    }

    /// Reads and queues a request: renders, tokenizes, compiles the grammar that it may need. A tagger and a filler tokenize alone.
    ///
    /// # Errors
    /// `Unsupported` of a classifier or an embedder, `Invalid` for what the request says, `Busy` when a queue is full, `Expired`.
    pub async fn generate(&self, ask: Ask) -> Result<Ticket, Error> {
        match &self.model {
            Model::Generator(generator) => {
                let task = self.task(&ask.task)?;
                generator.generate(ask, task).await
            }
            Model::Tagger(tagger) => {
                let task = self.task(&ask.task)?;
                tagger.generate(ask, task).await
            }
            Model::Filler(filler) => {
                let task = self.task(&ask.task)?;
                filler.generate(ask, task).await
            }
            Model::Encoder(_) => Err(self.unsupported("generate")),
        }
    }

    /// Token ids of a prompt, as the model gets them; for benchmarks and tests.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn tokenize(&self, prompt: &Prompt, task: &str) -> Result<(Vec<u32>, Duration), Error> {
        match &self.model {
            Model::Generator(generator) => generator.tokenize(prompt, &self.task(task)?.name),
            Model::Tagger(tagger) => tagger.tokenize(prompt.clone(), self.task(task)?),
            Model::Filler(filler) => filler.tokenize(prompt.clone(), self.task(task)?),
            Model::Encoder(_) => Err(self.unsupported("generate")),
        }
    }

    /// The encoder, if the model is of `kind`.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn encoder(&self, kind: Kind) -> Result<&Encoder, Error> {
        match &self.model {
            Model::Encoder(encoder) if self.folder.card.kind == kind => Ok(encoder),
            _ => Err(self.unsupported(kind.name())),
        }
    }

    /// Whether it answers `Generate` at all.
    ///
    /// # Errors
    /// `Unsupported` of a classifier or an embedder.
    pub(crate) fn generates(&self) -> Result<(), Error> {
        match &self.model {
            Model::Generator(_) | Model::Tagger(_) | Model::Filler(_) => Ok(()),
            Model::Encoder(_) => Err(self.unsupported("generate")),
        }
    }

    fn unsupported(&self, wanted: &str) -> Error {
        let message = format!(
            "{} does not {wanted}: it is of kind \"{}\"",
            self.identity(),
            self.folder.card.kind.name()
        );
        Error::Unsupported { message }
    }
}
