//! Prompts as objects, however they come.
use crate::{
    error::Error,
    prompt::{self, Prompt},
};
use jsonschema::Validator;
use serde_json::{Map, Value};

/// The object that a prompt is, and the field that it stands in. A text is as good as the object that it writes; of a conversation
/// it is what the user said last. `told` says what a caller should give, `noun` who reads.
///
/// # Errors
/// `Invalid`, with the field: it is no object, or not what `schema` says.
pub(crate) fn read(
    prompt: Prompt,
    schema: Option<&Validator>,
    noun: &str,
    told: impl FnOnce() -> String,
) -> Result<(&'static str, Map<String, Value>), Error> {
    let (place, object) = match prompt {
        Prompt::Json(object) => ("prompt.json", object),
        other => {
            let (place, text) = said(other, noun)?;
            match serde_json::from_str(&text) {
                Ok(Value::Object(object)) => (place, object),
                _ => return Err(Error::invalid(place, format!("it is no JSON object: {}", told()))),
            }
        }
    };
    let held = match schema {
        Some(schema) => prompt::hold(object, schema, place)?,
        None => object,
    };
    Ok((place, held))
}

/// The text that a prompt asks about, and the field that it is of.
///
/// # Errors
/// `Invalid`, with the field: there is none.
pub(crate) fn said(prompt: Prompt, noun: &str) -> Result<(&'static str, String), Error> {
    match prompt {
        Prompt::Text(text) => Ok(("prompt.text", text)),
        Prompt::Messages(list) => {
            let last = list.into_iter().rev().find(|(role, _)| role == "user");
            let refused = || {
                Error::invalid(
                    "prompt.messages",
                    format!("a {noun} reads what the user said last: give a message of role `user`"),
                )
            };
            last.map(|(_, content)| ("prompt.messages", content))
                .ok_or_else(refused)
        }
        Prompt::Json(_) => Err(Error::invalid(
            "prompt.json",
            format!("a {noun} whose card has no [tag.input] reads no object: give `text`, or `messages`"),
        )),
    }
}
