//! The owner thread of an encoder: what waits together runs together, within a budget of tokens, and each call has its own answers.
//!
//! A call of more texts than run at once is taken through the model in parts, and what waits beside it gets its turn between two of them. Of the
//! calls that have begun the most urgent have theirs in turn, and the others now and then.
use super::{
    Answer,
    pool::{self, Pooled, Wanted},
};
use crate::{
    engine::{
        Shared, Waits, gone,
        queue::{Class, Line, PATIENCE, Urgency},
    },
    error::Error,
    faults::Faults,
    runtime::{OrtEncoder, Padded},
    telemetry::Instruments,
};
use std::{
    cmp::Reverse,
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use tracing::error;

/// Calls that are taken through the model in parts at one time, and as many more if they are more urgent than those. More of them wait in the queue,
/// where they are counted: each has left it with up to [`super::TEXTS`] texts.
const BEGUN: usize = 8;

/// The texts of one call, and who waits for them.
pub(super) struct Call {
    texts: Vec<Vec<u32>>,
    urgency: Urgency,
    admitted: Instant,
    reply: oneshot::Sender<Result<Ran, Error>>,
}

/// What came of a call.
pub(super) struct Ran {
    pub answers: Vec<Answer>,
    pub queue: Duration,
    pub run: Duration,
}

impl Call {
    pub(super) fn of(texts: Vec<Vec<u32>>, urgency: Urgency, reply: oneshot::Sender<Result<Ran, Error>>) -> Self {
        Self {
            texts,
            urgency,
            admitted: Instant::now(),
            reply,
        }
    }

    pub(super) fn tokens(&self) -> usize {
        self.texts.iter().map(Vec::len).sum()
    }

    fn columns(&self) -> usize {
        self.texts.iter().map(Vec::len).max().unwrap_or(1)
    }

    /// Whether its texts run at once, in runs of so many tokens.
    fn is_one_run(&self, run_tokens: usize) -> bool {
        self.texts.len() == 1 || self.texts.len() * self.columns() <= run_tokens
    }

    /// The line that it waits in.
    pub(super) fn line(&self, run_tokens: usize) -> Line {
        if self.is_one_run(run_tokens) {
            self.urgency.class.into()
        } else {
            self.urgency.class.in_parts()
        }
    }
}

impl Waits for Call {
    fn left(&self) -> bool {
        self.reply.is_closed()
    }

    fn urgency(&self) -> Urgency {
        self.urgency
    }

    fn fail(self, error: Error) {
        let _ = self.reply.send(Err(error));
    }
}

/// A call that is taken through the model in parts.
struct Begun {
    call: Call,
    /// Which texts run together, those to come.
    parts: Vec<Vec<usize>>,
    answers: Vec<Option<Answer>>,
    started: Instant,
    ran: Duration,
    /// Parts of others since its last.
    passed_over: u32,
}

impl Begun {
    fn of(call: Call, run_tokens: usize) -> Self {
        let lengths: Vec<usize> = call.texts.iter().map(Vec::len).collect();
        Self {
            parts: parts(&lengths, run_tokens),
            answers: vec![None; lengths.len()],
            started: Instant::now(),
            ran: Duration::ZERO,
            passed_over: 0,
            call,
        }
    }
}

/// Which texts run together: those of like length, for a text is padded to the longest beside it; each run within `budget`, or of one text.
fn parts(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|i| Reverse(lengths[*i]));
    let mut parts: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match parts.last_mut() {
            Some(part) if (part.len() + 1) * lengths[part[0]] <= budget => part.push(i),
            _ => parts.push(vec![i]),
        }
    }
    parts
}

pub(super) struct Owner<M> {
    pub(super) model: M,
    pub(super) shared: Arc<Shared<Call>>,
    pub(super) instruments: Instruments,
    run_tokens: usize,
    begun: VecDeque<Begun>,
    faults: Faults,
}

