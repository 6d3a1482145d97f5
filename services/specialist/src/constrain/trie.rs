//! The model's tokens as llguidance wants them: a trie over their bytes. `toktrie_hf_tokenizers` would bring a second
//! `tokenizers` into the tree.
use crate::vocabulary::Vocabulary;
use std::sync::Arc;
use tokenizers::Tokenizer;
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

struct Environment {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
    canonical: bool,
}

/// Words are the tokens' bytes; control tokens are marked, so that no text of a grammar can be one; ids that the tokenizer
/// does not have are empty, which no mask allows.
pub(super) fn environment(vocabulary: &Vocabulary, tokenizer: Arc<Tokenizer>, eos: &[u32], width: usize) -> TokEnv {
    let width = width.max(vocabulary.pieces().len());
    let mut words = vec![Vec::new(); width];
    for (id, (word, piece)) in words.iter_mut().zip(vocabulary.pieces()).enumerate() {
        if piece.special || eos.contains(&(id as u32)) {
            word.push(TokTrie::SPECIAL_TOKEN_MARKER);
        }
        word.extend_from_slice(&piece.bytes);
    }
    let first = eos.first().copied().unwrap_or(0);
    let trie = TokTrie::from(&TokRxInfo::new(width as u32, first), &words).with_eos_tokens(eos);
    Arc::new(Environment {
        trie,
        tokenizer,
        canonical: vocabulary.canonical(),
    })
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        if !self.canonical {
            return self.trie.greedy_tokenize(bytes);
        }
        self.trie
            .tokenize_with_greedy_fallback(bytes, |text| match self.tokenizer.encode(text, false) {
                // A normaliser may have made another text of it, and forced tokens must be the forced bytes.
                Ok(encoding) if self.trie.decode_raw(encoding.get_ids()) == text.as_bytes() => {
                    encoding.get_ids().to_vec()
                }
                _ => self.trie.greedy_tokenize(text.as_bytes()),
            })
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}
