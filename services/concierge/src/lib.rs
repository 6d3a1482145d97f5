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

/// Reads what there is to answer from. It takes a second or two, and what is wrong with the files is found before anything binds.
///
/// # Errors
/// With the file and, for rows, the line.
pub fn load(config: &config::Concierge) -> anyhow::Result<World> {
    World::load(&config.services, &config.results).context("[concierge] services and results")
}

/// Serves a world until `shutdown`.
///
/// # Errors
/// When a door breaks.
pub async fn serve(
    world: World,
    config: &config::Concierge,
    bound: Bound,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
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
