//! What long prompts cost those who decode: the time between two tokens of a row, without and with prompts arriving.
//!
//!     cargo run --release -p shoal-specialist --example inter_token -- models/compose [rows, default 8] [rounds, default 9]
//!
//! A round is one batch of rows alone, then one beside which long prompts arrive, one after the other; the median of the rounds'
//! ratios is told, for the machine drifts. Needs a decoder; its answers are drawn from nearly everything, so that few end early.
use anyhow::Context as _;
use shoal_kit::{config, onnxruntime};
use shoal_specialist::{
    engine::{Event, queue::Class},
    folder::Form,
    prompt::Prompt,
    sampling::Sampling,
    specialist::{Ask, Specialist},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// New tokens of a row: the shipped decoders' limit.
const TOKENS: usize = 224;

fn ask(text: String, max_tokens: usize, seed: u64) -> Ask {
    Ask {
        task: String::new(),
        prompt: Prompt::Text(text),
        sampling: Sampling {
            temperature: 100.0,
            top_k: 0,
            seed,
            ..Sampling::greedy(max_tokens)
        },
        form: Some(Form::Free),
        class: Class::Normal,
        deadline: None,
        span: tracing::Span::none(),
    }
}

/// The times at which a row's tokens came.
async fn row(specialist: &Specialist, seed: u64) -> anyhow::Result<Vec<Instant>> {
    let mut ticket = specialist.generate(ask(format!("row {seed}"), TOKENS, seed)).await?;
    let mut came = Vec::new();
    loop {
        match ticket.next().await {
            Event::Delta(_) => came.push(Instant::now()),
            Event::Done(_) => return Ok(came),
            Event::Failed(error) => return Err(error.into()),
        }
    }
}

/// Seconds between two tokens from when every row decoded, sorted; beside them prompts of `words` words, if that is not 0.
async fn gaps(specialist: &Specialist, rows: usize, seed: u64, words: usize) -> anyhow::Result<(Vec<f64>, usize)> {
    let decode = futures::future::try_join_all((0..rows).map(|i| row(specialist, seed + i as u64)));
    let prompts = async {
        if words == 0 {
            return futures::future::pending().await;
        }
        let mut read = 0;
        loop {
            // Another beginning each time: nothing of it was read before.
            let text = format!("{seed}.{read} {}", "find a table for two ".repeat(words / 5));
            specialist.generate(ask(text, 1, 1)).await?.complete().await?;
            read += 1;
        }
    };
    let read = specialist.counters();
    let before = read.prompt_tokens.load(std::sync::atomic::Ordering::Relaxed);
    let came = tokio::select! {
        came = decode => came?,
        failed = prompts => return failed,
    };
    let read = read.prompt_tokens.load(std::sync::atomic::Ordering::Relaxed) - before;
    let from = came.iter().filter_map(|c| c.first()).max().context("rows")?;
    let between = came.iter().flat_map(|c| c.windows(2));
    let between = between.filter(|pair| pair[0] >= *from);
    let mut gaps: Vec<f64> = between.map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    gaps.sort_by(f64::total_cmp);
    anyhow::ensure!(gaps.len() > 100, "only {} gaps: the rows ended early", gaps.len());
    Ok((gaps, read as usize))
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("which model folder?")?;
    let rows = arguments.next().map_or(Ok(8), |n| n.parse())?;
    let rounds: u64 = arguments.next().map_or(Ok(9), |n| n.parse())?;
    let library = onnxruntime::locate(&config::OnnxRuntime::default(), &|_| {})?.path;
    let specialist = Specialist::load(Path::new(&path), &config::Specialist::default(), &library)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The shipped template has the text twice: two fifths of the context.
    let words = specialist.folder().card.limits.context_tokens as usize / 5;
    let mut ratios = Vec::new();
    for round in 0..=rounds {
        let (alone, _) = runtime.block_on(gaps(&specialist, rows, round * 1000, 0))?;
        let (beside, read) = runtime.block_on(gaps(&specialist, rows, round * 1000, words))?;
        std::thread::sleep(Duration::from_millis(50));
        if round == 0 {
            continue;
        }
        let ms = |gaps: &[f64]| (at(gaps, 0.5) * 1e3, at(gaps, 0.99) * 1e3);
        let ((a50, a99), (b50, b99)) = (ms(&alone), ms(&beside));
        println!(
            "alone p50 {a50:.2} p99 {a99:.2} ms, beside prompts p50 {b50:.2} p99 {b99:.2} ms, {read} prompt tokens"
        );
        ratios.push((b99 / a99, b50 / a50));
    }
    let median = |mut of: Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    let p99 = median(ratios.iter().map(|r| r.0).collect());
    let p50 = median(ratios.iter().map(|r| r.1).collect());
    println!("{rows} rows: beside prompts / alone: p99 {p99:.2}, p50 {p50:.2} (medians of {rounds})");
    Ok(())
}
