//! Kinds that answer in one run of an encoder: they are asked as a generating model is, and answer in its form, one delta with the
//! whole text and then the end.
//!
//! [`OneRun`] reads a request (what of it is read and as which tokens, its kind says: [`Reads`]) and queues it, bounded by tokens;
//! `owner` takes what waits together through the model and answers each (how, its kind says: [`Runs`]); `prepared` is a task's own.
//!
//! Nothing is decoded: how to sample has nothing to act on, and an answer has no tokens of its own. Confidence is of the choices
//! that the kind makes.

pub(crate) mod object;
mod owner;
mod prepared;

pub(crate) use owner::RUN_TOKENS;
pub(crate) use prepared::Prepared;

use crate::{
    engine::{End, Shared, Ticket, queue::Urgency},
    error::Error,
    faults::Faults,
    folder::{Folder, Task},
    generator::within,
    prompt::{self, Prompt, SHORT_BYTES},
    runtime::Padded,
    sampling::Choice,
    specialist::Ask,
    telemetry::{Counters, Instruments},
    workshop::Workshop,
};
use owner::{Owner, Waiting};
use shoal_proto::v1;
use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokenizers::Tokenizer;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Bytes of ordinary text that no tokenizer makes fewer than one token of: a longer text is not even tried.
const TOKEN_BYTES: usize = 64;

/// How a kind reads requests.
pub(crate) trait Reads: Send + Sync + 'static {
    /// What of a prompt is read.
    type Asked: Send + 'static;
    /// The same as tokens.
    type Given: Send + 'static;
    /// What a model of this kind is called.
    const NOUN: &'static str;

    /// Reads a prompt of a task.
    ///
    /// # Errors
    /// `Invalid`, with the field.
    fn asked(&self, task: &str, prompt: Prompt) -> Result<Self::Asked, Error>;

    /// Bytes of text to tokenize.
    fn bytes(asked: &Self::Asked) -> usize;

    /// Tokenizes.
    ///
    /// # Errors
    /// In words, when there are no tokens or more than `context`.
    fn given(&self, tokenizer: &Tokenizer, asked: Self::Asked, context: usize) -> Result<Self::Given, String>;

    /// Token ids, as the model gets them.
    fn ids(given: &Self::Given) -> &[u32];
}

/// How a kind makes answers of what was read.
pub(crate) trait Runs: Send + 'static {
    /// As the kind's [`Reads`] has it.
    type Given: Send + 'static;
    /// What the model says of a batch.
    type Said;

    /// Runs what stands together.
    ///
    /// # Errors
    /// In words; each of the batch is run alone then.
    fn run(&mut self, batch: Padded, given: &[&Self::Given]) -> Result<Self::Said, String>;

    /// Runs a text of one token: what no text can break.
    ///
    /// # Errors
    /// In words, when no run works.
    fn works(&mut self) -> Result<(), String>;

    /// The answer of one row, and the choices that its confidence is of.
    ///
    /// # Errors
    /// In words; the others of the batch have theirs.
    fn answer(
        &self,
        said: &Self::Said,
        row: usize,
        given: &Self::Given,
        task: &Prepared,
    ) -> Result<(String, Vec<Choice>), String>;
}

/// Of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) context_tokens: usize,
    pub(crate) queue_tokens: usize,
    /// Tokens of a run of several texts, padding included; 0: each runs alone.
    pub(crate) run_tokens: usize,
}

impl Limits {
    /// Of a checked folder.
    pub(crate) fn of(folder: &Folder, queue_tokens: usize) -> Self {
        Self {
            context_tokens: folder.card.limits.context_tokens as usize,
            queue_tokens,
            run_tokens: if folder.dynamic_scales { 0 } else { RUN_TOKENS },
        }
    }
}

/// A model that answers in one run: its handle, and the owner thread behind it.
pub(crate) struct OneRun<R: Reads> {
    shared: Arc<Shared<Waiting<R::Given>>>,
    tokenizer: Arc<Tokenizer>,
    reads: Arc<R>,
    context_tokens: usize,
    workshop: Workshop,
    tasks: HashMap<String, Arc<Prepared>>,
    counters: Arc<Counters>,
    stopped: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl<R: Reads> fmt::Debug for OneRun<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(R::NOUN)
            .field("context_tokens", &self.context_tokens)
            .finish_non_exhaustive()
    }
}

