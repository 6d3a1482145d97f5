//! A request's prompt to token ids: checked, put through the model's chat template, encoded.

pub mod python_json;
mod template;
mod wire;

pub use template::Templates;
pub(crate) use template::{CHAT, RENDERED_BYTES, environment, jinja};
pub(crate) use wire::{may_have, read};

use crate::error::Error;
use jsonschema::Validator;
use serde_json::Value;
use shoal_proto::v1;
use tokenizers::Tokenizer;

/// What a model is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// One user message.
    Text(String),
    /// One user message whose content the template sees as a mapping.
    Json(serde_json::Map<String, Value>),
    /// (role, content), oldest first.
    Messages(Vec<(String, String)>),
}

/// Roles that a template knows.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// Messages of a conversation.
const MESSAGES: usize = 1024;

/// Bytes of a prompt that is read on the request's own thread: a millisecond or two of parsing, or of tokenizing. That thread carries every other
/// call's stream, timer and health check too, and on two cores there is no other.
pub(crate) const SHORT_BYTES: usize = 16 << 10;

/// What a value of an object is counted as beside its text: at least what it takes to write it, with what is around it.
const VALUE_BYTES: usize = 4;

impl Prompt {
    /// Reads the contract's form.
    ///
    /// # Errors
    /// `Invalid`, with the field.
    pub fn from_wire(prompt: Option<v1::Prompt>) -> Result<Self, Error> {
        match prompt.and_then(|p| p.content) {
            None => Err(Error::invalid("prompt", "set one of `text`, `json` and `messages`")),
            Some(v1::prompt::Content::Text(text)) => Ok(Self::Text(text)),
            Some(v1::prompt::Content::Json(json)) => match serde_json::from_str(&json) {
                Ok(Value::Object(map)) => Ok(Self::Json(map)),
                Ok(other) => Err(Error::invalid(
                    "prompt.json",
                    format!("it must be a JSON object, not {}", kind(&other)),
                )),
                Err(e) => Err(Error::invalid("prompt.json", format!("it is no JSON: {e}"))),
            },
            Some(v1::prompt::Content::Messages(list)) => {
                let messages = list.messages.into_iter().map(|m| (m.role, m.content)).collect();
                Self::messages(messages)
            }
        }
    }

    /// A conversation.
    ///
    /// # Errors
    /// `Invalid` when it is empty, too long, or has a role that no template knows.
    pub fn messages(messages: Vec<(String, String)>) -> Result<Self, Error> {
        if messages.is_empty() || messages.len() > MESSAGES {
            return Err(Error::invalid(
                "prompt.messages",
                format!("give 1 to {MESSAGES} messages, not {}", messages.len()),
            ));
        }
        if let Some((i, (role, _))) = messages
            .iter()
            .enumerate()
            .find(|(_, (role, _))| !ROLES.contains(&role.as_str()))
        {
            return Err(Error::invalid(
                format!("prompt.messages[{i}].role"),
                format!("`{role}` is none of {ROLES:?}"),
            ));
        }
        Ok(Self::Messages(messages))
    }

    /// Whether it has [`SHORT_BYTES`] at most. Looks no further than that.
    pub(crate) fn is_short(&self) -> bool {
        let mut left = SHORT_BYTES;
        match self {
            Self::Text(text) => text.len() <= left,
            Self::Json(map) => fields(map, &mut left),
            Self::Messages(list) => list
                .iter()
                .all(|(role, content)| take(&mut left, role.len() + content.len())),
        }
    }
}

fn take(left: &mut usize, bytes: usize) -> bool {
    let fits = bytes <= *left;
    *left = left.saturating_sub(bytes);
    fits
}

fn fields(map: &serde_json::Map<String, Value>, left: &mut usize) -> bool {
    map.iter()
        .all(|(key, value)| take(left, key.len()) && value_fits(value, left))
}

/// Recursion is bounded by the parser's: 128 levels.
fn value_fits(value: &Value, left: &mut usize) -> bool {
    take(left, VALUE_BYTES)
        && match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => true,
            Value::String(text) => take(left, text.len()),
            Value::Array(list) => list.iter().all(|value| value_fits(value, left)),
            Value::Object(map) => fields(map, left),
        }
}

/// Holds an object to its task's input schema, and gives it back.
///
/// # Errors
/// `Invalid`, of `field`, with the place in the object.
pub(crate) fn hold(
    object: serde_json::Map<String, Value>,
    schema: &Validator,
    field: &str,
) -> Result<serde_json::Map<String, Value>, Error> {
    // A copy would take as long as parsing did.
    let value = Value::Object(object);
    schema.validate(&value).map_err(|e| {
        let at = e.instance_path();
        Error::invalid(field, format!("it breaks the task's input schema at `{at}`: {e}"))
    })?;
    Ok(match value {
        Value::Object(object) => object,
        _ => unreachable!("it is an object"),
    })
}

/// Ids of a rendered prompt. The template wrote the control tokens, so the tokenizer adds none.
///
/// # Errors
/// `Invalid` when the tokenizer refuses.
pub fn encode(tokenizer: &Tokenizer, rendered: &str) -> Result<Vec<u32>, Error> {
    let encoding = tokenizer.encode_fast(rendered, false);
    Ok(encoding
        .map_err(|e| Error::invalid("prompt", format!("the tokenizer refuses it: {e}")))?
        .get_ids()
        .to_vec())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
