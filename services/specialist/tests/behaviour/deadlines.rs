//! Time and room over the wire: deadlines, a full queue, callers that leave.
use crate::{
    doors::{ask, collect},
    world::{Served, until},
};
use shoal_kit::{deadline, status};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_past_a_malformed_and_a_short_deadline_end_the_call() {
    let served = Served::start("tiny_decoder", 1, |_| {}).await;
    let mut client = served.client();
    collect(client.generate(ask("up?")).await.expect("accepted").into_inner())
        .await
        .expect("answered");
    let mut past = tonic::Request::new(ask("x"));
    deadline::set(&mut past, Duration::ZERO);
    // tonic's own timer may be first where nothing was decoded yet, and calls that CANCELLED.
    let code = client.generate(past).await.expect_err("refused").code();
    assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
    let mut malformed = tonic::Request::new(ask("x"));
    malformed
        .metadata_mut()
        .insert("grpc-timeout", "soon".parse().expect("ascii"));
    let status = client.generate(malformed).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");

    // One slot and sixty answers of 64 tokens: most cannot be done in 30 ms, and none may take much longer than that.
    let short = Duration::from_millis(30);
    let calls = (0..60).map(async |i| {
        let (mut client, started) = (client.clone(), Instant::now());
        let mut request = tonic::Request::new(ask(&format!("prompt {i}")));
        deadline::set(&mut request, short);
        let ended = match client.generate(request).await {
            Ok(response) => collect(response.into_inner()).await.map(|_| ()),
            Err(status) => Err(status),
        };
        (ended, started.elapsed())
    });
    let ended = futures::future::join_all(calls).await;
    let expired: Vec<_> = ended
        .iter()
        .filter_map(|(e, took)| e.as_ref().err().map(|s| (s, *took)))
        .collect();
    assert!(expired.len() > 10, "only {} of 60 expired", expired.len());
    for (status, took) in expired {
        let tonics_own = status.code() == Code::Cancelled && status.message().contains("Timeout expired");
        assert!(tonics_own || status.code() == Code::DeadlineExceeded, "{status:?}");
        assert!(took < short + Duration::from_millis(1500), "{took:?}");
    }
    collect(
        client
            .generate(ask("still there?"))
            .await
            .expect("accepted")
            .into_inner(),
    )
    .await
    .expect("answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back() {
    let served = Served::start("tiny_decoder", 1, |c| c.queue_tokens = 40).await;
    let client = served.client();
    let calls = (0..30).map(
        async |i| match client.clone().generate(ask(&format!("prompt {i}"))).await {
            Ok(response) => collect(response.into_inner()).await.map(|_| ()),
            Err(status) => Err(status),
        },
    );
    let ended = futures::future::join_all(calls).await;
    let refused: Vec<_> = ended.iter().filter_map(|e| e.as_ref().err()).collect();
    assert!(
        !refused.is_empty() && refused.len() < 30,
        "{} of 30 refused",
        refused.len()
    );
    for status in refused {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status::retry_after(status).is_some_and(|d| d > Duration::ZERO));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_call_frees_the_slot_for_the_next() {
    let served = Served::start("tiny_decoder", 1, |_| {}).await;
    let mut client = served.client();
    for i in 0..20 {
        let mut stream = client
            .generate(ask(&format!("prompt {i}")))
            .await
            .expect("accepted")
            .into_inner();
        stream.message().await.expect("a delta");
    }
    collect(client.generate(ask("last")).await.expect("accepted").into_inner())
        .await
        .expect("answered");
    let counters = &served.counters;
    until("nothing is left", || counters.live_slots.load(Ordering::Relaxed) == 0).await;
    // Answers of 64 tokens, left after the first: on a busy machine most may be over before the news comes, and never all.
    let cancelled = counters.cancelled.load(Ordering::Relaxed);
    assert!(cancelled >= 1, "none of 20 was noticed");
}
