//! Output held to a JSON Schema or a Lark grammar while it is decoded, by llguidance over the model's own tokens.
//!
//! A mask of allowed tokens comes before each choice, and the choice goes back into the grammar: what comes out parses by
//! construction. A form that is the same for every request is compiled once and copied for each; [`template`] makes a grammar
//! of each request, and says what its author must know. What an answer must say, whatever its form, is [`required`]'s.
//!
//! # What a form can cost
//! Forms come from callers and from text that callers send, so compiling one must end and must not take the process with it.
//! llguidance bounds most of that itself; two things are left to us. It recurses along chains of definitions (2,000 rules, or
//! 500 `$ref`s, overflow the 2 MiB stack of a runtime's thread, which aborts the process): so forms are compiled on the deep
//! stacks of the crate's `workshop`, and [`FORM_BYTES`] bounds the chain. And it builds the first states of its lexer without
//! fuel (three counted patterns joined by `&` run for minutes): so [`Compiler::compile`] takes the same steps beforehand, with it.

pub mod required;
pub mod template;
mod trie;

pub use required::Required;

use crate::{folder::Form, vocabulary::Vocabulary};
use llguidance::{
    Matcher, ParserFactory,
    api::{GrammarInit, ParserLimits, TopLevelGrammar},
    earley::lexerspec::LexerSpec,
    panic_utils,
    toktrie::SimpleVob,
};
use std::{fmt, panic::AssertUnwindSafe, sync::Arc};
use tokenizers::Tokenizer;

/// Bytes of a grammar or schema that a caller sends: the widest schema of our own tasks has 15,000. Compiling is quadratic and
/// worse in the size of a hostile one: at this size 2.5 s at most was measured (nested repeats), at twice it 12 s.
pub const FORM_BYTES: usize = 32 << 10;

/// Bytes of a grammar that a template makes: a conversation of a thousand words, with the names of a hundred methods, is
/// under 20,000.
pub const RENDERED_BYTES: usize = 128 << 10;

/// States of one request's lexer, 1 to 2 kB each: the default of 250,000 would let one answer take half a gigabyte. A
/// 600-word span takes some 2,000.
const LEXER_STATES: usize = 50_000;

/// What a compiled grammar is reckoned to have in memory, beside its form and for each byte of that: 416 kB were measured of a schema of 14,570 bytes,
/// 523 kB of one of 23,000, and 1.1 MB of one of 33,000 with patterns.
const COMPILED_BYTES: (usize, usize) = (128 << 10, 24);

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
        tokenizer: impl Into<Arc<Tokenizer>>,
        eos: &[u32],
        width: usize,
    ) -> Result<Self, String> {
        let environment = trie::environment(vocabulary, tokenizer.into(), eos, width);
        let mut factory = ParserFactory::new_simple(&environment).map_err(|e| e.to_string())?;
        factory.quiet();
        let limits = factory.limits_mut();
        // An error of the grammar is for its author; the parser's state is not.
        limits.verbose_errors = false;
        limits.max_lexer_states = LEXER_STATES;
        Ok(Self { factory })
    }

    /// Compiles a form; `Free` is no grammar. Call it on a deep stack (see above).
    ///
    /// # Errors
    /// What is wrong with the form, for its author.
    pub fn compile(&self, form: &Form) -> Result<Option<Grammar>, String> {
        let (top, bytes) = match form {
            Form::Free => return Ok(None),
            Form::Schema(schema) => (
                TopLevelGrammar::from_json_schema(schema.clone()),
                schema.to_string().len(),
            ),
            Form::Lark(lark) => (TopLevelGrammar::from_lark(lark.clone()), lark.len()),
        };
        // llguidance guards its own calls in this way, and expects its builder to be guarded too.
        let compiled = panic_utils::catch_unwind(AssertUnwindSafe(|| self.grammar(top, bytes)));
        compiled
            .map(Some)
            .map_err(|e| e.to_string().trim_end_matches("<non-verbose/>").trim().to_owned())
    }

    /// The tokens of a text, none of them a control token.
    #[must_use]
    pub fn tokens(&self, text: &str) -> Vec<u32> {
        self.factory.tok_env().tokenize_bytes(text.as_bytes())
    }

    fn grammar(&self, top: TopLevelGrammar, bytes: usize) -> anyhow::Result<Grammar> {
        let limits = self.factory.limits().clone();
        let environment = self.factory.tok_env().clone();
        let (grammar, lexer) = GrammarInit::Serialized(top).to_internal(Some(environment), limits.clone())?;
        first_states(&lexer, limits)?;
        let parser = self
            .factory
            .create_parser_from_init_default(GrammarInit::Internal(grammar, lexer));
        let mut matcher = Matcher::new(parser);
        if let Some(error) = matcher.get_error() {
            anyhow::bail!(error);
        }
        // What compiles may still allow nothing at all; better told now than at the first token.
        matcher.compute_mask_or_eos()?;
        Ok(Grammar { matcher, bytes })
    }
}

/// The lexer's first state and its 256 transitions, as llguidance is about to build them, with the fuel that it does not set.
fn first_states(lexer: &LexerSpec, mut limits: ParserLimits) -> anyhow::Result<()> {
    let mut automaton = lexer.to_regex_vec(&mut limits)?;
    automaton.set_fuel(limits.initial_lexer_fuel);
    let start = automaton.initial_state(&lexer.all_lexemes());
    for byte in 0..=u8::MAX {
        automaton.transition(start, byte);
        if let Some(error) = automaton.get_error() {
            anyhow::bail!(
                "its patterns are too complex ({error}): use fewer counted repeats, and join less by `&` and `~`"
            );
        }
    }
    Ok(())
}

/// What one answer is held to.
#[derive(Debug, Default)]
pub struct Bounds {
    /// What it may say.
    pub grammar: Option<Grammar>,
    /// What it must say.
    pub required: Required,
}

/// A compiled grammar, and where an answer is in it.
pub struct Grammar {
    matcher: Matcher,
    /// Of the form that it was compiled from.
    bytes: usize,
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
            bytes: self.bytes,
        }
    }

    /// About what it has in memory, before an answer is held to it.
    #[must_use]
    pub fn compiled_bytes(&self) -> usize {
        let (own, each) = COMPILED_BYTES;
        own + each * self.bytes
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
