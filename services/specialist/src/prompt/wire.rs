//! Prompts as they come over the wire: a long one is parsed where it holds up nobody, and one that no context could hold is not.
use super::{Prompt, SHORT_BYTES};
use crate::{engine::queue::Urgency, error::Error, generator::within, workshop::Workshop};
use shoal_proto::v1;

/// Bytes that JSON may take to write one of text: an escape such as `\u0001`.
const ESCAPE: usize = 6;

/// Bytes of an object beside the text that a model reads of it: names, blanks, and what its template leaves out.
const BESIDE: usize = 64 << 10;

/// Bytes that an object may have whose text, as a model reads it, has `text` at most.
pub(crate) fn may_have(text: usize) -> usize {
    text.saturating_mul(ESCAPE).saturating_add(BESIDE)
}

/// Reads the contract's form; `most` bytes of an object are read.
///
/// # Errors
/// `Invalid`, with the field; `Busy` when too much waits to be read, `Expired`.
pub(crate) async fn read(
    wire: Option<v1::Prompt>,
    most: usize,
    workshop: &Workshop,
    urgency: Urgency,
) -> Result<Prompt, Error> {
    let bytes = match wire.as_ref().and_then(|prompt| prompt.content.as_ref()) {
        Some(v1::prompt::Content::Json(json)) => json.len(),
        _ => 0,
    };
    if bytes > most {
        let told = format!("{bytes} bytes do not fit the context of this model: at most {most} are read");
        return Err(Error::invalid("prompt", told));
    }
    if bytes <= SHORT_BYTES {
        return Prompt::from_wire(wire);
    }
    let parse = move || Prompt::from_wire(wire);
    within(urgency.deadline, workshop.run(urgency, parse)).await?
}
