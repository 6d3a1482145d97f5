//! What an answer must say: a card's `[output.TASK] required = "FILE"` is a Jinja template of a JSON list, rendered for each request with
//! the chat template's variables, in its environment:
//!
//! ```text
//! [{"text": "7.6", "say": [" It has a rating of 7.6.", ". It has a rating of 7.6."]}, ..]
//! ```
//!
//! `text` must stand in the answer, compared in lower case with white space collapsed and without `.?!,` at its end. Where the model would
//! end while one is missing, it says one of that one's `say` instead, and then goes on by itself: until it would end again. Beside a grammar
//! or without one, streamed or not, sampled or not.
//!
//! # Why sentences, and not only a mask
//! A model that has said all it knows of does not find the missing value when its end is taken away: the shipped `compose` repeated itself
//! to the limit in 37 of 53 such replies, and said 0.87 of what it had to; with sentences none did, and it said all. A grammar that holds
//! every order of five values is more than its lexer's fuel allows. A whole sentence, because only the template knows what a value is of
//! ("4": stars, nights or people), and a sentence put together from slots is true where one that the model was pushed into need not be.
//!
//! # What bounds it
//! Each entry is taken once, in the list's order, said or not: a sentence that a grammar does not let be begun is passed over, one that it
//! breaks off stays broken off, and the model goes on. Of an entry's sentences the one whose first token is the likeliest here is said, so
//! that one may begin with a full stop for an answer that has none. Tokens of a sentence count as the model's: in `max_tokens` (an answer
//! cut within one ends as `length`), for stop strings, and in the confidence, where their low probabilities tell that the answer was helped.
//! Between steps nothing is searched: the text is kept in its compared form, and looked through when the model would end.
use super::{Compiler, RENDERED_BYTES};
use crate::{
    error::Error,
    prompt::{Prompt, Templates},
};
use serde::Deserialize;

/// Texts of one answer: the widest reply of our own has eleven. Each is looked for once, and may take a sentence's steps.
const TEXTS: usize = 64;

/// What is dropped at the end of a text.
const DROPPED: [char; 5] = [' ', '.', '?', '!', ','];

/// What one answer has still to say. The default is nothing.
#[derive(Debug, Default)]
pub struct Required {
    /// The last is the next.
    missing: Vec<Text>,
    /// What is left of a sentence that has been begun.
    forced: std::vec::IntoIter<u32>,
    said: Said,
}

#[derive(Debug)]
struct Text {
    text: String,
    ways: Vec<Vec<u32>>,
}

/// One entry of the rendered list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    text: String,
    say: Vec<String>,
}

/// What one request's answer must say.
///
/// # Errors
/// `Invalid` when the template refuses the prompt, or makes of it what is no such list.
pub fn of(
    compiler: &Compiler,
    templates: &Templates,
    file: &str,
    prompt: &Prompt,
    task: &str,
) -> Result<Required, Error> {
    let refused = |what: String| Error::invalid("prompt", format!("the task's required texts {file} {what}"));
    let list = templates
        .render(file, prompt, task)
        .map_err(|e| refused(format!("cannot be made of it: {e}")))?;
    if list.len() > RENDERED_BYTES {
        let bytes = list.len();
        return Err(refused(format!(
            "have {bytes} bytes of it; they have at most {RENDERED_BYTES}"
        )));
    }
    Required::parse(&list, |text| compiler.tokens(text)).map_err(refused)
}

impl Required {
    /// Reads a rendered list; `tokens` makes tokens of a sentence.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow the file's name.
    pub fn parse(list: &str, tokens: impl Fn(&str) -> Vec<u32>) -> Result<Self, String> {
        let entries: Vec<Entry> = serde_json::from_str(list)
            .map_err(|e| format!("are no JSON list of {{\"text\", \"say\": [sentence, ..]}} for it: {e}"))?;
        if entries.len() > TEXTS {
            return Err(format!("are {} for it; an answer has at most {TEXTS}", entries.len()));
        }
        let mut missing: Vec<Text> = Vec::with_capacity(entries.len());
        for Entry { text, say } in entries {
            let text = Said::of(&text).text.trim_end_matches(DROPPED).to_owned();
            if text.is_empty() || missing.iter().any(|other| other.text == text) {
                continue;
            }
            let ways = say.iter().map(|way| tokens(way)).filter(|way| !way.is_empty());
            missing.push(Text {
                text,
                ways: ways.collect(),
            });
        }
        missing.reverse();
        Ok(Self {
            missing,
            ..Self::default()
        })
    }

    /// Takes text that was said: whole characters, in order.
    pub fn push(&mut self, text: &str) {
        if !self.missing.is_empty() {
            self.said.push(text);
        }
    }

    /// The next token of a sentence that has been begun, if `may` be said; else the sentence is broken off there.
    pub fn going_on(&mut self, may: impl Fn(u32) -> bool) -> Option<u32> {
        let token = self.forced.next()?;
        if may(token) {
            return Some(token);
        }
        self.forced = Vec::new().into_iter();
        None
    }

    /// What to say where the model would end: the first token of a sentence for the first text that is missing.
    pub fn instead_of_end(&mut self, logits: &[f32], may: impl Fn(u32) -> bool) -> Option<u32> {
        let logit = |way: &[u32]| way.first().and_then(|t| logits.get(*t as usize)).copied();
        while let Some(Text { text, ways }) = self.missing.pop() {
            if self.said.holds(&text) {
                continue;
            }
            let open = ways.into_iter().filter(|way| may(way[0]));
            // The first of equals.
            let likeliest = open.reduce(|best, way| if logit(&way) > logit(&best) { way } else { best });
            if let Some(way) = likeliest {
                self.forced = way.into_iter();
                return self.forced.next();
            }
        }
        None
    }
}

