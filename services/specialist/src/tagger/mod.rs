//! Taggers: a text to a class and spans in one run of an encoder, and those to an answer by the folder's own template.
//!
//! They are asked as a generating model is, and answer in its form: one delta with the whole text, then the end. [`Tagger`] reads
//! the request (`asked`: its text, or an object's fields; `read`: the tokens, where they stand) and queues it, bounded by tokens;
//! `owner` takes what waits together through the model; [`path`] finds the likeliest class and spans that go together;
//! [`answer`] puts them into words.
//!
//! Nothing is decoded: how to sample has nothing to act on, and an answer has no tokens of its own. Confidence is of the class
//! and of each token's tag.

pub mod answer;
mod asked;
mod owner;
pub mod path;
mod read;
#[cfg(test)]
mod tests;

use crate::{
    encoder::prove,
    engine::{End, Shared, Ticket},
    error::Error,
    folder::{Folder, Form, Task, manifest::TagInput},
    generator::within,
    prompt::Prompt,
    runtime::{Options, OrtEncoder},
    sampling::calibration::Calibration,
    specialist::{Ask, LoadError},
    telemetry::{Counters, Instruments},
    workshop::Workshop,
};
use answer::Answers;
use asked::{Asked, Input};
use owner::{Batch, Logits, Owner, Waiting};
use path::Tagset;
use read::Text;
use serde_json::{Value, json};
use shoal_kit::config;
use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokenizers::Tokenizer;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Bytes of a text that is tokenized on the request's own thread: a millisecond or two of it.
const SHORT_BYTES: usize = 16 << 10;

/// Bytes of ordinary text that no tokenizer makes fewer than one token of: a longer text is not even tried.
const TOKEN_BYTES: usize = 64;

/// A tagger: its handle, and the owner thread behind it.
pub struct Tagger {
    shared: Arc<Shared<Waiting>>,
    tokenizer: Arc<Tokenizer>,
    tagset: Arc<Tagset>,
    context_tokens: usize,
    workshop: Workshop,
    tasks: HashMap<String, Arc<Prepared>>,
    counters: Arc<Counters>,
    stopped: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// A task, ready for requests.
struct Prepared {
    name: String,
    input: Input,
    template: String,
    schema: Option<Value>,
    calibration: Calibration,
}

impl fmt::Debug for Tagger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tagger")
            .field("context_tokens", &self.context_tokens)
            .finish_non_exhaustive()
    }
}

impl Tagger {
    /// Tries the templates, opens the model and proves it on texts made up for it, then starts the owner thread.
    pub(crate) fn load(
        folder: &Folder,
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
        let card = folder.card.tag.as_ref();
        let card = card.ok_or_else(|| fault("card.toml", "it has no [tag]".into()))?;
        let tagset = Tagset::of(card);
        let mut answers = Answers::new().map_err(|e| fault("card.toml", e.to_string()))?;
        let mut tasks = Vec::new();
        for task in &folder.tasks {
            let file = task.template.as_deref().unwrap_or_default();
            let source = folder.text(file).unwrap_or_default();
            answers
                .add(file, source, &task.name, &tagset)
                .map_err(|e| fault(file, e))?;
            let prepared = Prepared::of(task, card.input.as_ref());
            tasks.push(prepared.map_err(|e| fault(&format!("input schema of task {}", task.name), e))?);
        }
        let outputs: &[&[&str]] = match tagset.classes() {
            0 => &[&["tag_logits"]],
            _ => &[&["tag_logits"], &["class_logits"]],
        };
        let mut model = OrtEncoder::open(library, &folder.model, outputs, options)?;
        let shape = tagset.clone();
        let mut run = move |batch: Batch| {
            let (rows, columns) = (batch.rows, batch.columns);
            let outputs = model.run(rows, columns, batch.ids, batch.mask);
            Logits::of(outputs.map_err(|e| e.to_string())?, rows, columns, &shape)
        };
        let context_tokens = folder.card.limits.context_tokens as usize;
        let proven = prove(&tokenizer, context_tokens, |rows, columns, ids, mask| {
            run(Batch {
                rows,
                columns,
                ids,
                mask,
            })
            .map(drop)
        });
        proven.map_err(|e| fault("model.onnx", e))?;
        let limits = Limits {
            context_tokens,
            queue_tokens: config.queue_tokens,
        };
        Ok(Self::over(
            &folder.card.name,
            tokenizer,
            limits,
            tasks,
            (tagset, answers),
            run,
        )?)
    }

