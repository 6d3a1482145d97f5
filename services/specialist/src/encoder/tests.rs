//! The queue before an encoder, over a model that is held still.
use super::*;
use std::{sync::mpsc as std_mpsc, task::Poll};

const WORDS: &str = r#"{"version":"1.0","added_tokens":[],"pre_tokenizer":{"type":"Whitespace"},
    "model":{"type":"WordLevel","vocab":{"a":0,"?":1},"unk_token":"?"}}"#;

/// An encoder whose model waits for a permit, then gives each text a vector of its row's tokens; of a row of 13 it fails.
fn held(queue_tokens: usize) -> (Encoder, std_mpsc::Sender<()>) {
    let (encoder, permits, _) = told(queue_tokens);
    (encoder, permits)
}

/// The same, and how many rows and columns each run had.
fn told(queue_tokens: usize) -> (Encoder, std_mpsc::Sender<()>, std_mpsc::Receiver<(usize, usize)>) {
    let (tell, runs) = std_mpsc::channel();
    let (permits, wait) = std_mpsc::channel::<()>();
    let tokenizer = Tokenizer::from_bytes(WORDS).expect("a tokenizer");
    let model = move |rows: usize, columns: usize, _, mask: Vec<i64>| {
        wait.recv().map_err(|e| e.to_string())?;
        let _ = tell.send((rows, columns));
        assert!(columns != 40, "as the test wants it");
        let tokens = |row: &[i64]| row.iter().sum::<i64>();
        if mask.chunks(columns).any(|row| tokens(row) == 13) {
            return Err("as the test wants it".into());
        }
        Ok(mask
            .chunks(columns)
            .map(|row| Answer::Vector(vec![tokens(row) as f32]))
            .collect())
    };
    let encoder = Encoder::over(tokenizer, 512, queue_tokens, model).expect("a thread");
    (encoder, permits, runs)
}

/// Waits until the owner thread has taken what is in the queue.
async fn taken(encoder: &Encoder) {
    while encoder.waiting.load(Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
}

fn text(words: usize) -> Vec<String> {
    vec!["a ".repeat(words)]
}

#[tokio::test]
async fn a_queue_full_of_tokens_refuses_and_what_nobody_waits_for_is_not_run() {
    let (encoder, permits) = held(10);
    let (first, leaves, late) = (text(20), text(8), text(3));
    let mut first = Box::pin(encoder.encode(&first, None));
    assert!(
        futures::poll!(first.as_mut()).is_pending(),
        "over the queue, and alone in it"
    );
    taken(&encoder).await;
    let mut leaves = Box::pin(encoder.encode(&leaves, None));
    assert!(futures::poll!(leaves.as_mut()).is_pending());
    let Poll::Ready(Err(Error::Busy { message, retry_after })) = futures::poll!(Box::pin(encoder.encode(&late, None)))
    else {
        panic!("8 of 10 tokens wait");
    };
    assert!(message.contains("8 prompt tokens wait, and 10 may") && retry_after > Duration::ZERO);
    drop(leaves);
    // One permit a batch: the one that was left takes none.
    permits.send(()).expect("the model waits");
    assert_eq!(first.await.expect("encoded").answers, [Answer::Vector(vec![20.0])]);
    taken(&encoder).await;
    permits.send(()).expect("the model is there");
    assert_eq!(encoder.encode(&late, None).await.expect("encoded").input_tokens, 3);
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_waits_for_the_batch_before() {
    let (encoder, permits) = held(100);
    let (first, late) = (text(2), text(3));
    let mut first = Box::pin(encoder.encode(&first, None));
    assert!(futures::poll!(first.as_mut()).is_pending());
    let deadline = Instant::now() + Duration::from_millis(100);
    let ended = encoder.encode(&late, Some(deadline)).await;
    assert_eq!(ended, Err(Error::Expired { generated: 0 }));
    permits.send(()).expect("the model waits");
    first.await.expect("encoded");
}

#[tokio::test]
async fn a_model_that_panics_stops_the_encoder_and_says_so() {
    let (encoder, permits) = held(100);
    permits.send(()).expect("the model waits");
    let broken = encoder.encode(&text(40), None).await;
    assert!(matches!(broken, Err(Error::Broken { .. })), "{broken:?}");
    encoder.stopped().cancelled().await;
    assert!(matches!(
        encoder.encode(&text(1), None).await,
        Err(Error::Broken { .. })
    ));
}

#[tokio::test]
async fn what_waits_runs_together_within_the_budget_and_one_that_breaks_costs_the_others_nothing() {
    let (encoder, permits, runs) = told(2000);
    let texts = [
        text(1),
        vec!["a a".into(), "a a a".into()],
        text(4),
        text(13),
        text(300),
        text(5),
    ];
    let mut calls: Vec<_> = texts.iter().map(|t| Box::pin(encoder.encode(t, None))).collect();
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
