//! A process's two doors: gRPC (services, health, reflection, mesh status) and HTTP (`/metrics`, `/healthz`, more if given).
//!
//! Bind first, say where, then serve: an address in use is found before anything else starts. On shutdown, health turns
//! to NOT_SERVING, no new connection is taken, and what runs has `drain` to end; tonic alone would wait for ever.
use crate::{channel::RESETS, status::Reason, telemetry};
use anyhow::Context as _;
use axum::{Router, routing::get};
use futures::TryStreamExt as _;
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
mod together;
mod unreadable;
mod web;
pub use in_flight::{InFlight, InFlightLayer};
pub use unreadable::unreadable;
pub use web::{BODY, HEAD, Posted, Unread};

/// Bytes of one request message. Prompts are at most 1 MiB (`[gateway] max_input_bytes`); tensors of the inference
/// protocol may be larger. tonic's own limit is 4 MiB; services are built with this one, but for the gateway's PlanService, whose
/// messages may be some twice its `max_input_bytes`.
pub const MAX_REQUEST_BYTES: usize = 16 << 20;

/// Calls that one gRPC connection may have open; more wait on the client's side. tonic sets no bound unless told. Four times the
/// plans that a gateway runs (`[gateway] max_plans`), each perhaps watched, and sixteen times the calls that it has open to one
/// specialist: nobody who means well comes near it.
const STREAMS: u32 = 1024;

/// How often a gRPC connection is asked whether anybody is there, and how long the answer may take: a client that vanished without
/// a FIN holds its calls for half a minute at most.
const ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

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
        let incoming = tonic::transport::server::TcpIncoming::from(bound.grpc)
            .with_nodelay(Some(true))
            .map_ok(together::Together::new);
        let grpc = tonic::transport::Server::builder()
            .http2_max_pending_accept_reset_streams(Some(RESETS))
            .http2_max_local_error_reset_streams(Some(RESETS))
            .http2_keepalive_interval(Some(ALIVE.0))
            .http2_keepalive_timeout(Some(ALIVE.1))
            .max_concurrent_streams(STREAMS)
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
        let http = web::serve(bound.http, router, shutdown.clone());
        let both = async {
            tokio::try_join!(async { grpc.await.map_err(anyhow::Error::from) }, async {
                http.await;
                Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::{Instant, timeout},
    };
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    /// A server without services of its own; where its gRPC is.
    async fn served(shutdown: &CancellationToken) -> SocketAddr {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let bound = bind(any, any).await.expect("bound");
        let address = bound.grpc_addr().expect("an address");
        let process = Process {
            name: "test".into(),
            version: String::new(),
            provider: String::new(),
        };
        let serving = Server::new(process).run(bound, shutdown.clone(), Duration::ZERO);
        crate::task::spawn("server under test", serving);
        address
    }

    #[tokio::test]
    async fn a_connection_has_so_many_calls_open_and_the_next_waits_for_one_to_end() {
        let shutdown = CancellationToken::new();
        let _stop = shutdown.clone().drop_guard();
        let channel = crate::channel::connect_lazy(&format!("http://{}", served(&shutdown).await)).expect("a URI");
        let watch = || {
            let mut client = HealthClient::new(channel.clone());
            async move { client.watch(HealthCheckRequest::default()).await.expect("watched") }
        };
        let mut open = Vec::new();
        for _ in 0..STREAMS {
            open.push(watch().await);
        }
        let mut next = Box::pin(watch());
        assert!(timeout(Duration::from_millis(300), &mut next).await.is_err());
        open.clear();
        assert!(timeout(Duration::from_secs(30), next).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_no_ping_is_let_go() {
        let shutdown = CancellationToken::new();
        let _stop = shutdown.clone().drop_guard();
        let mut client = tokio::net::TcpStream::connect(served(&shutdown).await)
            .await
            .expect("connected");
        // A preface and empty settings, which is all that this client will ever say.
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let began = Instant::now();
        client.write_all(&hello).await.expect("sent");
        let mut said = Vec::new();
        let gone = timeout(
            ALIVE.0 + ALIVE.1 + Duration::from_secs(2),
            client.read_to_end(&mut said),
        )
        .await;
        assert!(gone.is_ok() && began.elapsed() >= ALIVE.1, "{:?}", began.elapsed());
    }
}
