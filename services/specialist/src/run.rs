//! One specialist process: load, serve, drain.
use crate::{
    server::{Inference, Service, router},
    specialist::Specialist,
};
use anyhow::Context as _;
use shoal_kit::{
    config,
    serve::{Bound, Process, Server},
};
use shoal_proto::{
    oip::grpc_inference_service_server::GrpcInferenceServiceServer,
    v1::specialist_service_server::SpecialistServiceServer,
};
use std::{path::Path, sync::Arc};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Bytes of a message that is decoded: a context of 100,000 tokens is under a megabyte of text.
const MESSAGE_BYTES: usize = 16 << 20;

/// Loads the specialist `name` with the ONNX Runtime at `library`, and serves it until `shutdown`.
///
/// # Errors
/// When the folder, ONNX Runtime or a door is at fault, or the engine stops by itself.
pub async fn run(
    name: &str,
    config: &config::Specialist,
    library: &Path,
    bound: Bound,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let folder = config.folder.as_deref();
    let folder = folder
        .with_context(|| format!("[specialist.{name}] has no `folder`: name the folder that holds specialist.toml"))?;
    let specialist = Arc::new(Specialist::load(folder, config, library)?);
    info!(
        specialist = name,
        model = specialist.identity(),
        kind = specialist.folder().card.kind.name(),
        provider = specialist.provider().name(),
        slots = config.slots,
        "model loaded"
    );
    let process = Process {
        name: name.to_owned(),
        version: specialist.identity(),
        provider: specialist.provider().name().to_owned(),
    };
    let service =
        SpecialistServiceServer::new(Service::new(specialist.clone())).max_decoding_message_size(MESSAGE_BYTES);
    let inference =
        GrpcInferenceServiceServer::new(Inference::new(specialist.clone())).max_decoding_message_size(MESSAGE_BYTES);
    let server = Server::new(process)
        .add(service)
        .add(inference)
        .http(router(specialist.clone()));
    let stopped = specialist
        .engine()
        .map(crate::engine::Engine::stopped)
        .unwrap_or_default();
    tokio::select! {
        served = server.run(bound, shutdown, config.drain) => served,
        // An engine that stopped under us has no answers any more: leave, and be started afresh.
        () = stopped.cancelled() => anyhow::bail!("the engine of {} stopped by itself", specialist.identity()),
    }
}
