//! Cancellation, deadlines, queues, slow callers: the engine's own limits, with each step held still.
use crate::{
    stub::{self, Stub, alone, request},
    world::until,
};
use shoal_specialist::{
    Error,
    engine::{Engine, Event},
};
use std::{
    cell::Cell,
    future::Future as _,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake},
    time::{Duration, Instant},
};

/// Until a deadline passes: long enough for a busy machine to do what comes before it.
const WAIT: Duration = Duration::from_millis(250);

#[tokio::test]
async fn a_cancelled_row_is_not_decoded_again() {
    let (decoder, permits, steps) = Stub::held(4);
    let engine = stub::engine(decoder, 1000);
    let mut stays = engine.submit(request(&[1, 2], 50, None)).expect("admitted");
    let leaves = engine.submit(request(&[3, 4, 5], 50, None)).expect("admitted");
    // The first may be stepping before the second is admitted: one permit after the other, until a step is of both.
    let sent = Cell::new(0);
    until("one step of both", || {
        let steps = steps.lock().expect("whole");
        if steps.len() == sent.get() && steps.last().is_none_or(|rows| rows.len() < 2) {
            permits.send(()).expect("engine waits");
            sent.set(sent.get() + 1);
        }
        steps.last().is_some_and(|rows| rows.len() == 2)
    })
    .await;
    drop(leaves);
    // The step that was being asked for when the caller left may still run; none after it has that row.
    let before = steps.lock().expect("whole").len();
    (0..50).for_each(|_| permits.send(()).unwrap_or_default());
    while !matches!(stays.next().await, Event::Done(_)) {}
    let after: Vec<usize> = steps.lock().expect("whole")[before..].iter().map(Vec::len).collect();
    assert!(
        after.iter().skip(1).all(|rows| *rows == 1),
        "rows by step after the caller left: {after:?}"
    );
    assert_eq!(engine.counters().cancelled.load(Ordering::Relaxed), 1);
    assert_eq!(engine.counters().live_slots.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_deadline_ends_a_row_before_the_next_step_and_frees_its_slot() {
    let (decoder, permits, steps) = Stub::held(1);
    let engine = stub::engine(decoder, 1000);
    let mut late = engine
        .submit(request(&[1, 2], 50, Some(Instant::now() + WAIT)))
        .expect("admitted");
    assert!(matches!(late.next().await, Event::Delta(_)), "the prefill's token");
    tokio::time::sleep(WAIT * 2).await;
    permits.send(()).expect("engine waits");
    let end = loop {
        match late.next().await {
            Event::Delta(_) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Event::Failed(Error::Expired { .. })), "{end:?}");
    assert!(steps.lock().expect("whole").len() <= 1, "no step after the deadline");
    let next = engine.submit(request(&[5], 1, None)).expect("the slot is free");
    assert_eq!(next.complete().await.expect("answered").tokens, alone(&[5], 1));
}

#[tokio::test]
async fn what_waits_in_the_queue_is_dropped_with_its_caller_or_its_deadline_and_gives_its_tokens_back() {
    let (decoder, permits, _) = Stub::held(1);
    // Of which an eighth is for who is more urgent.
    let engine = stub::engine(decoder, 22);
    let running = engine.submit(request(&[1], 3, None)).expect("admitted");
    until("it runs", || engine.counters().live_slots.load(Ordering::Relaxed) == 1).await;
    let mut expires = engine
        .submit(request(&[2; 10], 3, Some(Instant::now() + WAIT)))
        .expect("waits");
    let leaves = engine.submit(request(&[3; 10], 3, None)).expect("waits");
    let Err(Error::Busy { message, retry_after }) = engine.submit(request(&[4], 3, None)) else {
        panic!("the queue is full");
    };
    assert!(message.contains("20 prompt tokens wait, and 20 may"), "{message}");
    assert!(retry_after > Duration::ZERO);
    drop(leaves);
    tokio::time::sleep(WAIT * 2).await;
    permits.send(()).expect("engine waits");
    assert!(matches!(
        expires.next().await,
        Event::Failed(Error::Expired { generated: 0 })
    ));
    until("the queue is empty", || {
        engine.counters().queue_tokens.load(Ordering::Relaxed) == 0
    })
    .await;
    (0..8).for_each(|_| permits.send(()).unwrap_or_default());
    assert_eq!(running.complete().await.expect("answered").tokens, alone(&[1], 3));
}

#[tokio::test]
async fn a_caller_that_never_reads_stalls_nobody() {
    let engine = stub::engine(Stub::new(2), 1000);
    let slow = engine.submit(request(&[1, 2, 3], 50, None)).expect("admitted");
    for prompt in [[7u32], [8], [9]] {
        let done = engine
            .submit(request(&prompt, 40, None))
            .expect("admitted")
            .complete()
            .await
            .expect("answered");
        assert_eq!(done.tokens, alone(&prompt, 40));
    }
    assert_eq!(
        slow.complete().await.expect("all of it was kept").tokens,
        alone(&[1, 2, 3], 50)
    );
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn who_waits_for_the_whole_answer_is_not_woken_by_its_pieces() {
    let (decoder, permits, steps) = Stub::held(1);
    let engine = stub::engine(decoder, 1000);
    let stepped = async |wanted: usize| {
        permits.send(()).expect("engine waits");
        until("a step", || steps.lock().expect("whole").len() == wanted).await;
    };
    // The second is only waited for when the first has left it the slot.
    let first = engine.submit(request(&[1], 2, None)).expect("admitted");
    until("it runs", || engine.counters().live_slots.load(Ordering::Relaxed) == 1).await;
    let mut whole = pin!(engine.submit(request(&[2], 5, None)).expect("admitted").complete());
    let woken = Arc::new(Woken::default());
    let waker = woken.clone().into();
    assert!(whole.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // The first's last token, and three of the second's; what the last but one of these came to is sent when the last one begins.
    for step in 1..=4 {
        stepped(step).await;
    }
    assert_eq!(woken.0.load(Ordering::SeqCst), 0, "nothing was said to it yet");
    permits.send(()).expect("engine waits");
    assert_eq!(whole.await.expect("answered").tokens, alone(&[2], 5));
    assert_eq!(first.complete().await.expect("answered").tokens, alone(&[1], 2));
}

#[tokio::test]
async fn a_prompt_that_fills_the_context_or_leaves_the_vocabulary_is_refused_before_the_queue() {
    let engine = stub::engine(Stub::new(1), 1000);
    for bad in [vec![], vec![1; 64], vec![99]] {
        assert!(
            matches!(engine.submit(request(&bad, 3, None)), Err(Error::Invalid { .. })),
            "{bad:?}"
        );
    }
    let full = engine
        .submit(request(&[1; 60], 50, None))
        .expect("fits")
        .complete()
        .await
        .expect("answered");
    assert_eq!(full.tokens, alone(&[1; 60], 4), "the context ends it");
}

#[tokio::test]
async fn closing_fails_what_is_open_and_refuses_what_comes() {
    let (decoder, permits, _) = Stub::held(1);
    let mut engine = stub::engine(decoder, 1000);
    let (running, waiting) = (
        engine.submit(request(&[1], 50, None)),
        engine.submit(request(&[2], 50, None)),
    );
    until("one runs", || engine.counters().live_slots.load(Ordering::Relaxed) == 1).await;
    drop(permits);
    engine.close();
    for ticket in [running, waiting] {
        assert!(ticket.expect("admitted").complete().await.is_err());
    }
    assert!(engine.submit(request(&[1], 1, None)).is_err());
}

#[tokio::test]
async fn timings_add_up_and_usage_counts_tokens() {
    let engine = stub::engine(Stub::new(1), 1000);
    let started = Instant::now();
    let done = engine
        .submit(request(&[1, 2, 3], 10, None))
        .expect("admitted")
        .complete()
        .await
        .expect("answered");
    let parts = done.timings.tokenize + done.timings.queue + done.timings.prefill + done.timings.decode;
    assert!(parts <= started.elapsed());
    assert!(done.timings.decode > Duration::ZERO);
    assert_eq!((done.input_tokens, done.tokens.len(), done.text.len()), (3, 10, 10));
}

#[tokio::test]
async fn an_engine_that_panics_leaves_nobody_waiting() {
    let (mut decoder, permits, _) = Stub::held(1);
    decoder.breaks = true;
    let engine = stub::engine(decoder, 1000);
    let running = engine.submit(request(&[1], 50, None)).expect("admitted");
    until("it runs", || engine.counters().live_slots.load(Ordering::Relaxed) == 1).await;
    let waiting = engine.submit(request(&[2], 50, None)).expect("admitted");
    permits.send(()).expect("engine waits");
    assert!(matches!(running.complete().await, Err(Error::Broken { .. })));
    assert!(waiting.complete().await.is_err());
    engine.stopped().cancelled().await;
    assert!(engine.submit(request(&[1], 1, None)).is_err());
}

#[tokio::test]
async fn a_long_prompt_is_read_between_the_steps_of_others_and_not_instead_of_them() {
    let (decoder, permits, steps) = Stub::held(2);
    let engine = stub::engine(decoder, 1000);
    let mut decodes = engine.submit(request(&[1, 2], 60, None)).expect("admitted");
    assert!(matches!(decodes.next().await, Event::Delta(_)), "the prompt's token");
    let long = engine.submit(request(&[3; 60], 2, None)).expect("admitted");
    (0..80).for_each(|_| permits.send(()).unwrap_or_default());
    assert_eq!(long.complete().await.expect("answered").tokens, alone(&[3; 60], 2));
    // The stub reads 8 tokens at most at once: 60 are 8 runs, each followed by a step, the first one perhaps of the step it came in.
    let together = steps.lock().expect("whole").iter().position(|rows| rows.len() == 2);
    assert!(
        together.is_some_and(|before| before >= 7),
        "{together:?} steps beside 60 tokens"
    );
}

#[tokio::test]
async fn a_prompt_that_is_left_while_it_is_read_frees_its_slot_within_a_step() {
    let (decoder, permits, _) = Stub::held(2);
    let engine = stub::engine(decoder, 1000);
    let mut decodes = engine.submit(request(&[1, 2], 60, None)).expect("admitted");
    assert!(matches!(decodes.next().await, Event::Delta(_)), "the prompt's token");
    let live = || engine.counters().live_slots.load(Ordering::Relaxed);
    let leaves = engine.submit(request(&[3; 60], 2, None)).expect("admitted");
    permits.send(()).expect("engine waits");
    until("it is being read", || live() == 2).await;
    drop(leaves);
    // The step that was on its way when the caller left, and no second one.
    permits.send(()).expect("engine waits");
    until("its slot is free", || live() == 1).await;
    assert_eq!(engine.counters().cancelled.load(Ordering::Relaxed), 1);
    let next = engine.submit(request(&[4; 9], 1, None)).expect("admitted");
    (0..20).for_each(|_| permits.send(()).unwrap_or_default());
    assert_eq!(next.complete().await.expect("answered").tokens, alone(&[4; 9], 1));
}

#[tokio::test]
async fn whose_time_is_up_is_counted_so_though_its_caller_leaves_then() {
    let late = || Some(Instant::now() + WAIT * 4);
    let ended = |engine: &Engine| {
        let counters = engine.counters();
        (
            counters.cancelled.load(Ordering::Relaxed),
            counters.expired.load(Ordering::Relaxed),
        )
    };
    // One decodes, and one waits in the queue.
    let (decoder, permits, _) = Stub::held(1);
    let engine = stub::engine(decoder, 1000);
    let mut row = engine.submit(request(&[1, 2], 50, late())).expect("admitted");
    assert!(matches!(row.next().await, Event::Delta(_)), "the prompt's token");
    let waits = engine.submit(request(&[3], 50, late())).expect("admitted");
    tokio::time::sleep(WAIT * 5).await;
    drop((row, waits));
    permits.send(()).expect("engine waits");
    until("both have ended", || ended(&engine) == (0, 2)).await;

    // One is being read.
    let (decoder, permits, _) = Stub::held(2);
    let engine = stub::engine(decoder, 1000);
    let mut decodes = engine.submit(request(&[1, 2], 60, None)).expect("admitted");
    assert!(matches!(decodes.next().await, Event::Delta(_)), "the prompt's token");
    let long = engine.submit(request(&[3; 60], 2, late())).expect("admitted");
    permits.send(()).expect("engine waits");
    let live = || engine.counters().live_slots.load(Ordering::Relaxed);
    until("it is being read", || live() == 2).await;
    tokio::time::sleep(WAIT * 5).await;
    drop(long);
    permits.send(()).expect("engine waits");
    until("it has ended", || ended(&engine) == (0, 1)).await;
}
