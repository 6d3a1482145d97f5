//! The bodies of a chat completion. Pure.
use crate::route::question::{Finish, Input, Question, Said};
use serde_json::{Map, Value, json};
use shoal_proto::v1;

/// The request. What a specialist was trained to know is said in a system message; what its grammar holds it to goes along as a
/// response format, where it is a JSON Schema.
pub(super) fn request(question: &Question, model: &str, stream: bool) -> Value {
    let mut messages = Vec::new();
    if let Some(instructions) = &question.instructions {
        messages.push(json!({"role": "system", "content": instructions}));
    }
    match &question.input {
        Input::Conversation(turns) => {
            messages.extend(turns.iter().map(|m| json!({"role": m.role, "content": m.content})))
        }
        single => messages.push(json!({"role": "user", "content": single.text()})),
    }
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("messages".into(), messages.into());
    body.insert("stream".into(), stream.into());
    if stream {
        body.insert("stream_options".into(), json!({"include_usage": true}));
    }
    let sampling = question.sampling.clone().unwrap_or_default();
    // What an agent does not ask for is not sampled: the same plan should give the same answer.
    body.insert("temperature".into(), number(sampling.temperature.unwrap_or(0.0)));
    let optional = [
        ("max_tokens", sampling.max_tokens.map(Value::from)),
        ("top_p", sampling.top_p.map(number)),
        ("seed", sampling.seed.map(Value::from)),
        ("stop", Some(Value::from(sampling.stop)).filter(|s| s != &json!([]))),
    ];
    body.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?))),
    );
    if let Some(schema) = &question.form {
        let name: String = question
            .task
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        let format = json!({"type": "json_schema", "json_schema": {"name": name, "schema": schema.value()}});
        body.insert("response_format".into(), format);
    }
    Value::Object(body)
}

/// `0.1` of 0.1f32, and not `0.10000000149011612`.
fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// What the endpoint said. `price` is US dollars per million tokens: prompt, generated.
pub(super) fn response(bytes: &[u8], price: (f64, f64)) -> Result<Said, String> {
    let body: Value = serde_json::from_slice(bytes).map_err(|e| format!("its answer is no JSON: {e}"))?;
    let choice = &body["choices"][0];
    let text = choice["message"]["content"]
        .as_str()
        .ok_or("its answer has no choices[0].message.content")?;
    Ok(Said {
        text: text.to_owned(),
        finish: choice["finish_reason"].as_str().map(Finish::of).unwrap_or_default(),
        usage: usage(&body["usage"], price),
        timings: timings(&body["shoal"]["timings"]),
        confidence: confidence(&body["shoal"]["confidence"]),
        model: body["model"].as_str().unwrap_or_default().to_owned(),
    })
}

/// What it counted; not every endpoint does.
pub(super) fn usage(wire: &Value, price: (f64, f64)) -> Option<v1::Usage> {
    let (input_tokens, output_tokens) = (wire["prompt_tokens"].as_u64()?, wire["completion_tokens"].as_u64()?);
    Some(v1::Usage {
        input_tokens,
        output_tokens,
        cost_usd: (input_tokens as f64 * price.0 + output_tokens as f64 * price.1) / 1e6,
    })
}

/// A specialist's own door says how sure it is; others do not.
pub(super) fn confidence(extra: &Value) -> Option<v1::Confidence> {
    let part = |name: &str| extra[name].as_f64();
    Some(v1::Confidence {
        score: part("score")?,
        mean_logprob: part("mean_logprob").unwrap_or_default(),
        min_logprob: part("min_logprob").unwrap_or_default(),
        margin: part("margin").unwrap_or_default(),
        sum_logprob: part("sum_logprob").unwrap_or_default(),
    })
}

pub(super) fn timings(extra: &Value) -> Option<v1::Timings> {
    let part = |name: &str| {
        let seconds = extra[name].as_f64()?;
        std::time::Duration::try_from_secs_f64(seconds)
            .ok()
            .map(shoal_proto::time::duration)
    };
    extra.is_object().then(|| v1::Timings {
        tokenize: part("tokenize_seconds"),
        queue: part("queue_seconds"),
        prefill: part("prefill_seconds"),
        decode: part("decode_seconds"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{route::question::Means, schema::Schema};
    use std::sync::Arc;

    fn question() -> Question {
        Question {
            task: "tool call".into(),
            input: Input::Text("play jazz".into()),
            means: Means::Generate,
            sampling: Some(v1::Sampling {
                max_tokens: Some(7),
                temperature: Some(0.1),
                stop: vec!["\n".into()],
                ..v1::Sampling::default()
            }),
            form: Some(Arc::new(Schema::compile(r#"{"type":"object"}"#).expect("schema"))),
            priority: v1::Priority::Normal,
            instructions: Some("Do it.".into()),
            sink: None,
            lost: Arc::default(),
        }
    }

    #[test]
    fn a_question_becomes_messages_limits_and_a_response_format() {
        assert_eq!(
            request(&question(), "large", false),
            json!({
                "model": "large", "stream": false, "temperature": 0.1, "max_tokens": 7, "stop": ["\n"],
                "messages": [{"role": "system", "content": "Do it."}, {"role": "user", "content": "play jazz"}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "tool_call", "schema": {"type": "object"}}},
            })
        );
    }

    #[test]
    fn an_answer_is_read_with_its_price_and_what_a_specialist_adds() {
        let body = json!({
            "model": "m@2", "choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 500_000},
            "shoal": {"confidence": {"score": 0.5}, "timings": {"queue_seconds": 0.25}},
        });
        let said = response(body.to_string().as_bytes(), (0.1, 0.4)).expect("read");
        assert_eq!((said.text.as_str(), said.model.as_str()), ("hi", "m@2"));
        let usage = said.usage.expect("counted");
        assert!((usage.cost_usd - 0.3).abs() < 1e-12, "{usage:?}");
        assert_eq!(said.confidence.map(|c| c.score), Some(0.5));
        assert_eq!(said.timings.and_then(|t| t.queue).map(|d| d.nanos), Some(250_000_000));
        for (word, finish) in [
            (json!("length"), Finish::Length),
            (json!("content_filter"), Finish::Filtered),
            (json!("tool_calls"), Finish::Stop),
            (json!(null), Finish::Stop),
        ] {
            let body = json!({"choices": [{"message": {"content": "hi"}, "finish_reason": word}]}).to_string();
            let said = response(body.as_bytes(), (0.0, 0.0)).expect("read");
            assert_eq!((said.finish, said.usage), (finish, None));
        }
        for nonsense in [
            "",
            "{}",
            "[1]",
            r#"{"choices":[]}"#,
            r#"{"choices":[{"message":{"content":null}}]}"#,
        ] {
            assert!(response(nonsense.as_bytes(), (0.0, 0.0)).is_err(), "{nonsense}");
        }
    }
}
