//! One gateway process: build, look around, serve, drain.
use crate::{
    admit,
    context::Context,
    outcomes::{
        Acknowledged, Recorder, deliver,
        stored::{self, Stored},
    },
    plans::Plans,
    route::{Registry, keep},
    server::{chat, inference::Inference, mesh::Mesh, plans},
    telemetry::Instruments,
    tools,
};
use anyhow::Context as _;
use shoal_kit::{
    channel,
    config::MeshConfig,
    resolve::{Lookup, SystemLookup},
    serve::{self, Bound, MAX_REQUEST_BYTES, Process, Server},
};
use shoal_proto::{
    oip::grpc_inference_service_server::GrpcInferenceServiceServer,
    v1::{mesh_service_server::MeshServiceServer, plan_service_server::PlanServiceServer},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How long the first look at everybody may take before the doors open: specialists that load a model are looked at again.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// How long plans that were cut off at the end of the drain may take to keep their outcomes.
const CUT: Duration = Duration::from_secs(2);

/// How long the last outcomes may take to reach feedback on the way out. What does not is delivered by the next start.
const LAST: Duration = Duration::from_secs(1);

/// A gateway that is built and does not serve yet.
#[derive(Debug)]
pub struct Gateway {
    config: MeshConfig,
    registry: Arc<Registry>,
    recorder: Recorder,
    stored: Stored,
    instruments: Instruments,
    lookup: Arc<dyn Lookup>,
}

/// Takes the spool's folder and gives it back, so that an unusable one is found before anything binds.
///
/// # Errors
/// Says what is wrong with the folder and what to do.
pub fn check(config: &MeshConfig) -> anyhow::Result<()> {
    match Recorder::open(&config.gateway, &Instruments::default())? {
        Recorder::Nowhere => {}
        Recorder::Spooled(spool) => spool.close(),
    }
    Ok(())
}

/// Serves until `shutdown`, then drains: no plan is taken any more, and those that run have `[gateway] drain` to end.
///
/// # Errors
/// When the spool cannot be used, or a door breaks.
pub async fn run(config: &MeshConfig, bound: Bound, shutdown: CancellationToken) -> anyhow::Result<()> {
    Gateway::build(config)?.run(bound, shutdown).await
}

impl Gateway {
    /// Takes the spool's folder and builds every target. Nobody is called yet.
    ///
    /// # Errors
    /// When the spool cannot be used.
    pub fn build(config: &MeshConfig) -> anyhow::Result<Self> {
        let instruments = Instruments::default();
        let feedback = match config.gateway.feedback.as_str() {
            "" => None,
            url => Some(channel::connect_lazy(url).with_context(|| format!("[gateway] feedback = {url:?} is no URL"))?),
        };
        Ok(Self {
            registry: Arc::new(Registry::build(config).context("the HTTP client of the endpoints cannot be built")?),
            recorder: Recorder::open(&config.gateway, &instruments)?,
            config: config.clone(),
            stored: Stored {
                feedback,
                most_bytes: stored::MOST_BYTES,
            },
            instruments,
            lookup: Arc::new(SystemLookup),
        })
    }

    /// Looks names up elsewhere than in the system's name service.
    #[must_use]
    pub fn lookup(mut self, lookup: Arc<dyn Lookup>) -> Self {
        self.lookup = lookup;
        self
    }

    /// Reads no more bytes than these back of what feedback keeps of one plan. Default 64 MiB.
    #[must_use]
    pub fn stored_bytes(mut self, most: usize) -> Self {
        self.stored.most_bytes = most;
        self
    }

    /// Serves until `shutdown`, then drains.
    ///
    /// # Errors
    /// When a door breaks.
    pub async fn run(self, bound: Bound, shutdown: CancellationToken) -> anyhow::Result<()> {
        let gateway = &self.config.gateway;
        let plans = Plans::new(gateway.max_plans, gateway.plans_kept, self.instruments.clone());
        let context = Arc::new(Context::new(
            &self.config,
            self.registry.clone(),
            self.recorder,
            self.stored.clone(),
            plans.clone(),
            self.instruments.clone(),
        ));
        let stop = CancellationToken::new();
        let _stops_the_rest = stop.clone().drop_guard();
        let delivery = match (&context.recorder, &self.stored.feedback) {
            (Recorder::Spooled(spool), Some(feedback)) => {
                let counted = acknowledged(plans.clone());
                Some(deliver::start(
                    spool.clone(),
                    feedback.clone(),
                    counted,
                    self.instruments.clone(),
                    stop.clone(),
                ))
            }
            _ => None,
        };
        self.registry.first_look(&*self.lookup, FIRST_LOOK).await;
        for target in self.registry.targets() {
            keep::start(target.clone(), self.registry.clone(), self.lookup.clone(), stop.clone());
        }
        for server in self.registry.servers() {
            tools::keep::start(server.clone(), self.registry.clone(), self.lookup.clone(), stop.clone());
        }
        let server = doors(&context, &bound, &gateway.feedback)?;
        let (drain, leaving) = (gateway.drain, context.leaving.clone());
        let draining = async {
            shutdown.cancelled().await;
            leaving.cancel();
            // Detached plans hold no stream that the server would wait for.
            if tokio::time::timeout(drain, plans.idle()).await.is_err() {
                plans.cancel_all(&serve::draining("the gateway").into());
                drop(tokio::time::timeout(CUT, plans.idle()).await);
            }
        };
        let broken = CancellationToken::new();
        let serving = async {
            // The streams of plans that are cut off tell so before their server leaves.
            let served = server.run(bound, shutdown.clone(), drain + CUT).await;
            if !shutdown.is_cancelled() {
                broken.cancel();
            }
            served
        };
        let ending = async {
            tokio::select! {
                () = draining => {}
                () = broken.cancelled() => {}
            }
        };
        let (served, ()) = tokio::join!(serving, ending);
        leave(context, delivery, stop).await;
        served
    }
}

/// Both doors, with everything behind them.
fn doors(context: &Arc<Context>, bound: &Bound, feedback: &str) -> anyhow::Result<Server> {
    let process = Process {
        name: "gateway".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        provider: String::new(),
    };
    let server = Server::new(process).without_mesh_status();
    let mesh = Mesh {
        context: context.clone(),
        address: bound.grpc_addr()?,
        in_flight: server.in_flight(),
        feedback: feedback.to_owned(),
    };
    let plans = PlanServiceServer::new(plans::Plans(context.clone()))
        .max_decoding_message_size(admit::message_bytes(&context.config));
    let inference =
        GrpcInferenceServiceServer::new(Inference(context.clone())).max_decoding_message_size(MAX_REQUEST_BYTES);
    Ok(server
        .add(plans)
        .add(inference)
        .add(MeshServiceServer::new(mesh))
        .http(chat::router(context.clone())))
}

/// Counts acknowledgements on the plans that they belong to.
fn acknowledged(plans: Plans) -> Acknowledged {
    Arc::new(move |plan_id| {
        if let Some(plan) = plans.get(plan_id) {
            plan.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    })
}

/// The last outcomes, and the spool's folder given back.
async fn leave(context: Arc<Context>, delivery: Option<tokio::task::JoinHandle<()>>, stop: CancellationToken) {
    let Recorder::Spooled(spool) = &context.recorder else {
        return;
    };
    let spool = spool.clone();
    deliver::emptied(&spool, LAST).await;
    stop.cancel();
    if let Some(delivery) = delivery {
        drop(delivery.await);
    }
    drop(context);
    let closed = shoal_kit::task::blocking("spool close", move || spool.close());
    drop(closed.await);
}
