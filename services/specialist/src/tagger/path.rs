//! From a tagger's logits to its reading of a text: the likeliest class and tags that go together. Pure.
//!
//! Tags are in BIO form (Ramshaw and Marcus, 1995): B begins a span of a label, I continues it, O is outside. For each class the
//! likeliest valid path over the tags that it allows is found by dynamic programming (Viterbi, 1967); the class whose log
//! probability and path together are the likeliest is read. So a class is not read because of words that it has no place for.
use crate::{folder::manifest::Tag, sampling::Choice};
use std::{collections::HashSet, ops::Range};

/// The tag of a token outside every span.
const OUTSIDE: usize = 0;

/// The tag that begins a span of `label`.
fn begins(label: usize) -> usize {
    1 + 2 * label
}

/// The tag that continues a span of `label`.
fn continues(label: usize) -> usize {
    2 + 2 * label
}

/// What a model reads: its classes and labels, in its order, and which go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagset {
    classes: Vec<String>,
    labels: Vec<String>,
    /// `[classes][labels]`; one row if there are no classes.
    allowed: Vec<Vec<bool>>,
}

impl Tagset {
    /// As the card says.
    #[must_use]
    pub fn of(card: &Tag) -> Self {
        let all = vec![true; card.labels.len()];
        let allowed = |class: &String| match card.allowed.get(class) {
            Some(labels) => card.labels.iter().map(|l| labels.contains(l)).collect(),
            None => all.clone(),
        };
        Self {
            allowed: match card.classes.is_empty() {
                true => vec![all.clone()],
                false => card.classes.iter().map(allowed).collect(),
            },
            classes: card.classes.clone(),
            labels: card.labels.clone(),
        }
    }

    /// Class logits of a text.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Tag logits of a token: O, then B and I of each label.
    #[must_use]
    pub fn tags(&self) -> usize {
        1 + 2 * self.labels.len()
    }

    /// A class's name.
    #[must_use]
    pub fn class(&self, class: usize) -> Option<&str> {
        self.classes.get(class).map(String::as_str)
    }

    /// A label's name.
    #[must_use]
    pub fn label(&self, label: usize) -> &str {
        self.labels.get(label).map_or("", String::as_str)
    }

    /// Which labels are among the names, in the model's order.
    #[must_use]
    pub fn among(&self, names: &[String]) -> Vec<bool> {
        let names: HashSet<&str> = names.iter().map(String::as_str).collect();
        self.labels.iter().map(|l| names.contains(l.as_str())).collect()
    }

    /// The names of each class and of the labels that it may have; without classes, no name and all labels.
    pub fn allowed(&self) -> impl Iterator<Item = (Option<&str>, Vec<&str>)> {
        self.allowed.iter().enumerate().map(|(class, allowed)| {
            let labels = self.labels.iter().zip(allowed).filter(|(_, may)| **may);
            (self.class(class), labels.map(|(label, _)| label.as_str()).collect())
        })
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Of a model that has classes.
    pub class: Option<usize>,
    /// One for each token: O is 0, B of a label 1 + 2 * label, I of it one more.
    pub tags: Vec<usize>,
    /// What was chosen and how likely it was: the class, if there are any, then the tag of each token. Its `token` is the class
    /// or the tag.
    pub choices: Vec<Choice>,
}

/// A span: a label, and the tokens that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Which label.
    pub label: usize,
    /// Indices of tokens; not empty.
    pub tokens: Range<usize>,
}

