//! Rows decoded together give what each gives alone.
use crate::{
    stub::{self, Stub, alone},
    world::{self, answer, ask, load},
};
use proptest::{prelude::*, test_runner::Config};
use shoal_specialist::{
    engine::{
        Event, Ticket,
        queue::{Class, Urgency},
    },
    folder::Form,
    sampling::Sampling,
    specialist::{Ask, Specialist},
};
use std::{collections::HashMap, sync::atomic::Ordering};

/// How many of the prompts begin: long enough to be shared.
const BEGINNING: &str = "find me a table for two in newark, ";

/// One caller: what it asks, how long it waits before that (in tokens decoded by others), when it leaves (after so many
/// deltas; never, if `None`).
#[derive(Debug, Clone)]
struct Caller {
    task: &'static str,
    text: String,
    max_tokens: usize,
    /// Drawn, and not greedy, with this seed.
    seed: Option<u64>,
    class: Class,
    after_tokens: u64,
    leaves_after: Option<usize>,
}

impl Caller {
    /// What it asks of the fixture: "echo" is free, "call" held to a schema; a shipped model's task is asked for free text.
    fn ask(&self) -> Ask {
        let sampling = match self.seed {
            None => Sampling::greedy(self.max_tokens),
            Some(seed) => Sampling {
                temperature: 1.2,
                top_k: 50,
                top_p: 0.95,
                seed,
                ..Sampling::greedy(self.max_tokens)
            },
        };
        Ask {
            urgency: Urgency {
                class: self.class,
                ..Urgency::default()
            },
            form: (self.task == "compose").then_some(Form::Free),
            ..ask(self.task, &self.text, sampling)
        }
    }
}

fn callers(tasks: &'static [&'static str]) -> impl Strategy<Value = Vec<Caller>> {
    let text = ("[a-z ]{1,60}", any::<bool>());
    let text = text.prop_map(|(text, long)| if long { format!("{BEGINNING}{text}") } else { text });
    let caller = (
        prop::sample::select(tasks),
        text,
        1usize..40,
        prop::option::weighted(0.3, 0u64..3),
        prop::sample::select(Class::ALL.to_vec()),
        0u64..60,
        prop::option::weighted(0.3, 0usize..12),
    );
    let caller = caller.prop_map(
        |(task, text, max_tokens, seed, class, after_tokens, leaves_after)| Caller {
            task,
            text,
            max_tokens,
            seed,
            class,
            after_tokens,
            leaves_after,
        },
    );
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
        let mut ticket = specialist.generate(caller.ask()).await.expect("admitted");
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

/// Callers of `shared`, over and over, against `single`, which has one slot and keeps no prefixes.
fn mixes(single: &Specialist, shared: &Specialist, tasks: &'static [&'static str], cases: u32) {
    let runtime = runtime();
    let known: std::cell::RefCell<HashMap<_, Vec<u32>>> = HashMap::new().into();
    let mut runner = proptest::test_runner::TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let ran = runner.run(&callers(tasks), |callers| {
        let got = runtime.block_on(together(shared, &callers));
        for (caller, got) in callers.iter().zip(got) {
            let Some(got) = got else { continue };
            let key = (caller.task, caller.text.clone(), caller.max_tokens, caller.seed);
            let mut known = known.borrow_mut();
            let wanted = known
                .entry(key)
                .or_insert_with(|| runtime.block_on(answer(single, caller.ask())).tokens);
            prop_assert_eq!(&got, &*wanted, "{:?}", caller);
        }
        Ok(())
    });
    ran.expect("equal token for token");
    let counters = shared.engine().expect("generates").counters();
    runtime.block_on(world::until("every slot is free again", || {
        counters.live_slots.load(Ordering::Relaxed) == 0
    }));
    assert!(
        counters.prefix_hits.load(Ordering::Relaxed) > 0,
        "no prompt shared its beginning"
    );
    let alone = single.engine().expect("generates").counters();
    assert_eq!(alone.prefix_hits.load(Ordering::Relaxed), 0);
}

#[test]
fn any_mix_of_prompts_arrivals_and_cancellations_gives_each_what_it_gives_alone() {
    let single = world::load_with(&world::fixture("tiny_decoder"), 1, 0);
    mixes(&single, &load("tiny_decoder", 4), &["echo", "call"], 16);
}

#[test]
fn any_mix_over_a_shipped_model_gives_each_what_it_gives_alone() {
    let shipped = world::shipped("compose");
    let (single, shared) = (world::load_with(&shipped, 1, 0), world::load_with(&shipped, 6, 4));
    mixes(&single, &shared, &["compose"], 8);
}

#[test]
fn prompts_of_a_shipped_model_that_are_read_in_one_run_are_answered_as_each_alone() {
    let shipped = world::shipped("compose");
    // Nothing is kept, so that nothing is shared.
    let (single, shared) = (world::load_with(&shipped, 1, 0), world::load_with(&shipped, 8, 0));
    let callers: Vec<_> = (0..8)
        .map(|i| Caller {
            task: "compose",
            // While the first one is read, which is long, the others come; and they have as many tokens each.
            text: format!("room {i} in newark").repeat(if i == 0 { 40 } else { 1 }),
            max_tokens: 12 + i,
            seed: None,
            class: Class::Normal,
            after_tokens: 0,
            leaves_after: None,
        })
        .collect();
    let runtime = runtime();
    let got = runtime.block_on(together(&shared, &callers));
    let alone: Vec<_> = callers
        .iter()
        .flat_map(|caller| runtime.block_on(together(&single, std::slice::from_ref(caller))))
        .collect();
    assert_eq!(got, alone);
    let counters = shared.engine().expect("generates").counters();
    assert!(counters.together.load(Ordering::Relaxed) > 1, "each was read by itself");
}

#[test]
fn rows_of_a_step_really_are_decoded_together() {
    let specialist = load("tiny_decoder", 8);
    let callers: Vec<_> = (0..8)
        .map(|i| Caller {
            task: "echo",
            text: format!("prompt {i}"),
            max_tokens: 40,
            seed: None,
            class: Class::Normal,
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

#[test]
fn a_crowd_that_waits_is_read_in_one_run_and_a_longer_prompt_by_itself() {
    let (stub, permits, _) = Stub::held(6);
    let engine = stub::engine(stub, 10_000);
    let first = engine.submit(stub::request(&[5], 3, None)).expect("admitted");
    runtime().block_on(async {
        while engine.counters().tokens.load(Ordering::Relaxed) < 1 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        // The first one's step is held, and these wait: two short ones outnumber it, in a run of eight tokens; the third is longer than that.
        let crowd: [&[u32]; 3] = [&[1, 2], &[3], &[4; 12]];
        let tickets = crowd.map(|prompt| engine.submit(stub::request(prompt, 2, None)).expect("admitted"));
        (0..12).for_each(|_| permits.send(()).expect("the engine takes it"));
        for (ticket, (prompt, tokens)) in tickets
            .into_iter()
            .zip(crowd.iter().zip([2, 2, 2]))
            .chain([(first, (&&[5][..], 3))])
        {
            assert_eq!(all(ticket).await, alone(prompt, tokens));
        }
    });
    assert_eq!(engine.counters().together.load(Ordering::Relaxed), 2);
}

/// The tokens of a whole answer.
async fn all(mut ticket: Ticket) -> Vec<u32> {
    loop {
        match ticket.next().await {
            Event::Delta(_) => {}
            Event::Done(done) => return done.tokens,
            Event::Failed(error) => panic!("{error}"),
        }
    }
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
