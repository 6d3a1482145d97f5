//! The tokens of what is asked, and what stands for what among them.
use super::asked::Asked;
use tokenizers::Tokenizer;

/// What was asked, as the model gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(super) asked: Asked,
    /// 1 to context token ids, special tokens included.
    pub(super) ids: Vec<u32>,
    /// The token that stands for each method, and for each parameter: the one that its name begins with.
    pub(super) method_at: Vec<usize>,
    pub(super) parameter_at: Vec<usize>,
    /// Tokens of the conversation that a value may be of.
    pub(super) text: Vec<Token>,
}

/// A token of the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// Which of `ids` it is.
    pub(super) at: usize,
    /// Bytes of the conversation, where characters begin and end.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Tokenizes.
///
/// # Errors
/// In words, when there are too many tokens.
pub(super) fn tokenize(tokenizer: &Tokenizer, asked: Asked, context: usize) -> Result<Given, String> {
    let encoding = tokenizer.encode((asked.names.as_str(), asked.text.as_str()), true);
    let encoding = encoding.map_err(|e| e.to_string())?;
    let ids = encoding.get_ids();
    if ids.is_empty() || ids.len() > context {
        return Err(format!("it has {} tokens; 1 to {context} fit", ids.len()));
    }
    let sequences = &encoding.get_sequence_ids()[..];
    let of = |sequence: usize| {
        let offsets = encoding.get_offsets().iter().enumerate();
        offsets.filter(move |(at, (start, end))| sequences[*at] == Some(sequence) && start < end)
    };
    // Of a name without a token it is the next one.
    let at = |start: &usize| of(0).find(|(_, (_, end))| end > start).map_or(0, |(at, _)| at);
    let (method_at, parameter_at) = (
        asked.method_starts.iter().map(at).collect(),
        asked.parameter_starts.iter().map(at).collect(),
    );
    let token = |(at, (start, end)): (usize, &(usize, usize))| Token {
        at,
        // Of a character that is more tokens than one, each stands for the whole.
        start: asked.text.floor_char_boundary(*start),
        end: asked.text.ceil_char_boundary(*end),
    };
    Ok(Given {
        ids: ids.to_vec(),
        method_at,
        parameter_at,
        text: of(1).map(token).filter(|token| token.end > asked.runs_from).collect(),
        asked,
    })
}
