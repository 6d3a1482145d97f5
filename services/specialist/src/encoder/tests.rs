//! The queue before an encoder, over a model that is held still.
mod parts;

use super::*;
use crate::engine::queue::Class;
use std::{
    sync::{atomic::Ordering, mpsc as std_mpsc},
    task::Poll,
};

const WORDS: &str = r#"{"version":"1.0","added_tokens":[],"pre_tokenizer":{"type":"Whitespace"},
    "model":{"type":"WordLevel","vocab":{"a":0,"?":1},"unk_token":"?"}}"#;

/// An encoder whose model waits for a permit, then gives each text a vector of its row's tokens; of a row of 13 it fails.
fn held(queue_tokens: usize) -> (Encoder, std_mpsc::Sender<()>) {
    let (encoder, permits, _) = told(queue_tokens, RUN_TOKENS);
    (encoder, permits)
}

/// The same with runs of so many tokens, and how many rows and columns each run had.
fn told(queue_tokens: usize, run_tokens: usize) -> (Encoder, std_mpsc::Sender<()>, std_mpsc::Receiver<(usize, usize)>) {
    let (tell, runs) = std_mpsc::channel();
    let (permits, wait) = std_mpsc::channel::<()>();
    let tokenizer = Tokenizer::from_bytes(WORDS).expect("a tokenizer");
    let model = move |batch: Padded| {
        wait.recv().map_err(|e| e.to_string())?;
        let _ = tell.send((batch.rows, batch.columns));
        assert!(batch.columns != 40, "as the test wants it");
        let tokens = |row: &[i64]| row.iter().sum::<i64>();
        if batch.mask.chunks(batch.columns).any(|row| tokens(row) == 13) {
            return Err("as the test wants it".into());
        }
        Ok(batch
            .mask
            .chunks(batch.columns)
            .map(|row| Answer::Vector(vec![tokens(row) as f32]))
            .collect())
    };
    let limits = Limits {
        context_tokens: 512,
        queue_tokens,
        run_tokens,
    };
    let encoder = Encoder::over("held", tokenizer, limits, model).expect("a thread");
    (encoder, permits, runs)
}

