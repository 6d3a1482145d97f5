//! Processes that a version takes down, stood in for by a server that is started again by what specialist.toml says.
use super::*;
use futures::{future::BoxFuture, stream::BoxStream};
use shoal_kit::{
    serve::{self, Process, Server},
    status::Reason,
    task,
};
use shoal_proto::v1::specialist_service_server::{SpecialistService, SpecialistServiceServer};
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

/// A name service with three replicas.
#[derive(Debug)]
struct Zone;

impl Lookup for Zone {
    fn lookup<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            if host != "replicas" {
                return Err(io::Error::other("no such name"));
            }
            Ok((1..=3).map(|i| SocketAddr::from(([10, 0, 0, i], port))).collect())
        })
    }
}

#[tokio::test]
async fn every_process_is_asked_where_it_is_called_or_listens() {
    let at = async |listen: &str, endpoints: &[&str]| {
        let specialist = config::Specialist {
            listen: listen.parse().expect("address"),
            endpoints: endpoints.iter().map(|e| (*e).to_owned()).collect(),
            ..config::Specialist::default()
        };
        addresses(&specialist, &Zone).await
    };
    let found = async |listen: &str, endpoints: &[&str]| at(listen, endpoints).await.expect("known");
    assert_eq!(found("0.0.0.0:7500", &[]).await, ["http://127.0.0.1:7500"]);
    assert_eq!(
        found("0.0.0.0:7500", &["http://replicas:1", "http://10.0.0.9:2"]).await,
        [
            "http://10.0.0.1:1",
            "http://10.0.0.2:1",
            "http://10.0.0.3:1",
            "http://10.0.0.9:2"
        ]
    );
    assert!(found("127.0.0.1:0", &[]).await.is_empty());
    let unknown = at("127.0.0.1:0", &["http://gone:1"]).await.expect_err("no name");
    assert!(
        unknown.exit == Exit::Unavailable && unknown.message.contains("--wait 0"),
        "{unknown}"
    );
}

/// Serves one version; `hangs`: says nothing any more once the file names another.
struct StandIn {
    version: u32,
    folder: PathBuf,
    hangs: bool,
}

fn never<T>() -> Result<T, Status> {
    let message = "a stand-in has no model".into();
    Err(Reason::NotFound {
        reason: "STAND_IN",
        message,
    }
    .into())
}

#[tonic::async_trait]
impl SpecialistService for StandIn {
    type GenerateStream = BoxStream<'static, Result<v1::GenerateResponse, Status>>;

    async fn generate(&self, _: Request<v1::GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        never()
    }

    async fn classify(&self, _: Request<v1::ClassifyRequest>) -> Result<Response<v1::ClassifyResponse>, Status> {
        never()
    }

    async fn embed(&self, _: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        never()
    }

    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeResponse>, Status> {
        if self.hangs && active(&self.folder) != self.version {
            std::future::pending::<()>().await;
        }
        let card = v1::DescribeResponse {
            name: "a".into(),
            version: self.version,
            ..Default::default()
        };
        Ok(Response::new(card))
    }
}

fn active(folder: &Path) -> u32 {
    let text = fs::read_to_string(folder.join("specialist.toml")).expect("readable");
    let number = text.trim().strip_prefix("active_version = ").expect("a number");
    number.parse().expect("a number")
}

/// Serves version 1 on the address until `stop`.
async fn serve(address: SocketAddr, folder: &Path, hangs: bool, stop: CancellationToken) -> SocketAddr {
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let bound = loop {
        match serve::bind(address, any).await {
            Ok(bound) => break bound,
            Err(_) => sleep(BETWEEN).await,
        }
    };
    let address = bound.grpc_addr().expect("address");
    let named = Process {
        name: "a".into(),
        version: "a@1".into(),
        provider: String::new(),
    };
    let model = StandIn {
        version: 1,
        folder: folder.to_owned(),
        hangs,
    };
    let server = Server::new(named).add(SpecialistServiceServer::new(model));
    task::spawn("stand-in", server.run(bound, stop, Duration::ZERO));
    address
}

/// A folder of version 1, a process that serves it, and what ends that.
async fn started(hangs: bool) -> (TempDir, Running, CancellationToken) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("specialist.toml"), "active_version = 1\n").expect("written");
    let stop = CancellationToken::new();
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let url = format!("http://{}", serve(any, folder.path(), hangs, stop.clone()).await);
    let Heard::Card(card) = describe(&url).await else {
        panic!("it serves");
    };
    let running = Running { url, card: *card };
    write(folder.path(), 2).expect("written");
    (folder, running, stop)
}

#[tokio::test]
async fn a_version_that_ends_its_process_again_and_again_is_taken_back_and_the_old_one_serves() {
    let (folder, running, stop) = started(false).await;
    let address: SocketAddr = running.url.trim_start_matches("http://").parse().expect("address");
    // It aborts, as does every start of version 2: nothing comes to listen until the file names 1.
    stop.cancel();
    let (root, again) = (folder.path().to_owned(), CancellationToken::new());
    let restarts = async {
        while active(&root) == 2 {
            sleep(Duration::from_millis(100)).await;
        }
        serve(address, &root, false, again.clone()).await;
    };
    let long = Instant::now() + Duration::from_secs(60);
    let (told, ()) = tokio::join!(until(&running, 2, long, folder.path()), restarts);
    let failure = told.expect_err("it never served");
    assert_eq!((active(folder.path()), failure.exit), (1, Exit::Refused), "{failure}");
    assert!(
        failure
            .message
            .contains("specialist.toml names version 1 again, which serves again"),
        "{failure}"
    );
    assert!(Instant::now() < long, "long before the wait was over");
}

#[tokio::test]
async fn a_version_over_which_its_process_falls_silent_is_taken_back_when_the_wait_is_over() {
    let (folder, running, _stop) = started(true).await;
    let end = Instant::now() + Duration::from_millis(100);
    let failure = until(&running, 2, end, folder.path()).await.expect_err("silent");
    assert_eq!(
        (active(folder.path()), failure.exit),
        (1, Exit::Unavailable),
        "{failure}"
    );
    assert!(failure.message.contains("does not answer"), "{failure}");
}

#[tokio::test]
async fn a_process_that_only_has_not_got_to_it_keeps_the_version_active() {
    let (folder, running, _stop) = started(false).await;
    let failure = until(&running, 2, Instant::now(), folder.path())
        .await
        .expect_err("not yet");
    assert_eq!(
        (active(folder.path()), failure.exit),
        (2, Exit::Unavailable),
        "{failure}"
    );
    assert!(failure.message.contains("--wait"), "{failure}");
}
