//! What a grammar made of the request costs, over a model folder's own tokenizer: rendering, compiling, and a step's mask.
//!
//!     cargo run --release -p shoal-specialist --example grammar_cost -- models/tool_call
//!
//! Two forms: plan text whose texts are spans of the goal, and a JSON call whose values are; inputs of 30 and of 600 words; each
//! time the least of nine, for the machine's other work is not the question.
use anyhow::Context as _;
use shoal_specialist::{
    constrain::{Compiler, Grammar, template},
    folder::Folder,
    prompt::{Prompt, Templates},
    vocabulary::Vocabulary,
};
use std::{path::PathBuf, time::Instant};
use tokenizers::Tokenizer;

const PLAN: &str = r#"start: step ("\n" step)*
step: NUMBER ". tool_call: " TEXT
NUMBER: /[1-9][0-9]?/
TEXT: WORDS & /[^ ](.*[^ ])?/
WORDS: %regex { "substring_words": {{ messages[-1].content | replace("\n", " ") | tojson }} }
"#;

const CALL: &str = r#"start: "{\"tool\":\"book\",\"arguments\":{" [pair ("," pair)*] "}}"
pair: NAME ":" VALUE
NAME: "\"category\"" | "\"location\"" | "\"time\"" | "\"name\""
VALUE: ("\"" WORDS "\"") & /"([^"\\ ]|\\.)(([^"\\]|\\.)*([^"\\ ]|\\.))?"/
WORDS: %regex { "substring_words": {{ (messages[-1].content | replace("\n", " ") | tojson)[1:-1] | tojson }} }
"#;

/// Text in which most words are another.
fn words(count: usize) -> String {
    let spoken =
        "book a table for two at a highly rated coffeehouse in Newark, near the station, at half past eleven \"sharp\"";
    let numbered = spoken.split(' ').cycle().take(count).enumerate();
    let words = numbered.map(|(i, word)| {
        if i % 3 == 0 {
            word.to_owned()
        } else {
            format!("{word}{i}")
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Milliseconds that the quickest of nine took, and what it gave.
fn least<T>(mut of: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let mut best: Option<(f64, T)> = None;
    for _ in 0..9 {
        let started = Instant::now();
        let given = of()?;
        let took = started.elapsed().as_secs_f64() * 1e3;
        if best.as_ref().is_none_or(|(b, _)| took < *b) {
            best = Some((took, given));
        }
    }
    best.context("nine is not none")
}

/// Walks up to 40 allowed tokens; a mask and its token's acceptance are a step.
fn walk(grammar: &Grammar) -> anyhow::Result<usize> {
    let mut grammar = grammar.begin();
    for step in 0..40usize {
        let mask = grammar.mask().map_err(anyhow::Error::msg)?;
        let allowed: Vec<u32> = mask.iter().collect();
        if grammar.is_complete() || allowed.is_empty() {
            return Ok(step.max(1));
        }
        let token = allowed[step * 7919 % allowed.len()];
        if grammar.accept(token).is_err() {
            return Ok(step.max(1));
        }
    }
    Ok(40)
}

fn main() -> anyhow::Result<()> {
    let path = std::env::args()
        .nth(1)
        .map(PathBuf::from)
        .context("give a model folder")?;
    let folder = Folder::open(&path)?;
    let text = folder.text("tokenizer.json").context("a folder has a tokenizer")?;
    let vocabulary = Vocabulary::from_tokenizer_json(text).map_err(anyhow::Error::msg)?;
    let tokenizer = Tokenizer::from_bytes(text).map_err(anyhow::Error::msg)?;
    let exported = folder
        .exported
        .as_ref()
        .context("the folder is of no generating model")?;
    let compiler =
        Compiler::new(&vocabulary, tokenizer, &exported.eos, exported.vocabulary).map_err(anyhow::Error::msg)?;
    let mut templates = Templates::of(&folder).map_err(anyhow::Error::msg)?;
    templates.add("plan.lark.jinja", PLAN)?;
    templates.add("call.lark.jinja", CALL)?;
    println!("{} tokens; milliseconds", vocabulary.pieces().len());
    println!("form  words  bytes  render  render+compile+first mask  copy   step");
    for (form, file) in [("plan", "plan.lark.jinja"), ("call", "call.lark.jinja")] {
        for count in [30, 600] {
            let prompt = Prompt::Text(words(count));
            let (render, lark) = least(|| Ok(templates.render(file, &prompt, "t")?))?;
            let (compile, grammar) = least(|| Ok(template::compile(&compiler, &templates, file, &prompt, "t")?))?;
            let grammar = grammar.context("a grammar")?;
            let (copy, _) = least(|| Ok(grammar.begin()))?;
            let (walked, steps) = least(|| walk(&grammar))?;
            println!(
                "{form:4} {count:6} {:6} {render:7.3} {compile:26.3} {copy:5.3} {:6.3}",
                lark.len(),
                (walked - copy) / steps as f64
            );
        }
    }
    Ok(())
}
