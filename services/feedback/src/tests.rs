//! The service behind its doors, and how it leaves.
use super::*;
use crate::store::{
    Filter, Position, Store as _,
    suite::{NOW, outcome},
};
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
    store
        .page(&Filter::default(), Position::START, usize::MAX, usize::MAX)
        .expect("page")
        .len()
}

/// A service under test, and a client of it with tonic's own settings: a stream whose window is 64 KiB and messages of 4 MiB at most,
/// as those of a client that is not ours.
async fn serving(
    config: config::Feedback,
) -> (
    tokio::task::JoinHandle<anyhow::Result<()>>,
    CancellationToken,
    FeedbackServiceClient<tonic::transport::Channel>,
) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let bound = serve::bind(any, any).await.expect("bound");
    let address = format!("http://{}", bound.grpc_addr().expect("address"));
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let served = task::spawn("feedback under test", async move { run(&config, bound, stop).await });
    let channel = tonic::transport::Endpoint::from_shared(address)
        .expect("a URI")
        .connect_lazy();
    (served, shutdown, FeedbackServiceClient::new(channel))
}

fn configured(folder: &tempfile::TempDir) -> config::Feedback {
    config::Feedback {
        store: folder.path().join("outcomes.sqlite"),
        drain: Duration::from_millis(200),
        ..config::Feedback::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_any_size_come_in_responses_that_a_client_with_usual_limits_reads() {
    const ROWS: usize = 200;
    let folder = tempfile::tempdir().expect("tempdir");
    let config = configured(&folder);
    let large: Vec<_> = (0..ROWS)
        .map(|i| v1::Outcome {
            input_json: format!("{:?}", "x".repeat(400_000)),
            ..outcome(&format!("o{i}"), "p", &i.to_string())
        })
        .collect();
    let mut store = Sqlite::open(&config.store).expect("open");
    store.append(&large, NOW).expect("append");
    let (served, shutdown, mut client) = serving(config).await;
    for limit in [0, 3] {
        let request = v1::ExportDatasetRequest {
            limit,
            ..v1::ExportDatasetRequest::default()
        };
        let mut export = client.export_dataset(request).await.expect("export").into_inner();
        let mut sizes = Vec::new();
        while let Some(response) = export.message().await.expect("a response") {
            sizes.push(response.lines.len());
        }
        let rows = if limit == 0 { ROWS } else { 3 };
        assert_eq!(sizes.iter().sum::<usize>(), rows);
        assert!(sizes.iter().all(|rows| *rows <= 2), "over a megabyte: {sizes:?}");
    }
    shutdown.cancel();
    served.await.expect("no panic").expect("no door broke");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_up_no_end_and_what_was_acknowledged_is_kept() {
    let folder = tempfile::tempdir().expect("tempdir");
    let config = configured(&folder);
    let store = config.store.clone();
    let (served, shutdown, mut client) = serving(config).await;
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
