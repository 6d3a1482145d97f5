//! Output held to a JSON Schema or a Lark grammar while it is decoded, by llguidance over the model's own tokens.
//!
//! A mask of allowed tokens comes before each choice, and the choice goes back into the grammar: what comes out parses by
//! construction. A grammar is compiled once ([`Compiler::compile`]) and copied for each request.

mod trie;

use crate::{folder::Form, vocabulary::Vocabulary};
use llguidance::{Matcher, ParserFactory, api::TopLevelGrammar, toktrie::SimpleVob};
use std::fmt;

/// Bytes of a grammar or schema that a caller sends. The largest public schemas (FHIR) are a few megabytes; a task's is a few
/// kilobytes.
pub const FORM_BYTES: usize = 256 << 10;

/// Compiles grammars for one tokenizer.
pub struct Compiler {
    factory: ParserFactory,
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").finish_non_exhaustive()
    }
}

impl Compiler {
    /// `width` is the number of logits, which may be more than the tokenizer has tokens.
    ///
    /// # Errors
    /// When llguidance cannot use the tokenizer.
    pub fn new(
        vocabulary: &Vocabulary,
        tokenizer: tokenizers::Tokenizer,
        eos: &[u32],
        width: usize,
    ) -> Result<Self, String> {
        let environment = trie::environment(vocabulary, tokenizer, eos, width);
        let mut factory = ParserFactory::new_simple(&environment).map_err(|e| e.to_string())?;
        factory.quiet();
        // An error of the grammar is for its author; the parser's state is not.
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory })
    }

    /// Compiles a form; `Free` is no grammar.
    ///
    /// # Errors
    /// What is wrong with the form, for its author.
    pub fn compile(&self, form: &Form) -> Result<Option<Grammar>, String> {
        let top = match form {
            Form::Free => return Ok(None),
            Form::Schema(schema) => TopLevelGrammar::from_json_schema(schema.clone()),
            Form::Lark(lark) => TopLevelGrammar::from_lark(lark.clone()),
        };
        let mut matcher = Matcher::new(self.factory.create_parser(top));
        if let Some(error) = matcher.get_error() {
            return Err(error.trim_end_matches("<non-verbose/>").trim().to_owned());
        }
        // What compiles may still allow nothing at all; better told now than at the first token.
        matcher.compute_mask_or_eos().map_err(|e| e.to_string())?;
        Ok(Some(Grammar { matcher }))
    }
}

/// A compiled grammar, and where an answer is in it.
pub struct Grammar {
    matcher: Matcher,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar")
            .field("complete", &self.is_complete())
            .finish_non_exhaustive()
    }
}

impl Grammar {
    /// A copy for one request, at the grammar's beginning. Deep: a request that breaks its parser breaks no other's.
    #[must_use]
    pub fn begin(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
        }
    }

    /// Tokens that may come next, a bit each; end-of-sequence alone once the grammar is complete.
    ///
    /// # Errors
    /// When the grammar is too ambiguous for llguidance's limits.
    pub fn mask(&mut self) -> Result<SimpleVob, String> {
        self.matcher.compute_mask_or_eos().map_err(|e| e.to_string())
    }

    /// Takes a token that the mask allowed.
    ///
    /// # Errors
    /// When the mask did not allow it.
    pub fn accept(&mut self, token: u32) -> Result<(), String> {
        self.matcher.consume_token(token).map_err(|e| e.to_string())
    }

    /// Nothing can follow but the end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }
}
