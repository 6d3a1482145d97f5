//! Tokens a second of one model exported in two ways, in turns: what a past that is apart costs beside one shared buffer.
//!
//!     cargo run --release -p shoal-specialist --example two_exports -- FOLDER OTHER_FOLDER [rounds, default 7]
//!
//! Both must be decoders of the same tasks. Greedy, 128 new tokens a row behind a short prompt; alone, and eight rows together. Told are
//! the medians and the median of the rounds' ratios, for the machine drifts.
use anyhow::Context as _;
use shoal_kit::{config, onnxruntime};
use shoal_specialist::{
    engine::queue::Urgency,
    folder::Form,
    prompt::Prompt,
    sampling::Sampling,
    specialist::{Ask, Specialist},
};
use std::{path::Path, time::Instant};

/// New tokens of a row.
const TOKENS: usize = 128;

fn ask(row: usize) -> Ask {
    Ask {
        task: String::new(),
        // Rows of unequal lengths, as they come.
        prompt: Prompt::Text(format!("row {row} {}", "and on ".repeat(row))),
        sampling: Sampling::greedy(TOKENS),
        form: Some(Form::Free),
        urgency: Urgency::default(),
        span: tracing::Span::none(),
    }
}

/// Tokens a second of so many rows together.
async fn rate(specialist: &Specialist, rows: usize) -> anyhow::Result<f64> {
    let started = Instant::now();
    let calls =
        (0..rows).map(async |row| anyhow::Ok(specialist.generate(ask(row)).await?.complete().await?.tokens.len()));
    let tokens: usize = futures::future::try_join_all(calls).await?.into_iter().sum();
    Ok(tokens as f64 / started.elapsed().as_secs_f64())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let paths = [arguments.next(), arguments.next()].map(|path| path.context("which two folders?"));
    let rounds: usize = arguments.next().map_or(Ok(7), |n| n.parse())?;
    let library = onnxruntime::locate(&config::OnnxRuntime::default(), &|_| {})?.path;
    let mut both = Vec::new();
    for path in paths {
        let path = path?;
        both.push(Specialist::load(
            Path::new(&path),
            &config::Specialist::default(),
            &library,
        )?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for rows in [1, 8] {
        let mut rates = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            for (specialist, rates) in both.iter().zip(&mut rates) {
                let rate = runtime.block_on(rate(specialist, rows))?;
                // The first round warms up.
                if round > 0 {
                    rates.push(rate);
                }
            }
        }
        let ratios = rates[0].iter().zip(&rates[1]).map(|(a, b)| b / a).collect();
        let names = [both[0].identity(), both[1].identity()];
        let [first, second] = rates.map(median);
        println!(
            "{rows} rows: {} {first:.0} tokens/s, {} {second:.0}; ratio {:.2} (medians of {rounds})",
            names[0],
            names[1],
            median(ratios)
        );
    }
    Ok(())
}
