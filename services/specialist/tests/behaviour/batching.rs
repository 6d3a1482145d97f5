//! Rows decoded together give what each gives alone.
use crate::{
    stub::{self, Stub, alone},
    world::{self, answer, ask, load},
};
use proptest::{prelude::*, test_runner::Config};
use shoal_specialist::{engine::Event, sampling::Sampling, specialist::Specialist};
use std::{collections::HashMap, sync::atomic::Ordering};

/// One caller: what it asks, how long it waits before that (in tokens decoded by others), when it leaves (after so many
/// deltas; never, if `None`).
#[derive(Debug, Clone)]
struct Caller {
    /// "echo" is free, "call" held to a schema.
    task: &'static str,
    text: String,
    max_tokens: usize,
    after_tokens: u64,
    leaves_after: Option<usize>,
}

fn callers() -> impl Strategy<Value = Vec<Caller>> {
    let caller = (
        prop::sample::select(vec!["echo", "call"]),
        "[a-z ]{1,60}",
        1usize..40,
        0u64..60,
        prop::option::weighted(0.3, 0usize..12),
    );
    let caller = caller.prop_map(|(task, text, max_tokens, after_tokens, leaves_after)| Caller {
        task,
        text,
        max_tokens,
        after_tokens,
        leaves_after,
    });
    prop::collection::vec(caller, 1..12)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Runs the callers together; gives the tokens of those that stayed.
async fn together(specialist: &Specialist, callers: &[Caller]) -> Vec<Option<Vec<u32>>> {
    let counters = specialist.engine().expect("generates").counters();
    let start = counters.tokens.load(Ordering::Relaxed);
    let calls = callers.iter().map(async |caller| {
        let mut patience = 200;
        while counters.tokens.load(Ordering::Relaxed) - start < caller.after_tokens && patience > 0 {
            tokio::time::sleep(std::time::Duration::from_micros(200)).await;
            patience -= 1;
        }
        let mut ticket = specialist
            .generate(ask(caller.task, &caller.text, Sampling::greedy(caller.max_tokens)))
            .await
            .expect("admitted");
        let mut deltas = 0;
        loop {
            if caller.leaves_after.is_some_and(|n| deltas >= n) {
                return None;
            }
            match ticket.next().await {
                Event::Delta(_) => deltas += 1,
                Event::Done(done) => return Some(done.tokens),
                Event::Failed(error) => panic!("{error}"),
            }
        }
    });
    futures::future::join_all(calls).await
}

#[test]
fn any_mix_of_prompts_arrivals_and_cancellations_gives_each_what_it_gives_alone() {
    let runtime = runtime();
    let (single, shared) = (load("tiny_decoder", 1), load("tiny_decoder", 4));
    let mut known: HashMap<(&str, String, usize), Vec<u32>> = HashMap::new();
    let mut runner = proptest::test_runner::TestRunner::new(Config {
        cases: 16,
        failure_persistence: None,
        ..Config::default()
    });
    let known = std::cell::RefCell::new(&mut known);
    let ran = runner.run(&callers(), |callers| {
        let got = runtime.block_on(together(&shared, &callers));
        for (caller, got) in callers.iter().zip(got) {
            let key = (caller.task, caller.text.clone(), caller.max_tokens);
            let mut known = known.borrow_mut();
            let wanted = known.entry(key).or_insert_with(|| {
                runtime
                    .block_on(answer(
                        &single,
                        ask(caller.task, &caller.text, Sampling::greedy(caller.max_tokens)),
                    ))
                    .tokens
            });
            if let Some(got) = got {
                prop_assert_eq!(&got, &*wanted, "{:?}", caller);
            }
        }
        Ok(())
    });
    ran.expect("equal token for token");
    runtime.block_on(world::until("every slot is free again", || {
        shared
            .engine()
            .expect("generates")
            .counters()
            .live_slots
            .load(Ordering::Relaxed)
            == 0
    }));
}

#[test]
fn rows_of_a_step_really_are_decoded_together() {
    let specialist = load("tiny_decoder", 8);
    let callers: Vec<_> = (0..8)
        .map(|i| Caller {
            task: "echo",
            text: format!("prompt {i}"),
            max_tokens: 40,
            after_tokens: 0,
            leaves_after: None,
        })
        .collect();
    runtime().block_on(together(&specialist, &callers));
    let counters = specialist.engine().expect("generates").counters();
    let (rows, steps) = (
        counters.rows.load(Ordering::Relaxed),
        counters.steps.load(Ordering::Relaxed),
    );
    assert!(rows >= steps * 2, "{rows} rows in {steps} steps");
}

proptest! {
    #![proptest_config(Config { cases: 64, failure_persistence: None, ..Config::default() })]

    /// The same over arithmetic: many more orders, and the decoder itself checks which sequence a slot holds.
    #[test]
    fn no_order_of_ends_and_cancellations_mixes_slots_up(
        jobs in prop::collection::vec((prop::collection::vec(1u32..27, 1..30), 1usize..30, prop::option::weighted(0.3, 0usize..6)), 1..24),
        slots in 1usize..6,
    ) {
        let engine = stub::engine(Stub::new(slots), 10_000);
        let got = runtime().block_on(futures::future::join_all(jobs.iter().map(async |(prompt, max_tokens, leaves_after)| {
            let mut ticket = engine.submit(stub::request(prompt, *max_tokens, None)).expect("admitted");
            for _ in 0..leaves_after.unwrap_or(usize::MAX) {
                match ticket.next().await {
                    Event::Delta(_) => {}
                    Event::Done(done) => return Some(done.tokens),
                    Event::Failed(error) => panic!("{error}"),
                }
            }
            None
        })));
        for ((prompt, max_tokens, _), got) in jobs.iter().zip(got) {
            if let Some(got) = got {
                prop_assert_eq!(got, alone(prompt, (*max_tokens).min(64 - prompt.len())));
            }
        }
    }
}
