//! A generating model: how a request is read, and the engine that it goes to.
//!
//! Reading (template, tokens, grammar) is done on the request's own thread while it is short, and in the [`crate::workshop`]
//! when it is not: a long prompt, or a grammar that has to be compiled.
use crate::{
    constrain::{Compiler, FORM_BYTES, Grammar, Required, required, template},
    engine::{Engine, Request, Settings, Ticket, queue::Urgency},
    error::Error,
    folder::{Folder, Form, Held, Task, exported::Exported},
    prompt::{self, CHAT, Prompt, SHORT_BYTES, Templates},
    runtime::{Options, OrtDecoder},
    sampling::calibration::Calibration,
    specialist::{Ask, LoadError},
    vocabulary::Vocabulary,
    workshop::Workshop,
};
use jsonschema::Validator;
use shoal_kit::config;
use shoal_proto::v1;
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

/// A generating model.
#[derive(Debug)]
pub(crate) struct Generator {
    engine: Engine,
    reader: Arc<Reader>,
    workshop: Workshop,
    tasks: HashMap<String, Arc<Prepared>>,
    /// Nanoseconds inside ONNX Runtime's own runs.
    inside: Arc<AtomicU64>,
}

/// What the workshop's threads share.
#[derive(Debug)]
struct Reader {
    tokenizer: Arc<Tokenizer>,
    templates: Templates,
    compiler: Compiler,
    context_tokens: usize,
    /// Bytes of a rendered prompt: as many as the context holds if every token is the longest one.
    prompt_bytes: usize,
}

impl Reader {
    /// Checks and renders a prompt.
    fn render(&self, prompt: Prompt, task: &str, schema: Option<&Validator>) -> Result<(Prompt, String), Error> {
        let prompt = match (prompt, schema) {
            (Prompt::Json(map), Some(schema)) => Prompt::Json(prompt::hold(map, schema, "prompt.json")?),
            (prompt, _) => prompt,
        };
        let rendered = self.templates.chat(&prompt, task)?;
        if rendered.len() <= self.prompt_bytes {
            return Ok((prompt, rendered));
        }
        // It is not worth the tokenizer's time.
        let (bytes, context) = (rendered.len(), self.context_tokens);
        Err(Error::invalid(
            "prompt",
            format!("{bytes} bytes do not fit the context of {context} tokens"),
        ))
    }
}

