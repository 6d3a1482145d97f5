//! The service behind its doors, and how it leaves.
use super::*;
use crate::store::{Filter, Store as _, suite::outcome};
use shoal_kit::task;
use shoal_proto::v1::{self, feedback_service_client::FeedbackServiceClient};
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Longer than any of this takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Outcomes of two kilobytes each: several pages, of which each is larger than what a connection takes that nobody reads.
const OUTCOMES: usize = 900;

/// Keeps [`OUTCOMES`] and returns once all are acknowledged, with the stream that stays open.
async fn record(
    client: &mut FeedbackServiceClient<tonic::transport::Channel>,
) -> (mpsc::Sender<v1::RecordRequest>, tonic::Streaming<v1::RecordResponse>) {
    let (sender, receiver) = mpsc::channel(OUTCOMES);
    for i in 0..OUTCOMES {
        let outcome = v1::Outcome {
            input_json: format!("{:?}", "x".repeat(2048)),
            ..outcome(&format!("o{i}"), "p", &i.to_string())
        };
        let request = v1::RecordRequest { outcome: Some(outcome) };
        sender.try_send(request).expect("there is room for all");
    }
    let mut answers = client
        .record(ReceiverStream::new(receiver))
        .await
        .expect("record")
        .into_inner();
    let mut acknowledged = 0;
    while acknowledged < OUTCOMES {
        let answer = answers.message().await.expect("acknowledged").expect("not the end");
        acknowledged += answer.outcome_ids.len();
    }
    (sender, answers)
}

fn kept(store: &Path) -> usize {
    let mut store = Sqlite::open(store).expect("open");
    store.page(&Filter::default(), 0, usize::MAX).expect("page").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_up_no_end_and_what_was_acknowledged_is_kept() {
    let folder = tempfile::tempdir().expect("tempdir");
    let config = config::Feedback {
        store: folder.path().join("outcomes.sqlite"),
        drain: Duration::from_millis(200),
        ..config::Feedback::default()
    };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let bound = serve::bind(any, any).await.expect("bound");
    let address = format!("http://{}", bound.grpc_addr().expect("address"));
    let (shutdown, store) = (CancellationToken::new(), config.store.clone());
    let stop = shutdown.clone();
    let served = task::spawn("feedback under test", async move { run(&config, bound, stop).await });

    // tonic's own settings: a stream whose window is 64 KiB, as that of a client that is not ours.
    let channel = tonic::transport::Endpoint::from_shared(address)
        .expect("a URI")
        .connect_lazy();
    let mut client = FeedbackServiceClient::new(channel);
    let _recording = record(&mut client).await;
    let export = client.export_dataset(v1::ExportDatasetRequest::default()).await;
    let mut export = export.expect("export").into_inner();
    let mut rows = export
        .message()
        .await
        .expect("a page")
        .expect("not the end")
        .lines
        .len();

    shutdown.cancel();
    let served = tokio::time::timeout(PATIENCE, served)
        .await
        .expect("in time")
        .expect("no panic");
    served.expect("no door broke");
    assert_eq!(kept(&store), OUTCOMES);
    // Who reads on sees that it was cut short, and does not take a part for the whole.
    let end = loop {
        match export.message().await {
            Ok(Some(page)) => rows += page.lines.len(),
            Ok(None) => break None,
            Err(status) => break Some(status.code()),
        }
    };
    assert_eq!(end, Some(tonic::Code::Unavailable), "after {rows} rows");
    assert!(rows < OUTCOMES, "nothing waited for the reader");
}
