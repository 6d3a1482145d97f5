//! What each token stands for, in bytes: what incremental detokenising and grammars need and `tokenizers` does not give.
//!
//! Two families of tokenizers are read, by their decoder: byte-level (GPT-2's alphabet, where every byte is a printable
//! character), whatever cuts the text before it, and byte-fallback (SentencePiece style, `<0x0A>` for bytes and a mark for the
//! space).
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// A token's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// UTF-8, or a part of a character.
    pub bytes: Vec<u8>,
    /// A control token: it stands for no text.
    pub special: bool,
}

/// All tokens of a tokenizer.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    pieces: Vec<Piece>,
    /// Text starts with a space that the decoder strips.
    strips_leading_space: bool,
    /// Encoding a text and decoding it gives the same bytes, so a grammar may force canonical tokens.
    canonical: bool,
}

impl Vocabulary {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// What about it is not understood, in words.
    pub fn from_tokenizer_json(text: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let decoder = Decoder::of(&json["decoder"])?;
        let mut pieces: Vec<Piece> = Vec::new();
        let mut put = |id: u64, piece: Piece| {
            let id = usize::try_from(id)
                .ok()
                .filter(|id| *id < MAX_TOKENS)
                .ok_or(format!("token id {id} is out of range"))?;
            if pieces.len() <= id {
                pieces.resize(id + 1, Piece::default());
            }
            pieces[id] = piece;
            Ok::<_, String>(())
        };
        // An added token stands for its own text, also where the model's vocabulary lists it: it is never in the alphabet.
        let added: HashSet<u64> = added_tokens(&json).filter_map(|t| t["id"].as_u64()).collect();
        for (token, id) in model_tokens(&json["model"])? {
            if added.contains(&id) {
                continue;
            }
            put(
                id,
                Piece {
                    bytes: decoder.bytes(token)?,
                    special: false,
                },
            )?;
        }
        for added in added_tokens(&json) {
            let content = added["content"].as_str().ok_or("an added token has no content")?;
            let id = added["id"]
                .as_u64()
                .ok_or_else(|| format!("added token {content:?} has no id"))?;
            put(
                id,
                Piece {
                    bytes: content.as_bytes().to_vec(),
                    special: added["special"].as_bool().unwrap_or(false),
                },
            )?;
        }
        if pieces.is_empty() {
            return Err("it has no tokens".into());
        }
        let canonical = matches!(decoder, Decoder::ByteLevel(_)) && !prefixes_space(&json);
        let strips_leading_space = matches!(decoder, Decoder::ByteFallback { strips: true, .. });
        Ok(Self {
            pieces,
            strips_leading_space,
            canonical,
        })
    }

    /// The token's bytes; an id beyond the tokenizer stands for nothing (exports pad the logits).
    #[must_use]
    pub fn piece(&self, token: u32) -> Option<&Piece> {
        self.pieces.get(token as usize)
    }

    /// All pieces, by id.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Bytes of the longest token: a prompt of more than that times the context cannot fit.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.pieces.iter().map(|p| p.bytes.len()).max().unwrap_or(1).max(1)
    }

    pub(crate) fn strips_leading_space(&self) -> bool {
        self.strips_leading_space
    }

    pub(crate) fn canonical(&self) -> bool {
        self.canonical
    }
}

fn added_tokens(json: &Value) -> impl Iterator<Item = &Value> {
    json["added_tokens"].as_array().into_iter().flatten()
}

/// A space is put before every text: decoding an encoded text never gives that text.
fn prefixes_space(json: &Value) -> bool {
    let pre = &json["pre_tokenizer"];
    let steps = pre["pretokenizers"].as_array();
    let mut steps = steps.map_or(std::slice::from_ref(pre), Vec::as_slice).iter();
    steps.any(|step| step["add_prefix_space"].as_bool() == Some(true))
}

/// Ids over this are a fault of the file: the largest vocabularies have 260,000 tokens.
const MAX_TOKENS: usize = 1 << 24;

