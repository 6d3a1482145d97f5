//! From a filler's logits to calls. Pure.
//!
//! Which methods are called and in which order is said at their names; each parameter's value comes from the likeliest of four
//! sources: nowhere, a known value, a run of the conversation's words, or what an earlier call returned.
use super::{read::Given, slots::Slots};
use crate::{folder::manifest::Filling, sampling::Choice};
use std::ops::Range;

/// Where a value comes from, in the order of the model's `source` logits.
const ABSENT: usize = 0;
const VALUE: usize = 1;
const RUN: usize = 2;
const REFERENCE: usize = 3;
/// Of `source`.
pub(super) const SOURCES: usize = 4;

/// Tokens of a run at most: the longest value of Schema-Guided Dialogue's training rows has 21.
const LONGEST: usize = 24;

/// At the ends of a run: a turn's mark and the sentence's stops are no part of a value.
const EDGES: &[char] = &[' ', '\t', '\n', '.', ',', ';', ':', '!', '?', '<', '>'];

/// Logits of one row, all finite. M methods, P parameters, T tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logits<'a> {
    /// `[M]`: whether it is called.
    pub(super) called: &'a [f32],
    /// `[M]`: who is called earlier has less.
    pub(super) order: &'a [f32],
    /// `[P, SOURCES]`.
    pub(super) source: Rows<'a>,
    /// `[P, values]`.
    pub(super) value: Rows<'a>,
    /// `[P, T]`: a run's first token, and its last.
    pub(super) first: Rows<'a>,
    pub(super) last: Rows<'a>,
    /// `[P, M]`: the call that is referred to.
    pub(super) origin: Rows<'a>,
    /// `[P, 1 + fields]`: the parameter's own name, then the fields.
    pub(super) field: Rows<'a>,
}

/// A matrix, row-major.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) width: usize,
}

impl<'a> Rows<'a> {
    fn row(self, i: usize) -> &'a [f32] {
        &self.values[i * self.width..(i + 1) * self.width]
    }
}

/// What fills a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fill {
    /// A literal.
    Text(String),
    /// What an earlier call returned: its number, from 1, and the field.
    Reference(usize, String),
}

/// A call: a method, and what its parameters are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which service.
    pub service: String,
    /// Which of its methods.
    pub method: String,
    /// (name, what fills it), in the order of the input; those that nothing fills are not there.
    pub parameters: Vec<(String, Fill)>,
}

/// Calls in their order, at least one, and each choice that was made.
pub(super) fn read(slots: &Slots, way: &Filling, given: &Given, logits: &Logits<'_>) -> (Vec<Call>, Vec<Choice>) {
    let methods = &given.asked.methods;
    let offered: Vec<f64> = logits.called[..methods.len()].iter().map(|x| f64::from(*x)).collect();
    let (mut called, mut choices) = if way.single {
        one_of(&offered)
    } else {
        each_of(&offered, way.called)
    };
    called.sort_by(|a, b| logits.order[*a].total_cmp(&logits.order[*b]).then(a.cmp(b)));
    let mut calls = Vec::with_capacity(called.len());
    for (n, method) in called.iter().enumerate() {
        let (service, name) = methods[*method].clone();
        let before = if way.references { &called[..n] } else { &[] };
        let mut call = Call {
            service,
            method: name,
            parameters: Vec::new(),
        };
        for (p, (of, parameter)) in given.asked.parameters.iter().enumerate() {
            if of == method {
                let (filled, choice) = fill(slots, way, given, logits, p, before);
                choices.push(choice);
                call.parameters.extend(filled.map(|fill| (parameter.clone(), fill)));
            }
        }
        calls.push(call);
    }
    (calls, choices)
}

/// The likeliest method alone, and that choice.
fn one_of(offered: &[f64]) -> (Vec<usize>, Vec<Choice>) {
    let (best, scores) = (greatest(offered), log_softmax(offered));
    let others = (0..scores.len()).filter(|m| *m != best).map(|m| scores[m]);
    let choice = Choice {
        token: u32::try_from(best).unwrap_or(u32::MAX),
        logprob: scores[best],
        margin: scores[best] - others.fold(f64::MIN, f64::max),
    };
    (vec![best], vec![choice])
}

/// The methods that are called with so much probability, at least one, and the choice of each.
fn each_of(offered: &[f64], called: f64) -> (Vec<usize>, Vec<Choice>) {
    let least = (called / (1.0 - called)).ln();
    let mut chosen: Vec<usize> = (0..offered.len()).filter(|m| offered[*m] >= least).collect();
    if chosen.is_empty() {
        chosen.push(greatest(offered));
    }
    let choice = |(m, x): (usize, &f64)| {
        let x = if chosen.contains(&m) { *x } else { -x };
        Choice {
            token: u32::from(chosen.contains(&m)),
            logprob: -(-x).exp().ln_1p(),
            margin: x,
        }
    };
    let choices = offered.iter().enumerate().map(choice).collect();
    (chosen, choices)
}