/// Reads a text. `tags: [tokens][tags]` are logits of the tokens that may be part of a span, `classes: [classes]` those of the
/// text; all finite. `wanted: [labels]` says which labels may be found, beside what the class says; `None`: all. Of equally likely
/// readings it is the one of the first class.
#[must_use]
pub fn read(tagset: &Tagset, tags: &[&[f32]], classes: &[f32], wanted: Option<&[bool]>) -> Reading {
    let (by_token, by_class): (Vec<Vec<f64>>, Vec<f64>) =
        (tags.iter().map(|row| log_softmax(row)).collect(), log_softmax(classes));
    let mut best: Option<(f64, usize, Vec<usize>)> = None;
    for (class, allowed) in tagset.allowed.iter().enumerate() {
        let both = |(of_class, asked): (&bool, &bool)| *of_class && *asked;
        let allowed: Vec<bool> = match wanted {
            None => allowed.clone(),
            Some(wanted) => allowed.iter().zip(wanted).map(both).collect(),
        };
        let (path_score, path) = likeliest(&by_token, &allowed);
        let score = by_class.get(class).copied().unwrap_or(0.0) + path_score;
        if best.as_ref().is_none_or(|(least, ..)| score > *least) {
            best = Some((score, class, path));
        }
    }
    let (class, tags) = best.map_or((0, Vec::new()), |(_, class, path)| (class, path));
    let class = (class < tagset.classes()).then_some(class);
    let of_class = class.map(|class| choice(&by_class, class));
    let of_tags = by_token.iter().zip(&tags).map(|(row, tag)| choice(row, *tag));
    Reading {
        class,
        choices: of_class.into_iter().chain(of_tags).collect(),
        tags,
    }
}

/// Sum of log probabilities and tags of the likeliest valid path.
fn likeliest(by_token: &[Vec<f64>], allowed: &[bool]) -> (f64, Vec<usize>) {
    let tags = 1 + 2 * allowed.len();
    // Of the likeliest path up to the token before that ends in each tag: before the first there is only the outside.
    let mut before = vec![f64::NEG_INFINITY; tags];
    before[OUTSIDE] = 0.0;
    let mut came: Vec<Vec<usize>> = Vec::with_capacity(by_token.len());
    for row in by_token {
        let from = greatest(&before);
        let (mut now, mut back) = (vec![f64::NEG_INFINITY; tags], vec![from; tags]);
        now[OUTSIDE] = before[from] + row[OUTSIDE];
        for label in (0..allowed.len()).filter(|label| allowed[*label]) {
            let (b, i) = (begins(label), continues(label));
            now[b] = before[from] + row[b];
            back[i] = if before[b] >= before[i] { b } else { i };
            now[i] = before[back[i]] + row[i];
        }
        before = now;
        came.push(back);
    }
    let last = greatest(&before);
    let mut path = Vec::with_capacity(by_token.len());
    let mut tag = last;
    for back in came.iter().rev() {
        path.push(tag);
        tag = back[tag];
    }
    path.reverse();
    (before[last], path)
}

/// Index of the greatest, the first of equals.
fn greatest(of: &[f64]) -> usize {
    (1..of.len()).fold(0, |best, i| if of[i] > of[best] { i } else { best })
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|l| (f64::from(*l) - most).exp()).sum();
    logits.iter().map(|l| f64::from(*l) - most - sum.ln()).collect()
}

fn choice(logs: &[f64], chosen: usize) -> Choice {
    let others = (0..logs.len()).filter(|i| *i != chosen).map(|i| logs[i]);
    // Where there is no other, no doubt is possible.
    let other = others.fold(f64::MIN, f64::max);
    Choice {
        token: u32::try_from(chosen).unwrap_or(u32::MAX),
        logprob: logs[chosen],
        margin: logs[chosen] - other,
    }
}

