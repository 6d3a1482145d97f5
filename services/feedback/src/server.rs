//! The wire: `shoal.v1.FeedbackService`.
use crate::{
    commit::{Commits, reason},
    dataset::Wanted,
    export::Export,
    store::{Error, Filter, Store as _, sqlite::Sqlite},
};
use futures::{
    Stream, StreamExt as _,
    stream::{BoxStream, FuturesUnordered},
};
use shoal_kit::{
    propagate,
    serve::{self, MAX_REQUEST_BYTES},
    status::{self, Reason, Violation},
    task,
};
use shoal_plan::integers;
use shoal_proto::{
    time,
    v1::{self, feedback_service_server::FeedbackServiceServer, submit_feedback_request::Value},
};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, info_span};

/// An id is 1 to this many bytes.
const ID_BYTES: usize = 64;

/// A source's name at most, in bytes.
const SOURCE_BYTES: usize = 128;

/// Outcomes of one Record stream that wait for their acknowledgement: a few groups of the writer. A sender that has more is
/// read from no further, which is HTTP/2's back-pressure.
const UNACKNOWLEDGED: usize = 1024;

pub(crate) fn service(commits: Commits, reader: Sqlite, shutdown: CancellationToken) -> FeedbackServiceServer<Service> {
    let service = Service {
        commits,
        reader: Arc::new(Mutex::new(reader)),
        shutdown,
    };
    FeedbackServiceServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES)
}

/// The service.
pub(crate) struct Service {
    commits: Commits,
    /// A connection of its own, so that a long export never holds up the writer.
    reader: Arc<Mutex<Sqlite>>,
    shutdown: CancellationToken,
}

