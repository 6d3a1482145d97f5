//! What the benchmarks take.
use crate::bench::{figure::Name, gpu::Gpu};
use clap::{Args, value_parser};
use shoal_kit::config::Provider;
use std::path::PathBuf;

/// After the help of all.
pub(super) const AFTER_BENCH: &str = "\
The object on standard output, its last line:
  figures    {NAME: {value, low, high, rounds, coverage}}: the median of the rounds' ratios and its interval by order
             statistics (`coverage` is the probability that it holds the median: 0.984 with 7 rounds, 0.75 with 3). Shares are
             fractions: 0.05 is 5 %
  details    what the figures are made of (tokens/s of each side, ...), round by round
  facts      how each peer says that it is set up, and whether it said the same tokens
  checks     what must be true for figures to compare like with like (as many tokens, the same label); if one is false they are void
  settings   the command, the model, threads, slots; machine: processor, cores, memory, kernel, load before the run

Peers are installed once by `loadtest/peers/setup`, which also makes the synthetic decoder; run both in the repository's root.
Exit codes: 0 measured; 64 the command line or the model folder is wrong; 69 something is not set up, and the message says which
command does that; 70 a side gave no answer, or a check is false.";

/// What `engine` and `specialist` take.
#[derive(Args, Debug, Clone)]
pub(crate) struct BenchArgs {
    /// Only these figures, of those that this command measures; several with commas between them [default: all of them]
    #[arg(long, value_delimiter = ',', value_name = "FIGURE", hide_possible_values = false)]
    pub(crate) only: Vec<Name>,
    /// Rounds that count, after one that warms up; seven are the fewest whose interval reaches 95 % with room to spare
    #[arg(long, default_value_t = 7, value_parser = value_parser!(u16).range(1..=1000), value_name = "N")]
    pub(crate) rounds: u16,
    /// ONNX Runtime threads inside an operator, on every side [default: as many as there are cores]
    #[arg(long, value_parser = value_parser!(u16).range(1..=1024), value_name = "N")]
    pub(crate) threads: Option<u16>,
    /// A decoder's folder, models/compose for one [default: the synthetic decoder of 25 million parameters]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
}

/// What `shoal-loadtest specialist` takes besides.
#[derive(Args, Debug, Clone)]
pub(crate) struct SpecialistArgs {
    /// What both take.
    #[command(flatten)]
    pub(crate) bench: BenchArgs,
    /// The binary whose specialist is started [default: `shoal` beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) shoal: Option<PathBuf>,
    /// A classifier's folder, for classify_vs_mlserver. The default is so small that it is the wire that is measured;
    /// models/route is a shipped one
    #[arg(long, default_value = "tests/fixtures/models/tiny_classifier", value_name = "DIR")]
    pub(crate) classifier: PathBuf,
}

/// What `shoal-loadtest colocated` takes.
#[derive(Args, Debug, Clone)]
pub(crate) struct ColocatedArgs {
    /// Only these figures, of those that this command measures; several with commas between them [default: all of them]
    #[arg(long, value_delimiter = ',', value_name = "FIGURE", hide_possible_values = false)]
    pub(crate) only: Vec<Name>,
    /// Rounds that count, after one that warms up
    #[arg(long, default_value_t = 7, value_parser = value_parser!(u16).range(1..=1000), value_name = "N")]
    pub(crate) rounds: u16,
    /// ONNX Runtime threads inside an operator of the one specialist that has the machine; six have one each [default: as many as there are cores]
    #[arg(long, value_parser = value_parser!(u16).range(1..=1024), value_name = "N")]
    pub(crate) threads: Option<u16>,
    /// The folder of the decoder that is busy
    #[arg(long, default_value = "models/compose", value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// The folder of the specialist whose callers wait
    #[arg(long, default_value = "models/tool_call", value_name = "DIR")]
    pub(crate) interactive: PathBuf,
    /// The binary whose specialists are started [default: `shoal` beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) shoal: Option<PathBuf>,
}

impl ColocatedArgs {
    /// As the other benchmarks'.
    pub(crate) fn bench(&self) -> BenchArgs {
        BenchArgs {
            only: self.only.clone(),
            rounds: self.rounds,
            threads: self.threads,
            model: Some(self.model.clone()),
        }
    }
}

/// What `shoal-loadtest gpu` takes.
#[derive(Args, Debug, Clone)]
pub(crate) struct GpuArgs {
    /// Where to run; cpu is a dry run, which measures no figure
    #[arg(long, default_value = "cuda", value_parser = provider, value_name = "cpu|cuda")]
    pub(crate) provider: Provider,
    /// Bandwidth of the device's memory, GB/s of 10^9 bytes, as its data sheet has it
    #[arg(long, value_name = "GB/S")]
    pub(crate) bandwidth: f64,
    /// The folder of a shipped decoder, which is run in fp32
    #[arg(long, default_value = "models/compose", value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// The folder of a decoder of a real shape, exported with -p fp16 -e cuda; may be given several times, the first is the figure
    #[arg(long, value_name = "DIR")]
    pub(crate) real: Vec<PathBuf>,
    /// New tokens of a row
    #[arg(long, default_value_t = 128, value_parser = value_parser!(u16).range(1..=4096), value_name = "N")]
    pub(crate) tokens: u16,
    /// MiB that each of three specialists may take that share the device
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    pub(crate) limit: u64,
    /// Rounds that count, after one that warms up
    #[arg(long, default_value_t = 7, value_parser = value_parser!(u16).range(1..=1000), value_name = "N")]
    pub(crate) rounds: u16,
    /// The binary whose specialists are started [default: `shoal` beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) shoal: Option<PathBuf>,
}

fn provider(text: &str) -> Result<Provider, String> {
    let all = [Provider::Cpu, Provider::Cuda];
    all.into_iter()
        .find(|p| p.name() == text)
        .ok_or_else(|| "give cpu or cuda".to_owned())
}

impl GpuArgs {
    /// As the other benchmarks'.
    pub(crate) fn bench(&self) -> BenchArgs {
        BenchArgs {
            only: Vec::new(),
            rounds: self.rounds,
            threads: None,
            model: Some(self.model.clone()),
        }
    }

    /// The rest.
    pub(crate) fn gpu(&self) -> Gpu {
        Gpu {
            provider: self.provider,
            real: self.real.clone(),
            bandwidth: self.bandwidth * 1e9,
            tokens: self.tokens.into(),
            limit_mb: self.limit,
        }
    }
}

/// What `shoal-loadtest table` takes.
#[derive(Args, Debug, Clone)]
pub(crate) struct TableArgs {
    /// What `engine`, `specialist`, `colocated` and `gpu` printed; of several files with a figure the last counts
    #[arg(required = true, value_name = "FILE")]
    pub(crate) results: Vec<PathBuf>,
    /// Put the table into this page's section for it, instead of printing it
    #[arg(long, value_name = "PAGE")]
    pub(crate) write: Option<PathBuf>,
}
