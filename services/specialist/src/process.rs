//! One specialist process: load, then serve and drain. Loading comes before binding, so that what is wrong with a folder, with
//! ONNX Runtime or with the provider is told before anybody could connect.
use crate::{
    folder::Folder,
    loader::Loader,
    server::{Doors, Inference, Service, router},
    specialist::{LoadError, Specialist},
    versions::{self, Versions},
};
use shoal_kit::{
    config,
    serve::{Bound, MAX_REQUEST_BYTES, Process, Server},
};
use shoal_proto::{
    oip::grpc_inference_service_server::GrpcInferenceServiceServer,
    v1::specialist_service_server::SpecialistServiceServer,
};
use std::path::Path;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Loads a checked folder with the ONNX Runtime at `library`, on a thread that may block.
///
/// # Errors
/// When a file of the folder, ONNX Runtime or the provider is at fault; all of it is a matter of configuration.
pub async fn load(folder: Folder, config: &config::Specialist, library: &Path) -> Result<Specialist, LoadError> {
    Loader::default().load(folder, config, library).await
}

/// Serves a specialist as `name` until `shutdown`, and whichever version `specialist.toml` comes to name, which `loader` loads. Prompts and outputs
/// go on spans only with `[telemetry] content`.
///
/// # Errors
/// When a door breaks, or the thread that runs the model stops by itself.
pub async fn serve(
    name: &str,
    specialist: Specialist,
    loader: Loader,
    config: &config::Specialist,
    telemetry: &config::Telemetry,
    bound: Bound,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    info!(
        specialist = name,
        model = specialist.identity(),
        kind = specialist.folder().card.kind.name(),
        provider = specialist.provider().name(),
        slots = config.slots,
        intra_op_threads = config.intra_op_threads,
        spin = config.spin,
        background = config.background,
        "model loaded"
    );
    let process = Process {
        name: name.to_owned(),
        version: specialist.identity(),
        provider: specialist.provider().name().to_owned(),
    };
    let versions = Versions::new(specialist, config.clone(), loader);
    let serving = versions.serving();
    let doors = Doors::new(serving.clone(), telemetry.content);
    let service =
        SpecialistServiceServer::new(Service::new(doors.clone())).max_decoding_message_size(MAX_REQUEST_BYTES);
    let inference =
        GrpcInferenceServiceServer::new(Inference::new(doors.clone())).max_decoding_message_size(MAX_REQUEST_BYTES);
    let now = serving.clone();
    let server = Server::new(process)
        .version(move || now.borrow().specialist.identity())
        .add(service)
        .add(inference)
        .http(router(doors));
    tokio::select! {
        served = server.run(bound, shutdown, config.drain) => served,
        // A model whose thread stopped under us has no answers any more: leave, and be started afresh.
        model = versions::stopped(serving) => anyhow::bail!("the model of {model} stopped by itself"),
        never = versions.keep() => match never {},
    }
}
