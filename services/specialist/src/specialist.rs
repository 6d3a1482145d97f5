//! One loaded model: its folder, tokenizer, template, grammars, and the engine that runs it.
use crate::{
    constrain::{Compiler, FORM_BYTES, Grammar},
    encoder::{self, Encoder},
    engine::{Engine, Request, Ticket, queue::Class},
    error::Error,
    folder::{Folder, Form, Task, manifest::Kind},
    prompt::{self, Prompt, Template},
    runtime::{self, OrtDecoder, OrtEncoder},
    sampling::Sampling,
    vocabulary::Vocabulary,
};
use jsonschema::Validator;
use shoal_kit::config;
use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokenizers::Tokenizer;
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
        file: &'static str,
        /// What is wrong.
        message: String,
    },
    /// Mend ONNX Runtime, or the model.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The operating system had no thread to give.
    #[error("no thread for the engine: {0}")]
    Thread(#[from] std::io::Error),
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
    /// Queueing class.
    pub class: Class,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
    /// The span that `prefill` and `decode` become children of.
    pub span: Span,
}

/// A loaded model.
#[derive(Debug)]
pub struct Specialist {
    folder: Folder,
    model: Model,
    provider: config::Provider,
}

#[derive(Debug)]
enum Model {
    Generator(Box<Generator>),
    Encoder(Box<Encoder>),
}

/// A generating model.
#[derive(Debug)]
struct Generator {
    engine: Engine,
    tokenizer: Tokenizer,
    template: Template,
    compiler: Compiler,
    grammars: HashMap<String, Option<Grammar>>,
    inputs: HashMap<String, Validator>,
    prompt_bytes: usize,
}

