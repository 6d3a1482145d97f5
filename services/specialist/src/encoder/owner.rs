//! The owner thread of an encoder, and the batches that it runs.
use super::{
    Answer,
    pool::{self, Pooled, Wanted},
};
use crate::{error::Error, runtime::OrtEncoder};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};
use tokenizers::Tokenizer;
use tokio::sync::{mpsc, oneshot};

/// Tokens of the row that a model is proven on, at most: tables of positions have 512 rows in most encoders, and what goes on
/// longer would hold up the start for seconds.
const PROVEN_TOKENS: usize = 1024;

/// Texts that run together: `ids` and `mask` are `[rows, columns]`, right-padded.
pub(super) struct Batch {
    rows: usize,
    columns: usize,
    ids: Vec<i64>,
    mask: Vec<i64>,
    tokens: usize,
    deadline: Option<Instant>,
    queued: Instant,
    reply: oneshot::Sender<Result<Ran, Error>>,
}

/// What came of a batch.
pub(super) struct Ran {
    pub answers: Vec<Answer>,
    pub queue: Duration,
    pub run: Duration,
}

impl Batch {
    pub(super) fn of(
        rows: &[Vec<u32>],
        tokens: usize,
        deadline: Option<Instant>,
        reply: oneshot::Sender<Result<Ran, Error>>,
    ) -> Self {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(1);
        let padded = |row: &Vec<u32>, of: fn(u32) -> i64| {
            row.iter()
                .map(|id| of(*id))
                .chain(std::iter::repeat(0))
                .take(columns)
                .collect::<Vec<_>>()
        };
        Self {
            rows: rows.len(),
            columns,
            ids: rows.iter().flat_map(|row| padded(row, i64::from)).collect(),
            mask: rows.iter().flat_map(|row| padded(row, |_| 1)).collect(),
            tokens,
            deadline,
            queued: Instant::now(),
            reply,
        }
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }
}

/// Until the handle is gone. `model` makes answers of `rows`, `columns`, `ids` and `mask`.
pub(super) fn run<M>(mut queue: mpsc::Receiver<Batch>, waiting: &AtomicUsize, mut model: M)
where
    M: FnMut(usize, usize, Vec<i64>, Vec<i64>) -> Result<Vec<Answer>, String>,
{
    while let Some(batch) = queue.blocking_recv() {
        waiting.fetch_sub(batch.tokens, Ordering::Relaxed);
        let started = Instant::now();
        if batch.reply.is_closed() {
            continue;
        }
        if batch.deadline.is_some_and(|d| d <= started) {
            let _ = batch.reply.send(Err(Error::Expired { generated: 0 }));
            continue;
        }
        let Batch {
            rows,
            columns,
            ids,
            mask,
            queued,
            reply,
            ..
        } = batch;
        let _ = reply.send(match model(rows, columns, ids, mask) {
            Ok(answers) => Ok(Ran {
                answers,
                queue: started - queued,
                run: started.elapsed(),
            }),
            Err(message) => Err(Error::Broken { message }),
        });
    }
}

/// One batch through the model.
pub(super) fn answer(
    model: &mut OrtEncoder,
    wanted: &Wanted,
    rows: usize,
    columns: usize,
    ids: Vec<i64>,
    mask: Vec<i64>,
) -> Result<Vec<Answer>, String> {
    let outputs = model
        .run(rows, columns, ids, mask.clone(), Vec::new())
        .map_err(|e| e.to_string())?;
    let [output] = &outputs[..] else {
        return Err(format!("the model gave {} tensors, not one", outputs.len()));
    };
    let mask = &mask;
    pool::answers(output, &Pooled { rows, columns, mask }, wanted)
}

/// Runs what shows at load, and not in a caller's answer, that model, tokenizer and card are not of one export: the last
/// token of the vocabulary, two rows, one of them padded, and one row as long as the card allows. `run` takes `rows`, `columns`,
/// `ids` and `mask`.
pub(crate) fn prove(
    tokenizer: &Tokenizer,
    context_tokens: usize,
    mut run: impl FnMut(usize, usize, Vec<i64>, Vec<i64>) -> Result<(), String>,
) -> Result<(), String> {
    let last = tokenizer
        .get_vocab(true)
        .into_values()
        .max()
        .ok_or("the tokenizer has no tokens")?;
    let last = i64::from(last);
    let two = run(2, 2, vec![last, last, last, 0], vec![1, 1, 1, 0]);
    two.map_err(|e| format!("it does not run on two texts of tokens up to {last}, the tokenizer's last: {e}"))?;
    let long = context_tokens.min(PROVEN_TOKENS);
    let one = run(1, long, vec![last; long], vec![1; long]);
    one.map_err(|e| format!("it does not run on {long} tokens, which [limits] context_tokens allows: {e}"))
}