/// A task, ready for requests.
#[derive(Debug)]
struct Prepared {
    form: PreparedForm,
    /// The template of what must be said, where the answer has that form.
    required: Option<String>,
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
        let mut templates = Templates::of(folder).map_err(|e| fault(CHAT, e))?;
        for task in &folder.tasks {
            template::probe_chat(&templates, &task.name, task.input_schema.as_ref()).map_err(|e| fault(CHAT, e))?;
        }
        for (file, source) in folder.tasks.iter().flat_map(|task| {
            let held = match &task.held {
                Held::Rendered(file) => Some(file),
                Held::To(_) => None,
            };
            let files = [held, task.required.as_ref()].into_iter().flatten();
            files.filter_map(|file| Some((file, folder.text(file)?)))
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
            context_tokens: folder.card.limits.context_tokens as usize,
            prompt_bytes: vocabulary
                .longest()
                .saturating_mul(folder.card.limits.context_tokens as usize),
        });
        let workshop = Workshop::start()?;
        let mut tasks = HashMap::new();
        for task in &folder.tasks {
            let prepared = prepare(&reader, &workshop, task);
            let prepared = prepared.map_err(|(file, e)| fault(&file, e))?;
            tasks.insert(task.name.clone(), Arc::new(prepared));
        }
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
            urgency,
            span,
            ..
        } = ask;
        let prepared = self.tasks.get(&task.name).ok_or_else(|| Error::Broken {
            message: format!("task {} was not prepared", task.name),
        })?;
        let read = self.read(prompt, &task.name, prepared, urgency);
        let (prompt, ids) = read.instrument(span.clone()).await?;
        // Before a grammar is compiled for it.
        self.engine.check(&ids, urgency.class)?;
        let held = self.held(form, prepared, prompt, &task.name, urgency);
        let (grammar, required) = held.instrument(span.clone()).await?;
        self.engine.submit(Request {
            prompt: ids,
            sampling,
            grammar,
            required,
            calibration: prepared.calibration.clone(),
            urgency,
            tokenize: started.elapsed(),
            span,
        })
    }

    /// Reads the contract's form of a prompt.
    pub(crate) async fn prompt(&self, wire: Option<v1::Prompt>, urgency: Urgency) -> Result<Prompt, Error> {
        prompt::read(
            wire,
            prompt::may_have(self.reader.prompt_bytes),
            &self.workshop,
            urgency,
        )
        .await
    }

    /// Token ids of a prompt, as the model gets them.
    pub(crate) fn tokenize(&self, prompt: &Prompt, task: &str) -> Result<(Vec<u32>, Duration), Error> {
        let started = Instant::now();
        let (_, rendered) = self.reader.render(prompt.clone(), task, None)?;
        Ok((prompt::encode(&self.reader.tokenizer, &rendered)?, started.elapsed()))
    }

    /// A prompt to token ids, and the prompt. A long one in the workshop, all of it: to check and to render it takes longer than tokenizing.
    async fn read(
        &self,
        prompt: Prompt,
        task: &str,
        prepared: &Arc<Prepared>,
        urgency: Urgency,
    ) -> Result<(Prompt, Vec<u32>), Error> {
        let reader = self.reader.clone();
        let read = if prompt.is_short() {
            let (prompt, rendered) = reader.render(prompt, task, prepared.input.as_ref())?;
            if rendered.len() <= SHORT_BYTES {
                let ids = prompt::encode(&reader.tokenizer, &rendered)?;
                return Ok((prompt, ids));
            }
            let encode = move || prompt::encode(&reader.tokenizer, &rendered).map(|ids| (prompt, ids));
            within(urgency.deadline, self.workshop.run(urgency, encode)).await
        } else {
            let (task, prepared) = (task.to_owned(), prepared.clone());
            let read = move || {
                let (prompt, rendered) = reader.render(prompt, &task, prepared.input.as_ref())?;
                prompt::encode(&reader.tokenizer, &rendered).map(|ids| (prompt, ids))
            };
            within(urgency.deadline, self.workshop.run(urgency, read)).await
        };
        read?
    }

    /// What the answer is held to: the request's own form, or the task's, with what that must say.
    async fn held(
        &self,
        form: Option<Form>,
        prepared: &Prepared,
        prompt: Prompt,
        task: &str,
        urgency: Urgency,
    ) -> Result<(Option<Arc<Grammar>>, Required), Error> {
        let reader = self.reader.clone();
        let (grammar, required) = match form {
            Some(Form::Free) => return Ok((None, Required::default())),
            Some(form) => {
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
                let grammar = within(urgency.deadline, self.workshop.run(urgency, compile)).await??;
                (grammar.map(Arc::new), Required::default())
            }
            None => {
                let (fixed, rendered) = match &prepared.form {
                    PreparedForm::Fixed(grammar) => (grammar.clone(), None),
                    PreparedForm::Rendered(file) => (None, Some(file.clone())),
                };
                let (said, task) = (prepared.required.clone(), task.to_owned());
                if rendered.is_none() && said.is_none() {
                    return Ok((fixed, Required::default()));
                }
                let make = move || {
                    let Reader {
                        templates, compiler, ..
                    } = &*reader;
                    let grammar = match rendered {
                        Some(file) => template::compile(compiler, templates, &file, &prompt, &task)?.map(Arc::new),
                        None => fixed,
                    };
                    let said = said.map(|file| required::of(compiler, templates, &file, &prompt, &task));
                    Ok::<_, Error>((grammar, said.transpose()?.unwrap_or_default()))
                };
                within(urgency.deadline, self.workshop.run(urgency, make)).await??
            }
        };
        Ok((grammar, required))
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
            let probe = move || {
                template::probe(&shared.templates, &own, &name, input.as_ref(), |prompt| {
                    template::compile(&shared.compiler, &shared.templates, &own, prompt, &name).map(drop)
                })
            };
            let proven = workshop.run_blocking(probe).map_err(broken)?;
            unproven(task, file, proven.map_err(|e| (file.clone(), e))?);
            PreparedForm::Rendered(file.clone())
        }
    };
    if let Some(file) = &task.required {
        let (shared, own, name, input) = (
            reader.clone(),
            file.clone(),
            task.name.clone(),
            task.input_schema.clone(),
        );
        let probe = move || {
            template::probe(&shared.templates, &own, &name, input.as_ref(), |prompt| {
                required::of(&shared.compiler, &shared.templates, &own, prompt, &name).map(drop)
            })
        };
        let proven = workshop.run_blocking(probe).map_err(broken)?;
        unproven(task, file, proven.map_err(|e| (file.clone(), e))?);
    }
    let input = task.input_schema.as_ref().map(jsonschema::validator_for).transpose();
    Ok(Prepared {
        form,
        required: task.required.clone(),
        input: input.map_err(|e| (named("input schema"), e.to_string()))?,
        calibration: task.calibration.clone(),
    })
}

fn unproven(task: &Task, file: &str, found: Option<String>) {
    if let Some(unproven) = found {
        info!(task = %task.name, file, "{unproven}; a schema in [input.{}] would let it be", task.name);
    }
}

/// Work that is of no use after the deadline.
pub(crate) async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match deadline {
        None => work.await,
        // Work that is done at once would win against a timer.
        Some(deadline) if deadline <= Instant::now() => Err(Error::Expired { generated: 0 }),
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), work).await {
            Ok(done) => done,
            Err(_) => Err(Error::Expired { generated: 0 }),
        },
    }
}