impl<M> Owner<M>
where
    M: FnMut(Padded) -> Result<Vec<Answer>, String>,
{
    pub(super) fn new(model: M, shared: Arc<Shared<Call>>, instruments: Instruments, run_tokens: usize) -> Self {
        Self {
            model,
            shared,
            instruments,
            run_tokens,
            begun: VecDeque::new(),
            faults: Faults::default(),
        }
    }

    /// Until the handle closes, or no run works any more: in turn what waits, and a part of what has begun.
    pub(super) fn run(mut self) {
        while !self.is_broken()
            && let Some(together) = self.admit()
        {
            match &together[..] {
                [] => {}
                [call] if !call.is_one_run(self.run_tokens) => {
                    let begun = together.into_iter().map(|call| Begun::of(call, self.run_tokens));
                    self.begun.extend(begun);
                }
                _ => self.serve(together),
            }
            if let Some(begun) = self.next_begun() {
                self.go_on(begun);
            }
        }
        for begun in self.begun {
            begun.call.fail(Error::Closing);
        }
    }

    /// Takes as many waiting calls as run together; waits if there are none, and nothing has begun. `None` at the end.
    fn admit(&self) -> Option<Vec<Call>> {
        let mut state = self.shared.lock();
        loop {
            if state.closing {
                return None;
            }
            state.drop_dead(&self.instruments, false);
            let (mut together, mut rows, mut columns) = (Vec::new(), 0, 0);
            // Of a class, while as many as urgent have begun as may, only what runs at once is asked for.
            let may_begin = |class: Class| {
                let as_urgent = self.begun.iter().filter(|begun| begun.call.urgency.class <= class);
                as_urgent.count() < BEGUN
            };
            let mut first: Option<Class> = None;
            let open = |line: Line, first: Option<Class>| match first {
                None => !line.in_parts || may_begin(line.class),
                // A run is as long as all of its texts take, and nobody waits for what is less urgent.
                Some(class) => !line.in_parts && line.class <= class,
            };
            let fits = |call: &Call, rows: usize, columns: usize| {
                rows == 0 || (rows + call.texts.len()) * call.columns().max(columns) <= self.run_tokens
            };
            while let Some(next) = state
                .queue
                .take_among(|line| open(line, first), |call| fits(call, rows, columns))
            {
                first = first.or(Some(next.urgency.class));
                (rows, columns) = (rows + next.texts.len(), columns.max(next.columns()));
                together.push(next);
            }
            self.shared.count(&state);
            if !together.is_empty() || !self.begun.is_empty() {
                return Some(together);
            }
            state = self.shared.wait(state);
        }
    }

    /// Runs calls together, and each alone if that fails: a model that breaks on one text costs the others nothing.
    fn serve(&mut self, together: Vec<Call>) {
        let started = Instant::now();
        let texts: Vec<&[u32]> = together
            .iter()
            .flat_map(|call| &call.texts)
            .map(Vec::as_slice)
            .collect();
        match self.one_run(&texts) {
            Ok(answers) => {
                let run = started.elapsed();
                let mut answers = answers.into_iter();
                for call in together {
                    let answers = answers.by_ref().take(call.texts.len()).collect();
                    self.answer(call, answers, started, run);
                }
            }
            Err(message) if together.len() == 1 => {
                together.into_iter().for_each(|call| self.fail(call, message.clone()))
            }
            Err(_) => together.into_iter().for_each(|call| self.serve(vec![call])),
        }
    }

    /// Whose part is next: those of the most urgent class in turn, and whoever was passed over [`PATIENCE`] times.
    fn next_begun(&mut self) -> Option<Begun> {
        let impatient = self.begun.iter().position(|begun| begun.passed_over >= PATIENCE);
        let class = |at: &usize| self.begun[*at].call.urgency.class;
        let at = impatient.or_else(|| (0..self.begun.len()).min_by_key(class))?;
        let next = self.begun.remove(at)?;
        self.begun.iter_mut().for_each(|begun| begun.passed_over += 1);
        Some(Begun { passed_over: 0, ..next })
    }

    /// Runs the next part of a call, if somebody still waits for it.
    fn go_on(&mut self, mut begun: Begun) {
        if let Some(outcome) = begun.call.gone(Instant::now()) {
            self.instruments.ended(outcome);
            return begun.call.fail(Error::Expired { generated: 0 });
        }
        let part = begun.parts.pop().unwrap_or_default();
        let started = Instant::now();
        let texts: Vec<&[u32]> = part.iter().map(|i| &begun.call.texts[*i][..]).collect();
        let ran = self.one_run(&texts);
        begun.ran += started.elapsed();
        match ran {
            Err(message) => return self.fail(begun.call, message),
            Ok(answers) => part
                .into_iter()
                .zip(answers)
                .for_each(|(i, a)| begun.answers[i] = Some(a)),
        }
        if begun.parts.is_empty() {
            let answers = begun.answers.into_iter().flatten().collect();
            self.answer(begun.call, answers, begun.started, begun.ran);
        } else {
            self.begun.push_back(begun);
        }
    }

    /// Whether not even a text of one token can be run, after runs that failed.
    fn is_broken(&mut self) -> bool {
        if !self.faults.are_suspicious() {
            return false;
        }
        let ran = self.one_run(&[&[0]]);
        if let Err(error) = &ran {
            error!(error, "nothing can be run any more: the model stops");
        }
        ran.is_err()
    }

    fn one_run(&mut self, texts: &[&[u32]]) -> Result<Vec<Answer>, String> {
        let live = &self.instruments.counters.clone().live_slots;
        live.store(texts.len() as u64, Ordering::Relaxed);
        let answers = (self.model)(Padded::of(texts));
        self.faults.heard(&answers);
        live.store(0, Ordering::Relaxed);
        let answers = answers?;
        if answers.len() != texts.len() {
            let (given, rows) = (answers.len(), texts.len());
            return Err(format!("the model gave {given} answers for {rows} texts"));
        }
        Ok(answers)
    }

    fn answer(&self, call: Call, answers: Vec<Answer>, started: Instant, run: Duration) {
        self.instruments.prefilled(call.tokens());
        let queue = started - call.admitted;
        let heard = call.reply.send(Ok(Ran { answers, queue, run })).is_ok();
        let unheard = if heard {
            None
        } else {
            gone(true, call.urgency.deadline, Instant::now())
        };
        self.instruments.ended(unheard.unwrap_or("stop"));
    }

    fn fail(&self, call: Call, message: String) {
        call.fail(Error::Broken { message });
        self.instruments.ended("failed");
    }
}

