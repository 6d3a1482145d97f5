//! A generating model: how a request is read, and the engine that it goes to.
//!
//! Reading (template, tokens, grammar) is done on the request's own thread while it is short, and in the [`crate::workshop`]
//! when it is not: a long prompt, or a grammar that has to be compiled.
use crate::{
    constrain::{Compiler, FORM_BYTES, Grammar, template},
    engine::{Engine, Request, Settings, Ticket},
    error::Error,
    folder::{Folder, Form, Held, Task, exported::Exported},
    prompt::{self, Prompt, Templates},
    runtime::{Options, OrtDecoder},
    sampling::calibration::Calibration,
    specialist::{Ask, LoadError},
    vocabulary::Vocabulary,
    workshop::Workshop,
};
use jsonschema::Validator;
use shoal_kit::config;
use std::{
    collections::HashMap,
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokenizers::Tokenizer;
use tracing::{Instrument as _, info};

/// Bytes of a rendered prompt that are tokenized on the request's own thread: a millisecond or two of it.
const SHORT_BYTES: usize = 16 << 10;

/// A generating model.
#[derive(Debug)]
pub(crate) struct Generator {
    engine: Engine,
    reader: Arc<Reader>,
    workshop: Workshop,
    tasks: HashMap<String, Prepared>,
    prompt_bytes: usize,
    /// Nanoseconds inside ONNX Runtime's own runs.
    inside: Arc<AtomicU64>,
}

/// What the workshop's threads share.
#[derive(Debug)]
struct Reader {
    tokenizer: Arc<Tokenizer>,
    templates: Templates,
    compiler: Compiler,
}

/// A task, ready for requests.
#[derive(Debug)]
struct Prepared {
    form: PreparedForm,
    input: Option<Validator>,
    calibration: Calibration,
}

#[derive(Debug)]
enum PreparedForm {
    Fixed(Option<Arc<Grammar>>),
    /// Rendered from this template for each request.
    Rendered(String),
}

impl Generator {
    /// Compiles what is to be compiled, then opens the model.
    pub(crate) fn load(
        folder: &Folder,
        exported: &Exported,
        tokenizer: Tokenizer,
        config: &config::Specialist,
        library: &Path,
        options: &Options,
    ) -> Result<Self, LoadError> {
        let fault = |file: &str, message: String| LoadError::File {
            model: folder.identity(),
            file: file.to_owned(),
            message,
        };
        let text = folder.text("tokenizer.json").unwrap_or_default();
        let vocabulary = Vocabulary::from_tokenizer_json(text).map_err(|e| fault("tokenizer.json", e))?;
        if vocabulary.pieces().len() > exported.vocabulary {
            let (tokens, logits) = (vocabulary.pieces().len(), exported.vocabulary);
            return Err(fault(
                "tokenizer.json",
                format!("it has {tokens} tokens, the model {logits} logits: they are not of one export"),
            ));
        }
        let mut templates = Templates::of(folder).map_err(|e| fault("chat_template.jinja", e))?;
        for (file, source) in folder.tasks.iter().filter_map(|task| match &task.held {
            Held::Rendered(file) => Some((file, folder.text(file)?)),
            Held::To(_) => None,
        }) {
            templates
                .add(file, source)
                .map_err(|e| fault(file, format!("it does not compile: {e:#}")))?;
        }
        // One for both: its tables are tens of megabytes in the largest vocabularies.
        let tokenizer = Arc::new(tokenizer);
        let compiler = Compiler::new(&vocabulary, tokenizer.clone(), &exported.eos, exported.vocabulary)
            .map_err(|e| fault("tokenizer.json", e))?;
        let reader = Arc::new(Reader {
            tokenizer,
            templates,
            compiler,
        });
        let workshop = Workshop::start()?;
        let mut tasks = HashMap::new();
        for task in &folder.tasks {
            let prepared = prepare(&reader, &workshop, task);
            tasks.insert(task.name.clone(), prepared.map_err(|(file, e)| fault(&file, e))?);
        }
        let prompt_bytes = vocabulary
            .longest()
            .saturating_mul(folder.card.limits.context_tokens as usize);
        // A prompt is read somewhere, kept or not.
        let rows = (config.slots.max(1), config.prefix_slots.max(1));
        let decoder = OrtDecoder::open(library, folder, rows, options)?;
        let inside = decoder.inside();
        let engine = Engine::start(
            &folder.identity(),
            decoder,
            Arc::new(vocabulary),
            exported.eos.clone(),
            Settings {
                queue_tokens: config.queue_tokens,
                keeps_prefixes: config.prefix_slots > 0,
            },
        )?;
        Ok(Self {
            engine,
            reader,
            workshop,
            tasks,
            prompt_bytes,
            inside,
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Time inside ONNX Runtime's own runs so far.
    pub(crate) fn inside(&self) -> Duration {
        Duration::from_nanos(self.inside.load(Ordering::Relaxed))
    }

    /// Reads and queues a request. The work before the queue is bounded by the context, and by the limits of [`crate::constrain`].
    pub(crate) async fn generate(&self, ask: Ask, task: &Task) -> Result<Ticket, Error> {
        let started = Instant::now();
        let Ask {
            prompt,
            sampling,
            form,
            class,
            deadline,
            span,
            ..
        } = ask;
        let prepared = self.tasks.get(&task.name).ok_or_else(|| Error::Broken {
            message: format!("task {} was not prepared", task.name),
        })?;
        if let (Prompt::Json(map), Some(validator)) = (&prompt, &prepared.input) {
            prompt::hold(map, validator, "prompt.json")?;
        }
        let ids = self.ids(&prompt, &task.name, deadline).instrument(span.clone()).await?;
        // Before a grammar is compiled for it.
        self.engine.check(&ids)?;
        let grammar = self.grammar(form, prepared, prompt, &task.name, deadline);
        let grammar = grammar.instrument(span.clone()).await?;
        self.engine.submit(Request {
            prompt: ids,
            sampling,
            grammar,
            calibration: prepared.calibration.clone(),
            class,
            deadline,
            tokenize: started.elapsed(),
            span,
        })
    }

    /// Token ids of a prompt, as the model gets them.
    pub(crate) fn tokenize(&self, prompt: &Prompt, task: &str) -> Result<(Vec<u32>, Duration), Error> {
        let started = Instant::now();
        let rendered = self.render(prompt, task)?;
        Ok((prompt::encode(&self.reader.tokenizer, &rendered)?, started.elapsed()))
    }

    fn render(&self, prompt: &Prompt, task: &str) -> Result<String, Error> {
        let rendered = self.reader.templates.chat(prompt, task)?;
        if rendered.len() <= self.prompt_bytes {
            return Ok(rendered);
        }
        // Even if every token were the longest one: it is not worth the tokenizer's time.
        let (bytes, context) = (rendered.len(), self.engine.shape().context_tokens);
        Err(Error::invalid(
            "prompt",
            format!("{bytes} bytes do not fit the context of {context} tokens"),
        ))
    }

    async fn ids(&self, prompt: &Prompt, task: &str, deadline: Option<Instant>) -> Result<Vec<u32>, Error> {
        let rendered = self.render(prompt, task)?;
        if rendered.len() <= SHORT_BYTES {
            return prompt::encode(&self.reader.tokenizer, &rendered);
        }
        let reader = self.reader.clone();
        let encode = move || prompt::encode(&reader.tokenizer, &rendered);
        within(deadline, self.workshop.run(encode)).await?
    }

    /// What the answer is held to: the request's own form, or the task's.
    async fn grammar(
        &self,
        form: Option<Form>,
        prepared: &Prepared,
        prompt: Prompt,
        task: &str,
        deadline: Option<Instant>,
    ) -> Result<Option<Arc<Grammar>>, Error> {
        let reader = self.reader.clone();
        let compiled = match (form, &prepared.form) {
            (None, PreparedForm::Fixed(grammar)) => return Ok(grammar.clone()),
            (Some(Form::Free), _) => return Ok(None),
            (Some(form), _) => {
                let size = match &form {
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
                let compile = move || {
                    let refused = |e| Error::invalid("constraint", format!("it does not compile: {e}"));
                    reader.compiler.compile(&form).map_err(refused)
                };
                within(deadline, self.workshop.run(compile)).await??
            }
            (None, PreparedForm::Rendered(file)) => {
                let (file, task) = (file.clone(), task.to_owned());
                let compile = move || template::compile(&reader.compiler, &reader.templates, &file, &prompt, &task);
                within(deadline, self.workshop.run(compile)).await??
            }
        };
        Ok(compiled.map(Arc::new))
    }
}

/// Compiles a task's forms; an error comes with the file that it is of.
fn prepare(reader: &Arc<Reader>, workshop: &Workshop, task: &Task) -> Result<Prepared, (String, String)> {
    let named = |what: &str| format!("{what} of task {}", task.name);
    let broken = |e: Error| (named("output form"), e.to_string());
    let shared = reader.clone();
    let form = match &task.held {
        Held::To(form) => {
            let form = form.clone();
            let compiled = workshop
                .run_blocking(move || shared.compiler.compile(&form))
                .map_err(broken)?;
            PreparedForm::Fixed(compiled.map_err(|e| (named("output form"), e))?.map(Arc::new))
        }
        Held::Rendered(file) => {
            let (name, own, input) = (task.name.clone(), file.clone(), task.input_schema.clone());
            let probe = move || template::probe(&shared.compiler, &shared.templates, &own, &name, input.as_ref());
            let proven = workshop.run_blocking(probe).map_err(broken)?;
            if let Some(unproven) = proven.map_err(|e| (file.clone(), e))? {
                info!(task = %task.name, file, "{unproven}; a schema in [input.{}] would let it be", task.name);
            }
            PreparedForm::Rendered(file.clone())
        }
    };
    let input = task.input_schema.as_ref().map(jsonschema::validator_for).transpose();
    Ok(Prepared {
        form,
        input: input.map_err(|e| (named("input schema"), e.to_string()))?,
        calibration: task.calibration.clone(),
    })
}

/// Work that is of no use after the deadline.
pub(crate) async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match deadline {
        None => work.await,
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), work).await {
            Ok(done) => done,
            Err(_) => Err(Error::Expired { generated: 0 }),
        },
    }
}
