//! The command line.
mod bench;

pub(crate) use bench::{BenchArgs, ColocatedArgs, GpuArgs, SpecialistArgs, TableArgs};

use crate::{
    load,
    schedule::{Arrivals, Schedule},
};
use clap::{Args, Parser, Subcommand, value_parser};
use std::{path::PathBuf, time::Duration};

const AFTER: &str = "\
Exit codes of plans: 0 the load was sent, whatever became of the plans (the object says); 1 it was interrupted, and the object
is of a part; 64 the command line or a file is wrong and 69 the gateway cannot be reached, and nothing was sent. The others' are
in their own help. Progress goes to standard error.";

const AFTER_PLANS: &str = "\
The object on standard output:
  rate           arrivals a second that were asked for
  sent           plans sent: succeeded + failed
  succeeded      plans that ended STATE_SUCCEEDED
  failed         all others; `errors` counts them by cause
  shed           arrivals not sent, because --max-in-flight plans were unanswered; not in `sent`, and without a latency
  right          succeeded plans whose answer is the row's target, where the goals have targets to compare (plan, tool_call)
  interrupted    true where a signal ended the load early: every figure is of the part that was sent. Else not there
  latency_ms     p50, p90, p99, p999, max of the plans that succeeded or ran out of their deadline, in milliseconds from the
                 time at which the plan was SCHEDULED to its last event. A plan that was refused cost its caller no wait, and
                 would flatter the figures; null without any
  achieved_rate  plans that succeeded, a second, from the first scheduled time to the last end
  errors         {\"CODE\" or \"CODE REASON\": plans}

Figures with `shed` above 0 are those of a mesh, or a generator, that is overloaded: lower the rate before comparing.

Examples:
  shoal-loadtest plans --rate 20 --duration 1m
  shoal-loadtest plans --rate 50 --count 1000 --arrivals uniform --goals trip.plan --gateway 127.0.0.1:7400
  shoal-loadtest plans | jq .latency_ms.p99";

/// Load for a mesh that runs, and benchmarks of its parts.
#[derive(Parser, Debug)]
#[command(name = "shoal-loadtest", version, about, long_about = None, after_help = AFTER, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Send plans to a gateway at a set rate, open loop
    ///
    /// Plans arrive at the times of a schedule that is drawn before the first is sent and never waits for an answer, as users
    /// do not wait for each other; each latency counts from the scheduled time, so that a mesh that stalls is charged for
    /// every plan that it kept waiting (no coordinated omission). Ends after --duration or --count, whichever comes first,
    /// and once every plan sent has ended or run out of its --deadline. Prints one JSON object last.
    #[command(after_help = AFTER_PLANS)]
    Plans(PlansArgs),
    /// Measure the slot engine beside onnxruntime-genai and a bare ONNX Runtime loop
    ///
    /// All in one run: the engine in this process, each peer in one of its own, on the same folder and with as many threads. Every
    /// round measures both sides right after each other and in turn first, so that what the machine does to both cancels in
    /// the round's ratio.
    #[command(after_help = bench::AFTER_BENCH)]
    Engine(BenchArgs),
    /// Measure a specialist process over gRPC, beside MLServer and beside the same model in this process
    ///
    /// Starts the specialist itself, on free ports of the loopback, and ends it.
    #[command(after_help = bench::AFTER_BENCH)]
    Specialist(SpecialistArgs),
    /// Measure specialists that share this machine: idle, all busy, and one that somebody waits for beside one that is not in a hurry
    ///
    /// Starts them itself, on shipped models, each told of the others as `shoal up` does. Needs no peers.
    #[command(after_help = bench::AFTER_BENCH)]
    Colocated(ColocatedArgs),
    /// Measure decoders on an NVIDIA GPU: greedy tokens beside the CPU's, 1, 16 and 64 rows against memory bandwidth, three at once
    ///
    /// deploy/gpu-check builds, carries and runs all that it needs on a machine without a network.
    #[command(after_help = bench::AFTER_BENCH)]
    Gpu(GpuArgs),
    /// Keep every row of a specialist in use for a minute, behind all other processes; `colocated` starts it
    #[command(hide = true)]
    Occupy {
        /// Where the specialist is, http://host:port
        grpc: String,
        /// The core that it may use
        cpu: usize,
    },
    /// Ask a specialist one request after the other, and print the seconds of each; `colocated` starts it
    #[command(hide = true)]
    Ask {
        /// Where the specialist is, http://host:port
        grpc: String,
        /// How many
        requests: usize,
        /// The cores that it may use
        cpus: Vec<usize>,
    },
    /// Make the table of loadtest/README.md from what those printed
    ///
    /// Without --write the table goes to standard output.
    Table(TableArgs),
}