/// One batch through the model.
pub(super) fn answer(model: &mut OrtEncoder, wanted: &Wanted, batch: &Padded) -> Result<Vec<Answer>, String> {
    let outputs = model.run(batch, Vec::new()).map_err(|e| e.to_string())?;
    let [output] = &outputs[..] else {
        return Err(format!("the model gave {} tensors, not one", outputs.len()));
    };
    let Padded {
        rows, columns, mask, ..
    } = batch;
    let (rows, columns) = (*rows, *columns);
    pool::answers(output, &Pooled { rows, columns, mask }, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::one_run::RUN_TOKENS;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_text_is_in_one_part_and_a_part_is_within_the_budget_or_one_text(
            lengths in prop::collection::vec(1usize..600, 1..64),
        ) {
            let parts = parts(&lengths, RUN_TOKENS);
            let mut all: Vec<usize> = parts.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for part in &parts {
                let longest = part.iter().map(|i| lengths[*i]).max().unwrap_or(0);
                prop_assert!(part.len() == 1 || part.len() * longest <= RUN_TOKENS, "{:?}", part);
            }
            // No two neighbours would have fitted together.
            for pair in parts.windows(2) {
                prop_assert!((pair[0].len() + 1) * lengths[pair[0][0]] > RUN_TOKENS);
            }
        }
    }
}
