//! BLEU of a file (Papineni et al., 2002) as sacrebleu's `corpus_bleu(.., lowercase=True)` has it, which is score.py's.
//!
//! Its defaults: tokens of mteval-v13a, n-grams of one to four, counts of the whole file, one reference each, the brevity penalty, and
//! "exp" smoothing (Chen and Cherry, 2014, method 3): each length of which nothing matches counts half as much as the one before it.
use crate::eval::norm::is_space;
use std::{collections::HashMap, iter::zip};

/// Words of the longest n-gram.
const LONGEST: usize = 4;

/// Counts over all pairs.
#[derive(Debug, Default)]
pub(super) struct Bleu {
    pairs: usize,
    said: usize,
    wanted: usize,
    matched: [usize; LONGEST],
    all: [usize; LONGEST],
}

impl Bleu {
    /// One more sentence, and what it should have been.
    pub(super) fn add(&mut self, said: &str, wanted: &str) {
        let (said, wanted) = (tokens(said), tokens(wanted));
        self.pairs += 1;
        self.said += said.len();
        self.wanted += wanted.len();
        for n in 1..=LONGEST {
            let (said, wanted) = (grams(&said, n), grams(&wanted, n));
            self.all[n - 1] += said.values().sum::<usize>();
            let matched = said
                .iter()
                .map(|(gram, times)| times.min(wanted.get(gram).unwrap_or(&0)));
            self.matched[n - 1] += matched.sum::<usize>();
        }
    }

    /// 0 to 100; none of no pair.
    #[expect(clippy::cast_precision_loss, reason = "counts of words are far below 2^53")]
    pub(super) fn value(&self) -> Option<f64> {
        if self.pairs == 0 {
            return None;
        }
        // Of a sentence too short for the longest n-gram sacrebleu takes the logarithm of nothing, which is as good as zero.
        if self.matched == [0; LONGEST] || self.all.contains(&0) {
            return Some(0.0);
        }
        let (said, wanted) = (self.said as f64, self.wanted as f64);
        let brevity = if said < wanted {
            (1.0 - wanted / said).exp()
        } else {
            1.0
        };
        let (mut smooth, mut sum) = (1.0, 0.0);
        for (matched, all) in zip(self.matched, self.all) {
            let precision: f64 = if matched == 0 {
                smooth *= 2.0;
                100.0 / (smooth * all as f64)
            } else {
                100.0 * matched as f64 / all as f64
            };
            sum += precision.ln();
        }
        Some(brevity * (sum / LONGEST as f64).exp())
    }
}

/// How often each run of `n` tokens occurs.
fn grams(tokens: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut times = HashMap::new();
    tokens.windows(n).for_each(|gram| *times.entry(gram).or_default() += 1);
    times
}

/// The tokens of mteval-v13a, lowercased.
fn tokens(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let text = text.trim_end_matches(is_space).replace("<skipped>", "");
    let mut text = text.replace("-\n", "").replace('\n', " ");
    for (entity, is) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        text = text.replace(entity, is);
    }
    let stop = |c: char| matches!(c, '.' | ',');
    let alone = format!(" {text} ").chars().fold(String::new(), |mut out, c| {
        if matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/') {
            out.extend([' ', c, ' ']);
        } else {
            out.push(c);
        }
        out
    });
    let behind = pairs(&alone, |a, b| {
        (!a.is_ascii_digit() && stop(b)).then_some([a, ' ', b, ' '])
    });
    let before = pairs(&behind, |a, b| {
        (stop(a) && !b.is_ascii_digit()).then_some([' ', a, ' ', b])
    });
    let dashed = pairs(&before, |a, b| {
        (a.is_ascii_digit() && b == '-').then_some([a, ' ', b, ' '])
    });
    dashed
        .split(is_space)
        .filter(|t| !t.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Replaces pairs of characters from left to right, none of which is part of two: `re.sub`.
fn pairs(text: &str, by: impl Fn(char, char) -> Option<[char; 4]>) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text.chars());
    while let Some(a) = rest.next() {
        let after = rest.clone().next().and_then(|b| by(a, b));
        match after {
            Some(four) => {
                out.extend(four);
                rest.next();
            }
            None => out.push(a),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::path::Path;

    #[test]
    fn every_figure_is_what_sacrebleu_computed() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bleu/pairs.jsonl");
        let text = std::fs::read_to_string(file).expect("fixtures/bleu/make.py made it");
        let mut so_far = Bleu::default();
        for line in text.lines() {
            let row: Value = serde_json::from_str(line).expect("a row");
            let (said, wanted) = (
                row["said"].as_str().expect("said"),
                row["wanted"].as_str().expect("wanted"),
            );
            let mut alone = Bleu::default();
            alone.add(said, wanted);
            so_far.add(said, wanted);
            for (name, ours) in [("alone", alone.value()), ("so_far", so_far.value())] {
                let (ours, theirs) = (ours.expect("a pair"), row[name].as_f64().expect("a figure"));
                // The last digit is the mathematics library's, and the order of a sum.
                assert!((ours - theirs).abs() < 1e-9, "{name}: {ours} for {theirs} of {line}");
            }
        }
        assert!(text.lines().count() > 30);
        assert_eq!(Bleu::default().value(), None);
    }

    #[test]
    fn tokens_are_those_of_mteval() {
        let cases = [
            ("It costs $1,234.50, OK?", "it costs $ 1,234.50 , ok ?"),
            ("10-11 p.m. (Don't!)", "10 - 11 p . m . ( don't ! )"),
            ("a<skipped>b -\nc &quot;&amp;lt; ", "ab c \" <"),
        ];
        for (text, wanted) in cases {
            assert_eq!(tokens(text).join(" "), wanted, "{text}");
        }
    }
}