fn model_tokens(model: &Value) -> Result<Vec<(&str, u64)>, String> {
    match &model["vocab"] {
        Value::Object(map) => map
            .iter()
            .map(|(token, id)| {
                id.as_u64()
                    .map(|id| (token.as_str(), id))
                    .ok_or_else(|| format!("token {token:?} has no id"))
            })
            .collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(id, entry)| {
                entry[0]
                    .as_str()
                    .map(|token| (token, id as u64))
                    .ok_or_else(|| format!("token {id} has no text"))
            })
            .collect(),
        _ => Err("model.vocab is neither a map nor a list".into()),
    }
}

enum Decoder {
    ByteLevel(HashMap<char, u8>),
    ByteFallback { space: Option<char>, strips: bool },
}

impl Decoder {
    fn of(decoder: &Value) -> Result<Self, String> {
        let steps: Vec<&Value> = match decoder["type"].as_str() {
            Some("Sequence") => decoder["decoders"].as_array().into_iter().flatten().collect(),
            _ => vec![decoder],
        };
        let has = |kind: &str| steps.iter().find(|s| s["type"].as_str() == Some(kind)).copied();
        if has("ByteLevel").is_some() {
            return Ok(Self::ByteLevel(alphabet()));
        }
        if has("ByteFallback").is_none() && has("Metaspace").is_none() {
            return Err(format!(
                "decoder {} is neither ByteLevel nor ByteFallback",
                decoder["type"]
            ));
        }
        let replaced = has("Replace")
            .filter(|r| r["content"].as_str() == Some(" "))
            .and_then(|r| r["pattern"]["String"].as_str());
        let meta = has("Metaspace");
        let mark = meta.map(|m| m["replacement"].as_str().unwrap_or("\u{2581}"));
        let space = replaced.or(mark).and_then(|s| s.chars().next());
        let strips = has("Strip").is_some_and(|s| s["start"].as_u64() == Some(1)) || meta.is_some_and(prepends);
        Ok(Self::ByteFallback { space, strips })
    }

    fn bytes(&self, token: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::ByteLevel(alphabet) => token
                .chars()
                .map(|c| {
                    alphabet
                        .get(&c)
                        .copied()
                        .ok_or_else(|| format!("token {token:?} has {c:?}, which stands for no byte"))
                })
                .collect(),
            Self::ByteFallback { space, .. } => {
                let hex = token
                    .strip_prefix("<0x")
                    .and_then(|t| t.strip_suffix('>'))
                    .filter(|h| h.len() == 2);
                if let Some(byte) = hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
                    return Ok(vec![byte]);
                }
                Ok(match space {
                    Some(mark) => token.replace(*mark, " ").into_bytes(),
                    None => token.as_bytes().to_vec(),
                })
            }
        }
    }
}

/// Whether a Metaspace puts a space before a text, and so takes one away again. It does unless it says otherwise, in one of two ways: files
/// before `prepend_scheme` have `add_prefix_space`.
fn prepends(metaspace: &Value) -> bool {
    metaspace["prepend_scheme"].as_str() != Some("never") && metaspace["add_prefix_space"].as_bool() != Some(false)
}