/// Waits until the owner thread has taken what is in the queue.
async fn taken(encoder: &Encoder) {
    while encoder.counters().queue_tokens.load(Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
}

/// How many calls were left by their callers, and how many ran out of time.
fn without_answer(encoder: &Encoder) -> (u64, u64) {
    let counters = encoder.counters();
    (
        counters.cancelled.load(Ordering::Relaxed),
        counters.expired.load(Ordering::Relaxed),
    )
}

fn text(words: usize) -> Vec<String> {
    vec!["a ".repeat(words)]
}

#[tokio::test]
async fn a_queue_full_of_tokens_refuses_and_what_nobody_waits_for_is_not_run() {
    let (encoder, permits) = held(10);
    let (first, leaves, late) = (text(20), text(8), text(3));
    let mut first = Box::pin(encoder.encode(&first, Urgency::default()));
    assert!(
        futures::poll!(first.as_mut()).is_pending(),
        "over the queue, and alone in it"
    );
    taken(&encoder).await;
    let mut leaves = Box::pin(encoder.encode(&leaves, Urgency::default()));
    assert!(futures::poll!(leaves.as_mut()).is_pending());
    let Poll::Ready(Err(Error::Busy { message, retry_after })) =
        futures::poll!(Box::pin(encoder.encode(&late, Urgency::default())))
    else {
        panic!("8 of 9 tokens wait");
    };
    assert!(message.contains("8 prompt tokens wait, and 9 may") && retry_after > Duration::ZERO);
    drop(leaves);
    // One permit a batch: the one that was left takes none.
    permits.send(()).expect("the model waits");
    assert_eq!(first.await.expect("encoded").answers, [Answer::Vector(vec![20.0])]);
    taken(&encoder).await;
    permits.send(()).expect("the model is there");
    assert_eq!(
        encoder
            .encode(&late, Urgency::default())
            .await
            .expect("encoded")
            .input_tokens,
        3
    );
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_waits_for_the_batch_before() {
    let (encoder, permits) = held(100);
    let (first, late) = (text(2), text(3));
    let mut first = Box::pin(encoder.encode(&first, Urgency::default()));
    assert!(futures::poll!(first.as_mut()).is_pending());
    let deadline = Instant::now() + Duration::from_millis(100);
    let ended = encoder.encode(&late, Urgency::until(Some(deadline))).await;
    assert_eq!(ended, Err(Error::Expired { generated: 0 }));
    permits.send(()).expect("the model waits");
    first.await.expect("encoded");
    taken(&encoder).await;
    assert_eq!(
        without_answer(&encoder),
        (0, 1),
        "its caller left because its time was up"
    );
}

#[tokio::test]
async fn a_model_that_panics_stops_the_encoder_and_says_so() {
    let (encoder, permits) = held(100);
    permits.send(()).expect("the model waits");
    let broken = encoder.encode(&text(40), Urgency::default()).await;
    assert!(matches!(broken, Err(Error::Broken { .. })), "{broken:?}");
    encoder.stopped().cancelled().await;
    assert!(matches!(
        encoder.encode(&text(1), Urgency::default()).await,
        Err(Error::Broken { .. })
    ));
}

#[tokio::test]
async fn a_model_that_runs_nothing_any_more_stops_and_one_that_breaks_on_texts_goes_on() {
    let tokenizer = || Tokenizer::from_bytes(WORDS).expect("a tokenizer");
    let limits = Limits {
        context_tokens: 512,
        queue_tokens: 1000,
        run_tokens: RUN_TOKENS,
    };
    // The one breaks on texts of more than a token, the other on all from its third run on.
    for sticks in [false, true] {
        let mut runs = 0;
        let model = move |batch: Padded| {
            runs += 1;
            if batch.columns > 1 || (sticks && runs > 2) {
                return Err("as the test wants it".into());
            }
            Ok(vec![Answer::Vector(vec![1.0]); batch.rows])
        };
        let encoder = Encoder::over("fails", tokenizer(), limits, model).expect("a thread");
        for _ in 0..2 {
            encoder.encode(&text(1), Urgency::default()).await.expect("it works");
        }
        for failed in 0..20 {
            let ended = encoder.encode(&text(2), Urgency::default()).await;
            assert!(matches!(ended, Err(Error::Broken { .. } | Error::Closing)), "{ended:?}");
            if sticks && failed > 8 {
                encoder.stopped().cancelled().await;
                break;
            }
        }
        assert_eq!(encoder.stopped().is_cancelled(), sticks);
        let last = encoder.encode(&text(1), Urgency::default()).await;
        assert_eq!(last.is_ok(), !sticks, "{last:?}");
    }
}

#[tokio::test]
async fn what_waits_runs_together_within_the_budget_and_one_that_breaks_costs_the_others_nothing() {
    let (encoder, permits, runs) = told(2000, RUN_TOKENS);
    let texts = [
        text(1),
        vec!["a a".into(), "a a a".into()],
        text(4),
        text(13),
        text(300),
        text(5),
    ];
    let mut calls: Vec<_> = texts
        .iter()
        .map(|t| Box::pin(encoder.encode(t, Urgency::default())))
        .collect();
    assert!(futures::poll!(calls[0].as_mut()).is_pending());
    taken(&encoder).await;
    for call in &mut calls[1..] {
        assert!(futures::poll!(call.as_mut()).is_pending());
    }
    // The first alone; then four rows and one that breaks, which each run alone after that; then 300 tokens; then the last.
    (0..6).for_each(|_| permits.send(()).expect("the model waits"));
    let of = |tokens: &[f32]| tokens.iter().map(|t| Answer::Vector(vec![*t])).collect::<Vec<_>>();
    for (i, (call, wanted)) in calls
        .into_iter()
        .zip([&[1.0][..], &[2.0, 3.0], &[4.0], &[], &[300.0], &[5.0]])
        .enumerate()
    {
        match call.await {
            Ok(encoded) => assert_eq!(encoded.answers, of(wanted), "{i}"),
            Err(error) => assert!(i == 3 && matches!(error, Error::Broken { .. }), "{error:?}"),
        }
        if i == 3 {
            (0..2).for_each(|_| permits.send(()).expect("the model waits"));
        }
    }
    let ran: Vec<_> = runs.try_iter().collect();
    assert_eq!(ran, [(1, 1), (4, 13), (2, 3), (1, 4), (1, 13), (1, 300), (1, 5)]);
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_makes_room() {
    let (encoder, permits) = held(100);
    let (first, texts) = (text(1), text(1));
    let mut first = Box::pin(encoder.encode(&first, Urgency::default()));
    assert!(futures::poll!(first.as_mut()).is_pending());
    taken(&encoder).await;
    let mut waiting: Vec<_> = (0..88)
        .map(|_| Box::pin(encoder.encode(&texts, Urgency::default())))
        .collect();
    for call in &mut waiting {
        assert!(
            futures::poll!(call.as_mut()).is_pending(),
            "as many as may wait of 100 tokens"
        );
    }
    assert!(matches!(
        encoder.encode(&texts, Urgency::default()).await,
        Err(Error::Busy { .. })
    ));
    drop(waiting);
    permits.send(()).expect("the model waits");
    first.await.expect("encoded");
    taken(&encoder).await;
    assert_eq!(encoder.counters().cancelled.load(Ordering::Relaxed), 88);
    permits.send(()).expect("the model is there");
    encoder.encode(&texts, Urgency::default()).await.expect("there is room");
}

#[tokio::test]
async fn an_urgent_call_runs_first_and_without_those_that_are_not_and_of_a_class_the_one_with_the_least_slack() {
    let (encoder, permits, runs) = told(10_000, RUN_TOKENS);
    let urgency = |class, slack: Option<u64>| Urgency {
        class,
        start_by: slack.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        ..Urgency::default()
    };
    // Two of over 256 tokens do not fit one run.
    let asked = [
        (1, Urgency::default()),
        (2, urgency(Class::Batch, Some(0))),
        (260, urgency(Class::Normal, None)),
        (270, urgency(Class::Normal, Some(9))),
        (280, urgency(Class::Normal, Some(1))),
        (3, urgency(Class::Interactive, Some(9))),
    ];
    let texts = asked.map(|(words, _)| text(words));
    let mut calls = Vec::new();
    for (texts, (_, urgency)) in texts.iter().zip(asked) {
        let mut call = Box::pin(encoder.encode(texts, urgency));
        assert!(futures::poll!(call.as_mut()).is_pending());
        calls.push(call);
        if calls.len() == 1 {
            taken(&encoder).await;
        }
    }
    asked.iter().for_each(|_| permits.send(()).expect("the model waits"));
    for call in calls {
        call.await.expect("encoded");
    }
    let ran: Vec<_> = runs.try_iter().collect();
    assert_eq!(ran, [(1, 1), (1, 3), (1, 280), (1, 270), (1, 260), (1, 2)]);
}

#[tokio::test]
async fn where_a_run_scales_what_is_in_it_each_text_runs_alone() {
    let (encoder, permits, runs) = told(1000, 0);
    let texts = [text(1), vec!["a a".into(), "a a a".into()], text(4)];
    let mut calls = Vec::new();
    for texts in &texts {
        let mut call = Box::pin(encoder.encode(texts, Urgency::default()));
        assert!(futures::poll!(call.as_mut()).is_pending());
        calls.push(call);
    }
    (0..4).for_each(|_| permits.send(()).expect("the model waits"));
    for call in calls {
        call.await.expect("encoded");
    }
    let mut ran: Vec<_> = runs.try_iter().collect();
    ran.sort_unstable();
    assert_eq!(ran, [(1, 1), (1, 2), (1, 3), (1, 4)]);
}
