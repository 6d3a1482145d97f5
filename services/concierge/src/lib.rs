//! A tool server over recorded data: what the demo and the tests call, and an example of a tool server to copy.
//!
//! `world` is pure (what is there, and what it answers); `server` is the wire.

mod server;
mod world;

pub use world::{Refusal, World};

use anyhow::Context as _;
use shoal_kit::{
    config,
    serve::{self, Bound, Process},
};
use tokio_util::sync::CancellationToken;

/// Loads the world and serves it until `shutdown`.
///
/// # Errors
/// When the data cannot be read, or a door breaks.
pub async fn run(config: &config::Concierge, bound: Bound, shutdown: CancellationToken) -> anyhow::Result<()> {
    let world = World::load(&config.services, &config.results).context("[concierge] services and results")?;
    tracing::info!(services = world.services(), rows = world.rows(), "world loaded");
    let process = Process {
        name: "concierge".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        provider: String::new(),
    };
    serve::Server::new(process)
        .add(server::service(world))
        .run(bound, shutdown, config.drain)
        .await
}