impl<R: Reads> OneRun<R> {
    /// Starts the owner thread over what was tried and proven.
    pub(crate) fn over<M>(
        name: &str,
        tokenizer: Tokenizer,
        limits: Limits,
        tasks: Vec<Prepared>,
        reads: R,
        runs: M,
    ) -> std::io::Result<Self>
    where
        M: Runs<Given = R::Given>,
    {
        let instruments = Instruments::new(name);
        let (counters, stopped) = (instruments.counters.clone(), CancellationToken::new());
        let shared = Shared::new(limits.queue_tokens, counters.clone());
        let end = End {
            shared: shared.clone(),
            stopped: stopped.clone(),
        };
        let owner = Owner {
            runs,
            ids: R::ids,
            shared: shared.clone(),
            instruments,
            run_tokens: limits.run_tokens,
            name: name.to_owned(),
            faults: Faults::default(),
        };
        // First: what fails after the owner thread has started would leave it, and the model, behind.
        let workshop = Workshop::start()?;
        let thread = shoal_kit::task::thread(R::NOUN, move || {
            let _end = end;
            owner.run();
        })?;
        Ok(Self {
            shared,
            tokenizer: Arc::new(tokenizer),
            reads: Arc::new(reads),
            context_tokens: limits.context_tokens,
            workshop,
            tasks: tasks.into_iter().map(|t| (t.name.clone(), Arc::new(t))).collect(),
            counters,
            stopped,
            thread: Some(thread),
        })
    }

    /// What it did so far; lives on when the model is gone.
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
        task.check(ask.form.as_ref(), R::NOUN)?;
        let given = within(ask.urgency.deadline, self.read(task, ask.prompt, ask.urgency))
            .instrument(ask.span.clone())
            .await?;
        if self.stopped.is_cancelled() {
            return Err(Error::Broken {
                message: format!("the {} stopped", R::NOUN),
            });
        }
        // A delta and an end: the owner thread never finds it full.
        let (events, receiver) = mpsc::channel(2);
        let tokens = R::ids(&given).len();
        let waiting = Waiting {
            given,
            task: task.clone(),
            stop: ask.sampling.stop,
            urgency: ask.urgency,
            events,
            tokenize: started.elapsed(),
            admitted: Instant::now(),
            span: ask.span,
        };
        self.shared.offer(waiting, tokens, ask.urgency.class)?;
        Ok(Ticket::new(receiver))
    }

    /// Token ids of a prompt, as the model gets them.
    pub(crate) fn tokenize(&self, prompt: Prompt, task: &Task) -> Result<(Vec<u32>, Duration), Error> {
        let started = Instant::now();
        let asked = self.reads.asked(&self.prepared(task)?.name, prompt)?;
        let given = self.reads.given(&self.tokenizer, asked, self.context_tokens);
        let given = given.map_err(|e| Error::invalid("prompt", e))?;
        Ok((R::ids(&given).to_vec(), started.elapsed()))
    }

    /// Reads the contract's form of a prompt.
    ///
    /// # Errors
    /// `Invalid`, with the field, `Busy` when too much waits to be read, `Expired`.
    pub(crate) async fn prompt(&self, wire: Option<v1::Prompt>, urgency: Urgency) -> Result<Prompt, Error> {
        prompt::read(wire, prompt::may_have(self.text_bytes()), &self.workshop, urgency).await
    }

    /// Bytes of text that the context may hold.
    fn text_bytes(&self) -> usize {
        self.context_tokens.saturating_mul(TOKEN_BYTES)
    }

    fn prepared(&self, task: &Task) -> Result<&Arc<Prepared>, Error> {
        self.tasks.get(&task.name).ok_or_else(|| Error::Broken {
            message: format!("task {} was not prepared", task.name),
        })
    }

    /// A prompt to tokens: a long one in the workshop, all of it, since to check and to put together what is asked takes longer than tokenizing it.
    async fn read(&self, task: &Arc<Prepared>, prompt: Prompt, urgency: Urgency) -> Result<R::Given, Error> {
        let (tokenizer, reads, context, most) = (
            self.tokenizer.clone(),
            self.reads.clone(),
            self.context_tokens,
            self.text_bytes(),
        );
        let fits = move |asked: &R::Asked| match R::bytes(asked) {
            bytes if bytes > most => Err(Error::invalid(
                "prompt",
                format!("{bytes} bytes do not fit {context} tokens"),
            )),
            bytes => Ok(bytes),
        };
        let given = move |reads: &R, tokenizer: &Tokenizer, asked| {
            let given = reads.given(tokenizer, asked, context);
            given.map_err(|e| Error::invalid("prompt", e))
        };
        if !prompt.is_short() {
            let task = task.clone();
            let read = move || {
                let asked = reads.asked(&task.name, prompt)?;
                fits(&asked)?;
                given(&reads, &tokenizer, asked)
            };
            return self.workshop.run(urgency, read).await?;
        }
        let asked = self.reads.asked(&task.name, prompt)?;
        // What a template makes of a short prompt may be long.
        if fits(&asked)? <= SHORT_BYTES {
            return given(&reads, &tokenizer, asked);
        }
        self.workshop
            .run(urgency, move || given(&reads, &tokenizer, asked))
            .await?
    }
}

impl<R: Reads> Drop for OneRun<R> {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
