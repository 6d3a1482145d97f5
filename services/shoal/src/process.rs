//! One process of the mesh: configuration, telemetry, bind, announce, run until told to stop.
use crate::exit::{Failure, Result};
use clap::Args;
use shoal_kit::{
    config::{MeshConfig, Provider},
    serve, shutdown, task, telemetry,
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// What each of the four takes.
#[derive(Args, Debug, Clone, Default)]
pub struct ProcessArgs {
    /// The configuration file [default: mesh.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// gRPC address, instead of `listen` in the configuration; port 0 takes any free one
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// HTTP address (metrics, health), instead of `http_listen` in the configuration
    #[arg(long, value_name = "IP:PORT")]
    pub http_listen: Option<SocketAddr>,
    /// Once bound, write {"name", "pid", "grpc", "http"} to this file
    #[arg(long, value_name = "FILE")]
    pub announce: Option<PathBuf>,
    /// Drain and leave when standard input ends: the supervisor holds its other end
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// What a specialist takes besides.
#[derive(Args, Debug, Clone)]
pub struct SpecialistArgs {
    /// Which specialist: its table [specialist.NAME] in the configuration, or any name together with --folder
    pub name: String,
    /// The model folder, instead of `folder` in the configuration
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Execution provider, instead of `provider` in the configuration: cpu or cuda
    #[arg(long, value_parser = provider, value_name = "cpu|cuda")]
    pub provider: Option<Provider>,
    /// The same for every process.
    #[command(flatten)]
    pub process: ProcessArgs,
}

fn provider(text: &str) -> Result<Provider, String> {
    [Provider::Cpu, Provider::Cuda]
        .into_iter()
        .find(|p| p.name() == text)
        .ok_or_else(|| "give cpu or cuda".to_owned())
}

/// `shoal gateway`.
pub(crate) async fn gateway(args: ProcessArgs) -> Result<()> {
    let mut config = MeshConfig::load(args.config.as_deref())?.config;
    overrides(&args, &mut config.gateway.listen, &mut config.gateway.http_listen);
    let _telemetry = telemetry::init("gateway", &config.telemetry)?;
    shoal_gateway::check(&config).map_err(|e| Failure::usage(format!("gateway: {e:#}")))?;
    let bound = open("gateway", config.gateway.listen, config.gateway.http_listen, &args).await?;
    // Boxed: seventeen kilobytes that every caller's future would hold.
    Ok(Box::pin(shoal_gateway::run(
        &config,
        bound,
        shutdown::signal(args.exit_with_parent),
    ))
    .await?)
}

/// `shoal feedback`.
pub(crate) async fn feedback(args: ProcessArgs) -> Result<()> {
    let mut config = MeshConfig::load(args.config.as_deref())?.config;
    overrides(&args, &mut config.feedback.listen, &mut config.feedback.http_listen);
    let _telemetry = telemetry::init("feedback", &config.telemetry)?;
    shoal_feedback::check(&config.feedback).map_err(|e| Failure::usage(format!("{e:#}")))?;
    let bound = open("feedback", config.feedback.listen, config.feedback.http_listen, &args).await?;
    Ok(shoal_feedback::run(&config.feedback, bound, shutdown::signal(args.exit_with_parent)).await?)
}

/// `shoal concierge`.
pub(crate) async fn concierge(args: ProcessArgs) -> Result<()> {
    let mut config = MeshConfig::load(args.config.as_deref())?.config;
    overrides(&args, &mut config.concierge.listen, &mut config.concierge.http_listen);
    let _telemetry = telemetry::init("concierge", &config.telemetry)?;
    let (concierge, data) = (config.concierge.clone(), config.concierge);
    let world = task::blocking("recorded rows", move || shoal_concierge::load(&data)).await;
    let world = world
        .map_err(|e| Failure::internal(format!("the reading of the recorded rows broke off: {e}")))?
        .map_err(|e| Failure::usage(format!("concierge: {e:#}")))?;
    let bound = open("concierge", concierge.listen, concierge.http_listen, &args).await?;
    Ok(shoal_concierge::serve(world, &concierge, bound, shutdown::signal(args.exit_with_parent)).await?)
}

/// `shoal specialist NAME`.
pub(crate) async fn specialist(args: SpecialistArgs) -> Result<()> {
    let config = MeshConfig::load(args.process.config.as_deref())?.config;
    let name = args.name.as_str();
    let mut specialist = match config.specialist.get(name) {
        Some(known) => known.clone(),
        None if args.folder.is_some() => Default::default(),
        None => {
            let known: Vec<&str> = config.specialist.keys().map(String::as_str).collect();
            let known = if known.is_empty() {
                "none is configured".into()
            } else {
                format!("there are: {}", known.join(", "))
            };
            return Err(Failure::usage(format!(
                "no [specialist.{name}] in the configuration ({known}); name one, or give --folder"
            )));
        }
    };
    if let Some(folder) = args.folder {
        specialist.folder = Some(folder);
    }
    if let Some(provider) = args.provider {
        specialist.provider = provider;
    }
    overrides(&args.process, &mut specialist.listen, &mut specialist.http_listen);
    let folder = match &specialist.folder {
        Some(folder) if folder.is_dir() => folder.clone(),
        Some(folder) => {
            return Err(Failure::usage(format!(
                "the model folder {} of specialist {name} is not there: correct [specialist.{name}] folder, or give --folder",
                folder.display()
            )));
        }
        None => {
            return Err(Failure::usage(format!(
                "specialist {name} is served elsewhere ([specialist.{name}] has no folder): give --folder to serve it here"
            )));
        }
    };
    let specialist = config.budgeted(&specialist);
    let _telemetry = telemetry::init(name, &config.telemetry)?;
    // Before the load, which may take minutes, or for ever: whoever is told to leave before it serves leaves at once, and one that
    // hangs in its load does not outlive its parent.
    let shutdown = shutdown::signal(args.process.exit_with_parent);
    let load = async {
        // Before anything binds: what is wrong with a folder does not get better by being served.
        let opened = task::blocking("model folder check", move || {
            shoal_specialist::folder::Folder::open(&folder)
        })
        .await;
        let folder = opened
            .map_err(|e| Failure::internal(format!("the check of the model folder broke off: {e}")))?
            .map_err(|e| Failure::usage(format!("specialist {name}: {e}")))?;
        let library = crate::onnxruntime::locate(&config.onnxruntime).await?;
        // What the library refuses (a provider that is not there, a model that it cannot load) is a matter of configuration too.
        let loaded = shoal_specialist::load(folder, &specialist, &library.path).await;
        loaded.map_err(|e| Failure::usage(format!("specialist {name}: {e}")))
    };
    let Some(loaded) = shutdown.run_until_cancelled(Box::pin(load)).await else {
        return Ok(());
    };
    let loaded = loaded?;
    // Behind others only now: a load that waits for what busy neighbours leave might never end. Later versions are loaded before them, too.
    let loader =
        shoal_specialist::confine(&specialist).map_err(|e| Failure::usage(format!("specialist {name}: {e}")))?;
    let bound = open(name, specialist.listen, specialist.http_listen, &args.process).await?;
    // Boxed, as the gateway's.
    Ok(Box::pin(shoal_specialist::serve(
        name,
        loaded,
        loader,
        &specialist,
        &config.telemetry,
        bound,
        shutdown,
    ))
    .await?)
}

fn overrides(args: &ProcessArgs, listen: &mut SocketAddr, http_listen: &mut SocketAddr) {
    *listen = args.listen.unwrap_or(*listen);
    *http_listen = args.http_listen.unwrap_or(*http_listen);
}

/// Binds both doors and says where they are. An address that is taken is a matter of configuration.
async fn open(name: &str, grpc: SocketAddr, http: SocketAddr, args: &ProcessArgs) -> Result<serve::Bound> {
    let bound = serve::bind(grpc, http)
        .await
        .map_err(|e| Failure::usage(format!("{name}: {e:#}")))?;
    serve::announce(args.announce.as_deref().map(Path::new), name, &bound)?;
    Ok(bound)
}
