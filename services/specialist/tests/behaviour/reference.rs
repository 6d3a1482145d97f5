//! Tokens against a committed list that another program made (`tests/reference/greedy.py`: onnxruntime's Python API, a growing
//! cache, no shared buffer).
use crate::world::{answer, ask, load};
use serde_json::Value;
use shoal_specialist::{prompt::Prompt, sampling::Sampling};

#[tokio::test]
async fn thirty_two_greedy_tokens_and_their_confidence_equal_the_reference() {
    let list: Vec<Value> = serde_json::from_str(include_str!("../reference/greedy.json")).expect("committed");
    assert_eq!(list.len(), 4);
    let specialist = load("tiny_decoder", 2);
    let numbers = |v: &Value| {
        v.as_array()
            .expect("a list")
            .iter()
            .map(|n| n.as_u64().expect("an id") as u32)
            .collect::<Vec<_>>()
    };
    for entry in list {
        let text = entry["text"].as_str().expect("text");
        let (prompt, _) = specialist
            .tokenize(&Prompt::Text(text.into()), "echo")
            .expect("tokenizes");
        assert_eq!(prompt, numbers(&entry["prompt"]), "prompt of {text:?}");
        let done = answer(&specialist, ask("echo", text, Sampling::greedy(32))).await;
        assert_eq!(done.tokens, numbers(&entry["tokens"]), "answer to {text:?}");
        let mean = entry["mean_logprob"].as_f64().expect("a number");
        assert!(
            (done.confidence.mean() - mean).abs() < 1e-4,
            "{} and {mean}",
            done.confidence.mean()
        );
    }
}
