//! Encoders: texts to labels or vectors, in runs of what waits together, on an owner thread.
//!
//! [`Encoder::encode`] tokenizes and queues (bounded by tokens, as the slot engine's queue is); `owner` runs the batches;
//! `pool` makes answers of what comes out; [`labels`] names them.

pub mod labels;
mod owner;
mod pool;
mod prove;
#[cfg(test)]
mod tests;

use crate::{
    engine::{End, Shared, queue::Urgency},
    error::Error,
    folder::{Folder, manifest::Kind},
    one_run::{Limits, RUN_TOKENS},
    prompt::SHORT_BYTES,
    runtime::{OrtEncoder, Padded},
    specialist::LoadError,
    telemetry::{Counters, Instruments},
    workshop::Workshop,
};
use owner::{Call, Owner, Ran};
pub(crate) use prove::{PROVEN_TOKENS, prove};
use std::{
    fmt,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokenizers::Tokenizer;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Texts of one call.
pub const TEXTS: usize = 64;

/// One text's result.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// (label's index, probability), likeliest first.
    Labels(Vec<(usize, f64)>),
    /// A vector.
    Vector(Vec<f32>),
}

/// A call's results.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// In the order of the texts.
    pub answers: Vec<Answer>,
    /// Tokens read, padding not counted.
    pub input_tokens: usize,
    /// Text to ids.
    pub tokenize: Duration,
    /// Until its first run.
    pub queue: Duration,
    /// Inside the model, all of its runs.
    pub run: Duration,
}

/// An encoder: its handle, and the owner thread behind it.
pub struct Encoder {
    shared: Arc<Shared<Call>>,
    tokenizer: Arc<Tokenizer>,
    context_tokens: usize,
    run_tokens: usize,
    workshop: Workshop,
    counters: Arc<Counters>,
    stopped: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("context_tokens", &self.context_tokens)
            .finish_non_exhaustive()
    }
}

/// The outputs that an encoder of this kind may have, best first.
pub(crate) fn outputs(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Classify => &["logits"],
        Kind::Embed | Kind::Generate | Kind::Tag | Kind::Fill => {
            &["sentence_embedding", "last_hidden_state", "token_embeddings"]
        }
    }
}

impl Encoder {
    /// Proves the model on a batch made up for it, and starts the owner thread.
    ///
    /// # Errors
    /// When the model does not give what the card says, or the operating system has no thread to give.
    pub(crate) fn start(
        folder: &Folder,
        tokenizer: Tokenizer,
        mut model: OrtEncoder,
        queue_tokens: usize,
    ) -> Result<Self, LoadError> {
        let limits = Limits::of(folder, queue_tokens);
        let wanted = pool::Wanted::of(&folder.card);
        let proven = prove(&tokenizer, limits, |batch| {
            let answers = owner::answer(&mut model, &wanted, &batch)?;
            Ok(prove::numbers(answers.last()))
        });
        proven.map_err(|message| LoadError::File {
            model: folder.identity(),
            file: "model.onnx".into(),
            message,
        })?;
        model.proven(RUN_TOKENS);
        let run = move |batch: Padded| owner::answer(&mut model, &wanted, &batch);
        Ok(Self::over(&folder.identity(), tokenizer, limits, run)?)
    }

    fn over<M>(name: &str, tokenizer: Tokenizer, limits: Limits, model: M) -> std::io::Result<Self>
    where
        M: FnMut(Padded) -> Result<Vec<Answer>, String> + Send + 'static,
    {
        let instruments = Instruments::new(name);
        let (counters, stopped) = (instruments.counters.clone(), CancellationToken::new());
        let shared = Shared::new(limits.queue_tokens, counters.clone());
        let end = End {
            shared: shared.clone(),
            stopped: stopped.clone(),
        };
        let owner = Owner::new(model, shared.clone(), instruments, limits.run_tokens);
        // First: what fails after the owner thread has started would leave it, and the model, behind.
        let workshop = Workshop::start()?;
        let thread = shoal_kit::task::thread("encoder", move || {
            // Told however the thread ends, by a panic too.
            let _end = end;
            owner.run();
        })?;
        Ok(Self {
            shared,
            tokenizer: Arc::new(tokenizer),
            context_tokens: limits.context_tokens,
            run_tokens: limits.run_tokens,
            workshop,
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
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    /// Encodes 1 to [`TEXTS`] texts.
    ///
    /// # Errors
    /// `Invalid` for too many texts or one that does not fit, `Busy` when too much waits, `Expired`.
    pub async fn encode(&self, texts: &[String], urgency: Urgency) -> Result<Encoded, Error> {
        let encoding = self.encode_unbounded(texts, urgency);
        match urgency.deadline {
            None => encoding.await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), encoding).await {
                Ok(encoded) => encoded,
                Err(_) => Err(Error::Expired { generated: 0 }),
            },
        }
    }

    async fn encode_unbounded(&self, texts: &[String], urgency: Urgency) -> Result<Encoded, Error> {
        let started = Instant::now();
        let rows = self.tokenize(texts, urgency).await?;
        let input_tokens: usize = rows.iter().map(Vec::len).sum();
        let (reply, answer) = oneshot::channel();
        let tokenize = started.elapsed();
        if self.stopped.is_cancelled() {
            return Err(Error::Broken {
                message: "the encoder stopped".into(),
            });
        }
        let call = Call::of(rows, urgency, reply);
        let line = call.line(self.run_tokens);
        self.shared.offer(call, input_tokens, line)?;
        let broken = |_| Error::Broken {
            message: "the encoder stopped before the answer".into(),
        };
        let Ran { answers, queue, run } = answer.await.map_err(broken)??;
        Ok(Encoded {
            answers,
            input_tokens,
            tokenize,
            queue,
            run,
        })
    }

    async fn tokenize(&self, texts: &[String], urgency: Urgency) -> Result<Vec<Vec<u32>>, Error> {
        if texts.is_empty() || texts.len() > TEXTS {
            return Err(Error::invalid(
                "texts",
                format!("give 1 to {TEXTS} texts, not {}", texts.len()),
            ));
        }
        let context = self.context_tokens;
        // No tokenizer makes fewer than one token of 64 bytes of ordinary text: beyond that it is not even tried.
        if let Some(i) = texts.iter().position(|text| text.len() > context * 64) {
            return Err(Error::invalid(
                format!("texts[{i}]"),
                format!("{} bytes do not fit {context} tokens", texts[i].len()),
            ));
        }
        let (tokenizer, owned) = (self.tokenizer.clone(), texts.to_vec());
        let ids = move || {
            let one = |(i, text): (usize, &String)| {
                ids(&tokenizer, text, context).map_err(|e| Error::invalid(format!("texts[{i}]"), e))
            };
            owned.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()
        };
        if texts.iter().map(String::len).sum::<usize>() <= SHORT_BYTES {
            return ids();
        }
        self.workshop.run(urgency, ids).await?
    }
}

fn ids(tokenizer: &Tokenizer, text: &str, context: usize) -> Result<Vec<u32>, String> {
    let encoding = tokenizer.encode_fast(text, true).map_err(|e| e.to_string())?;
    let ids = encoding.get_ids();
    if ids.is_empty() || ids.len() > context {
        return Err(format!("it has {} tokens; 1 to {context} fit", ids.len()));
    }
    Ok(ids.to_vec())
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
