//! Encoders: texts to labels or vectors, one batch at a time on an owner thread.

mod pool;

use crate::{
    error::Error,
    folder::manifest::{Card, Embed, Kind},
    runtime::OrtEncoder,
};
use pool::{Pooled, Wanted};
use std::{
    fmt,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokenizers::Tokenizer;
use tokio::sync::{mpsc, oneshot};

/// Batches that wait for the one that runs. Each holds at most 64 texts of the context's length.
const BATCHES: usize = 64;

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

/// A batch's results.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// In the order of the texts.
    pub answers: Vec<Answer>,
    /// Tokens read, padding not counted.
    pub input_tokens: usize,
    /// Text to ids.
    pub tokenize: Duration,
    /// Waiting for the batch before.
    pub queue: Duration,
    /// The run.
    pub run: Duration,
}

struct Batch {
    rows: usize,
    columns: usize,
    ids: Vec<i64>,
    mask: Vec<i64>,
    deadline: Option<Instant>,
    queued: Instant,
    reply: oneshot::Sender<Result<Ran, Error>>,
}

/// What came of a batch.
struct Ran {
    answers: Vec<Answer>,
    queue: Duration,
    run: Duration,
}

/// An encoder: its handle, and the owner thread behind it.
pub struct Encoder {
    batches: Option<mpsc::Sender<Batch>>,
    tokenizer: Tokenizer,
    context_tokens: usize,
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
        Kind::Embed | Kind::Generate => &["sentence_embedding", "last_hidden_state", "token_embeddings"],
    }
}

impl Encoder {
    /// Starts the owner thread.
    ///
    /// # Errors
    /// When the operating system has no thread to give.
    pub(crate) fn start(card: &Card, mut tokenizer: Tokenizer, mut model: OrtEncoder) -> std::io::Result<Self> {
        // Cutting and padding are ours: a file's own settings would hide a text that does not fit.
        let _ = tokenizer.with_truncation(None);
        tokenizer.with_padding(None);
        let (batches, mut queue) = mpsc::channel::<Batch>(BATCHES);
        let wanted = match (&card.classify, &card.embed) {
            (Some(c), _) => Wanted::Labels(c.labels.len()),
            (
                None,
                Some(Embed {
                    pooling,
                    normalise,
                    dimensions,
                }),
            ) => Wanted::Vector {
                pooling: *pooling,
                normalise: *normalise,
                dimensions: *dimensions as usize,
            },
            (None, None) => Wanted::Labels(0),
        };
        let thread = shoal_kit::task::thread("encoder", move || {
            while let Some(batch) = queue.blocking_recv() {
                let started = Instant::now();
                if batch.reply.is_closed() {
                    continue;
                }
                if batch.deadline.is_some_and(|d| d <= started) {
                    let _ = batch.reply.send(Err(Error::Expired { generated: 0 }));
                    continue;
                }
                let run = model.run(batch.rows, batch.columns, batch.ids, batch.mask.clone());
                let answers = run.map_err(|e| e.to_string()).and_then(|output| {
                    pool::answers(
                        &output,
                        &Pooled {
                            rows: batch.rows,
                            columns: batch.columns,
                            mask: &batch.mask,
                        },
                        &wanted,
                    )
                });
                let answers = answers.map_err(|message| Error::Broken { message });
                let _ = batch.reply.send(answers.map(|answers| Ran {
                    answers,
                    queue: started - batch.queued,
                    run: started.elapsed(),
                }));
            }
        })?;
        let context_tokens = card.limits.context_tokens as usize;
        Ok(Self {
            batches: Some(batches),
            tokenizer,
            context_tokens,
            thread: Some(thread),
        })
    }

    /// Encodes 1 to [`TEXTS`] texts.
    ///
    /// # Errors
    /// `Invalid` for too many texts or one that does not fit, `Busy` when too many batches wait, `Expired`.
    pub async fn encode(&self, texts: &[String], deadline: Option<Instant>) -> Result<Encoded, Error> {
        let started = Instant::now();
        if texts.is_empty() || texts.len() > TEXTS {
            return Err(Error::invalid(
                "texts",
                format!("give 1 to {TEXTS} texts, not {}", texts.len()),
            ));
        }
        let mut rows: Vec<Vec<u32>> = Vec::with_capacity(texts.len());
        for (i, text) in texts.iter().enumerate() {
            let field = || format!("texts[{i}]");
            // No tokenizer makes fewer than one token of 64 bytes of ordinary text: beyond that it is not even tried.
            if text.len() > self.context_tokens * 64 {
                return Err(Error::invalid(
                    field(),
                    format!("{} bytes do not fit {} tokens", text.len(), self.context_tokens),
                ));
            }
            let encoding = self
                .tokenizer
                .encode(text.as_str(), true)
                .map_err(|e| Error::invalid(field(), e.to_string()))?;
            let ids = encoding.get_ids();
            if ids.is_empty() || ids.len() > self.context_tokens {
                return Err(Error::invalid(
                    field(),
                    format!("it has {} tokens; 1 to {} fit", ids.len(), self.context_tokens),
                ));
            }
            rows.push(ids.to_vec());
        }
        let columns = rows.iter().map(Vec::len).max().unwrap_or(1);
        let padded = |row: &Vec<u32>, of: fn(u32) -> i64| {
            row.iter()
                .map(|id| of(*id))
                .chain(std::iter::repeat(0))
                .take(columns)
                .collect::<Vec<_>>()
        };
        let ids = rows.iter().flat_map(|row| padded(row, i64::from)).collect();
        let mask = rows.iter().flat_map(|row| padded(row, |_| 1)).collect();
        let (reply, answer) = oneshot::channel();
        let batch = Batch {
            rows: rows.len(),
            columns,
            ids,
            mask,
            deadline,
            queued: Instant::now(),
            reply,
        };
        let tokenize = started.elapsed();
        let batches = self.batches.as_ref().ok_or(Error::Closing)?;
        batches.try_send(batch).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::Busy {
                waiting_tokens: BATCHES,
                queue_tokens: BATCHES,
                retry_after: Duration::from_millis(100),
            },
            mpsc::error::TrySendError::Closed(_) => Error::Broken {
                message: "the encoder stopped".into(),
            },
        })?;
        let broken = || Error::Broken {
            message: "the encoder stopped before the answer".into(),
        };
        let answer = match deadline {
            None => answer.await.map_err(|_| broken())?,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), answer).await {
                Ok(answer) => answer.map_err(|_| broken())?,
                Err(_) => return Err(Error::Expired { generated: 0 }),
            },
        };
        let Ran { answers, queue, run } = answer?;
        Ok(Encoded {
            answers,
            input_tokens: rows.iter().map(Vec::len).sum(),
            tokenize,
            queue,
            run,
        })
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
