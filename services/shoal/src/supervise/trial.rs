//! One specialist by itself, for as long as it takes to be healthy: whether a model can be served, seen by serving it. A model that takes its
//! process down takes down that one.
use super::{
    START,
    keeper::{Keeper, Logs, Outside},
    layout,
};
use crate::exit::{Failure, Result};
use shoal_kit::config::MeshConfig;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// Starts the only specialist of `config` on free ports and ends it once it is healthy. `scratch` is an empty folder, whose files are of no use afterwards.
///
/// # Errors
/// It ended before, which is what a folder at fault comes to, or was not healthy in time; its last words are in the message.
pub(crate) async fn trial(config: MeshConfig, scratch: &Path, stop: &CancellationToken) -> Result<()> {
    let mut config = layout::absolute(config)?;
    layout::free_ports(&mut config);
    let processes = layout::processes(&config);
    let specialist = processes.into_iter().find(|p| p.kind == layout::Kind::Specialist);
    let specialist = specialist.ok_or_else(|| Failure::internal("a trial of no specialist"))?;
    let file = scratch.join("mesh.toml");
    let text = toml::to_string(&config).map_err(|e| Failure::internal(format!("configuration: {e}")))?;
    std::fs::write(&file, text).map_err(|e| Failure::usage(format!("cannot write {}: {e}", file.display())))?;
    let outside = Outside {
        program: std::env::current_exe().map_err(|e| Failure::internal(format!("where is this program? {e}")))?,
        run: scratch.to_owned(),
        logs: Logs::Passing(scratch.to_owned()),
    };
    let starting = tokio::time::timeout(START, Keeper::start(specialist, file, outside));
    let started = tokio::select! {
        started = starting => started,
        () = stop.cancelled() => return Err(Failure::refused("interrupted")),
    };
    let (_, started) = started.map_err(|_| Failure::unavailable(format!("it was not healthy after {START:?}")))?;
    started?.stop().await;
    Ok(())
}
