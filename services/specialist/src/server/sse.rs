//! A chat completion as server-sent events: a chunk with the role, one a delta, one with the reason, usage if asked for, `[DONE]`.
use super::{
    chat::{extra, reason, tokens},
    door::Door,
    generate::Generation,
};
use crate::{engine::Event, error::refuse};
use axum::response::sse::{self, Sse};
use futures::Stream;
use serde_json::{Value, json};
use shoal_kit::openai::{self, Head};
use std::{collections::VecDeque, convert::Infallible};

struct Streaming {
    generation: Option<Generation>,
    ready: VecDeque<String>,
}

/// The events of one completion.
pub(super) fn stream(
    generation: Generation,
    door: Door,
    head: Head,
    include_usage: bool,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let start = Streaming {
        generation: Some(generation),
        ready: VecDeque::from([head.first().to_string()]),
    };
    let context = (door, head);
    Sse::new(futures::stream::unfold(
        (start, context),
        move |(mut state, context)| async move {
            if state.ready.is_empty() {
                let mut generation = state.generation.take()?;
                let (door, head): &(Door, Head) = &context;
                match generation.next().await {
                    Event::Delta(text) => {
                        state
                            .ready
                            .push_back(head.chunk(&json!({"content": text}), &Value::Null).to_string());
                        state.generation = Some(generation);
                    }
                    Event::Done(done) => {
                        let mut last = head.chunk(&json!({}), &json!(reason(done.finish)));
                        last["shoal"] = extra(&done, door.specialist());
                        state.ready.push_back(last.to_string());
                        if include_usage {
                            state.ready.push_back(head.last(tokens(&done)).to_string());
                        }
                        state.ready.push_back("[DONE]".into());
                    }
                    Event::Failed(error) => state.ready.push_back(openai::error(&refuse(error)).to_string()),
                }
            }
            let data = state.ready.pop_front()?;
            Some((Ok(sse::Event::default().data(data)), (state, context)))
        },
    ))
}