    fn over<M>(
        name: &str,
        mut tokenizer: Tokenizer,
        limits: Limits,
        tasks: Vec<Prepared>,
        (tagset, answers): (Tagset, Answers),
        model: M,
    ) -> std::io::Result<Self>
    where
        M: FnMut(Batch) -> Result<Logits, String> + Send + 'static,
    {
        // Cutting and padding are ours: a file's own settings would hide a text that does not fit.
        let _ = tokenizer.with_truncation(None);
        tokenizer.with_padding(None);
        let instruments = Instruments::new(name);
        let (counters, stopped) = (instruments.counters.clone(), CancellationToken::new());
        let shared = Shared::new(limits.queue_tokens, counters.clone());
        let end = End {
            shared: shared.clone(),
            stopped: stopped.clone(),
        };
        let tagset = Arc::new(tagset);
        let owner = Owner {
            model,
            tagset: tagset.clone(),
            answers,
            shared: shared.clone(),
            instruments,
            name: name.to_owned(),
        };
        let thread = shoal_kit::task::thread("tagger", move || {
            let _end = end;
            owner.run();
        })?;
        Ok(Self {
            shared,
            tokenizer: Arc::new(tokenizer),
            tagset,
            context_tokens: limits.context_tokens,
            workshop: Workshop::start()?,
            tasks: tasks.into_iter().map(|t| (t.name.clone(), Arc::new(t))).collect(),
            counters,
            stopped,
            thread: Some(thread),
        })
    }

    /// What it did so far; lives on when the tagger is gone.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Cancelled when the owner thread has ended.
    pub(crate) fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    /// Reads and queues a request.
    ///
    /// # Errors
    /// `Invalid` for what the request says, `Busy` when too much waits, `Expired`.
    pub(crate) async fn generate(&self, ask: Ask, task: &Task) -> Result<Ticket, Error> {
        let started = Instant::now();
        let task = self.prepared(task)?;
        task.check(ask.form.as_ref())?;
        let asked = task.input.read(ask.prompt)?;
        let text = within(ask.deadline, self.read(asked))
            .instrument(ask.span.clone())
            .await?;
        if self.stopped.is_cancelled() {
            return Err(Error::Broken {
                message: "the tagger stopped".into(),
            });
        }
        // A delta and an end: the owner thread never finds it full.
        let (events, receiver) = mpsc::channel(2);
        let tokens = text.ids.len();
        let waiting = Waiting {
            text,
            task: task.clone(),
            stop: ask.sampling.stop,
            events,
            deadline: ask.deadline,
            tokenize: started.elapsed(),
            admitted: Instant::now(),
            span: ask.span,
        };
        self.shared.offer(waiting, tokens, ask.class)?;
        Ok(Ticket::new(receiver))
    }

    /// Token ids of a prompt, as the model gets them.
    pub(crate) fn tokenize(&self, prompt: Prompt, task: &Task) -> Result<(Vec<u32>, Duration), Error> {
        let started = Instant::now();
        let asked = self.prepared(task)?.input.read(prompt)?;
        let text = read::tokenize(&self.tokenizer, asked, &self.tagset, self.context_tokens);
        let text = text.map_err(|e| Error::invalid("prompt", e))?;
        Ok((text.ids, started.elapsed()))
    }

    fn prepared(&self, task: &Task) -> Result<&Arc<Prepared>, Error> {
        self.tasks.get(&task.name).ok_or_else(|| Error::Broken {
            message: format!("task {} was not prepared", task.name),
        })
    }

    async fn read(&self, asked: Asked) -> Result<Text, Error> {
        let bytes = asked.text.len() + asked.before.as_ref().map_or(0, String::len);
        let context = self.context_tokens;
        if bytes > context.saturating_mul(TOKEN_BYTES) {
            return Err(Error::invalid(
                "prompt",
                format!("{bytes} bytes do not fit {context} tokens"),
            ));
        }
        let (tokenizer, tagset) = (self.tokenizer.clone(), self.tagset.clone());
        let read = move || {
            let text = read::tokenize(&tokenizer, asked, &tagset, context);
            text.map_err(|e| Error::invalid("prompt", e))
        };
        if bytes <= SHORT_BYTES {
            return read();
        }
        self.workshop.run(read).await?
    }
}

impl Drop for Tagger {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    context_tokens: usize,
    queue_tokens: usize,
}

impl Prepared {
    fn of(task: &Task, input: Option<&TagInput>) -> Result<Self, String> {
        Ok(Self {
            name: task.name.clone(),
            input: Input::of(input, task)?,
            template: task.template.clone().unwrap_or_default(),
            schema: task.output_schema.clone(),
            calibration: task.calibration.clone(),
        })
    }

    /// A form that a request wants: one that the template's answers have anyway is as good as none.
    fn check(&self, form: Option<&Form>) -> Result<(), Error> {
        let harmless = match form {
            None | Some(Form::Free) => true,
            Some(Form::Lark(_)) => false,
            Some(Form::Schema(asked)) => self.schema.as_ref().is_some_and(|own| asks_no_more(asked, own)),
        };
        if harmless {
            return Ok(());
        }
        Err(Error::invalid(
            "constraint",
            format!(
                "a tagger's answer has the form of its folder alone: send none for task {}, or the schema that Describe tells",
                self.name
            ),
        ))
    }
}

/// Whether every answer of the schema `own` is one of `asked`, as far as that is plain: it is the same schema, or its type alone.
fn asks_no_more(asked: &Value, own: &Value) -> bool {
    asked == own || (own["type"].is_string() && *asked == json!({"type": own["type"]}))
}
