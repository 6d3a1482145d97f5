//! The connection of every command that is a client of the mesh, and the trace that it starts.
use crate::{
    exit::{Failure, Result},
    supervise::{self, Options},
};
use clap::Args;
use shoal_kit::{channel, config::MeshConfig, deadline, propagate, shutdown, telemetry};
use shoal_proto::v1::{
    self, feedback_service_client::FeedbackServiceClient, mesh_service_client::MeshServiceClient,
    plan_service_client::PlanServiceClient,
};
use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming, transport::Channel};

mod local;

/// A short question's bound: status, records, cancellation. They are answered from memory.
const SHORT: Duration = Duration::from_secs(10);

/// An answer's size. A plan of 256 nodes with their inputs and outputs may be several MiB.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Which mesh a command talks to.
#[derive(Args, Debug, Clone, Default)]
pub struct ConnectArgs {
    /// The configuration file [default: mesh.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The gateway's gRPC address, instead of `[gateway] listen` in the configuration: host:port or http://host:port
    #[arg(long, value_name = "URL")]
    pub gateway: Option<String>,
    /// Start a mesh on free ports for this call, and end it afterwards
    #[arg(long, conflicts_with = "gateway")]
    pub local: bool,
}

/// A mesh that can be asked, and, with `--local`, the one that was started for it.
#[derive(Debug)]
pub struct Session {
    /// The gateway.
    pub mesh: Mesh,
    /// Cancelled by Ctrl-C.
    pub stop: CancellationToken,
    local: Option<supervise::Mesh>,
    _telemetry: telemetry::Guard,
}

impl Session {
    /// Reads the configuration, sets up telemetry (warnings only: standard error is for the person), finds or starts the mesh.
    ///
    /// # Errors
    /// A configuration error, or a mesh that did not start.
    pub async fn open(args: &ConnectArgs, command: &str) -> Result<Self> {
        let loaded = MeshConfig::load(args.config.as_deref())?;
        let mut config = loaded.config.clone();
        let _telemetry = quiet_telemetry(command, &config)?;
        let stop = shutdown::signal(false);
        let mut local = None;
        let url = if args.local {
            config = supervise::some(loaded)?;
            config.gateway.spool = local::spool(&config.gateway.spool);
            let options = Options {
                free_ports: true,
                verbose: false,
                data: None,
            };
            let mesh = supervise::Mesh::start(config, options, stop.clone()).await?;
            let url = mesh.gateway();
            local = Some(mesh);
            url
        } else {
            args.gateway
                .as_deref()
                .map_or_else(|| reachable(config.gateway.listen), with_scheme)
        };
        Ok(Self {
            mesh: Mesh::at(&url)?,
            stop,
            local,
            _telemetry,
        })
    }

    /// The answer to a question, unless the person has had enough of waiting for it.
    ///
    /// # Errors
    /// What was answered, or exit 1 after Ctrl-C.
    pub(crate) async fn ask<T>(&self, question: impl Future<Output = Result<T, Status>>) -> Result<T> {
        tokio::select! {
            answer = question => Ok(answer?),
            () = self.stop.cancelled() => Err(Failure::refused("interrupted before the gateway answered")),
        }
    }

    /// Ends a mesh that was started for this call.
    pub async fn close(self) {
        if let Some(mesh) = self.local {
            let spool = mesh.config.gateway.spool.clone();
            mesh.stop().await;
            local::leave(&spool);
        }
    }
}

/// Telemetry of a client: spans as configured, log lines from warnings on unless the configuration asks for a filter of its own.
pub(crate) fn quiet_telemetry(command: &str, config: &MeshConfig) -> Result<telemetry::Guard> {
    let mut telemetry = config.telemetry.clone();
    if telemetry.log == "info" {
        telemetry.log = "warn".into();
    }
    Ok(telemetry::init(command, &telemetry)?)
}

/// The address at which a server that listens there is reached from its own machine.
pub(crate) fn reachable(listen: SocketAddr) -> String {
    format!("http://{}", reached_at(listen))
}

