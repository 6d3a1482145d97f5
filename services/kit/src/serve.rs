//! A process's two doors: gRPC (services, health, reflection, mesh status) and HTTP (`/metrics`, `/healthz`, more if given).
//!
//! Bind first, say where, then serve: an address in use is found before anything else starts. On shutdown, health turns
//! to NOT_SERVING, no new connection is taken, and what runs has `drain` to end; tonic alone would wait for ever.
use crate::{channel::RESETS, status::Reason, telemetry};
use anyhow::Context as _;
use axum::{Router, routing::get};
use shoal_proto::{DESCRIPTORS, v1};
use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, server::NamedService, service::Routes};
use tracing::{info, warn};

mod in_flight;
mod unreadable;
pub use in_flight::{InFlight, InFlightLayer};
pub use unreadable::unreadable;

/// Bytes of one request message. Prompts are at most 1 MiB (`[gateway] max_input_bytes`); tensors of the inference
/// protocol may be larger. tonic's own limit is 4 MiB; services are built with this one.
pub const MAX_REQUEST_BYTES: usize = 16 << 20;

/// Both doors, bound and not yet served.
#[derive(Debug)]
pub struct Bound {
    /// gRPC.
    pub grpc: TcpListener,
    /// HTTP.
    pub http: TcpListener,
}

impl Bound {
    /// Where gRPC is.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub fn grpc_addr(&self) -> std::io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// Where HTTP is.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub fn http_addr(&self) -> std::io::Result<SocketAddr> {
        self.http.local_addr()
    }
}

/// Binds both doors. Port 0 takes any free one.
///
/// # Errors
/// When an address is taken or not of this machine; the message names the key to change.
pub async fn bind(grpc: SocketAddr, http: SocketAddr) -> anyhow::Result<Bound> {
    let one = async |key: &str, address: SocketAddr| {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}: set another `{key}`, or stop what holds it"))
    };
    Ok(Bound {
        grpc: one("listen", grpc).await?,
        http: one("http_listen", http).await?,
    })
}

/// Says where a process can be reached: in the log and, for a supervisor, as JSON in a file that appears whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn announce(path: Option<&Path>, process: &str, bound: &Bound) -> anyhow::Result<()> {
    let (grpc, http) = (bound.grpc_addr()?, bound.http_addr()?);
    info!(%grpc, %http, "listening");
    let Some(path) = path else { return Ok(()) };
    let line = serde_json::json!({"name": process, "pid": std::process::id(), "grpc": grpc.to_string(), "http": http.to_string()});
    let temporary = path.with_extension("partial");
    std::fs::write(&temporary, line.to_string())
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("cannot announce in {}", path.display()))
}

/// What a process says of itself.
#[derive(Debug, Clone)]
pub struct Process {
    /// "gateway", "feedback", "concierge", or the specialist's name.
    pub name: String,
    /// Of the binary, or "name@version" of the model.
    pub version: String,
    /// "cpu", "cuda", or empty.
    pub provider: String,
}

/// A process's services, gathered before they are served.
pub struct Server {
    process: Process,
    routes: tonic::service::RoutesBuilder,
    names: Vec<&'static str>,
    http: Router,
    in_flight: InFlight,
    mesh_status: bool,
    version: Version,
}

