//! Calls of more texts than run at once, and who has a turn between two of their parts.
use super::*;

#[tokio::test]
async fn a_call_of_many_long_texts_runs_in_parts_and_who_waits_beside_it_has_a_turn_between_them() {
    let (encoder, permits, runs) = told(10_000, RUN_TOKENS);
    // Runs of 512 tokens at most: two of the long ones each, the short ones together.
    let many: Vec<String> = [250, 3, 256, 255, 3, 254].map(|words| "a ".repeat(words)).into();
    let (short, other) = (text(7), text(9));
    let mut large = Box::pin(encoder.encode(&many, Urgency::default()));
    assert!(futures::poll!(large.as_mut()).is_pending());
    taken(&encoder).await;
    let mut beside = [
        Box::pin(encoder.encode(&short, Urgency::default())),
        Box::pin(encoder.encode(&other, Urgency::default())),
    ];
    for call in &mut beside {
        assert!(futures::poll!(call.as_mut()).is_pending());
    }
    (0..4).for_each(|_| permits.send(()).expect("the model waits"));
    for (call, tokens) in beside.into_iter().zip([7.0, 9.0]) {
        assert_eq!(call.await.expect("encoded").answers, [Answer::Vector(vec![tokens])]);
    }
    let encoded = large.await.expect("encoded");
    let of = |tokens: [f32; 6]| tokens.map(|t| Answer::Vector(vec![t]));
    assert_eq!(
        encoded.answers,
        of([250.0, 3.0, 256.0, 255.0, 3.0, 254.0]),
        "in the order of the texts"
    );
    assert_eq!(encoded.input_tokens, 1021);
    let ran: Vec<_> = runs.try_iter().collect();
    assert!(
        ran.iter().all(|(rows, columns)| rows * columns <= 512) && ran.len() == 4,
        "{ran:?}"
    );
    assert_eq!(ran[1], (2, 9), "after the first part, before the rest");
}

#[tokio::test]
async fn a_call_in_parts_ends_between_two_of_them_when_its_caller_has_gone_or_its_time_is_up() {
    let (encoder, permits, runs) = told(10_000, RUN_TOKENS);
    let many: Vec<String> = vec!["a ".repeat(500); 9];
    let mut gone = Box::pin(encoder.encode(&many, Urgency::default()));
    assert!(futures::poll!(gone.as_mut()).is_pending());
    taken(&encoder).await;
    drop(gone);
    permits.send(()).expect("the model waits");
    // Long enough for a busy machine to begin it.
    let late = encoder
        .encode(&many, Urgency::until(Some(Instant::now() + Duration::from_millis(500))))
        .await;
    assert_eq!(late, Err(Error::Expired { generated: 0 }));
    (0..2).for_each(|_| permits.send(()).expect("the model is there"));
    assert_eq!(
        encoder
            .encode(&text(2), Urgency::default())
            .await
            .expect("encoded")
            .input_tokens,
        2
    );
    assert!(runs.try_iter().count() <= 3, "nothing more of either");
    assert_eq!(without_answer(&encoder), (1, 1));
}

#[tokio::test]
async fn a_short_call_waits_for_no_more_than_a_part_though_as_many_as_may_have_begun_and_another_waits() {
    let (encoder, permits, runs) = told(100_000, RUN_TOKENS);
    let many: Vec<String> = vec!["a ".repeat(500); 12];
    let mut large: Vec<_> = (0..=8)
        .map(|_| Box::pin(encoder.encode(&many, Urgency::default())))
        .collect();
    for call in &mut large {
        assert!(futures::poll!(call.as_mut()).is_pending());
    }
    // One begins before each part: eight have after eight of them, and the ninth must wait.
    for _ in 0..8 {
        permits.send(()).expect("the model waits");
        assert_eq!(runs.recv(), Ok((1, 500)));
    }
    let short = text(7);
    let late = Instant::now() + Duration::from_secs(20);
    // Whatever class it is of: the calls in parts have a line of their own.
    let urgency = Urgency {
        class: Class::Batch,
        ..Urgency::until(Some(late))
    };
    let mut short = Box::pin(encoder.encode(&short, urgency));
    assert!(futures::poll!(short.as_mut()).is_pending());
    (0..2).for_each(|_| permits.send(()).expect("the model waits"));
    assert_eq!(short.await.expect("encoded").answers, [Answer::Vector(vec![7.0])]);
    assert!(runs.try_iter().any(|run| run == (1, 7)));
}

#[tokio::test]
async fn an_urgent_call_in_parts_has_its_parts_before_those_of_batches_that_have_begun() {
    let (encoder, permits, runs) = told(100_000, RUN_TOKENS);
    let of = |class| Urgency {
        class,
        ..Urgency::default()
    };
    let many: Vec<String> = vec!["a ".repeat(500); 12];
    let mut large: Vec<_> = (0..=8)
        .map(|_| Box::pin(encoder.encode(&many, of(Class::Batch))))
        .collect();
    for call in &mut large {
        assert!(futures::poll!(call.as_mut()).is_pending());
    }
    // As many have begun as may, and one waits.
    for _ in 0..8 {
        permits.send(()).expect("the model waits");
        assert_eq!(runs.recv(), Ok((1, 500)));
    }
    let urgent: Vec<String> = vec!["a ".repeat(300); 2];
    let mut urgent = Box::pin(encoder.encode(&urgent, of(Class::Interactive)));
    assert!(futures::poll!(urgent.as_mut()).is_pending());
    // The part that is running, then both of its own.
    (0..3).for_each(|_| permits.send(()).expect("the model waits"));
    assert_eq!(urgent.await.expect("encoded").input_tokens, 600);
    let ran: Vec<_> = runs.iter().take(3).collect();
    assert_eq!(ran, [(1, 500), (1, 300), (1, 300)]);
}
