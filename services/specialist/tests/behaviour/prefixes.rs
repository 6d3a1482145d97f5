//! Prompts that begin alike: what is copied instead of read changes no token, and is counted.
use crate::{
    stub::{self, Stub, alone, request},
    world::{self, answer, ask},
};
use proptest::{prelude::*, test_runner::Config};
use shoal_specialist::{folder::Form, sampling::Sampling, specialist::Ask};
use std::sync::atomic::Ordering;

/// Asks one after the other; what was kept of the earlier ones must not show.
fn shows_in_no_answer(folder: &std::path::Path, task: &str, cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (without, with) = (world::load_with(folder, 1, 0), world::load_with(folder, 1, 2));
    let mut runner = proptest::test_runner::TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let prompts = prop::collection::vec(("[ab]", 2usize..6, "[a-z ]{1,30}"), 3..8);
    let ran = runner.run(&prompts, |prompts| {
        for (kind, repeated, rest) in prompts {
            let text = format!("{kind}{}{rest}", "book a table for two, ".repeat(repeated));
            let asked = || Ask {
                form: Some(Form::Free),
                ..ask(task, &text, Sampling::greedy(24))
            };
            let wanted = runtime.block_on(answer(&without, asked()));
            let got = runtime.block_on(answer(&with, asked()));
            prop_assert_eq!(&got.tokens, &wanted.tokens, "{}", text);
            prop_assert!((got.confidence.mean() - wanted.confidence.mean()).abs() < 1e-4);
        }
        Ok(())
    });
    ran.expect("equal token for token");
    let hits = |specialist: &shoal_specialist::specialist::Specialist| {
        specialist.counters().prefix_hits.load(Ordering::Relaxed)
    };
    assert!(
        hits(&with) > u64::from(cases) / 2 && hits(&without) == 0,
        "{} hits",
        hits(&with)
    );
}

#[test]
fn what_is_kept_of_earlier_prompts_shows_in_no_answer() {
    shows_in_no_answer(&world::fixture("tiny_decoder"), "echo", 24);
}

#[test]
fn what_is_kept_of_earlier_prompts_shows_in_no_answer_of_a_shipped_model() {
    shows_in_no_answer(&world::shipped("compose"), "compose", 8);
}

#[tokio::test]
async fn hits_are_counted_in_prompts_and_tokens_and_idle_memory_in_bytes() {
    let engine = stub::engine(Stub::new(2), 1000);
    let counters = engine.counters();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    for rest in [[5, 6], [7, 8]] {
        let prompt = [&[3; 20], &rest[..]].concat();
        let done = engine.submit(request(&prompt, 2, None)).expect("admitted");
        assert_eq!(done.complete().await.expect("answered").tokens, alone(&prompt, 2));
    }
    assert_eq!((count(&counters.prefix_hits), count(&counters.prefix_misses)), (1, 1));
    assert_eq!(
        (count(&counters.prefix_tokens), count(&counters.prompt_tokens)),
        (20, 44)
    );
    // Rows of 64 positions of 4 bytes: two slots, three prompt slots; two prompts of 22 tokens are kept.
    assert_eq!(
        (count(&counters.kv_bytes), count(&counters.prefix_bytes)),
        (5 * 64 * 4, 44 * 4)
    );
}
