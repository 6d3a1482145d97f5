//! A completion that comes in pieces, put together. Pure.
use super::{ANSWER_BYTES, body};
use crate::route::question::{Finish, Said};
use http::StatusCode;
use serde_json::Value;

/// What stands behind the last event's `data:`.
const DONE: &str = "[DONE]";

/// What has come so far.
#[derive(Debug, Default)]
pub(super) struct Streamed {
    /// None while nothing was said at all, not even nothing.
    text: Option<String>,
    finish: Option<Finish>,
    done: bool,
    model: String,
    usage: Value,
    shoal: Value,
}

/// Why there is no more of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is no chunk of a completion, or none that can be taken.
    Nonsense(String),
    /// The endpoint says that it failed, and with what it would have answered had it known at once.
    Failed(Option<StatusCode>),
    /// It ended before it said why.
    Cut,
}

impl Streamed {
    /// Takes in what an event says; gives the text that it adds.
    pub(super) fn take(&mut self, data: &str) -> Result<String, Broken> {
        if data == DONE {
            self.done = true;
            return Ok(String::new());
        }
        let mut chunk: Value = serde_json::from_str(data)
            .map_err(|e| Broken::Nonsense(format!("an event of its answer is no JSON: {e}")))?;
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            return Err(Broken::Failed(code(error)));
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
        // Some servers say nothing in every chunk but the last by words.
        let finish = choice["finish_reason"].as_str();
        if let Some(finish) = finish.filter(|word| !matches!(*word, "" | "null")) {
            self.finish = Some(Finish::of(finish));
        }
        let Some(piece) = choice["delta"]["content"].as_str() else {
            return Ok(String::new());
        };
        let text = self.text.get_or_insert_default();
        if text.len() + piece.len() > ANSWER_BYTES {
            return Err(Broken::Nonsense(format!(
                "its answer is larger than {ANSWER_BYTES} bytes"
            )));
        }
        text.push_str(piece);
        Ok(piece.to_owned())
    }

    /// Nothing more is to come.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The answer is whole, though its usage may be to come.
    pub(super) fn is_whole(&self) -> bool {
        self.done || self.finish.is_some()
    }

    /// The whole answer, once nothing more comes.
    pub(super) fn said(self, price: (f64, f64)) -> Result<Said, Broken> {
        if !self.is_whole() {
            return Err(Broken::Cut);
        }
        // A refusal, or calls of tools that nobody offered.
        let text = self
            .text
            .ok_or_else(|| Broken::Nonsense("its answer has no choices[0].delta.content".into()))?;
        Ok(Said {
            text,
            finish: self.finish.unwrap_or_default(),
            usage: body::usage(&self.usage, price),
            timings: body::timings(&self.shoal["timings"]),
            confidence: body::confidence(&self.shoal["confidence"]),
            model: self.model,
        })
    }
}

/// What an error in the midst of an answer is over HTTP: by its own number, or by OpenAI's words for it.
fn code(error: &Value) -> Option<StatusCode> {
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let of_number = |value: &Value| StatusCode::from_u16(u16::try_from(number(value)?).ok()?).ok();
    let of_word = |value: &Value| {
        Some(match value.as_str()? {
            "invalid_request_error" | "context_length_exceeded" => StatusCode::BAD_REQUEST,
            "authentication_error" | "invalid_api_key" => StatusCode::UNAUTHORIZED,
            "permission_error" => StatusCode::FORBIDDEN,
            "not_found_error" | "model_not_found" => StatusCode::NOT_FOUND,
            "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" => StatusCode::TOO_MANY_REQUESTS,
            _ => return None,
        })
    };
    let told = [&error["code"], &error["type"]];
    told.into_iter()
        .find_map(|value| of_number(value).or_else(|| of_word(value)))
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
        assert!(answer.is_whole() && !answer.is_done());
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
    fn an_answer_without_an_end_is_none_and_nothing_that_stands_for_no_word_is_an_end() {
        for nothing in [json!(null), json!(""), json!("null")] {
            let (cut, _) = taken(&[json!({"choices": [{"delta": {"content": "a "}, "finish_reason": nothing}]})]);
            assert_eq!(cut.said((0.0, 0.0)).map(|s| s.text), Err(Broken::Cut));
        }
        let (mut unsaid, _) = taken(&[json!({"choices": [{"delta": {"content": "a"}}]})]);
        assert_eq!(unsaid.take(DONE).as_deref(), Ok(""));
        assert!(unsaid.is_done());
        let said = unsaid.said((0.0, 0.0)).expect("it says that it is done");
        assert_eq!((said.text.as_str(), said.finish), ("a", Finish::Stop));
    }

    #[test]
    fn an_answer_that_says_nothing_or_too_much_is_none() {
        let (refused, _) = taken(&[
            json!({"choices": [{"delta": {"role": "assistant", "refusal": "No."}}]}),
            json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
        ]);
        assert!(matches!(refused.said((0.0, 0.0)), Err(Broken::Nonsense(why)) if why.contains("content")));
        let (empty, _) = taken(&[json!({"choices": [{"delta": {"content": ""}, "finish_reason": "stop"}]})]);
        assert_eq!(empty.said((0.0, 0.0)).map(|s| s.text), Ok(String::new()));
        let half = json!({"choices": [{"delta": {"content": "x".repeat(ANSWER_BYTES / 2)}}]});
        let (mut long, _) = taken(&[half.clone(), half.clone()]);
        assert!(matches!(long.take(&half.to_string()), Err(Broken::Nonsense(why)) if why.contains("larger")));
        assert!(matches!(Streamed::default().take("{"), Err(Broken::Nonsense(_))));
    }

    #[test]
    fn an_error_in_its_midst_is_what_it_would_have_been_as_an_answer() {
        for (error, code) in [
            (json!({"type": "server_error"}), None),
            (json!("out of memory"), None),
            (json!({"type": "invalid_request_error", "code": null}), Some(400)),
            (json!({"type": "BadRequestError", "code": 400}), Some(400)),
            (json!({"type": "tokens", "code": "rate_limit_exceeded"}), Some(429)),
            (json!({"type": "insufficient_quota"}), Some(429)),
            (json!({"code": "401"}), Some(401)),
            (json!({"code": 7, "type": "authentication_error"}), Some(401)),
        ] {
            let taken = Streamed::default().take(&json!({"error": error}).to_string());
            let code = code.map(|c| StatusCode::from_u16(c).expect("a code"));
            assert_eq!(taken, Err(Broken::Failed(code)), "{error}");
        }
    }
}