/// Text in the form in which it is compared. Letter by letter, so that it can be added to.
#[derive(Debug, Default)]
struct Said {
    text: String,
    /// White space came last.
    gap: bool,
}

impl Said {
    fn of(text: &str) -> Self {
        let mut said = Self::default();
        said.push(text);
        said
    }

    fn push(&mut self, text: &str) {
        for c in text.chars() {
            // With the four separators that Python splits at too, as the tasks' metrics are defined.
            if c.is_whitespace() || ('\x1c'..='\x1f').contains(&c) {
                self.gap = !self.text.is_empty();
                continue;
            }
            if std::mem::take(&mut self.gap) {
                self.text.push(' ');
            }
            self.text.extend(c.to_lowercase());
        }
    }

    /// Between two digits no text begins or ends: "4" is not said by "14".
    fn holds(&self, text: &str) -> bool {
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let (first, last) = (digit(text.chars().next()), digit(text.chars().next_back()));
        let mut from = 0;
        while let Some(at) = self.text[from..].find(text).map(|at| from + at) {
            let (before, after) = (&self.text[..at], &self.text[at + text.len()..]);
            let touched = (first && digit(before.chars().next_back())) || (last && digit(after.chars().next()));
            if !touched {
                return true;
            }
            from = at + self.text[at..].chars().next().map_or(1, char::len_utf8);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A token is a letter.
    fn letters(text: &str) -> Vec<u32> {
        text.chars().map(u32::from).collect()
    }

    fn required(list: &str) -> Required {
        Required::parse(list, letters).expect("a list")
    }

    /// What is said instead of ends until there is none, by a model to which all letters are alike.
    fn to_the_end(required: &mut Required, may: impl Fn(u32) -> bool) -> String {
        let mut said = String::new();
        while let Some(token) = required
            .going_on(&may)
            .or_else(|| required.instead_of_end(&[0.0; 128], &may))
        {
            let letter = char::from_u32(token).expect("a letter");
            required.push(&letter.to_string());
            said.push(letter);
        }
        said
    }

    #[test]
    fn what_is_missing_is_said_in_order_and_what_was_said_is_not() {
        let mut answer = required(
            r#"[{"text": "One", "say": [" one."]}, {"text": "b  C.", "say": ["!"]}, {"text": "two", "say": [" two."]}, {"text": "ONE", "say": ["?"]}]"#,
        );
        answer.push("A b");
        answer.push("\n c");
        assert_eq!(to_the_end(&mut answer, |_| true), " one. two.");
    }

    #[test]
    fn a_sentence_may_say_the_next_ones_text_too() {
        let mut answer = required(r#"[{"text": "a", "say": [" a and b"]}, {"text": "b", "say": [" b"]}]"#);
        assert_eq!(to_the_end(&mut answer, |_| true), " a and b");
    }

    #[test]
    fn a_number_is_not_said_by_a_longer_one() {
        for (said, holds) in [
            ("14", false),
            ("1 4", true),
            ("4.", true),
            ("$14, 4th", true),
            ("2042", false),
            ("a4b", true),
        ] {
            assert_eq!(Said::of(said).holds("4"), holds, "{said}");
        }
        assert!(Said::of("é1é é").holds("é é"), "found after a start that leads nowhere");
    }

    #[test]
    fn what_may_not_be_begun_is_passed_over_and_what_may_not_go_on_is_broken_off() {
        let list =
            r#"[{"text": "x", "say": ["x!"]}, {"text": "yz", "say": ["yz!", "wyz!"]}, {"text": "q", "say": []}]"#;
        let may = |banned: &'static str| move |token| banned.chars().all(|c| u32::from(c) != token);
        assert_eq!(to_the_end(&mut required(list), may("x")), "yz!");
        assert_eq!(to_the_end(&mut required(list), may("xy")), "w");
        assert_eq!(to_the_end(&mut required(list), may("xyw")), "");
    }

    #[test]
    fn of_two_sentences_the_likelier_is_begun_and_of_equals_the_first() {
        let list = r#"[{"text": "x", "say": [" x", ".x"]}]"#;
        let mut logits = [0.0; 128];
        assert_eq!(required(list).instead_of_end(&logits, |_| true), Some(u32::from(' ')));
        logits['.' as usize] = 1.0;
        assert_eq!(required(list).instead_of_end(&logits, |_| true), Some(u32::from('.')));
    }

    #[test]
    fn what_is_no_list_of_texts_is_refused_in_words() {
        for wrong in [
            "",
            "{}",
            r#"["x"]"#,
            r#"[{"text": "x"}]"#,
            r#"[{"text": "x", "say": [], "lead": ""}]"#,
        ] {
            let told = Required::parse(wrong, letters).expect_err(wrong);
            assert!(told.starts_with("are no JSON list"), "{told}");
        }
        let many = vec![r#"{"text": "x", "say": []}"#; TEXTS + 1].join(",");
        let told = Required::parse(&format!("[{many}]"), letters).expect_err("too many");
        assert!(told.contains("at most 64"), "{told}");
    }

    proptest! {
        #[test]
        fn pieces_are_compared_as_their_whole_is(pieces in prop::collection::vec("[aAbB14é \n.]{0,4}", 0..8), text in "[ab14é][ab14é ]{0,3}[ab14é]") {
            let mut said = Said::default();
            pieces.iter().for_each(|piece| said.push(piece));
            let whole = pieces.concat().to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
            prop_assert_eq!(&said.text, &whole);
            if said.holds(&text) {
                prop_assert!(whole.contains(&text));
            }
        }
    }
}
