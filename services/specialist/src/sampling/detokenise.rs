//! Tokens to text, a token at a time, whole characters only.
use crate::vocabulary::Vocabulary;
use std::sync::Arc;

/// One answer's text so far, as far as its last bytes are undecided.
#[derive(Debug, Clone)]
pub struct Detokeniser {
    vocabulary: Arc<Vocabulary>,
    /// The start of a character whose end is not there yet: three bytes at most.
    pending: Vec<u8>,
    at_start: bool,
}

impl Detokeniser {
    /// Nothing decoded yet.
    #[must_use]
    pub fn new(vocabulary: Arc<Vocabulary>) -> Self {
        Self {
            vocabulary,
            pending: Vec::new(),
            at_start: true,
        }
    }

    /// The text that `token` completes; control tokens stand for none. Bytes that are no UTF-8 become U+FFFD.
    pub fn push(&mut self, token: u32) -> String {
        match self.vocabulary.piece(token) {
            Some(piece) if !piece.special => self.pending.extend_from_slice(&piece.bytes),
            _ => return String::new(),
        }
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(whole) => {
                    text.push_str(whole);
                    self.pending.clear();
                    break;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    text.push_str(std::str::from_utf8(&self.pending[..valid]).expect("valid up to there"));
                    let Some(bad) = error.error_len() else {
                        self.pending.drain(..valid);
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.pending.drain(..valid + bad);
                }
            }
        }
        if self.at_start && !text.is_empty() {
            self.at_start = false;
            if self.vocabulary.strips_leading_space() && text.starts_with(' ') {
                text.remove(0);
            }
        }
        text
    }

    /// What is left at the end: U+FFFD for a character that was cut.
    pub fn finish(&mut self) -> String {
        if std::mem::take(&mut self.pending).is_empty() {
            String::new()
        } else {
            char::REPLACEMENT_CHARACTER.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One token per byte: the hardest case for whole characters.
    fn bytes() -> Arc<Vocabulary> {
        let vocab: Vec<String> = (0..256).map(|b| format!("\"<0x{b:02X}>\":{b}")).collect();
        let json = format!(
            r#"{{"decoder":{{"type":"ByteFallback"}},"model":{{"vocab":{{{}}}}},"added_tokens":[]}}"#,
            vocab.join(",")
        );
        Arc::new(Vocabulary::from_tokenizer_json(&json).expect("parses"))
    }

    proptest! {
        #[test]
        fn any_text_comes_back_in_whole_characters(text in "\\PC{0,40}") {
            let mut detokeniser = Detokeniser::new(bytes());
            let mut out: String = text.bytes().map(|b| detokeniser.push(u32::from(b))).collect();
            out.push_str(&detokeniser.finish());
            prop_assert_eq!(out, text);
        }

        #[test]
        fn any_bytes_come_back_as_lossy_text(raw in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut detokeniser = Detokeniser::new(bytes());
            let mut out: String = raw.iter().map(|b| detokeniser.push(u32::from(*b))).collect();
            out.push_str(&detokeniser.finish());
            prop_assert_eq!(out, String::from_utf8_lossy(&raw).into_owned());
        }
    }
}
