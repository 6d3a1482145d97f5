//! The tokens that a text has, and where they stand in it.
use super::{asked::Asked, path::Tagset};
use tokenizers::Tokenizer;

/// A text, as the model gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(super) text: String,
    /// 1 to context token ids, special tokens included.
    pub(super) ids: Vec<u32>,
    /// Those that may be part of a span.
    pub(super) tokens: Vec<Token>,
    /// `[labels]`: those that may be found; `None`: all.
    pub(super) wanted: Option<Vec<bool>>,
}

/// A token of the text itself: not one that the tokenizer put around it, not one of what was said before it, and not one that stands
/// for no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// Which of `ids` it is.
    pub(super) at: usize,
    /// First byte of the text, where a character begins.
    pub(super) start: usize,
    /// One past its last byte, where a character ends.
    pub(super) end: usize,
}

/// Tokens of what is asked.
///
/// # Errors
/// In words, when there are none or too many.
pub(super) fn tokenize(tokenizer: &Tokenizer, asked: Asked, tagset: &Tagset, context: usize) -> Result<Text, String> {
    let text = asked.text;
    let (encoding, own) = match asked.before.as_deref() {
        None => (tokenizer.encode(text.as_str(), true), 0),
        Some(before) => (tokenizer.encode((before, text.as_str()), true), 1),
    };
    let encoding = encoding.map_err(|e| e.to_string())?;
    let ids = encoding.get_ids();
    if ids.is_empty() || ids.len() > context {
        return Err(format!("it has {} tokens; 1 to {context} fit", ids.len()));
    }
    let (sequences, special) = (encoding.get_sequence_ids(), encoding.get_special_tokens_mask());
    let token = |(at, (start, end)): (usize, &(usize, usize))| {
        // Of a character that is more tokens than one, each stands for the whole.
        let (start, end) = (text.floor_char_boundary(*start), text.ceil_char_boundary(*end));
        (special[at] == 0 && sequences[at] == Some(own) && start < end).then_some(Token { at, start, end })
    };
    Ok(Text {
        tokens: encoding.get_offsets().iter().enumerate().filter_map(token).collect(),
        ids: ids.to_vec(),
        wanted: asked.labels.map(|names| tagset.among(&names)),
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::manifest::Tag;

    const BERT: &str = include_str!("../../../../tests/fixtures/models/tiny_tag/1/tokenizer.json");

    const PAIR: &str = include_str!("../../../../tests/fixtures/models/tiny_tag_pair/1/tokenizer.json");

    fn read(tokenizer: &str, before: Option<&str>, text: &str) -> Result<Text, String> {
        let tokenizer = Tokenizer::from_bytes(tokenizer).expect("a tokenizer");
        let tagset = Tagset::of(&Tag {
            classes: Vec::new(),
            labels: vec!["word".into()],
            allowed: Default::default(),
            input: None,
        });
        let asked = Asked {
            text: text.to_owned(),
            before: before.map(str::to_owned),
            labels: None,
        };
        tokenize(&tokenizer, asked, &tagset, 32)
    }

    fn slices(text: &str) -> Vec<String> {
        let read = read(BERT, None, text).expect("fits");
        assert!(
            read.tokens.iter().all(|t| t.at > 0 && t.at + 1 < read.ids.len()),
            "{read:?}"
        );
        read.tokens
            .iter()
            .map(|t| read.text[t.start..t.end].to_owned())
            .collect()
    }

    #[test]
    fn a_token_stands_where_it_stood_in_the_text_before_it_was_normalised() {
        assert_eq!(
            slices("Play  ROCKY,\tCafé 北 x"),
            ["Play", "ROCK", "Y", ",", "Café", "北", "x"]
        );
        assert!(slices("").is_empty());
    }

    #[test]
    fn of_two_texts_the_tokens_are_those_of_the_second_alone() {
        for (before, ahead) in [("", 2), ("rock by Café?", 6)] {
            let text = read(PAIR, Some(before), "some Café jazz").expect("fits");
            let places: Vec<_> = text.tokens.iter().map(|t| (t.at, &text.text[t.start..t.end])).collect();
            assert_eq!(places, [(ahead, "some"), (ahead + 1, "Café"), (ahead + 2, "jazz")]);
            assert_eq!(text.ids.len(), ahead + 4, "[CLS] before [SEP] text [SEP]");
        }
        assert!(read(PAIR, Some("rock"), "").expect("fits").tokens.is_empty());
    }

    #[test]
    fn a_text_that_does_not_fit_is_refused_with_its_length() {
        for (before, tokens) in [(None, 31), (Some("play play"), 28)] {
            let told = read(PAIR, before, &"play ".repeat(tokens)).expect_err("33 tokens");
            assert!(told.contains("33 tokens; 1 to 32 fit"), "{told}");
            assert!(read(PAIR, before, &"play ".repeat(tokens - 1)).is_ok());
        }
    }
}
