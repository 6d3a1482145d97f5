//! What the tests stand on: the library, the fixtures, and a served specialist.
use shoal_kit::{config, onnxruntime, serve, task};
use shoal_proto::v1::specialist_service_client::SpecialistServiceClient;
use shoal_specialist::{
    Loader,
    engine::{Done, queue::Urgency},
    folder::Folder,
    prompt::Prompt,
    sampling::Sampling,
    specialist::{Ask, Specialist},
    telemetry::Counters,
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// ONNX Runtime, found or fetched as the binary does it. A machine where neither works fails the tests: nothing passes silently.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let found = onnxruntime::locate(&config::OnnxRuntime::default(), &|_| {});
        found
            .unwrap_or_else(|e| panic!("these tests need ONNX Runtime: {e}"))
            .path
    })
}

/// A fixture's folder.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/models")
        .join(name)
}

/// Defaults, with so many slots.
pub(crate) fn config(slots: usize) -> config::Specialist {
    config::Specialist {
        slots,
        ..config::Specialist::default()
    }
}

/// A fixture, loaded.
pub(crate) fn load(name: &str, slots: usize) -> Specialist {
    Specialist::load(&fixture(name), &config(slots), library()).expect("the fixture loads")
}

/// The folder of a model that the repository ships.
pub(crate) fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name)
}

/// A folder, loaded, with so many slots and so many that keep prompts.
pub(crate) fn load_with(folder: &Path, slots: usize, prefix_slots: usize) -> Specialist {
    let config = config::Specialist {
        prefix_slots,
        ..config(slots)
    };
    Specialist::load(folder, &config, library()).expect("the folder loads")
}

/// An unhurried request for free text.
pub(crate) fn ask(task: &str, text: &str, sampling: Sampling) -> Ask {
    Ask {
        task: task.to_owned(),
        prompt: Prompt::Text(text.to_owned()),
        sampling,
        form: None,
        urgency: Urgency::default(),
        span: tracing::Span::none(),
    }
}

/// The answer to a request that has one.
pub(crate) async fn answer(specialist: &Specialist, ask: Ask) -> Done {
    specialist
        .generate(ask)
        .await
        .expect("admitted")
        .complete()
        .await
        .expect("answered")
}

/// A served specialist; it stops when this is dropped.
pub(crate) struct Served {
    pub(crate) grpc: String,
    pub(crate) http: String,
    /// Of a generating model.
    pub(crate) counters: Arc<Counters>,
    shutdown: CancellationToken,
}

impl Served {
    /// Serves a fixture on free ports.
    pub(crate) async fn start(name: &str, slots: usize, change: fn(&mut config::Specialist)) -> Self {
        Self::folder(&fixture(name), slots, change, &config::Telemetry::default()).await
    }

    /// Serves a folder on free ports.
    pub(crate) async fn folder(
        path: &Path,
        slots: usize,
        change: fn(&mut config::Specialist),
        telemetry: &config::Telemetry,
    ) -> Self {
        let bound = serve::bind(([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into())
            .await
            .expect("binds");
        let (grpc, http) = (bound.grpc_addr().expect("bound"), bound.http_addr().expect("bound"));
        let shutdown = CancellationToken::new();
        let mut config = config(slots);
        change(&mut config);
        let folder = Folder::open(path).expect("a good folder");
        let loaded = shoal_specialist::load(folder, &config, library()).await.expect("loads");
        let counters = loaded.counters().clone();
        let (stop, telemetry) = (shutdown.clone(), telemetry.clone());
        task::spawn("served specialist", async move {
            shoal_specialist::serve("served", loaded, Loader::default(), &config, &telemetry, bound, stop)
                .await
                .expect("serves")
        });
        Self {
            grpc: format!("http://{grpc}"),
            http: format!("{http}"),
            counters,
            shutdown,
        }
    }

    /// A client; the first call waits until the specialist is up.
    pub(crate) fn client(&self) -> SpecialistServiceClient<Channel> {
        SpecialistServiceClient::new(shoal_kit::channel::connect_lazy(&self.grpc).expect("a URI"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Waits until `done`; half a minute means never.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