/// GPT-2's bytes_to_unicode, turned round: printable bytes stand for themselves, the others for U+0100 onwards.
fn alphabet() -> HashMap<char, u8> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut shifted = (0x100u32..).filter_map(char::from_u32);
    (0..=255u8)
        .map(|b| {
            (
                if printable(b) {
                    char::from(b)
                } else {
                    shifted.next().expect("endless")
                },
                b,
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_level_tokens_become_their_bytes_and_added_ones_their_text() {
        let json = r#"{"decoder":{"type":"ByteLevel"},"model":{"vocab":{"Ġhi":0,"Ã":1,"©":2,"Ċ":3}},
            "added_tokens":[{"id":4,"content":"<|end|>","special":true},{"id":5,"content":"é!","special":false}]}"#;
        let vocabulary = Vocabulary::from_tokenizer_json(json).expect("parses");
        let bytes = |id| vocabulary.piece(id).expect("known").bytes.clone();
        assert_eq!(
            (bytes(0), bytes(1), bytes(2), bytes(3)),
            (b" hi".to_vec(), vec![0xc3], vec![0xa9], b"\n".to_vec())
        );
        assert!(vocabulary.piece(4).expect("known").special);
        assert_eq!(bytes(5), "é!".as_bytes());
        assert_eq!(vocabulary.piece(6), None);
        assert!(vocabulary.canonical());
    }

    #[test]
    fn a_space_put_before_the_text_is_seen_wherever_it_is_said() {
        let canonical = |pre: &str| {
            let json = format!(
                r#"{{"decoder":{{"type":"ByteLevel"}},"pre_tokenizer":{pre},"model":{{"vocab":{{"a":0}}}},"added_tokens":[]}}"#
            );
            Vocabulary::from_tokenizer_json(&json).expect("parses").canonical()
        };
        assert!(canonical(r#"{"type":"ByteLevel","add_prefix_space":false}"#));
        assert!(!canonical(r#"{"type":"ByteLevel","add_prefix_space":true}"#));
        let split = |prefix: bool| {
            format!(
                r#"{{"type":"Sequence","pretokenizers":[{{"type":"Split"}},{{"type":"ByteLevel","add_prefix_space":{prefix}}}]}}"#
            )
        };
        assert!(canonical(&split(false)) && !canonical(&split(true)));
    }

    #[test]
    fn an_added_token_is_its_text_even_if_the_model_lists_it_too() {
        let json = r#"{"decoder":{"type":"ByteLevel"},"model":{"vocab":{"a":0,"<｜end▁of▁text｜>":1}},
            "added_tokens":[{"id":1,"content":"<｜end▁of▁text｜>","special":true}]}"#;
        let vocabulary = Vocabulary::from_tokenizer_json(json).expect("its letters stand for no byte, and need not");
        assert!(vocabulary.piece(1).expect("known").special);
    }

    #[test]
    fn byte_fallback_tokens_become_their_bytes() {
        let json = r#"{"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
            {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
            "model":{"vocab":{"▁hi":0,"<0x0A>":1}},"added_tokens":[]}"#;
        let vocabulary = Vocabulary::from_tokenizer_json(json).expect("parses");
        assert_eq!(vocabulary.piece(0).map(|p| p.bytes.as_slice()), Some(b" hi".as_slice()));
        assert_eq!(vocabulary.piece(1).map(|p| p.bytes.as_slice()), Some(b"\n".as_slice()));
        assert!(vocabulary.strips_leading_space());
    }

    #[test]
    fn a_metaspace_strips_the_space_that_it_put_there_and_no_other() {
        let strips = |says: &str| {
            let json = format!(
                r#"{{"decoder":{{"type":"Metaspace","replacement":"▁"{says}}},"model":{{"vocab":{{"▁hi":0}}}},"added_tokens":[]}}"#
            );
            let vocabulary = Vocabulary::from_tokenizer_json(&json).expect("parses");
            assert_eq!(vocabulary.piece(0).map(|p| p.bytes.as_slice()), Some(b" hi".as_slice()));
            vocabulary.strips_leading_space()
        };
        for says in [
            "",
            r#","prepend_scheme":"always""#,
            r#","prepend_scheme":"first""#,
            r#","add_prefix_space":true"#,
        ] {
            assert!(strips(says), "{says}");
        }
        for says in [r#","prepend_scheme":"never""#, r#","add_prefix_space":false"#] {
            assert!(!strips(says), "{says}");
        }
    }

    #[test]
    fn a_tokenizer_of_another_family_is_refused_in_words() {
        let json = r#"{"decoder":{"type":"WordPiece"},"model":{"vocab":{"a":0}},"added_tokens":[]}"#;
        assert!(
            Vocabulary::from_tokenizer_json(json)
                .expect_err("refused")
                .contains("WordPiece")
        );
    }
}
