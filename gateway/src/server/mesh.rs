//! shoal.v1.MeshService of the whole mesh: this process first, then every peer that it is configured with.
use crate::{context::Context, route::stack::Endpoint};
use futures::future::{BoxFuture, join_all};
use shoal_kit::deadline;
use shoal_proto::v1::{self, mesh_service_client::MeshServiceClient, mesh_service_server::MeshService};
use shoal_stack::balance::Endpoints;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tonic::{Code, Request, Response, Status, transport::Channel};

/// One peer's time to answer: from memory, and inside one data centre. They are asked side by side.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) context: Arc<Context>,
    pub(crate) address: SocketAddr,
    pub(crate) in_flight: Arc<AtomicU64>,
    /// Where feedback is, as it is configured.
    pub(crate) feedback: String,
}

#[tonic::async_trait]
impl MeshService for Mesh {
    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::GetStatusResponse>, Status> {
        let own = v1::ProcessStatus {
            name: "gateway".into(),
            pid: std::process::id(),
            address: self.address.to_string(),
            state: if self.context.leaving.is_cancelled() {
                "draining"
            } else {
                "serving"
            }
            .into(),
            version: env!("CARGO_PKG_VERSION").into(),
            provider: String::new(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        };
        let mut peers: Vec<BoxFuture<'_, v1::ProcessStatus>> = Vec::new();
        if let Some(channel) = &self.context.stored.feedback {
            let address = self.feedback.trim_start_matches("http://").trim_end_matches('/');
            peers.push(Box::pin(ask("feedback".into(), address.into(), channel.clone(), false)));
        }
        for server in self.context.registry.servers() {
            let replicas = server.replicas.all();
            if replicas.is_empty() {
                peers.push(Box::pin(std::future::ready(unreachable(&server.name, ""))));
            }
            for (address, channel) in replicas {
                let open = open(&server.endpoints, &address);
                peers.push(Box::pin(ask(server.name.clone(), address, channel, open)));
            }
        }
        for (target, replicas) in self.context.registry.specialists() {
            let replicas = replicas.all();
            if replicas.is_empty() {
                peers.push(Box::pin(std::future::ready(unreachable(&target.name, ""))));
            }
            for (address, channel) in replicas {
                let open = open(&target.endpoints, &address);
                peers.push(Box::pin(ask(target.name.clone(), address, channel, open)));
            }
        }
        let mut processes = vec![own];
        processes.extend(join_all(peers).await);
        Ok(Response::new(v1::GetStatusResponse { processes }))
    }
}

/// Whether calls to that address are broken off.
fn open<R, T>(endpoints: &Endpoints<Endpoint<R, T>>, address: &str) -> bool {
    endpoints
        .list()
        .iter()
        .any(|e| &*e.address == address && !e.breaker.ready())
}

/// What a peer says of itself; `open` is what we say of it.
async fn ask(name: Arc<str>, address: Arc<str>, channel: Channel, open: bool) -> v1::ProcessStatus {
    let mut request = Request::new(v1::GetStatusRequest {});
    deadline::set(&mut request, PATIENCE);
    let answer = tokio::time::timeout(PATIENCE, MeshServiceClient::new(channel).get_status(request)).await;
    let mut status = match answer {
        Ok(Ok(answer)) => match answer.into_inner().processes.into_iter().next() {
            Some(status) => status,
            None => reached(&name),
        },
        // A tool server of somebody else's need not speak of itself: that it answers is enough.
        Ok(Err(status)) if status.code() == Code::Unimplemented => reached(&name),
        Ok(Err(_)) | Err(_) => return unreachable(&name, &address),
    };
    // The address at which it was reached, which is what a reader can use: a container knows itself as 0.0.0.0.
    status.address = address.to_string();
    if open && status.state == "serving" {
        status.state = "open".into();
    }
    status
}

fn reached(name: &str) -> v1::ProcessStatus {
    v1::ProcessStatus {
        name: name.to_owned(),
        state: "serving".into(),
        ..v1::ProcessStatus::default()
    }
}

fn unreachable(name: &str, address: &str) -> v1::ProcessStatus {
    v1::ProcessStatus {
        name: name.to_owned(),
        address: address.to_owned(),
        state: "unreachable".into(),
        ..v1::ProcessStatus::default()
    }
}
