//! `shoal-loadtest gpu`: a decoder on CUDA beside the CPU, against memory bandwidth, and three that share a GPU. deploy/gpu-check runs it.
//!
//! With `--provider cpu` everything runs there: the same path, and no figure, since none of a GPU was measured.
use super::{
    Bench,
    colocated::tokens_a_second,
    figure::Name,
    inside::Inside,
    process::{Served, Specialist, binary},
    report::Report,
    roofline::Step,
    runtime,
    stats::median,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use shoal_kit::{
    config::{self, Provider},
    environment,
};
use shoal_specialist::folder::Folder;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tokio::process::Command;

/// Prompts whose greedy answers are compared, and how long prompts and answers are.
const PROMPTS: usize = 8;
const PROMPT_TOKENS: usize = 32;
const ANSWER_TOKENS: usize = 64;

/// Rows that decode together.
const BATCHES: [usize; 3] = [1, 16, 64];

/// Specialists that share the device.
const TOGETHER: usize = 3;

/// What is measured, besides [`Bench`], whose model is the shipped one in fp32.
#[derive(Debug)]
pub(crate) struct Gpu {
    /// Where.
    pub(crate) provider: Provider,
    /// Decoders of real shapes, in fp16.
    pub(crate) real: Vec<PathBuf>,
    /// Bytes/s of the device's memory.
    pub(crate) bandwidth: f64,
    /// New tokens of a row.
    pub(crate) tokens: usize,
    /// MiB that each of those that share the device may take.
    pub(crate) limit_mb: u64,
}

/// Measures; gives the object.
///
/// # Errors
/// When something is missing, or a side has no answer.
pub(crate) async fn run(bench: &Bench, gpu: &Gpu, shoal: Option<&Path>) -> Result<Value> {
    let mut report = Report::default();
    report.ours(runtime::version().await?);
    let mut machine = bench.machine.clone();
    report.fact("provider", json!(gpu.provider.name()));
    report.fact("dry run", json!(gpu.provider == Provider::Cpu));
    report.fact("memory bandwidth, bytes/s", json!(gpu.bandwidth));
    if gpu.provider == Provider::Cuda {
        let device = device(environment::var("CUDA_VISIBLE_DEVICES").as_deref());
        let of = async |query| smi(&["-i", &device, query, "--format=csv,noheader"]).await;
        let query = "--query-gpu=name,driver_version,memory.total,clocks.max.memory,power.limit";
        report.fact("nvidia-smi", json!(of(query).await?));
        machine["device"] = json!(of("--query-gpu=name").await?);
    }
    greedy(bench, gpu, &mut report).await?;
    for folder in &gpu.real {
        batches(bench, gpu, folder, &mut report).await?;
    }
    together(bench, gpu, shoal, &mut report).await?;
    // What the figure is of: `batches` reports the first folder's.
    let measured = gpu.real.first().unwrap_or(&bench.model);
    let settings = bench.settings(&measured.display().to_string(), BATCHES[2]);
    Ok(report.to_json(machine, settings))
}

fn settings(bench: &Bench, provider: Provider, slots: usize) -> config::Specialist {
    config::Specialist {
        provider,
        slots,
        // A prompt is read in one row and is of no use to another.
        prefix_slots: 0,
        intra_op_threads: bench.threads,
        ..config::Specialist::default()
    }
}

/// Greedy tokens of the shipped model, there and on the CPU.
async fn greedy(bench: &Bench, gpu: &Gpu, report: &mut Report) -> Result<()> {
    let mut sides = Vec::new();
    for provider in [Provider::Cpu, gpu.provider] {
        let inside = Inside::load_with(&bench.model, &settings(bench, provider, PROMPTS)).await?;
        let prompts = inside.alphabet()?.prompts(0, "greedy", PROMPTS, PROMPT_TOKENS);
        sides.push(inside.decode(&prompts, &[ANSWER_TOKENS; PROMPTS]).await?.tokens);
    }
    report.check("greedy tokens equal the CPU's", sides[0] == sides[1]);
    Ok(())
}

/// Tokens/s of 1, 16 and 64 rows, interleaved, beside what bandwidth allows.
#[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
async fn batches(bench: &Bench, gpu: &Gpu, folder: &Path, report: &mut Report) -> Result<()> {
    let inside = Inside::load_with(folder, &settings(bench, gpu.provider, BATCHES[2])).await?;
    let opened = Folder::open(folder)?;
    let genai = opened.exported.as_ref().context("a decoder has a shape")?;
    let data = opened.model.with_extension("onnx.data");
    let weights = fs::metadata(&data).with_context(|| data.display().to_string())?.len();
    let step = Step {
        weight_bytes: weights as f64,
        // Keys and values in fp16.
        position_bytes: (genai.layers * 2 * genai.kv_heads * genai.head_size * 2) as f64,
    };
    let (name, alphabet) = (inside.identity(), inside.alphabet()?);
    let mut ratios = Vec::new();
    for round in 0..=bench.rounds {
        let mut rates = [0.0; 3];
        for (rows, rate) in BATCHES.into_iter().zip(&mut rates) {
            let prompts = alphabet.prompts(round, "batch", rows, PROMPT_TOKENS);
            let done = inside.decode(&prompts, &vec![gpu.tokens; rows]).await?;
            let tokens: usize = done.tokens.iter().map(Vec::len).sum();
            *rate = tokens as f64 / done.seconds;
            // Round 0 warms up.
            if round > 0 {
                let positions = PROMPT_TOKENS as f64 + gpu.tokens as f64 / 2.0;
                let limit = step.limit(rows as f64, positions, gpu.bandwidth);
                report.detail(&format!("{name}, {rows} rows, tokens/s"), *rate);
                report.detail(
                    &format!("{name}, {rows} rows, share of what bandwidth allows"),
                    *rate / limit,
                );
            }
        }
        if round > 0 {
            ratios.push(rates[2] / rates[0]);
            report.detail(&format!("{name}, 64 rows over one"), rates[2] / rates[0]);
        }
    }
    // On a CPU rows pay for each other's arithmetic, and the bar says nothing.
    if gpu.provider == Provider::Cuda {
        report.always(
            &format!("{name}: 64 rows at least 10 times one"),
            median(&ratios) >= 10.0,
        );
    }
    // The first named is the figure; the others are details.
    if gpu.provider == Provider::Cuda && gpu.real.first().is_some_and(|first| first == folder) {
        ratios
            .into_iter()
            .for_each(|ratio| report.figure(Name::GpuBatch64Vs1, ratio));
    }
    Ok(())
}

/// Three processes at once, each under a limit, all rows in use.
async fn together(bench: &Bench, gpu: &Gpu, shoal: Option<&Path>, report: &mut Report) -> Result<()> {
    let one = Specialist {
        provider: gpu.provider,
        gpu_mem_limit_mb: gpu.limit_mb,
        ..Specialist::of(&bench.model, 1)
    };
    let served = Served::several(&binary(shoal)?, &[one; TOGETHER]).await?;
    // A request that fails, fails this.
    report.detail("three together, tokens/s", tokens_a_second(&served).await?);
    report.fact("limit of each of three, MiB", json!(gpu.limit_mb));
    if gpu.provider == Provider::Cuda {
        let used = smi(&["--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]).await?;
        let own: Vec<String> = served
            .iter()
            .filter_map(Served::pid)
            .map(|pid| pid.to_string())
            .collect();
        let lines = used.lines().filter(|l| {
            l.split(',')
                .next()
                .is_some_and(|pid| own.iter().any(|o| o == pid.trim()))
        });
        // With the context of CUDA itself, which no limit of an arena holds.
        report.fact(
            "memory of each of three by nvidia-smi, MiB",
            json!(lines.collect::<Vec<_>>()),
        );
    }
    Ok(())
}

/// The GPU that all run on, as nvidia-smi knows it: the first that may be seen. A number is the same to both under CUDA_DEVICE_ORDER=PCI_BUS_ID,
/// which deploy/gpu-check sets.
fn device(visible: Option<&str>) -> String {
    let first = visible.and_then(|all| all.split(',').next()).map(str::trim);
    first.filter(|first| !first.is_empty()).unwrap_or("0").to_owned()
}

async fn smi(args: &[&str]) -> Result<String> {
    let done = Command::new("nvidia-smi")
        .args(args)
        .output()
        .await
        .context("nvidia-smi")?;
    ensure!(
        done.status.success(),
        "nvidia-smi: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gpu_that_is_named_is_the_one_that_is_used() {
        assert_eq!(device(None), "0");
        assert_eq!(device(Some("3, 1")), "3");
        assert_eq!(device(Some("GPU-8f2a")), "GPU-8f2a");
    }
}