/// What `shoal-loadtest plans` takes.
#[derive(Args, Debug, Clone)]
pub(crate) struct PlansArgs {
    /// Arrivals a second, on average
    #[arg(long, default_value_t = 5.0, value_parser = rate, value_name = "PER SECOND")]
    pub(crate) rate: f64,
    /// How arrivals are spaced: poisson (independent users) or uniform (a metronome)
    #[arg(long, default_value = "poisson", value_enum)]
    pub(crate) arrivals: Arrivals,
    /// Seed of the schedule: the same seed, the same arrivals
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// No plan arrives after this long: 500ms, 30s, 5m (at most 24h)
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Duration,
    /// No more plans than this arrive [default: as many as fit in --duration]
    #[arg(long, value_parser = value_parser!(u64).range(1..), value_name = "N")]
    pub(crate) count: Option<u64>,
    /// What is asked, in turn: task data (NAME.jsonl or NAME.jsonl.gz: `plan` rows as goals in words, `episode` rows as
    /// conversations, any other task as a plan of one node), or plan text (NAME.plan). May be given several times
    #[arg(long, default_value = "tests/data/plan.sample.jsonl", value_name = "FILE")]
    pub(crate) goals: Vec<PathBuf>,
    /// The gateway's gRPC address: host:port or http://host:port
    #[arg(long, default_value = "127.0.0.1:7400", value_name = "URL")]
    pub(crate) gateway: String,
    /// Each plan's deadline, which travels with it
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub(crate) deadline: Duration,
    /// Unanswered plans at most. An arrival beyond them is not sent but counted as `shed`: the generator's memory is bounded,
    /// and what it could not offer is said, not hidden. The default is the gateway's own bound (max_plans)
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(1..=100_000), value_name = "N")]
    pub(crate) max_in_flight: u32,
}

impl PlansArgs {
    /// The load that they describe.
    pub(crate) fn load(&self) -> load::Load {
        load::Load {
            schedule: Schedule::new(self.arrivals, self.rate, self.seed, self.duration, self.count),
            max_in_flight: self.max_in_flight,
        }
    }

    /// Arrivals to be expected: exact for uniform ones, the mean for Poisson's.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and below 2^43: at most 100,000 a second for a day"
    )]
    pub(crate) fn expected(&self) -> u64 {
        let fit = (self.rate * self.duration.as_secs_f64()).ceil() as u64;
        self.count.map_or(fit, |count| count.min(fit))
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.001..=100_000.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("give 0.001 to 100000 arrivals a second".into())
    }
}

/// Reads "500ms", "30s", "1.5m" or "1h": more than nothing, at most a day.
fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` is no duration of at most 24h: write 500ms, 30s, 5m or 1h");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(refused)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(refused()),
    };
    let seconds = number.trim().parse::<f64>().map_err(|_| refused())? * seconds;
    if seconds > 0.0 && seconds <= 86_400.0 {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<PlansArgs, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| {
            let Command::Plans(args) = cli.command else {
                panic!("`{line}` sends no plans")
            };
            args
        })
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_load_is_bounded_in_time_even_if_nothing_is_said() {
        let args = parse("shoal-loadtest plans").expect("defaults");
        assert_eq!(
            (args.duration, args.deadline),
            (Duration::from_secs(30), Duration::from_secs(30))
        );
        assert_eq!((args.expected(), args.max_in_flight), (150, 256));
        let args = parse("shoal-loadtest plans --count 7 --goals a.plan --goals b.jsonl").expect("parsed");
        assert_eq!((args.expected(), args.goals.len()), (7, 2));
    }

    #[test]
    fn figures_are_named_with_commas_and_rounds_are_seven() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command);
        let Ok(Command::Engine(args)) = parse("shoal-loadtest engine --only single_vs_genai,rows16_vs_bare") else {
            panic!("parsed")
        };
        assert_eq!((args.only.len(), args.rounds, args.threads), (2, 7, None));
        assert!(parse("shoal-loadtest engine --only fastest").is_err_and(|e| e.use_stderr()));
        assert!(parse("shoal-loadtest specialist --rounds 0").is_err_and(|e| e.use_stderr()));
        assert!(parse("shoal-loadtest table").is_err_and(|e| e.use_stderr()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "shoal-loadtest",
            "shoal-loadtest plans --rate 0",
            "shoal-loadtest plans --rate nan",
            "shoal-loadtest plans --rate 1e9",
            "shoal-loadtest plans --duration 25h",
            "shoal-loadtest plans --duration 0s",
            "shoal-loadtest plans --deadline soon",
            "shoal-loadtest plans --count 0",
            "shoal-loadtest plans --max-in-flight 0",
            "shoal-loadtest plans --arrivals bursty",
        ] {
            assert!(parse(line).is_err_and(|e| e.use_stderr()), "{line}");
        }
    }
}
