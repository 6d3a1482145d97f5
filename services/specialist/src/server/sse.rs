//! A chat completion as server-sent events: a chunk with the role, one a delta, one with the reason, usage if asked for, `[DONE]`.
use super::{
    chat::{Header, error_body, extra, reason, tokens},
    door::Door,
    generate::Generation,
};
use crate::engine::Event;
use axum::response::sse::{self, Sse};
use futures::Stream;
use serde_json::{Value, json};
use std::{collections::VecDeque, convert::Infallible};

struct Streaming {
    generation: Option<Generation>,
    ready: VecDeque<String>,
}

/// The events of one completion.
pub(super) fn stream(
    generation: Generation,
    door: Door,
    header: Header,
    include_usage: bool,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let role = chunk(&header, json!({"role": "assistant", "content": ""}), Value::Null);
    let start = Streaming {
        generation: Some(generation),
        ready: VecDeque::from([role.to_string()]),
    };
    let context = (door, header);
    Sse::new(futures::stream::unfold(
        (start, context),
        move |(mut state, context)| async move {
            if state.ready.is_empty() {
                let mut generation = state.generation.take()?;
                let (door, header): &(Door, Header) = &context;
                match generation.next().await {
                    Event::Delta(text) => {
                        state
                            .ready
                            .push_back(chunk(header, json!({"content": text}), Value::Null).to_string());
                        state.generation = Some(generation);
                    }
                    Event::Done(done) => {
                        let mut last = chunk(header, json!({}), json!(reason(done.finish)));
                        last["shoal"] = extra(&done, door.specialist());
                        state.ready.push_back(last.to_string());
                        if include_usage {
                            let mut usage = chunk(header, json!({}), Value::Null);
                            usage["choices"] = json!([]);
                            usage["usage"] = tokens(&done);
                            state.ready.push_back(usage.to_string());
                        }
                        state.ready.push_back("[DONE]".into());
                    }
                    Event::Failed(error) => state.ready.push_back(error_body(&error).to_string()),
                }
            }
            let data = state.ready.pop_front()?;
            Some((Ok(sse::Event::default().data(data)), (state, context)))
        },
    ))
}

fn chunk(header: &Header, delta: Value, finish_reason: Value) -> Value {
    json!({
        "id": header.id, "object": "chat.completion.chunk", "created": header.created, "model": header.model,
        "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}],
    })
}