/// What is likeliest of one parameter, with the calls before its own that it may refer to.
fn fill(
    slots: &Slots,
    way: &Filling,
    given: &Given,
    logits: &Logits<'_>,
    p: usize,
    before: &[usize],
) -> (Option<Fill>, Choice) {
    let (method, parameter) = &given.asked.parameters[p];
    let may = [
        true,
        !slots.values.is_empty() && !way.literal,
        !given.text.is_empty(),
        !before.is_empty(),
    ];
    let source: Vec<f64> = logits
        .source
        .row(p)
        .iter()
        .zip(may)
        .map(|(x, may)| if may { f64::from(*x) } else { f64::NEG_INFINITY })
        .collect();
    let source = log_softmax(&source);
    let known = slots.known(&given.asked.methods[*method].0, parameter);
    let chosen = match greatest(&source) {
        // A literal, of a parameter of which none is known: it can only be what was said, and no other parameter's value.
        VALUE if known.is_empty() && !given.text.is_empty() => RUN,
        chosen => chosen,
    };
    let (filled, logprob) = match chosen {
        VALUE => {
            let known = if known.is_empty() {
                (0..slots.values.len()).collect()
            } else {
                known
            };
            let row = logits.value.row(p);
            let value = log_softmax(&known.iter().map(|i| f64::from(row[*i])).collect::<Vec<_>>());
            let best = greatest(&value);
            (Some(Fill::Text(slots.values[known[best]].clone())), value[best])
        }
        RUN => {
            let of = |rows: Rows<'_>| {
                let row = rows.row(p);
                log_softmax(&given.text.iter().map(|t| f64::from(row[t.at])).collect::<Vec<_>>())
            };
            let (run, logprob) = run(&of(logits.first), &of(logits.last));
            let (first, last) = (given.text[run.start], given.text[run.end - 1]);
            // Tokens stand in the order of the text; of a tokenizer that has them otherwise, nothing is between them.
            let words = given.asked.text.get(first.start..last.end).unwrap_or_default();
            let words = words.trim_matches(EDGES);
            ((!words.is_empty()).then(|| Fill::Text(words.to_owned())), logprob)
        }
        REFERENCE => {
            let row = logits.origin.row(p);
            let origin = log_softmax(&before.iter().map(|m| f64::from(row[*m])).collect::<Vec<_>>());
            let field = log_softmax(&logits.field.row(p).iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
            let named = |at: usize| at.checked_sub(1).map_or(parameter, |i| &slots.fields[i]);
            let may = |call: usize, at: usize| {
                let (service, method) = &given.asked.methods[before[call]];
                slots.may_return(service, method, named(at))
            };
            let pairs: Vec<(usize, usize)> = (0..before.len())
                .flat_map(|call| (0..field.len()).map(move |at| (call, at)))
                .collect();
            // Where nothing that was called returns such a field, it is as likely to be unknown here as to be wrong.
            let free = !pairs.iter().any(|(call, at)| may(*call, *at));
            let score = |(call, at): &(usize, usize)| {
                if free || may(*call, *at) {
                    origin[*call] + field[*at]
                } else {
                    f64::NEG_INFINITY
                }
            };
            let scores = log_softmax(&pairs.iter().map(score).collect::<Vec<_>>());
            let best = greatest(&scores);
            let (call, at) = pairs[best];
            (Some(Fill::Reference(call + 1, named(at).clone())), scores[best])
        }
        _ => {
            debug_assert_eq!(chosen, ABSENT);
            (None, 0.0)
        }
    };
    let others = (0..SOURCES).filter(|i| *i != chosen).map(|i| source[i]);
    let choice = Choice {
        token: u32::try_from(chosen).unwrap_or(u32::MAX),
        logprob: source[chosen] + logprob,
        margin: source[chosen] - others.fold(f64::MIN, f64::max),
    };
    (filled, choice)
}

/// The likeliest run of at most [`LONGEST`] tokens, of equal ones the first, and its log probability.
fn run(first: &[f64], last: &[f64]) -> (Range<usize>, f64) {
    let mut best = (0..1, f64::NEG_INFINITY);
    for (start, begins) in first.iter().enumerate() {
        let part = &last[start..last.len().min(start + LONGEST)];
        let end = greatest(part);
        if begins + part[end] > best.1 {
            best = (start..start + end + 1, begins + part[end]);
        }
    }
    best
}

/// Index of the greatest, the first of equals.
fn greatest<T: PartialOrd>(of: &[T]) -> usize {
    (1..of.len()).fold(0, |best, i| if of[i] > of[best] { i } else { best })
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - most).exp()).sum();
    logits.iter().map(|l| l - most - sum.ln()).collect()
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
