//! The one binary: `shoal up`, `run`, `demo`, `gateway`, `specialist`, `feedback`, `concierge`, `eval` and the rest.
//!
//! Reading order: [`cli`] is the table of contents (every command, its help, and the module that does it); [`exit`] says what
//! the exit codes mean. [`process`] runs one service of the mesh; [`supervise`] runs all of them, each as a child process
//! of this very binary. The other commands are clients: [`client`] is their connection, [`view`] shows a plan as it
//! runs, [`why`] draws one that has run, [`eval`] scores task data, `model` makes a specialist of an export, `retrain` has a model
//! learn from what was corrected, [`demo`] puts it all together.

mod activate;
pub mod cli;
pub mod client;
mod config_check;
mod decompose;
pub mod demo;
pub mod eval;
pub mod exit;
mod feedback;
mod health;
mod json;
mod model;
mod onnxruntime;
mod output;
mod plan_file;
pub mod process;
mod retrain;
mod run;
mod status;
pub mod supervise;
pub mod view;
pub mod why;

use clap::Parser as _;
use shoal_kit::environment;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: shoal_specialist::Allocator = shoal_specialist::Allocator;

/// Parses the command line, runs the command, says what went wrong. Everything `main` does.
#[must_use]
pub fn main_entry() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; clap knows which stream is whose.
            let _ = error.print();
            return if error.use_stderr() {
                exit::Exit::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if matches!(cli.command, cli::Command::Specialist(_)) {
        shoal_specialist::settle();
        // Whoever knows better says so in tokio's own way.
        if environment::var("TOKIO_WORKER_THREADS").is_none() {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            runtime.worker_threads(carriers(cores));
        }
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("shoal: cannot start the runtime: {error}");
            return exit::Exit::Internal.into();
        }
    };
    let result = runtime.block_on(Box::pin(cli::dispatch(cli)));
    // What still runs is a reader of standard input or a lookup that nobody waits for.
    runtime.shutdown_background();
    match result.and_then(|()| output::lost()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("shoal: {failure}");
            failure.exit.into()
        }
    }
}

/// Threads of a specialist's runtime: half of the cores that the process has when it starts. They read calls (a short text is tokenized there, a longer
/// one elsewhere) and carry them to the model's own threads, and answers back; with one a core they stand in each other's way and in the model's. Of two
/// cores, one answered a quarter more classifications a second than two did. `cpus` of the configuration are not known yet.
fn carriers(cores: usize) -> usize {
    (cores / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specialist_leaves_half_of_the_cores_to_its_model() {
        let wanted = [(1, 1), (2, 1), (3, 1), (4, 2), (16, 8)];
        for (cores, threads) in wanted {
            assert_eq!(carriers(cores), threads, "of {cores}");
        }
    }
}