/// The spans of a path, in its order.
#[must_use]
pub fn spans(tags: &[usize]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (token, tag) in tags.iter().enumerate().filter(|(_, tag)| **tag != OUTSIDE) {
        let label = (tag - 1) / 2;
        match spans.last_mut() {
            Some(span) if *tag == continues(label) && span.label == label && span.tokens.end == token => {
                span.tokens.end += 1;
            }
            _ => spans.push(Span {
                label,
                tokens: token..token + 1,
            }),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tagset(allowed: &[Vec<bool>], classes: usize) -> Tagset {
        let names = |what: &str, n: usize| (0..n).map(|i| format!("{what}{i}")).collect::<Vec<_>>();
        Tagset {
            classes: names("c", classes),
            labels: names("l", allowed[0].len()),
            allowed: allowed.to_vec(),
        }
    }

    /// Whether no I stands but after its own B or I, and no tag is of a label that the class may not have.
    fn valid(path: &[usize], allowed: &[bool]) -> bool {
        path.iter().enumerate().all(|(at, tag)| {
            let label = (tag.max(&1) - 1) / 2;
            let follows = |before: usize| before == begins(label) || before == continues(label);
            *tag == OUTSIDE
                || (allowed[label] && (*tag == begins(label) || at.checked_sub(1).is_some_and(|b| follows(path[b]))))
        })
    }

    /// The best score over every path there is, valid ones alone.
    fn brute(by_token: &[Vec<f64>], allowed: &[bool]) -> f64 {
        let tags = 1 + 2 * allowed.len();
        let paths = tags.pow(by_token.len() as u32);
        let path = |mut n: usize| {
            let mut path = Vec::new();
            for _ in by_token {
                path.push(n % tags);
                n /= tags;
            }
            path
        };
        let score = |path: &Vec<usize>| path.iter().zip(by_token).map(|(tag, row)| row[*tag]).sum::<f64>();
        let scores = (0..paths).map(path).filter(|p| valid(p, allowed)).map(|p| score(&p));
        scores.fold(f64::NEG_INFINITY, f64::max)
    }

    #[test]
    fn a_class_is_not_read_because_of_words_that_it_has_no_place_for() {
        // The first class is the likelier one, but may not have the label that the token surely is of.
        let tagset = tagset(&[vec![false], vec![true]], 2);
        let reading = read(&tagset, &[&[0.0, 5.0, 0.0]], &[1.0, 0.0], None);
        assert_eq!((reading.class, &reading.tags[..]), (Some(1), &[1][..]));
        let [class, tag] = &reading.choices[..] else {
            panic!("class and tag")
        };
        let (rest, sum) = (1f64.exp(), 5f64.exp() + 2.0);
        assert!((class.logprob + (1.0 + rest).ln()).abs() < 1e-6 && (class.margin + 1.0).abs() < 1e-6);
        assert!((tag.logprob - (5.0 - sum.ln())).abs() < 1e-6 && (tag.margin - 5.0).abs() < 1e-6);
        // Surer of the class than of the word: the word is left outside.
        let reading = read(&tagset, &[&[0.0, 5.0, 0.0]], &[9.0, 0.0], None);
        assert_eq!((reading.class, &reading.tags[..]), (Some(0), &[0][..]));
    }

    #[test]
    fn a_continuation_without_a_beginning_is_not_read_however_likely() {
        let tagset = tagset(&[vec![true, true]], 0);
        let (outside, lone) = ([1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.5, 9.0, 0.0, 0.0]);
        assert_eq!(read(&tagset, &[&outside, &outside], &[], None).tags, [0, 0]);
        assert_eq!(
            read(&tagset, &[&outside, &lone], &[], None).tags,
            [1, 2],
            "the likeliest path that has it"
        );
        assert_eq!(read(&tagset, &[&lone], &[], None).tags, [1]);
        let nothing = read(&tagset, &[], &[], None);
        assert!(nothing.class.is_none() && nothing.tags.is_empty() && nothing.choices.is_empty());
    }

    #[test]
    fn a_new_beginning_is_a_new_span() {
        let span = |label, tokens| Span { label, tokens };
        let found = spans(&[1, 2, 1, 0, 3, 4, 4, 3]);
        assert_eq!(found, [span(0, 0..2), span(0, 2..3), span(1, 4..7), span(1, 7..8)]);
        assert!(spans(&[0, 0]).is_empty());
    }

    #[test]
    fn a_card_says_which_labels_go_with_a_class() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let card = Tag {
            classes: names(&["play", "any"]),
            labels: names(&["genre", "city"]),
            allowed: [("play".to_owned(), names(&["genre"]))].into(),
            input: None,
        };
        let allowed: Vec<_> = Tagset::of(&card)
            .allowed()
            .map(|(c, l)| (c.map(str::to_owned), l.join(" ")))
            .collect();
        assert_eq!(
            allowed,
            [
                (Some("play".into()), "genre".into()),
                (Some("any".into()), "genre city".into())
            ]
        );
        let none = Tagset::of(&Tag {
            classes: Vec::new(),
            allowed: Default::default(),
            ..card
        });
        let asked = names(&["city", "country", "city"]);
        assert_eq!(
            (none.among(&asked), none.among(&[])),
            (vec![false, true], vec![false, false])
        );
        let all: Vec<_> = none.allowed().collect();
        assert_eq!((all, none.tags()), (vec![(None, vec!["genre", "city"])], 5));
    }

    fn logits(columns: usize, rows: Range<usize>) -> impl Strategy<Value = Vec<Vec<f32>>> {
        prop::collection::vec(prop::collection::vec(-6.0f32..6.0, columns), rows)
    }

    proptest! {
        #[test]
        fn the_reading_is_valid_and_no_other_is_likelier(
            tags in logits(5, 0..5), classes in prop::collection::vec(-4.0f32..4.0, 0..4),
            may in prop::collection::vec(prop::collection::vec(any::<bool>(), 2), 4),
            wanted in prop::option::of(prop::collection::vec(any::<bool>(), 2)),
        ) {
            let may = &may[..classes.len().max(1)];
            let tagset = tagset(may, classes.len());
            let both = |of_class: &Vec<bool>| (0..2).map(|l| of_class[l] && wanted.as_ref().is_none_or(|w| w[l])).collect();
            let allowed: Vec<Vec<bool>> = may.iter().map(both).collect();
            let rows: Vec<&[f32]> = tags.iter().map(Vec::as_slice).collect();
            let reading = read(&tagset, &rows, &classes, wanted.as_deref());
            let own = &allowed[reading.class.unwrap_or(0)];
            prop_assert!(valid(&reading.tags, own), "{:?} with {own:?}", reading.tags);
            prop_assert_eq!((reading.tags.len(), reading.class.is_some()), (tags.len(), !classes.is_empty()));
            let by_token: Vec<Vec<f64>> = tags.iter().map(|row| log_softmax(row)).collect();
            let by_class = log_softmax(&classes);
            let best = allowed.iter().enumerate().map(|(class, allowed)| {
                by_class.get(class).copied().unwrap_or(0.0) + brute(&by_token, allowed)
            });
            let (best, sum) = (best.fold(f64::NEG_INFINITY, f64::max), reading.choices.iter().map(|c| c.logprob).sum::<f64>());
            prop_assert!((best - sum).abs() < 1e-9, "{sum} of {best}");
        }

        #[test]
        fn spans_are_whole_apart_and_in_order(tags in logits(7, 0..12)) {
            let rows: Vec<&[f32]> = tags.iter().map(Vec::as_slice).collect();
            let path = read(&tagset(&[vec![true; 3]], 0), &rows, &[], None).tags;
            let spans = spans(&path);
            prop_assert!(spans.windows(2).all(|two| two[0].tokens.end <= two[1].tokens.start));
            for span in &spans {
                let own = &path[span.tokens.clone()];
                prop_assert!(own[0] == begins(span.label) && own[1..].iter().all(|tag| *tag == continues(span.label)));
            }
            let covered: usize = spans.iter().map(|s| s.tokens.len()).sum();
            prop_assert_eq!(covered, path.iter().filter(|tag| **tag != OUTSIDE).count());
        }
    }
}
