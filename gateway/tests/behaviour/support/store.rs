//! A feedback service in memory: what it has acknowledged outlives its process, as with a disk.
use super::process::{Killable, anywhere};
use futures::{StreamExt as _, stream::BoxStream};
use shoal_kit::status::Reason;
use shoal_proto::v1::{
    self,
    feedback_service_server::{FeedbackService, FeedbackServiceServer},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tonic::{Request, Response, Status, Streaming};

/// What is on its disk.
#[derive(Default)]
pub(crate) struct Disk {
    outcomes: Mutex<Vec<v1::Outcome>>,
    /// Copies of outcomes that were there already.
    pub(crate) again: AtomicUsize,
    /// Outcomes are stored, and their acknowledgements never sent.
    pub(crate) mute: AtomicBool,
    /// Outcomes are read and not stored, as by a process that is killed before its commit.
    pub(crate) deaf: AtomicBool,
    /// Outcomes that were read and not stored.
    pub(crate) unheard: AtomicUsize,
}

impl Disk {
    pub(crate) fn all(&self) -> Vec<v1::Outcome> {
        self.outcomes.lock().expect("disk").clone()
    }

    pub(crate) fn of(&self, plan_id: &str) -> Vec<v1::Outcome> {
        self.all().into_iter().filter(|o| o.plan_id == plan_id).collect()
    }

    /// The one outcome of a node.
    pub(crate) fn node(&self, plan_id: &str, node_id: &str) -> Option<v1::Outcome> {
        self.of(plan_id).into_iter().find(|o| o.node_id == node_id)
    }

    fn keep(&self, outcome: v1::Outcome) {
        let mut kept = self.outcomes.lock().expect("disk");
        if kept.iter().any(|o| o.outcome_id == outcome.outcome_id) {
            self.again.fetch_add(1, Ordering::SeqCst);
        } else {
            kept.push(outcome);
        }
    }
}

/// A process over the disk.
pub(crate) fn start(disk: &Arc<Disk>) -> Killable {
    start_at(anywhere(), disk)
}

/// The same, at an address.
pub(crate) fn start_at(address: SocketAddr, disk: &Arc<Disk>) -> Killable {
    let stub = Stub(disk.clone());
    Killable::serve(address, "feedback", |s| s.add(FeedbackServiceServer::new(stub)))
}

struct Stub(Arc<Disk>);

fn absent<T>() -> Result<T, Status> {
    Err(Reason::NotInThisVersion { what: "this" }.into())
}

#[tonic::async_trait]
impl FeedbackService for Stub {
    type RecordStream = BoxStream<'static, Result<v1::RecordResponse, Status>>;
    type ExportDatasetStream = BoxStream<'static, Result<v1::ExportDatasetResponse, Status>>;

    async fn record(
        &self,
        request: Request<Streaming<v1::RecordRequest>>,
    ) -> Result<Response<Self::RecordStream>, Status> {
        let disk = self.0.clone();
        let answers = request.into_inner().filter_map(move |message| {
            let disk = disk.clone();
            async move {
                let outcome = message.ok()?.outcome?;
                if disk.deaf.load(Ordering::SeqCst) {
                    disk.unheard.fetch_add(1, Ordering::SeqCst);
                    return None;
                }
                let id = outcome.outcome_id.clone();
                disk.keep(outcome);
                let told = v1::RecordResponse { outcome_ids: vec![id] };
                (!disk.mute.load(Ordering::SeqCst)).then_some(Ok(told))
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn list_outcomes(
        &self,
        request: Request<v1::ListOutcomesRequest>,
    ) -> Result<Response<v1::ListOutcomesResponse>, Status> {
        let outcomes = self.0.of(&request.into_inner().plan_id);
        Ok(Response::new(v1::ListOutcomesResponse { outcomes }))
    }

    async fn submit_feedback(
        &self,
        _: Request<v1::SubmitFeedbackRequest>,
    ) -> Result<Response<v1::SubmitFeedbackResponse>, Status> {
        absent()
    }
    async fn export_dataset(
        &self,
        _: Request<v1::ExportDatasetRequest>,
    ) -> Result<Response<Self::ExportDatasetStream>, Status> {
        absent()
    }
    async fn list_clusters(
        &self,
        _: Request<v1::ListClustersRequest>,
    ) -> Result<Response<v1::ListClustersResponse>, Status> {
        absent()
    }
    async fn promote(&self, _: Request<v1::PromoteRequest>) -> Result<Response<v1::PromoteResponse>, Status> {
        absent()
    }
}