/// Says which version serves at the moment of the question.
type Version = Arc<dyn Fn() -> String + Send + Sync>;

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("process", &self.process)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server that so far answers health, reflection and mesh status.
    #[must_use]
    pub fn new(process: Process) -> Self {
        let version = process.version.clone();
        Self {
            process,
            version: Arc::new(move || version.clone()),
            routes: Routes::builder(),
            names: Vec::new(),
            http: Router::new(),
            in_flight: InFlight::default(),
            mesh_status: true,
        }
    }

    /// Leaves MeshService to the caller: the gateway answers for the whole mesh.
    #[must_use]
    pub fn without_mesh_status(mut self) -> Self {
        self.mesh_status = false;
        self
    }

    /// Where the version may change while the process serves: what says it now, in place of [`Process::version`].
    #[must_use]
    pub fn version(mut self, now: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.version = Arc::new(now);
        self
    }

    /// Calls being answered, health, reflection and status not counted.
    #[must_use]
    pub fn in_flight(&self) -> Arc<AtomicU64> {
        self.in_flight.counter()
    }

    /// Adds a gRPC service; health will say SERVING for it.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "a builder's word, as in tonic")]
    pub fn add<S>(mut self, service: S) -> Self
    where
        S: tower::Service<http::Request<tonic::body::Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    /// Adds HTTP routes beside `/metrics` and `/healthz`.
    #[must_use]
    pub fn http(mut self, router: Router) -> Self {
        self.http = self.http.merge(router);
        self
    }

    /// Serves until `shutdown`, then drains for at most `drain`.
    ///
    /// # Errors
    /// When a door breaks while it is open.
    pub async fn run(mut self, bound: Bound, shutdown: CancellationToken, drain: Duration) -> anyhow::Result<()> {
        let address = bound.grpc_addr()?.to_string();
        let (health, health_service) = tonic_health::server::health_reporter();
        for name in &self.names {
            health
                .set_service_status(*name, tonic_health::ServingStatus::Serving)
                .await;
        }
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        self.routes.add_service(health_service).add_service(reflection);
        if self.mesh_status {
            let own = OwnStatus {
                process: self.process.clone(),
                version: self.version.clone(),
                address,
                in_flight: self.in_flight.counter(),
                draining: shutdown.clone(),
            };
            self.routes
                .add_service(v1::mesh_service_server::MeshServiceServer::new(own));
        }
        let (down, names) = (shutdown.clone(), self.names.clone());
        let reporter = health.clone();
        // `Server::tcp_nodelay` counts only for sockets that tonic binds itself; without it a small answer waits 40 ms for an ACK.
        let incoming = tonic::transport::server::TcpIncoming::from(bound.grpc).with_nodelay(Some(true));
        let grpc = tonic::transport::Server::builder()
            .http2_max_pending_accept_reset_streams(Some(RESETS))
            .http2_max_local_error_reset_streams(Some(RESETS))
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .layer(InFlightLayer::new(self.in_flight.clone()))
            .layer(unreadable::UnreadableLayer)
            .add_routes(self.routes.routes())
            .serve_with_incoming_shutdown(incoming, async move {
                down.cancelled().await;
                for name in names {
                    reporter
                        .set_service_status(name, tonic_health::ServingStatus::NotServing)
                        .await;
                }
                reporter
                    .set_service_status("", tonic_health::ServingStatus::NotServing)
                    .await;
            });
        let ready = shutdown.clone();
        let router = self
            .http
            .route("/metrics", get(async || telemetry::render_metrics()))
            .route("/healthz", get(async move || healthz(&ready)));
        // HTTP leaves at once: what it serves besides metrics are doors into the same work, which gRPC's drain waits for.
        let web = shutdown.clone();
        let http = axum::serve(bound.http, router).with_graceful_shutdown(async move { web.cancelled().await });
        let both = async {
            tokio::try_join!(async { grpc.await.map_err(anyhow::Error::from) }, async {
                http.await.map_err(anyhow::Error::from)
            })
        };
        tokio::select! {
            served = both => served.map(|_| ()).context("a door broke"),
            () = async { shutdown.cancelled().await; tokio::time::sleep(drain).await } => {
                warn!(drain_seconds = drain.as_secs_f64(), in_flight = self.in_flight.now(), "drain ran out, leaving calls behind");
                Ok(())
            }
        }
    }
}

fn healthz(shutdown: &CancellationToken) -> (http::StatusCode, &'static str) {
    if shutdown.is_cancelled() {
        (http::StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (http::StatusCode::OK, "ok\n")
    }
}

struct OwnStatus {
    process: Process,
    version: Version,
    address: String,
    in_flight: Arc<AtomicU64>,
    draining: CancellationToken,
}

#[tonic::async_trait]
impl v1::mesh_service_server::MeshService for OwnStatus {
    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::GetStatusResponse>, Status> {
        let state = if self.draining.is_cancelled() {
            "draining"
        } else {
            "serving"
        };
        let own = v1::ProcessStatus {
            name: self.process.name.clone(),
            pid: std::process::id(),
            address: self.address.clone(),
            state: state.to_owned(),
            version: (self.version)(),
            provider: self.process.provider.clone(),
            in_flight: self.in_flight.load(std::sync::atomic::Ordering::Relaxed),
        };
        Ok(Response::new(v1::GetStatusResponse { processes: vec![own] }))
    }
}

/// For services that must refuse while the process leaves.
#[must_use]
pub fn draining(what: &str) -> Reason {
    Reason::Unavailable {
        message: format!("{what} is shutting down"),
        retry_after: Duration::from_secs(1),
    }
}
