//! A streamed completion as server-sent events: a chunk with the role, the text, one with the reason, usage if asked for, `[DONE]`.
//!
//! Text is streamed as it is decoded only where nobody else can take over from the model that writes: what has been streamed cannot
//! be taken back. Everywhere else it comes in one piece, once it is taken.
use super::{
    chat::{Completion, answer},
    single::ONLY,
};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use futures::{Stream, StreamExt as _};
use serde_json::{Value, json};
use shoal_kit::{openai, task};
use shoal_proto::v1::plan_event::Event;
use std::{convert::Infallible, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Chunks that wait for a slow reader: then the text waits, and the plan does not.
const WAITING: usize = 64;

/// How often a reader who waits is told that somebody is there.
const ALIVE: Duration = Duration::from_secs(10);

/// The events of one completion; `live` says that its text can be streamed as it comes.
pub(super) fn stream(
    completion: Completion,
    include_usage: bool,
    live: bool,
) -> Sse<impl Stream<Item = Result<Sent, Infallible>>> {
    let (chunks, receiver) = mpsc::channel(WAITING);
    // Ends when the plan does, or when nobody reads any more: the completion that it holds is what keeps the plan running.
    task::spawn("completion stream", async move {
        drop(write(completion, include_usage, live, chunks).await);
    });
    let events = ReceiverStream::new(receiver).map(|data: String| Ok(Sent::default().data(data)));
    Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE))
}

/// The reader has gone.
struct Gone;

async fn write(
    completion: Completion,
    include_usage: bool,
    live: bool,
    chunks: mpsc::Sender<String>,
) -> Result<(), Gone> {
    let gone = chunks.clone();
    let writing = async {
        let send = async |value: Value| chunks.send(value.to_string()).await.map_err(|_| Gone);
        let head = &completion.head;
        send(head.first()).await?;
        let mut streamed = String::new();
        let mut events = Box::pin(completion.plan.log.clone().watch(0));
        while let Some(event) = events.next().await {
            match &event.event {
                Some(Event::NodeDelta(delta)) if live && delta.node_id == ONLY => {
                    streamed.push_str(&delta.text);
                    send(head.chunk(&json!({"content": delta.text}), &Value::Null)).await?;
                }
                _ => {}
            }
        }
        let ended = answer::whole(&completion.plan)
            .await
            .and_then(|answer| match rest(&answer.text, &streamed) {
                Some(rest) => Ok((answer, rest)),
                None => Err(crate::error::Error::Broken {
                    what: "a second attempt answered something else than what was streamed already".into(),
                }),
            });
        let (answer, rest) = match ended {
            Ok(ended) => ended,
            Err(error) => return send(openai::error(&error.into())).await,
        };
        if !rest.is_empty() {
            send(head.chunk(&json!({"content": rest}), &Value::Null)).await?;
        }
        let mut last = head.chunk(&json!({}), &json!(answer.finish_reason));
        last["shoal"] = answer.extra(&completion.plan);
        send(last).await?;
        if include_usage {
            send(head.last(answer.usage())).await?;
        }
        chunks.send("[DONE]".into()).await.map_err(|_| Gone)
    };
    tokio::select! {
        written = writing => written,
        () = gone.closed() => Err(Gone),
    }
}

/// What of an answer has not been streamed yet; `None` if something else has. A formed answer is told in its canonical form, which
/// differs from the decoded text by white space at most: that is not another answer.
fn rest(answer: &str, streamed: &str) -> Option<String> {
    if let Some(rest) = answer.strip_prefix(streamed) {
        return Some(rest.to_owned());
    }
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    (value(streamed).is_some() && value(streamed) == value(answer)).then(String::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_streamed_is_added_and_another_answer_is_no_rest() {
        assert_eq!(rest("abc", "a").as_deref(), Some("bc"));
        assert_eq!(rest("abc", "").as_deref(), Some("abc"));
        assert_eq!(rest("abc", "abX"), None);
        assert_eq!(rest(r#"{"a":1}"#, r#"{ "a": 1 }"#).as_deref(), Some(""));
    }
}