/// The same as an address: who listens everywhere is called by loopback.
pub(crate) fn reached_at(listen: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match listen {
        SocketAddr::V4(a) if a.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other.ip(),
    };
    SocketAddr::new(ip, listen.port())
}

/// `host:port` is a URL to us.
pub(crate) fn with_scheme(address: &str) -> String {
    if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    }
}

/// The gateway's services.
#[derive(Debug, Clone)]
pub struct Mesh {
    channel: Channel,
}

impl Mesh {
    /// A connection that is made on first use.
    ///
    /// # Errors
    /// `url` is no URL, or one that asks for TLS.
    pub fn at(url: &str) -> Result<Self> {
        // No TLS is linked for gRPC: plaintext would go there all the same.
        if url
            .get(..8)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
        {
            return Err(Failure::usage(format!(
                "{url} asks for TLS, which shoal does not speak over gRPC: give http://host:port, or that of a proxy that adds TLS"
            )));
        }
        let channel = channel::connect_lazy(url)
            .map_err(|e| Failure::usage(format!("{url} is no address ({e}): give http://host:port")))?;
        Ok(Self { channel })
    }

    fn plans(&self) -> PlanServiceClient<Channel> {
        PlanServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }

    /// Executes a plan; the current span becomes the plan's parent.
    ///
    /// # Errors
    /// What the gateway answers.
    pub async fn execute(&self, request: v1::ExecutePlanRequest) -> Result<Streaming<v1::PlanEvent>, Status> {
        Ok(self.plans().execute_plan(traced(request)).await?.into_inner())
    }

    /// Watches a plan from an event on.
    ///
    /// # Errors
    /// What the gateway answers.
    pub async fn watch(&self, plan_id: &str, after_sequence: u64) -> Result<Streaming<v1::PlanEvent>, Status> {
        let request = v1::WatchPlanRequest {
            plan_id: plan_id.to_owned(),
            after_sequence,
        };
        Ok(self.plans().watch_plan(traced(request)).await?.into_inner())
    }

    /// Has a goal planned, runs nothing.
    ///
    /// # Errors
    /// What the gateway answers.
    pub async fn decompose(&self, goal: v1::Goal, patience: Duration) -> Result<v1::DecomposeResponse, Status> {
        let mut request = traced(v1::DecomposeRequest { goal: Some(goal) });
        deadline::set(&mut request, patience);
        Ok(self.plans().decompose(request).await?.into_inner())
    }

    /// A plan's record.
    ///
    /// # Errors
    /// What the gateway answers.
    pub async fn plan(&self, plan_id: &str) -> Result<v1::GetPlanResponse, Status> {
        let request = short(v1::GetPlanRequest {
            plan_id: plan_id.to_owned(),
        });
        Ok(self.plans().get_plan(request).await?.into_inner())
    }

    /// Cancels a plan; says where it is now.
    ///
    /// # Errors
    /// What the gateway answers.
    pub async fn cancel(&self, plan_id: &str, reason: &str) -> Result<v1::State, Status> {
        let request = short(v1::CancelPlanRequest {
            plan_id: plan_id.to_owned(),
            reason: reason.to_owned(),
        });
        Ok(self.plans().cancel_plan(request).await?.into_inner().state())
    }

    /// What runs where.
    ///
    /// # Errors
    /// What the gateway answers.
    pub async fn status(&self) -> Result<Vec<v1::ProcessStatus>, Status> {
        let mut client = MeshServiceClient::new(self.channel.clone());
        Ok(client
            .get_status(short(v1::GetStatusRequest {}))
            .await?
            .into_inner()
            .processes)
    }

    /// This connection as one to a feedback service.
    #[must_use]
    pub fn feedback(&self) -> FeedbackServiceClient<Channel> {
        FeedbackServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }
}

/// A request that carries the current span's context.
pub(crate) fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    propagate::inject(request.metadata_mut());
    request
}

/// A traced request with a short deadline.
pub(crate) fn short<T>(message: T) -> Request<T> {
    let mut request = traced(message);
    deadline::set(&mut request, SHORT);
    request
}

#[cfg(test)]
pub(crate) mod tests;
