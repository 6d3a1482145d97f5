//! A completion that comes in pieces, put together. Pure.
use super::body;
use crate::route::question::{Finish, Said};
use serde_json::Value;

/// What stands behind the last event's `data:`.
pub(super) const DONE: &str = "[DONE]";

/// What has come so far.
#[derive(Debug, Default)]
pub(super) struct Streamed {
    text: String,
    finish: Option<Finish>,
    model: String,
    usage: Value,
    shoal: Value,
}

/// Why there is no more of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is no chunk of a completion.
    Nonsense(String),
    /// The endpoint says that it failed; whether asking again may mend that.
    Failed { again: bool },
}

impl Streamed {
    /// Takes in what an event says; gives the text that it adds.
    pub(super) fn take(&mut self, data: &str) -> Result<String, Broken> {
        let mut chunk: Value = serde_json::from_str(data)
            .map_err(|e| Broken::Nonsense(format!("an event of its answer is no JSON: {e}")))?;
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            let again = error["type"] != "invalid_request_error";
            return Err(Broken::Failed { again });
        }
        if let Some(model) = chunk["model"].as_str() {
            model.clone_into(&mut self.model);
        }
        for (kept, name) in [(&mut self.usage, "usage"), (&mut self.shoal, "shoal")] {
            if chunk[name].is_object() {
                *kept = chunk[name].take();
            }
        }
        // The last chunk of all has none, and usage alone.
        let choice = &chunk["choices"][0];
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.finish = Some(Finish::of(finish));
        }
        let piece = choice["delta"]["content"].as_str().unwrap_or_default();
        self.text.push_str(piece);
        Ok(piece.to_owned())
    }

    /// The whole answer, once nothing more comes. Without a reason to have ended it was cut off.
    pub(super) fn said(self, price: (f64, f64)) -> Option<Said> {
        Some(Said {
            text: self.text,
            finish: self.finish?,
            usage: body::usage(&self.usage, price),
            timings: body::timings(&self.shoal["timings"]),
            confidence: body::confidence(&self.shoal["confidence"]),
            model: self.model,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn taken(chunks: &[Value]) -> (Streamed, Vec<String>) {
        let mut answer = Streamed::default();
        let told = chunks.iter().map(|c| answer.take(&c.to_string()).expect("a chunk"));
        let told = told.collect();
        (answer, told)
    }

    #[test]
    fn chunks_come_to_what_one_body_would_say() {
        let (answer, told) = taken(&[
            json!({"model": "m", "choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": null}], "usage": null}),
            json!({"model": "m", "choices": [{"delta": {"content": "a "}, "finish_reason": null}]}),
            json!({"model": "m", "choices": [{"delta": {"content": "b"}, "finish_reason": null}]}),
            json!({"model": "m", "choices": [{"delta": {}, "finish_reason": "length"}], "shoal": {"confidence": {"score": 0.5}}}),
            json!({"model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
        ]);
        assert_eq!(told, ["", "a ", "b", "", ""]);
        let said = answer.said((1.0, 2.0)).expect("it ended");
        assert_eq!(
            (said.text.as_str(), said.model.as_str(), said.finish),
            ("a b", "m", Finish::Length)
        );
        let usage = said.usage.expect("counted");
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.cost_usd), (3, 2, 7e-6));
        assert_eq!(said.confidence.map(|c| c.score), Some(0.5));
    }

    #[test]
    fn an_answer_without_an_end_is_none_and_an_error_in_its_midst_says_whether_to_ask_again() {
        let (cut, _) = taken(&[json!({"choices": [{"delta": {"content": "a "}}]})]);
        assert!(cut.said((0.0, 0.0)).is_none());
        let mut answer = Streamed::default();
        let error = |kind: &str| json!({"error": {"message": "no", "type": kind}}).to_string();
        assert_eq!(answer.take(&error("server_error")), Err(Broken::Failed { again: true }));
        assert_eq!(
            answer.take(&error("invalid_request_error")),
            Err(Broken::Failed { again: false })
        );
        assert!(matches!(answer.take("{"), Err(Broken::Nonsense(_))));
    }
}
