//! Outcomes and feedback on disk, datasets out of them.
//!
//! One way through: `server` (the wire) -> `commit` (bounded queue, one writer thread, group commit) -> `store` (the trait, and
//! SQLite behind it). Out again: `export` pages through the store, and `dataset`, which is pure, makes a training row of an outcome and
//! what was said of it.

mod commit;
mod dataset;
mod export;
mod server;
pub mod store;

use anyhow::Context as _;
use shoal_kit::{
    config,
    serve::{self, Bound, Process},
};
use store::sqlite::Sqlite;
use tokio_util::sync::CancellationToken;

/// Opens the store once, so that an unwritable folder or a corrupt file is found before anything binds.
///
/// # Errors
/// Says what is wrong with the file and what to do.
pub fn check(config: &config::Feedback) -> anyhow::Result<()> {
    Sqlite::open(&config.store)
        .map(drop)
        .with_context(|| format!("[feedback] store = {:?}", config.store.display().to_string()))
}

/// Serves until `shutdown`; what was queued by then is committed before it returns.
///
/// # Errors
/// When the store cannot be opened, or a door breaks.
pub async fn run(config: &config::Feedback, bound: Bound, shutdown: CancellationToken) -> anyhow::Result<()> {
    let named = || format!("[feedback] store = {:?}", config.store.display().to_string());
    let writer = Sqlite::open(&config.store).with_context(named)?;
    let reader = Sqlite::open(&config.store).with_context(named)?;
    let (commits, thread) = commit::start(Box::new(writer), config.queue)?;
    let process = Process {
        name: "feedback".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        provider: String::new(),
    };
    let service = server::service(commits.clone(), reader, shutdown.clone());
    let served = serve::Server::new(process)
        .add(service)
        .run(bound, shutdown, config.drain)
        .await;
    // Connections that the drain left behind still hold the service: the writer is told, or it would wait for their clients.
    commits.end().await;
    let ended = tokio::task::block_in_place(|| thread.join());
    if ended.is_err() {
        tracing::error!("the writer thread panicked");
    }
    served
}

#[cfg(test)]
mod tests;
