//! What of a prompt is read, and the tokens that its text has.
use crate::{error::Error, prompt::Prompt};
use tokenizers::Tokenizer;

/// A text, as the model gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) text: String,
    /// 1 to context token ids, special tokens included.
    pub(super) ids: Vec<u32>,
    /// Those that may be part of a span.
    pub(super) tokens: Vec<Token>,
}

/// A token of the text itself: not one that the tokenizer put around it, and not one that stands for no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// Which of `ids` it is.
    pub(super) at: usize,
    /// First byte of the text, where a character begins.
    pub(super) start: usize,
    /// One past its last byte, where a character ends.
    pub(super) end: usize,
}

/// The text that a prompt asks about: of a conversation, what the user said last.
pub(super) fn said(prompt: Prompt) -> Result<String, Error> {
    match prompt {
        Prompt::Text(text) => Ok(text),
        Prompt::Messages(list) => {
            let last = list.into_iter().rev().find(|(role, _)| role == "user");
            let refused = || {
                Error::invalid(
                    "prompt.messages",
                    "a tagger reads what the user said last: give a message of role `user`",
                )
            };
            last.map(|(_, content)| content).ok_or_else(refused)
        }
        Prompt::Json(_) => Err(Error::invalid(
            "prompt.json",
            "a tagger reads text: give `text`, or `messages`",
        )),
    }
}

/// Tokens of a text.
///
/// # Errors
/// In words, when there are none or too many.
pub(super) fn tokenize(tokenizer: &Tokenizer, text: String, context: usize) -> Result<Text, String> {
    let encoding = tokenizer.encode(text.as_str(), true).map_err(|e| e.to_string())?;
    let ids = encoding.get_ids();
    if ids.is_empty() || ids.len() > context {
        return Err(format!("it has {} tokens; 1 to {context} fit", ids.len()));
    }
    let places = encoding.get_offsets().iter().zip(encoding.get_special_tokens_mask());
    let token = |(at, ((start, end), special)): (usize, (&(usize, usize), &u32))| {
        // Of a character that is more tokens than one, each stands for the whole.
        let (start, end) = (text.floor_char_boundary(*start), text.ceil_char_boundary(*end));
        (*special == 0 && start < end).then_some(Token { at, start, end })
    };
    Ok(Text {
        tokens: places.enumerate().filter_map(token).collect(),
        ids: ids.to_vec(),
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERT: &str = include_str!("../../../../tests/fixtures/models/tiny_tag/1/tokenizer.json");

    fn slices(text: &str) -> Vec<String> {
        let tokenizer = Tokenizer::from_bytes(BERT).expect("a tokenizer");
        let read = tokenize(&tokenizer, text.to_owned(), 32).expect("fits");
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
    fn a_text_that_does_not_fit_is_refused_with_its_length() {
        let tokenizer = Tokenizer::from_bytes(BERT).expect("a tokenizer");
        let told = tokenize(&tokenizer, "play ".repeat(31), 32).expect_err("33 tokens");
        assert!(told.contains("33 tokens; 1 to 32 fit"), "{told}");
    }

    #[test]
    fn of_a_conversation_it_is_what_the_user_said_last_and_an_object_is_refused() {
        let said_of = |turns: &[(&str, &str)]| {
            let turns = turns.iter().map(|(r, c)| ((*r).to_owned(), (*c).to_owned()));
            said(Prompt::Messages(turns.collect()))
        };
        let turns = [("system", "s"), ("user", "a"), ("user", "b"), ("assistant", "c")];
        assert_eq!(said_of(&turns), Ok("b".to_owned()));
        assert!(matches!(said_of(&turns[..1]), Err(Error::Invalid { field, .. }) if field == "prompt.messages"));
        let object = said(Prompt::Json(Default::default()));
        assert!(matches!(object, Err(Error::Invalid { field, .. }) if field == "prompt.json"));
    }
}