impl Service {
    /// Reads on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Sqlite) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let reader = self.reader.clone();
        let done = task::blocking("store reader", move || {
            read(&mut reader.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await;
        Ok(done
            .map_err(|e| Reason::Internal {
                message: format!("the reader ended: {e}"),
            })?
            .map_err(|e| reason(&e))?)
    }
}

#[tonic::async_trait]
impl v1::feedback_service_server::FeedbackService for Service {
    type RecordStream = BoxStream<'static, Result<v1::RecordResponse, Status>>;
    type ExportDatasetStream = BoxStream<'static, Result<v1::ExportDatasetResponse, Status>>;

    async fn record(
        &self,
        request: Request<Streaming<v1::RecordRequest>>,
    ) -> Result<Response<Self::RecordStream>, Status> {
        let span = info_span!(
            "record",
            otel.name = "shoal.v1.FeedbackService/Record",
            otel.kind = "server"
        );
        propagate::adopt(request.metadata(), &span);
        let (answers, receiver) = mpsc::channel(UNACKNOWLEDGED);
        let incoming = request.into_inner();
        let recording = record(self.commits.clone(), incoming, answers, self.shutdown.clone()).instrument(span);
        task::spawn("record stream", recording);
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn submit_feedback(
        &self,
        request: Request<v1::SubmitFeedbackRequest>,
    ) -> Result<Response<v1::SubmitFeedbackResponse>, Status> {
        let mut feedback = request.into_inner();
        check(&feedback)?;
        if feedback.feedback_id.is_empty() {
            feedback.feedback_id = uuid::Uuid::now_v7().to_string();
        }
        let feedback_id = feedback.feedback_id.clone();
        let done = self.commits.judge(feedback)?;
        done.await
            .map_err(|_| serve::draining("feedback"))?
            .map_err(|e| reason(&e))?;
        Ok(Response::new(v1::SubmitFeedbackResponse { feedback_id }))
    }

    async fn list_outcomes(
        &self,
        request: Request<v1::ListOutcomesRequest>,
    ) -> Result<Response<v1::ListOutcomesResponse>, Status> {
        let plan_id = request.into_inner().plan_id;
        let outcomes = self.read(move |store| store.of_plan(&plan_id)).await?;
        Ok(Response::new(v1::ListOutcomesResponse { outcomes }))
    }

    async fn export_dataset(
        &self,
        request: Request<v1::ExportDatasetRequest>,
    ) -> Result<Response<Self::ExportDatasetStream>, Status> {
        let request = request.into_inner();
        let format = v1::export_dataset_request::Format::try_from(request.format)
            .map_err(|_| status::invalid("format", format!("{} is no format this version knows", request.format)))?;
        let moment =
            |field: &str, t: Option<prost_types::Timestamp>| match t.as_ref().map(|t| (t, time::system_time(t))) {
                Some((t, None)) => Err(status::invalid(field, format!("{t:?} is before 1970 or out of range"))),
                other => Ok(other.and_then(|(_, at)| at)),
            };
        let filter = Filter {
            name: Some(request.name).filter(|n| !n.is_empty()),
            model: Some(request.model).filter(|m| !m.is_empty()),
            after: moment("recorded_after", request.recorded_after)?,
            before: moment("recorded_before", request.recorded_before)?,
        };
        let wanted = Wanted {
            successful_only: request.successful_only,
            corrected_only: request.corrected_only,
        };
        let limit = if request.limit == 0 { u64::MAX } else { request.limit };
        // One response may wait for a slow reader, no more: the export's memory is bounded by it and the page that is cut into such.
        let (pages, receiver) = mpsc::channel(1);
        let export = Export {
            reader: self.reader.clone(),
            filter,
            wanted,
            format,
            limit,
        };
        task::spawn("dataset export", export.run(pages, self.shutdown.clone()));
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn list_clusters(
        &self,
        _: Request<v1::ListClustersRequest>,
    ) -> Result<Response<v1::ListClustersResponse>, Status> {
        Err(Reason::NotInThisVersion { what: "ListClusters" }.into())
    }

    async fn promote(&self, _: Request<v1::PromoteRequest>) -> Result<Response<v1::PromoteResponse>, Status> {
        Err(Reason::NotInThisVersion { what: "Promote" }.into())
    }
}

/// Reads outcomes, queues them, and acknowledges each after its commit, while further ones are read.
async fn record(
    commits: Commits,
    mut incoming: impl Stream<Item = Result<v1::RecordRequest, Status>> + Unpin,
    answers: mpsc::Sender<Result<v1::RecordResponse, Status>>,
    shutdown: CancellationToken,
) {
    let mut waiting = FuturesUnordered::new();
    let mut end: Option<Result<(), Status>> = None;
    loop {
        if end.is_some() && waiting.is_empty() {
            break;
        }
        tokio::select! {
            message = incoming.next(), if end.is_none() && waiting.len() < UNACKNOWLEDGED => match message {
                Some(Ok(v1::RecordRequest { outcome: Some(outcome) })) if (1..=ID_BYTES).contains(&outcome.outcome_id.len()) => {
                    let id = outcome.outcome_id.clone();
                    match commits.append(outcome) {
                        Ok(done) => waiting.push(async move { (id, done.await) }),
                        Err(refused) => end = Some(Err(refused.into())),
                    }
                }
                Some(Ok(_)) => end = Some(Err(status::invalid("outcome.outcome_id", "an outcome needs an id of 1 to 64 bytes").into())),
                Some(Err(_)) | None => end = Some(Ok(())),
            },
            () = shutdown.cancelled(), if end.is_none() => end = Some(Err(serve::draining("feedback").into())),
            Some((id, done)) = waiting.next() => {
                let answer = match done {
                    Ok(Ok(())) => Ok(v1::RecordResponse { outcome_ids: vec![id] }),
                    Ok(Err(error)) => Err(Status::from(reason(&error))),
                    Err(_) => Err(serve::draining("feedback").into()),
                };
                match answer {
                    // A receiver that is gone gets nothing more; what it sent is committed all the same.
                    Ok(answer) => drop(answers.send(Ok(answer)).await),
                    Err(status) => end = end.and_then(Result::err).map(Err).or(Some(Err(status))),
                }
            }
        }
    }
    if let Some(Err(status)) = end {
        drop(answers.send(Err(status)).await);
    }
}

fn check(feedback: &v1::SubmitFeedbackRequest) -> Result<(), Reason> {
    let mut faults = Vec::new();
    let mut fault = |field: &str, said: &str| {
        faults.push(Violation {
            field: field.to_owned(),
            description: said.to_owned(),
        })
    };
    if !(1..=ID_BYTES).contains(&feedback.plan_id.len()) {
        fault("plan_id", "must be 1 to 64 bytes");
    }
    if feedback.node_id.len() > ID_BYTES + 8 || feedback.feedback_id.len() > ID_BYTES {
        fault("node_id", "node_id and feedback_id must be at most 64 bytes");
    }
    if feedback.source.len() > SOURCE_BYTES {
        fault("source", "must be at most 128 bytes");
    }
    // What is wrong with an answer that somebody wrote. Read again, a larger integer would be another number.
    let wrong = |text: &str| match serde_json::from_str::<serde_json::Value>(text) {
        Err(_) => Some("must be a JSON value; text needs its quotes".to_owned()),
        Ok(_) => integers::fit(text).err().map(|large| large.to_string()),
    };
    match &feedback.value {
        None => fault(
            "value",
            "set one of rating, success, comment, correction_json, demonstration_json",
        ),
        Some(Value::Rating(rating)) if !(0.0..=1.0).contains(rating) => fault("rating", "must be 0 to 1"),
        Some(Value::CorrectionJson(_) | Value::DemonstrationJson(_)) if feedback.node_id.is_empty() => {
            fault("node_id", "a correction is about a node");
        }
        Some(Value::CorrectionJson(text)) => {
            if let Some(wrong) = wrong(text) {
                fault("correction_json", &wrong);
            }
        }
        Some(Value::DemonstrationJson(text)) => {
            if let Some(wrong) = wrong(text) {
                fault("demonstration_json", &wrong);
            }
        }
        Some(_) => {}
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Reason::Invalid(faults))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correction_is_json_whose_numbers_keep_their_value() {
        let said = |correction: &str| {
            let feedback = v1::SubmitFeedbackRequest {
                plan_id: "p".into(),
                node_id: "1".into(),
                value: Some(Value::CorrectionJson(correction.into())),
                ..Default::default()
            };
            check(&feedback).map_err(|reason| reason.to_string())
        };
        assert_eq!(said(r#"{"account": 18446744073709551615}"#), Ok(()));
        for (wrong, why) in [
            ("jazz", "needs its quotes"),
            (r#"{"account": 98765432109876543210}"#, "write it as a string"),
        ] {
            let told = said(wrong).expect_err(wrong);
            assert!(told.contains("correction_json") && told.contains(why), "{told}");
        }
    }
}
