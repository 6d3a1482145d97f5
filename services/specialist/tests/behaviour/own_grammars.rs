//! What waits holds its grammar too: the queue is bounded in both.
use crate::{
    stub::{self, Stub, request},
    world::{fixture, until},
};
use shoal_specialist::{
    Error,
    constrain::Compiler,
    folder::{Folder, Form},
    vocabulary::Vocabulary,
};
use std::sync::{Arc, atomic::Ordering};
use tokenizers::Tokenizer;

#[tokio::test]
async fn a_grammar_of_a_requests_own_counts_in_the_queue_and_one_that_all_share_does_not() {
    let values: Vec<String> = (0..1000).map(|i| format!("value number {i:08}")).collect();
    let form = Form::Schema(serde_json::json!({ "enum": values }));
    let compile = move || {
        let folder = Folder::open(&fixture("tiny_decoder")).expect("a good folder");
        let text = folder.text("tokenizer.json").expect("a tokenizer");
        let vocabulary = Vocabulary::from_tokenizer_json(text).expect("parses");
        let tokenizer = Tokenizer::from_bytes(text).expect("a tokenizer");
        let exported = folder.exported.as_ref().expect("it generates");
        let compiler = Compiler::new(&vocabulary, tokenizer, &exported.eos, exported.vocabulary).expect("a compiler");
        compiler.compile(&form).expect("compiles").expect("a grammar")
    };
    let thread = shoal_kit::task::deep_thread("compile", 256 << 20, compile).expect("a thread");
    let grammar = Arc::new(thread.join().expect("compiles"));
    // The engine stands at its first step: what is submitted then waits.
    let waits = async |own: bool| {
        let (decoder, permits, _) = Stub::held(1);
        let engine = stub::engine(decoder, 65_536);
        let _running = engine.submit(request(&[1], 3, None)).expect("admitted");
        until("it runs", || engine.counters().live_slots.load(Ordering::Relaxed) == 1).await;
        let mut tickets = Vec::new();
        loop {
            let mut next = request(&[2; 20], 3, None);
            next.grammar = Some(if own {
                Arc::new(grammar.begin())
            } else {
                grammar.clone()
            });
            match engine.submit(next) {
                Ok(ticket) => tickets.push(ticket),
                Err(refused) => {
                    assert!(matches!(refused, Error::Busy { .. }), "{refused:?}");
                    // The engine waits for one otherwise, when it is dropped.
                    drop(permits);
                    return tickets.len();
                }
            }
        }
    };
    let (own, shared) = (waits(true).await, waits(false).await);
    assert!(
        (100..500).contains(&own) && shared > 2000,
        "{own} with their own, {shared} with the same"
    );
}
