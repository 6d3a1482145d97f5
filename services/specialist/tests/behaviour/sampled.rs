//! Sampling and stop strings, end to end.
use crate::world::{answer, ask, load};
use shoal_specialist::{
    engine::{Event, Finish},
    sampling::Sampling,
};

fn hot(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.2,
        top_k: 50,
        top_p: 0.95,
        seed,
        ..Sampling::greedy(24)
    }
}

#[tokio::test]
async fn a_seed_gives_the_same_tokens_whatever_runs_beside_it() {
    let specialist = load("tiny_decoder", 4);
    let alone = answer(&specialist, ask("echo", "hello", hot(7))).await.tokens;
    let names: Vec<String> = (0..6).map(|i| format!("n{i}")).collect();
    let neighbours = names
        .iter()
        .zip(100..)
        .map(|(name, seed)| answer(&specialist, ask("echo", name, hot(seed))));
    let neighbours = futures::future::join_all(neighbours);
    let beside = answer(&specialist, ask("echo", "hello", hot(7)));
    let (_, beside) = futures::future::join(neighbours, beside).await;
    assert_eq!(alone, beside.tokens);
    assert_ne!(
        alone,
        answer(&specialist, ask("echo", "hello", hot(8))).await.tokens,
        "another seed, other tokens"
    );
}

#[tokio::test]
async fn no_part_of_a_stop_string_is_ever_sent() {
    let specialist = load("tiny_decoder", 2);
    let whole = answer(&specialist, ask("echo", "hello world", Sampling::greedy(48))).await;
    assert_eq!(whole.finish, Finish::Length);
    let characters: Vec<char> = whole.text.chars().collect();
    for (at, length) in [(5, 1), (10, 3), (12, 6), (20, 9)] {
        let stop: String = characters[at..at + length].iter().collect();
        let wanted = &whole.text[..whole.text.find(&stop).expect("part of it")];
        let sampling = Sampling {
            stop: vec![stop.clone(), "never this".into()],
            ..Sampling::greedy(48)
        };
        let mut ticket = specialist
            .generate(ask("echo", "hello world", sampling))
            .await
            .expect("admitted");
        let mut sent = String::new();
        let done = loop {
            match ticket.next().await {
                Event::Delta(text) => sent.push_str(&text),
                Event::Done(done) => break done,
                Event::Failed(error) => panic!("{error}"),
            }
            assert!(wanted.starts_with(&sent), "{sent:?} went out before {stop:?}");
        };
        assert_eq!(
            (sent.as_str(), done.text.as_str(), done.finish),
            (wanted, wanted, Finish::Stop)
        );
    }
}
