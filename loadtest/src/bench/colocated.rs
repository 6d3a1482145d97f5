//! `shoal-loadtest colocated`: specialists that share one machine, each a process of its own, under budgets that know of the others.
use super::{
    Bench,
    busy::{Answer, Occupied, batch_load, latencies},
    figure::Name,
    in_turn,
    process::{Served, Specialist, binary},
    report::Report,
    runtime,
    stats::quantile,
    workload::ROWS,
};
use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use shoal_kit::config::Machine;
use shoal_specialist::folder::Folder;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// Specialists on the machine.
const SPECIALISTS: usize = 6;

/// How long nobody asks anything. What runs once a second runs ten times in it.
const IDLE: Duration = Duration::from_secs(10);

/// Before that: what a start leaves to be done.
const SETTLE: Duration = Duration::from_secs(2);

/// How long tokens are counted, a round and side, after [`RAMP`].
const WINDOW: Duration = Duration::from_secs(3);

/// Until every row is in use.
const RAMP: Duration = Duration::from_millis(500);

/// Interactive requests a round and side: of 1,000 the p99 is the tenth slowest, and no single stumble of the machine.
const REQUESTS: usize = 1000;

/// Measures; gives the object.
///
/// # Errors
/// When something is missing, or a side has no answer.
pub(crate) async fn run(bench: &Bench, shoal: Option<&Path>, interactive: &Path) -> Result<Value> {
    let (shoal, model) = (binary(shoal)?, bench.model.as_path());
    let mut report = Report::default();
    report.ours(runtime::version().await?);
    ensure!(
        Folder::open(model)?.exported.is_some(),
        "{} does not decode: name a decoder with --model",
        model.display()
    );
    let idle = if bench.wants(Name::Idle6Cpu) {
        let folders = (0..SPECIALISTS).map(|i| if i % 2 == 0 { model } else { interactive });
        Some(Served::several(&shoal, &folders.map(|f| Specialist::of(f, 1)).collect::<Vec<_>>()).await?)
    } else {
        None
    };
    let bar = bench.progress();
    for round in 0..=bench.rounds {
        let mut scratch = Report::default();
        // Round 0 warms up.
        let into = if round == 0 { &mut scratch } else { &mut report };
        if let Some(idle) = &idle {
            idle_cpu(idle, round, into).await?;
        }
        if bench.wants(Name::Busy6VsOne) {
            busy(&shoal, bench, round, into).await?;
        }
        if bench.wants(Name::InteractiveP99BesideBatch) {
            beside_batch(&shoal, model, interactive, round, into).await?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.fact("specialists", json!(SPECIALISTS));
    report.fact("interactive specialist", json!(interactive));
    Ok(report.to_json(
        bench.machine.clone(),
        bench.settings(&model.display().to_string(), ROWS),
    ))
}

/// Processor time of specialists that nobody asks anything, as a share of one core.
async fn idle_cpu(idle: &[Served], round: usize, report: &mut Report) -> Result<()> {
    if round == 0 {
        sleep(SETTLE).await;
        return Ok(());
    }
    let used = || idle.iter().map(Served::cpu_seconds).sum::<Result<f64>>();
    let (before, started) = (used()?, Instant::now());
    sleep(IDLE).await;
    report.figure(Name::Idle6Cpu, (used()? - before) / started.elapsed().as_secs_f64());
    Ok(())
}

/// Tokens/s of six with a thread each over those of one that has the machine, every row of every specialist in use on both sides.
async fn busy(shoal: &Path, bench: &Bench, round: usize, report: &mut Report) -> Result<()> {
    let side = async |specialists: usize, threads: usize| {
        let all = vec![Specialist::of(&bench.model, threads); specialists];
        let served = Served::several(shoal, &all).await?;
        tokens_a_second(&served).await
    };
    let (six, one) = in_turn(round, side(SPECIALISTS, 1), side(1, bench.threads)).await?;
    report.figure(Name::Busy6VsOne, six / one);
    report.detail("six busy, tokens/s together", six);
    report.detail("one busy, tokens/s", one);
    Ok(())
}

/// An interactive specialist's p99 beside one that decodes in the background over the same alone.
async fn beside_batch(shoal: &Path, model: &Path, interactive: &Path, round: usize, report: &mut Report) -> Result<()> {
    // The batch has the last core, and all others are the interactive one's: behind it on the same cores it would now and then still have a
    // core for a whole slice of the scheduler's, three milliseconds (services/kit/src/config/specialist.rs, `background`).
    let cpus: Vec<usize> = (0..Machine::default().cores()).collect();
    let (last, others) = cpus.split_last().context("a machine has a core")?;
    let batch = Specialist {
        background: true,
        cpus: std::slice::from_ref(last),
        ..Specialist::of(model, 1)
    };
    let asked = Specialist {
        cpus: others,
        ..Specialist::of(interactive, 1)
    };
    let served = Served::several(shoal, &[asked, batch]).await?;
    let [asked, batch] = &served[..] else {
        return Err(anyhow!("two were started"));
    };
    // Once each, so that no side pays for what is done once.
    latencies(&asked.grpc, others, REQUESTS / 10).await?;
    let loaded = async {
        let mut load = Occupied::start(&batch.grpc, *last)?;
        sleep(RAMP).await;
        let found = latencies(&asked.grpc, others, REQUESTS).await?;
        load.still_running()?;
        anyhow::Ok(found)
    };
    let (beside, alone) = in_turn(round, loaded, latencies(&asked.grpc, others, REQUESTS)).await?;
    report.figure(
        Name::InteractiveP99BesideBatch,
        quantile(&beside, 0.99) / quantile(&alone, 0.99),
    );
    for (name, all) in [("beside batch", &beside), ("alone", &alone)] {
        report.detail(&format!("interactive {name}, p50 ms"), quantile(all, 0.5) * 1e3);
        report.detail(&format!("interactive {name}, p99 ms"), quantile(all, 0.99) * 1e3);
    }
    Ok(())
}

/// Tokens/s of all together over [`WINDOW`], every row of each in use: an answer counts by the part of it that lies in the window.
pub(super) async fn tokens_a_second(served: &[Served]) -> Result<f64> {
    let from = Instant::now() + RAMP;
    let to = from + WINDOW;
    let all = futures::future::try_join_all(served.iter().map(|one| batch_load(&one.grpc, to))).await?;
    let counted: f64 = all.iter().flatten().map(|answer| within(answer, from, to)).sum();
    Ok(counted / WINDOW.as_secs_f64())
}

/// Tokens of an answer that lie between two times, as if they had come evenly.
#[expect(clippy::cast_precision_loss, reason = "an answer's tokens are few")]
fn within(answer: &Answer, from: Instant, to: Instant) -> f64 {
    let whole = answer.ended.duration_since(answer.began).as_secs_f64();
    let inside = answer
        .ended
        .min(to)
        .saturating_duration_since(answer.began.max(from))
        .as_secs_f64();
    answer.tokens as f64 * inside / whole.max(f64::EPSILON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_by_the_part_that_lies_in_the_window() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let answer = |began, ended| Answer {
            began: at(began),
            ended: at(ended),
            tokens: 100,
        };
        for (began, ended, counted) in [
            (200, 300, 100.0),
            (0, 200, 50.0),
            (300, 700, 25.0),
            (0, 100, 0.0),
            (400, 500, 0.0),
        ] {
            let found = within(&answer(began, ended), at(100), at(400));
            assert!((found - counted).abs() < 1e-6, "{began}..{ended}: {found}");
        }
    }
}
