//! The queue before an encoder, over a model that is held still.
use super::*;
use std::{sync::mpsc as std_mpsc, task::Poll};

const WORDS: &str = r#"{"version":"1.0","added_tokens":[],"pre_tokenizer":{"type":"Whitespace"},
    "model":{"type":"WordLevel","vocab":{"a":0,"?":1},"unk_token":"?"}}"#;

/// An encoder whose model waits for a permit, then gives each text a vector of its row's length.
fn held(queue_tokens: usize) -> (Encoder, std_mpsc::Sender<()>) {
    let (permits, wait) = std_mpsc::channel::<()>();
    let tokenizer = Tokenizer::from_bytes(WORDS).expect("a tokenizer");
    let model = move |rows: usize, columns: usize, _, _| {
        wait.recv().map_err(|e| e.to_string())?;
        assert!(columns < 30, "as the test wants it");
        Ok(vec![Answer::Vector(vec![columns as f32]); rows])
    };
    let encoder = Encoder::over(tokenizer, 64, queue_tokens, model).expect("a thread");
    (encoder, permits)
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
