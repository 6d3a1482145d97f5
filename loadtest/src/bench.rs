//! Side by side: the engine and the specialist against peers on the same machine, the same folder and as many threads.
//!
//! Reading order: [`figure`] is what is measured and what it must be; [`workload`] what is decoded, [`stats`] what rounds come to, [`report`] the
//! object and [`table`] the page made of it (all pure); [`peer`] is another engine in its own process, [`inside`] ours in this one and [`process`] ours in
//! one of its own, both with the library that [`runtime`] names; [`engine`], [`wire`], [`colocated`] and [`gpu`] are the commands, of which the last holds a GPU against its [`roofline`]; [`busy`] is a load that they put on a specialist; [`caller`]
//! what asks a server for as little as it can; [`machine`] says where it all was.
pub(crate) mod busy;
mod caller;
pub(crate) mod colocated;
pub(crate) mod engine;
pub(crate) mod figure;
pub(crate) mod gpu;
mod inside;
mod machine;
pub(crate) mod peer;
mod process;
pub(crate) mod report;
mod roofline;
mod runtime;
mod stats;
pub(crate) mod table;
pub(crate) mod wire;
mod workload;

use anyhow::{Result, anyhow};
use figure::Name;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::{future::Future, path::PathBuf};

/// What a run measures, and how.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Which figures.
    pub(crate) names: Vec<Name>,
    /// Rounds that count; one before them warms up.
    pub(crate) rounds: usize,
    /// Threads inside an operator, on every side.
    pub(crate) threads: usize,
    /// The decoder's folder.
    pub(crate) model: PathBuf,
    /// As it was typed.
    pub(crate) command: String,
    /// What it runs on.
    pub(crate) machine: Value,
}

impl Bench {
    /// A run on this machine, on the synthetic decoder unless a folder is named.
    ///
    /// # Errors
    /// When the folder is not there.
    pub(crate) fn new(
        names: Vec<Name>,
        rounds: usize,
        threads: Option<usize>,
        model: Option<PathBuf>,
        command: String,
    ) -> Result<Self> {
        let model = match model {
            Some(model) if model.is_dir() => model,
            Some(model) => return Err(anyhow!("{} is no folder: name one of models/", model.display())),
            None => {
                let synthetic = peer::decoder();
                peer::needed(&synthetic)?;
                synthetic
            }
        };
        Ok(Self {
            names,
            rounds,
            threads: threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            model,
            command,
            machine: machine::describe(),
        })
    }

    fn wants(&self, name: Name) -> bool {
        self.names.contains(&name)
    }

    fn settings(&self, model: &str, slots: usize) -> Value {
        json!({
            "command": self.command, "model": model, "intra_op_threads": self.threads, "slots": slots,
            "rounds": self.rounds, "version": env!("CARGO_PKG_VERSION"), "optimised": !cfg!(debug_assertions),
        })
    }

    /// A bar on standard error, a step a round; nothing where that is no terminal.
    fn progress(&self) -> ProgressBar {
        let style =
            ProgressStyle::with_template("{elapsed} [{bar:30.cyan/dim}] {pos}/{len} rounds, the first to warm up");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(self.rounds as u64 + 1).with_style(style.progress_chars("=> "))
    }
}

/// Both, one after the other; who begins changes from round to round, so that neither always runs on what the other left warm or hot.
async fn in_turn<A, B>(
    round: usize,
    ours: impl Future<Output = Result<A>>,
    theirs: impl Future<Output = Result<B>>,
) -> Result<(A, B)> {
    if round.is_multiple_of(2) {
        let ours = ours.await?;
        Ok((ours, theirs.await?))
    } else {
        let theirs = theirs.await?;
        Ok((ours.await?, theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn sides_take_turns_in_going_first() {
        let order = Mutex::new(Vec::new());
        let side = |name: &'static str| {
            let order = &order;
            async move {
                order.lock().expect("held by nobody").push(name);
                Ok(name)
            }
        };
        for round in 0..3 {
            let both = in_turn(round, side("ours"), side("theirs")).await.expect("both");
            assert_eq!(both, ("ours", "theirs"));
        }
        let order = order.into_inner().expect("held by nobody");
        assert_eq!(order, ["ours", "theirs", "theirs", "ours", "ours", "theirs"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_refused() {
        let bench = Bench::new(Vec::new(), 7, Some(2), Some("no/such/folder".into()), String::new());
        assert!(bench.is_err_and(|e| e.to_string().contains("no/such/folder")));
    }
}
