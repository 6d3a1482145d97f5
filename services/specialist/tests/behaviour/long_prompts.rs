//! A prompt that no context holds, while others are served on the only thread that carries calls.
use crate::world::{ask, load};
use serde_json::{Map, Value};
use shoal_proto::v1;
use shoal_specialist::{Error, engine::queue::Urgency, prompt::Prompt, sampling::Sampling, specialist::Specialist};
use std::{
    cell::Cell,
    future::Future,
    time::{Duration, Instant},
};

/// An object of many small values, so many bytes as it is written.
fn object(bytes: usize) -> String {
    let entry = |i: usize| format!("\"k{i}\":{{\"a\":[1,2.5,\"x\"]}},");
    let mut json: String = (0..bytes / 30).map(entry).collect();
    json.insert(0, '{');
    json += "\"end\":0}";
    json
}

/// The longest time that nothing else was done while `work` was.
async fn longest_gap<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let (last, longest) = (Cell::new(Instant::now()), Cell::new(Duration::ZERO));
    let note = || {
        longest.set(longest.get().max(last.get().elapsed()));
        last.set(Instant::now());
    };
    let ticks = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            note();
        }
    };
    let done = tokio::select! {
        biased;
        never = ticks => never,
        done = work => done,
    };
    note();
    (done, longest.get())
}

/// What reading the same takes on the thread of the call.
fn parsed(json: &str) -> (Map<String, Value>, Duration) {
    let started = Instant::now();
    let map = serde_json::from_str(json).expect("an object");
    (map, started.elapsed())
}

fn wire(json: String) -> Option<v1::Prompt> {
    Some(v1::Prompt {
        content: Some(v1::prompt::Content::Json(json)),
    })
}

async fn refused(specialist: &Specialist, task: &str, json: &str) {
    let (map, alone) = parsed(json);
    let mut call = ask(task, "", Sampling::greedy(1));
    call.prompt = Prompt::Json(map);
    let (answered, gap) = longest_gap(specialist.generate(call)).await;
    assert!(matches!(answered, Err(Error::Invalid { .. })), "{answered:?}");
    assert!(
        gap < alone,
        "nothing was done for {gap:?}, and to parse the prompt takes {alone:?}"
    );
}

#[tokio::test]
async fn a_long_object_is_checked_and_rendered_beside_other_calls_and_not_before_them() {
    let json = object(2 << 20);
    refused(&load("tiny_decoder", 1), "echo", &json).await;
    refused(&load("tiny_fill", 1), "calls", &json).await;
}

#[tokio::test]
async fn an_object_that_no_context_holds_is_refused_by_its_bytes_and_a_long_one_is_read_aside() {
    for (name, context) in [("tiny_decoder", 256), ("tiny_fill", 256)] {
        let specialist = load(name, 1);
        let read = async |bytes: usize| specialist.prompt(wire(object(bytes)), Urgency::default()).await;
        assert_eq!(specialist.folder().card.limits.context_tokens, context);
        let Err(Error::Invalid { field, description }) = read(8 << 20).await else {
            panic!("8 MiB are no {context} tokens")
        };
        assert!(field == "prompt" && description.contains("at most"), "{description}");
        for bytes in [100, 60 << 10] {
            assert!(matches!(read(bytes).await, Ok(Prompt::Json(map)) if map.contains_key("end")));
        }
        let broken = specialist.prompt(wire("{".repeat(20 << 10)), Urgency::default()).await;
        assert!(matches!(broken, Err(Error::Invalid { field, .. }) if field == "prompt.json"));
        let late = Urgency::until(Some(Instant::now()));
        let late = specialist.prompt(wire(object(60 << 10)), late).await;
        assert!(matches!(late, Err(Error::Expired { generated: 0 })), "{late:?}");
    }
}
