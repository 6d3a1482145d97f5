//! A gateway of the test's own, on free ports.
use super::plan::Ran;
use shoal_gateway::{Gateway, Lookup};
use shoal_kit::{
    channel,
    config::{self, MeshConfig},
    serve,
};
use shoal_proto::v1::{self, mesh_service_client::MeshServiceClient, plan_service_client::PlanServiceClient};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming, transport::Channel};

/// What the gateway is configured with.
#[derive(Clone)]
pub(crate) struct Mesh {
    pub(crate) config: MeshConfig,
    lookup: Option<Arc<dyn Lookup>>,
    stored_bytes: Option<usize>,
}

impl Mesh {
    /// Nobody is there, and no outcome is kept.
    pub(crate) fn new() -> Self {
        let mut config = MeshConfig::default();
        config.gateway.feedback = String::new();
        Self {
            config,
            lookup: None,
            stored_bytes: None,
        }
    }

    pub(crate) fn specialist(mut self, name: &str, url: &str) -> Self {
        let specialist = config::Specialist {
            endpoints: vec![url.to_owned()],
            ..config::Specialist::default()
        };
        self.config.specialist.insert(name.to_owned(), specialist);
        self
    }

    pub(crate) fn task(mut self, name: &str, chain: &[&str]) -> Self {
        let task = config::Task {
            chain: chain.iter().map(|c| (*c).to_owned()).collect(),
            ..config::Task::default()
        };
        self.config.task.insert(name.to_owned(), task);
        self
    }

    pub(crate) fn endpoint(mut self, name: &str, base_url: &str, change: impl FnOnce(&mut config::Endpoint)) -> Self {
        let mut endpoint = config::Endpoint {
            base_url: base_url.to_owned(),
            model: "large".into(),
            external: false,
            ..config::Endpoint::default()
        };
        change(&mut endpoint);
        self.config.endpoint.insert(name.to_owned(), endpoint);
        self
    }

    pub(crate) fn tools(mut self, url: &str) -> Self {
        let server = config::ToolServer {
            endpoint: url.to_owned(),
            ..config::ToolServer::default()
        };
        self.config.tools.insert("concierge".into(), server);
        self
    }

    pub(crate) fn feedback(mut self, url: &str) -> Self {
        self.config.gateway.feedback = url.to_owned();
        self
    }

    pub(crate) fn change(mut self, change: impl FnOnce(&mut MeshConfig)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) fn lookup(mut self, lookup: Arc<dyn Lookup>) -> Self {
        self.lookup = Some(lookup);
        self
    }

    /// So many bytes of a plan's stored outcomes are read back.
    pub(crate) fn stored_bytes(mut self, most: usize) -> Self {
        self.stored_bytes = Some(most);
        self
    }

    pub(crate) async fn start(self) -> World {
        let folder = tempfile::tempdir().expect("folder");
        let spool = folder.path().join("spool");
        self.start_in(spool, Some(folder)).await
    }

    /// With a spool that was there before.
    pub(crate) async fn start_in(mut self, spool: PathBuf, folder: Option<TempDir>) -> World {
        self.config.gateway.spool = spool;
        let any = ([127, 0, 0, 1], 0).into();
        let bound = serve::bind(any, any).await.expect("bound");
        let (grpc, http) = (bound.grpc_addr().expect("address"), bound.http_addr().expect("address"));
        let mut gateway = Gateway::build(&self.config).expect("built");
        if let Some(lookup) = self.lookup {
            gateway = gateway.lookup(lookup);
        }
        if let Some(most) = self.stored_bytes {
            gateway = gateway.stored_bytes(most);
        }
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(gateway.run(bound, shutdown.clone()));
        let grpc = format!("http://{grpc}");
        let channel = channel::connect_lazy(&grpc).expect("URL");
        World {
            grpc,
            http: format!("http://{http}"),
            channel,
            shutdown,
            running: Some(running),
            _folder: folder,
        }
    }
}

/// A gateway at work.
pub(crate) struct World {
    pub(crate) grpc: String,
    pub(crate) http: String,
    pub(crate) channel: Channel,
    pub(crate) shutdown: CancellationToken,
    running: Option<JoinHandle<anyhow::Result<()>>>,
    _folder: Option<TempDir>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    pub(crate) fn plans(&self) -> PlanServiceClient<Channel> {
        PlanServiceClient::new(self.channel.clone()).max_encoding_message_size(1 << 30)
    }

    pub(crate) async fn open(&self, request: v1::ExecutePlanRequest) -> Result<Streaming<v1::PlanEvent>, Status> {
        Ok(self.plans().execute_plan(request).await?.into_inner())
    }

    /// Runs a plan to its end.
    pub(crate) async fn run(&self, request: v1::ExecutePlanRequest) -> Ran {
        let stream = self.open(request).await.expect("admitted");
        tokio::time::timeout(Duration::from_secs(60), Ran::through(stream))
            .await
            .expect("a plan ends")
    }

    /// Why a plan is refused.
    pub(crate) async fn refused(&self, request: v1::ExecutePlanRequest) -> Status {
        self.open(request).await.expect_err("refused")
    }

    pub(crate) async fn record(&self, plan_id: &str) -> Result<v1::GetPlanResponse, Status> {
        let request = v1::GetPlanRequest {
            plan_id: plan_id.to_owned(),
        };
        Ok(self.plans().get_plan(request).await?.into_inner())
    }

    pub(crate) async fn watch(&self, plan_id: &str, after_sequence: u64) -> Result<Streaming<v1::PlanEvent>, Status> {
        let request = v1::WatchPlanRequest {
            plan_id: plan_id.to_owned(),
            after_sequence,
        };
        Ok(self.plans().watch_plan(request).await?.into_inner())
    }

    pub(crate) async fn cancel(&self, plan_id: &str) -> Result<v1::State, Status> {
        let request = v1::CancelPlanRequest {
            plan_id: plan_id.to_owned(),
            reason: "the test says so".into(),
        };
        Ok(self.plans().cancel_plan(request).await?.into_inner().state())
    }

    pub(crate) async fn status(&self) -> Vec<v1::ProcessStatus> {
        let mut client = MeshServiceClient::new(self.channel.clone());
        let answer = client.get_status(Request::new(v1::GetStatusRequest {})).await;
        answer.expect("status").into_inner().processes
    }

    /// Asks it to leave, and waits until it has.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        let running = self.running.take().expect("running");
        running.await.expect("no panic").expect("served");
    }
}
