//! `shoal-loadtest`: load on a mesh that somebody else runs, and benchmarks of its parts beside their peers.
//!
//! Reading order: [`cli`] is what can be asked; [`mod@bench`] is a room of its own. Of `plans`, [`schedule`] says when plans arrive and [`tally`] adds up what became of them
//! (both pure); [`goals`] reads what is asked and [`judge`] what is right; [`call`] puts one plan to the gateway; [`load`] is
//! the open loop that joins them.
mod bench;
mod call;
mod cli;
mod goals;
mod judge;
mod load;
mod schedule;
mod tally;

use bench::{Bench, figure, peer::Missing, table, wire};
use clap::Parser as _;
use cli::{BenchArgs, Cli, ColocatedArgs, Command, GpuArgs, PlansArgs, SpecialistArgs, TableArgs};
use indicatif::{ProgressBar, ProgressStyle};
use shoal_kit::shutdown;
use std::process::ExitCode;

/// The load was interrupted: the object is of what was sent until then.
const INTERRUPTED: u8 = 1;

/// The command line or a file is wrong; nothing was sent.
const USAGE: u8 = 64;

/// The gateway cannot be reached, or what a benchmark needs is not set up.
const UNAVAILABLE: u8 = 69;

/// The machine has no runtime to give, or one side of a benchmark no answer.
const INTERNAL: u8 = 70;

/// As in the shipped binary: `engine` measures the engine in this process.
#[global_allocator]
static ALLOCATOR: shoal_specialist::Allocator = shoal_specialist::Allocator;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; clap knows which stream is whose.
            let _ = error.print();
            return if error.use_stderr() {
                USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let mut builder = match cli.command {
        // What is measured is the other side: a client of several threads wakes one of its own for every message, on the cores of the server.
        Command::Specialist(_) | Command::Ask { .. } => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("shoal-loadtest: cannot start the runtime: {error}");
            return INTERNAL.into();
        }
    };
    let code = match cli.command {
        Command::Plans(args) => runtime.block_on(plans(args)),
        // Boxed: tens of kilobytes of what two sides are in the middle of.
        Command::Engine(args) => runtime.block_on(Box::pin(engine(args))),
        Command::Specialist(args) => runtime.block_on(Box::pin(specialist(args))),
        Command::Colocated(args) => runtime.block_on(Box::pin(colocated(args))),
        Command::Gpu(args) => runtime.block_on(Box::pin(gpu(args))),
        Command::Occupy { grpc, cpu } => match runtime.block_on(bench::busy::run(&grpc, cpu)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => say(INTERNAL, &error),
        },
        Command::Ask { grpc, requests, cpus } => match runtime.block_on(bench::busy::ask(&grpc, cpus, requests)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => say(INTERNAL, &error),
        },
        Command::Table(args) => written(&args),
    };
    // What an interrupted run leaves in flight is not waited for: the gateway sees its streams end and cancels the plans.
    runtime.shutdown_background();
    code
}

async fn plans(args: PlansArgs) -> ExitCode {
    let goals = match goals::read(&args.goals) {
        Ok(goals) => goals,
        Err(error) => return say(USAGE, &error),
    };
    let gateway = match call::Gateway::at(&args.gateway, args.max_in_flight, args.deadline) {
        Ok(gateway) => gateway,
        Err(error) => return say(USAGE, &error),
    };
    if let Err(error) = gateway.answers().await {
        return say(UNAVAILABLE, &error);
    }
    let bar = progress(&args);
    let stop = shutdown::signal(false);
    let tally = load::run(&args.load(), &goals, &gateway, &stop, &|tally, in_flight| {
        bar.set_position(tally.arrivals());
        bar.set_message(tally.so_far(in_flight));
    })
    .await;
    bar.finish_and_clear();
    println!("{}", tally.to_json(args.rate));
    if tally.is_interrupted() {
        let part = anyhow::anyhow!("interrupted: the figures are of what was sent until then");
        return say(INTERRUPTED, &part);
    }
    ExitCode::SUCCESS
}

async fn engine(args: BenchArgs) -> ExitCode {
    match bench(args, figure::Command::Engine) {
        Ok(bench) => told(bench::engine::run(&bench).await),
        Err(code) => code,
    }
}

async fn specialist(args: SpecialistArgs) -> ExitCode {
    match bench(args.bench, figure::Command::Specialist) {
        Ok(bench) => told(wire::run(&bench, args.shoal.as_deref(), &args.classifier).await),
        Err(code) => code,
    }
}

async fn colocated(args: ColocatedArgs) -> ExitCode {
    match bench(args.bench(), figure::Command::Colocated) {
        Ok(bench) => told(bench::colocated::run(&bench, args.shoal.as_deref(), &args.interactive).await),
        Err(code) => code,
    }
}

async fn gpu(args: GpuArgs) -> ExitCode {
    match bench(args.bench(), figure::Command::Gpu) {
        Ok(bench) => told(bench::gpu::run(&bench, &args.gpu(), args.shoal.as_deref()).await),
        Err(code) => code,
    }
}

/// The run that is asked for, or why there is none.
fn bench(args: BenchArgs, command: figure::Command) -> Result<Bench, ExitCode> {
    let names = figure::selected(command, &args.only).map_err(|e| say(USAGE, &anyhow::anyhow!(e)))?;
    let mut typed = std::env::args();
    let program = typed.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let command: Vec<String> = std::iter::once(program).chain(typed).collect();
    let threads = args.threads.map(usize::from);
    Bench::new(names, args.rounds.into(), threads, args.model, command.join(" "))
        .map_err(|error| say(if is_missing(&error) { UNAVAILABLE } else { USAGE }, &error))
}

fn told(object: anyhow::Result<serde_json::Value>) -> ExitCode {
    match object {
        Ok(object) => {
            println!("{object}");
            match &bench::report::failed_checks(&object)[..] {
                [] => ExitCode::SUCCESS,
                failed => say(
                    INTERNAL,
                    &anyhow::anyhow!("the figures are void: not so: {}", failed.join("; ")),
                ),
            }
        }
        Err(error) => say(if is_missing(&error) { UNAVAILABLE } else { INTERNAL }, &error),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Missing>().is_some()
}

fn written(args: &TableArgs) -> ExitCode {
    match table::run(&args.results, args.write.as_deref()) {
        Ok(table) => {
            print!("{}", table.unwrap_or_default());
            ExitCode::SUCCESS
        }
        Err(error) => say(USAGE, &error),
    }
}

fn say(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("shoal-loadtest: {error:#}");
    code.into()
}

/// A bar on standard error, as long as the arrivals to be expected; nothing where that is no terminal.
fn progress(args: &PlansArgs) -> ProgressBar {
    let template = "{elapsed} [{bar:30.cyan/dim}] {pos}/{len} arrivals  {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(args.expected()).with_style(style.progress_chars("=> "))
}