impl Specialist {
    /// Checks and loads `folder`. Nothing of ONNX Runtime is touched before the whole folder has passed.
    ///
    /// # Errors
    /// The first fault, saying what to do.
    pub fn load(folder: &Path, config: &config::Specialist, library: &Path) -> Result<Self, LoadError> {
        let folder = Folder::open(folder)?;
        let identity = folder.identity();
        let fault = |file: &'static str, message: String| LoadError::File {
            model: identity.clone(),
            file,
            message,
        };
        let text = folder.text("tokenizer.json").unwrap_or_default();
        let tokenizer = Tokenizer::from_bytes(text).map_err(|e| fault("tokenizer.json", e.to_string()))?;
        let options = runtime::Options {
            provider: config.provider,
            intra_op_threads: config.intra_op_threads,
            gpu_mem_limit_bytes: usize::try_from(config.gpu_mem_limit_mb.saturating_mul(1 << 20)).unwrap_or(usize::MAX),
        };
        let model = match &folder.genai {
            None => {
                let model = OrtEncoder::open(library, &folder.model, encoder::outputs(folder.card.kind), &options)?;
                Model::Encoder(Box::new(Encoder::start(&folder.card, tokenizer, model)?))
            }
            Some(genai) => {
                let vocabulary = Vocabulary::from_tokenizer_json(text).map_err(|e| fault("tokenizer.json", e))?;
                if vocabulary.pieces().len() > genai.vocabulary {
                    let (tokens, logits) = (vocabulary.pieces().len(), genai.vocabulary);
                    return Err(fault(
                        "tokenizer.json",
                        format!("it has {tokens} tokens, the model {logits} logits: they are not of one export"),
                    ));
                }
                let template = Template::of(&folder).map_err(|e| fault("chat_template.jinja", e))?;
                let compiler = Compiler::new(&vocabulary, tokenizer.clone(), &genai.eos, genai.vocabulary)
                    .map_err(|e| fault("tokenizer.json", e))?;
                let mut grammars = HashMap::new();
                let mut inputs = HashMap::new();
                for task in &folder.tasks {
                    let compiled = compiler
                        .compile(&task.form)
                        .map_err(|e| fault("output form", format!("task {}: {e}", task.name)))?;
                    grammars.insert(task.name.clone(), compiled);
                    if let Some(schema) = &task.input_schema {
                        let validator = jsonschema::validator_for(schema)
                            .map_err(|e| fault("input schema", format!("task {}: {e}", task.name)))?;
                        inputs.insert(task.name.clone(), validator);
                    }
                }
                let context = folder.card.limits.context_tokens as usize;
                let prompt_bytes = vocabulary.longest().saturating_mul(context);
                let decoder = OrtDecoder::open(library, &folder, config.slots.max(1), &options)?;
                let engine = Engine::start(
                    &folder.card.name,
                    decoder,
                    Arc::new(vocabulary),
                    genai.eos.clone(),
                    config.queue_tokens,
                )?;
                Model::Generator(Box::new(Generator {
                    engine,
                    tokenizer,
                    template,
                    compiler,
                    grammars,
                    inputs,
                    prompt_bytes,
                }))
            }
        };
        Ok(Self {
            folder,
            model,
            provider: config.provider,
        })
    }

    /// The checked folder.
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

    /// The slot engine, of a generating model.
    #[must_use]
    pub fn engine(&self) -> Option<&Engine> {
        match &self.model {
            Model::Generator(generator) => Some(&generator.engine),
            Model::Encoder(_) => None,
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

    /// Renders, tokenizes and queues a request. The work before the queue is bounded by the context.
    ///
    /// # Errors
    /// `Unsupported` of an encoder, `Invalid` for what the request says, `Busy` when the queue is full.
    pub fn generate(&self, ask: Ask) -> Result<Ticket, Error> {
        let started = Instant::now();
        let generator = self.generator()?;
        let task = self.task(&ask.task)?;
        if let (Prompt::Json(map), Some(validator)) = (&ask.prompt, generator.inputs.get(&task.name)) {
            let value = serde_json::Value::Object(map.clone());
            if let Err(e) = validator.validate(&value) {
                return Err(Error::invalid(
                    "prompt.json",
                    format!("it breaks the task's input schema at `{}`: {e}", e.instance_path()),
                ));
            }
        }
        let grammar = match &ask.form {
            None => generator
                .grammars
                .get(&task.name)
                .and_then(Option::as_ref)
                .map(Grammar::begin),
            Some(form) => {
                let size = match form {
                    Form::Free => 0,
                    Form::Schema(schema) => schema.to_string().len(),
                    Form::Lark(lark) => lark.len(),
                };
                if size > FORM_BYTES {
                    return Err(Error::invalid(
                        "constraint",
                        format!("{size} bytes; a form has at most {FORM_BYTES}"),
                    ));
                }
                generator
                    .compiler
                    .compile(form)
                    .map_err(|e| Error::invalid("constraint", format!("it does not compile: {e}")))?
            }
        };
        let rendered = generator.template.render(&ask.prompt, &task.name)?;
        if rendered.len() > generator.prompt_bytes {
            // Even if every token were the longest one: it is not worth the tokenizer's time.
            let (bytes, context) = (rendered.len(), generator.engine.shape().context_tokens);
            return Err(Error::invalid(
                "prompt",
                format!("{bytes} bytes do not fit the context of {context} tokens"),
            ));
        }
        let prompt = prompt::encode(&generator.tokenizer, &rendered)?;
        let Ask {
            sampling,
            class,
            deadline,
            span,
            ..
        } = ask;
        generator.engine.submit(Request {
            prompt,
            sampling,
            grammar,
            class,
            deadline,
            tokenize: started.elapsed(),
            span,
        })
    }

    /// Token ids of a prompt, as the model gets them; for benchmarks and tests.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn tokenize(&self, prompt: &Prompt, task: &str) -> Result<(Vec<u32>, Duration), Error> {
        let started = Instant::now();
        let generator = self.generator()?;
        let rendered = generator.template.render(prompt, &self.task(task)?.name)?;
        Ok((prompt::encode(&generator.tokenizer, &rendered)?, started.elapsed()))
    }

    fn generator(&self) -> Result<&Generator, Error> {
        match &self.model {
            Model::Generator(generator) => Ok(generator),
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

    fn unsupported(&self, wanted: &str) -> Error {
        let message = format!(
            "{} does not {wanted}: it is of kind \"{}\"",
            self.identity(),
            self.folder.card.kind.name()
        );
        Error::Unsupported { message }
    }
}
