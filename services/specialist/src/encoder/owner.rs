//! The owner thread of an encoder: what waits together runs together, within a budget of tokens, and each call has its own answers.
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

/// Tokens of one run of several calls, padding included: as many as a tagger's, for the same reason (`one_run`).
const RUN_TOKENS: usize = 512;

/// The texts of one call, and who waits for them.
pub(super) struct Batch {
    texts: Vec<Vec<u32>>,
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
        texts: Vec<Vec<u32>>,
        deadline: Option<Instant>,
        reply: oneshot::Sender<Result<Ran, Error>>,
    ) -> Self {
        Self {
            texts,
            deadline,
            queued: Instant::now(),
            reply,
        }
    }

    pub(super) fn tokens(&self) -> usize {
        self.texts.iter().map(Vec::len).sum()
    }

    fn columns(&self) -> usize {
        self.texts.iter().map(Vec::len).max().unwrap_or(1)
    }

    /// Whether somebody still wants it; who came too late is told so.
    fn wanted(self) -> Option<Self> {
        if self.reply.is_closed() {
            return None;
        }
        if self.deadline.is_some_and(|d| d <= Instant::now()) {
            let _ = self.reply.send(Err(Error::Expired { generated: 0 }));
            return None;
        }
        Some(self)
    }
}

/// Until the handle is gone. `model` makes answers of `rows`, `columns`, `ids` and `mask`, right-padded.
pub(super) fn run<M>(mut queue: mpsc::Receiver<Batch>, waiting: &AtomicUsize, mut model: M)
where
    M: FnMut(usize, usize, Vec<i64>, Vec<i64>) -> Result<Vec<Answer>, String>,
{
    let taken = |batch: Batch| {
        waiting.fetch_sub(batch.tokens(), Ordering::Relaxed);
        batch.wanted()
    };
    // Taken from the queue, and too much for the run before.
    let mut left: Option<Batch> = None;
    loop {
        let first = match left.take() {
            Some(batch) => batch.wanted(),
            None => match queue.blocking_recv() {
                Some(batch) => taken(batch),
                None => return,
            },
        };
        let Some(first) = first else { continue };
        let (mut rows, mut columns) = (first.texts.len(), first.columns());
        let mut together = vec![first];
        while let Ok(next) = queue.try_recv() {
            let Some(next) = taken(next) else { continue };
            let wider = columns.max(next.columns());
            if (rows + next.texts.len()) * wider > RUN_TOKENS {
                left = Some(next);
                break;
            }
            (rows, columns) = (rows + next.texts.len(), wider);
            together.push(next);
        }
        serve(together, &mut model);
    }
}

/// Runs batches together, and each alone if that fails: a model that breaks on one text costs the others nothing.
fn serve<M>(together: Vec<Batch>, model: &mut M)
where
    M: FnMut(usize, usize, Vec<i64>, Vec<i64>) -> Result<Vec<Answer>, String>,
{
    let started = Instant::now();
    let ran = one_run(&together, model);
    match ran {
        Ok(answers) => {
            let run = started.elapsed();
            let mut answers = answers.into_iter();
            for batch in together {
                let _ = batch.reply.send(Ok(Ran {
                    answers: answers.by_ref().take(batch.texts.len()).collect(),
                    queue: started - batch.queued,
                    run,
                }));
            }
        }
        Err(message) if together.len() == 1 => {
            for batch in together {
                let _ = batch.reply.send(Err(Error::Broken {
                    message: message.clone(),
                }));
            }
        }
        Err(_) => together.into_iter().for_each(|batch| serve(vec![batch], model)),
    }
}

fn one_run<M>(batches: &[Batch], model: &mut M) -> Result<Vec<Answer>, String>
where
    M: FnMut(usize, usize, Vec<i64>, Vec<i64>) -> Result<Vec<Answer>, String>,
{
    let texts: Vec<&Vec<u32>> = batches.iter().flat_map(|b| &b.texts).collect();
    let (rows, columns) = (texts.len(), batches.iter().map(Batch::columns).max().unwrap_or(1));
    let padded = |of: fn(u32) -> i64| {
        let row = move |text: &&Vec<u32>| {
            let filled: Vec<i64> = text.iter().map(|id| of(*id)).collect();
            filled.into_iter().chain(std::iter::repeat(0)).take(columns)
        };
        texts.iter().flat_map(row).collect::<Vec<i64>>()
    };
    let answers = model(rows, columns, padded(i64::from), padded(|_| 1))?;
    if answers.len() != rows {
        return Err(format!("the model gave {} answers for {rows} texts", answers.len()));
    }
    Ok(answers)
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
