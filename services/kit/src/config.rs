//! One file, `mesh.toml`. Later layers win: built-in defaults, the file, the environment (`SHOAL_GATEWAY__LISTEN` sets
//! `[gateway] listen`). Unknown keys are refused with their line; relative paths are relative to the file's folder.
use crate::environment;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

mod budget;
mod load;
mod specialist;

pub use budget::Machine;
pub use load::{Error, FILE, Loaded, Origin};
pub use specialist::{Provider, Specialist};

/// The whole configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeshConfig {
    /// The gateway.
    pub gateway: Gateway,
    /// The feedback service.
    pub feedback: Feedback,
    /// The demo's tool server.
    pub concierge: Concierge,
    /// Traces and logs of every process.
    pub telemetry: Telemetry,
    /// Where ONNX Runtime is.
    pub onnxruntime: OnnxRuntime,
    /// What the specialists of this machine share.
    pub machine: Machine,
    /// Specialists by name: targets that a task's chain may name.
    pub specialist: BTreeMap<String, Specialist>,
    /// OpenAI-compatible endpoints by name: targets too.
    pub endpoint: BTreeMap<String, Endpoint>,
    /// Tool servers by name.
    pub tools: BTreeMap<String, ToolServer>,
    /// Tasks by name: which targets serve them, smallest first.
    pub task: BTreeMap<String, Task>,
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The gateway: agent plan in, subtask RPCs out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// gRPC address. Default 127.0.0.1:7400.
    pub listen: SocketAddr,
    /// HTTP address (OpenAI-compatible door, metrics, health). Default 127.0.0.1:7401.
    pub http_listen: SocketAddr,
    /// A plan's deadline when its caller sets none. Default 60s.
    #[serde(with = "humantime_serde")]
    pub default_deadline: Duration,
    /// The longest deadline that a caller may set. Default 10m.
    #[serde(with = "humantime_serde")]
    pub max_deadline: Duration,
    /// Nodes of a plan at most. Default 256.
    pub max_nodes: usize,
    /// Nodes on a plan's longest path at most. Default 64.
    pub max_depth: usize,
    /// Nodes that may wait for one node at most. Default 64.
    pub max_fan_out: usize,
    /// Bytes of one request's texts, JSON and plan text together; an entry of a list counts 8 besides its text. Default 1 MiB.
    pub max_input_bytes: usize,
    /// Plans running at once; one more is RESOURCE_EXHAUSTED. Default 256.
    pub max_plans: usize,
    /// Ended plans kept in memory for GetPlan and WatchPlan. Default 1024.
    pub plans_kept: usize,
    /// The task that plans a goal in words. Default "plan".
    pub plan_task: String,
    /// The task that plans a conversation. Default "episode".
    pub episode_task: String,
    /// The task that tells a goal's intent, asked beside the planner where `intents` has any. Default "route".
    pub route_task: String,
    /// Intents by label: what a goal in words is for, if the task above is sure of it and `plan_task` finds a single step in it. Every other
    /// goal's plan is that of `plan_task`.
    pub intents: BTreeMap<String, Intent>,
    /// URL of the feedback service; empty keeps no outcomes. Default http://127.0.0.1:7410.
    pub feedback: String,
    /// Folder of the outcomes that feedback has not acknowledged yet; one gateway each. Default data/spool.
    pub spool: PathBuf,
    /// Bytes of that folder; past them plans are refused rather than outcomes dropped. Default 256 MiB.
    pub spool_max_bytes: u64,
    /// A tool call's bound, within the plan's. Default 10s.
    #[serde(with = "humantime_serde")]
    pub tool_timeout: Duration,
    /// Calls that wait for room at one target (its max_in_flight), the most urgent and then those with the least slack first; one
    /// more is shed. Default 1024.
    pub max_waiting: usize,
    /// Second attempts beside a slow one, as a share of a target's calls; 0 switches hedging off. Default 0.05.
    pub hedge_share: f64,
    /// An attempt is slow once it has run longer than this share of those before it. Default 0.95.
    pub hedge_quantile: f64,
    /// How long running plans may take to end on shutdown. Default 10s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: loopback(7400),
            http_listen: loopback(7401),
            default_deadline: Duration::from_secs(60),
            max_deadline: Duration::from_secs(600),
            max_nodes: 256,
            max_depth: 64,
            max_fan_out: 64,
            max_input_bytes: 1 << 20,
            max_plans: 256,
            plans_kept: 1024,
            plan_task: "plan".into(),
            episode_task: "episode".into(),
            route_task: "route".into(),
            intents: BTreeMap::new(),
            feedback: "http://127.0.0.1:7410".into(),
            spool: "data/spool".into(),
            spool_max_bytes: 256 << 20,
            tool_timeout: Duration::from_secs(10),
            max_waiting: 1024,
            hedge_share: 0.05,
            hedge_quantile: 0.95,
            drain: Duration::from_secs(10),
        }
    }
}

/// What a goal of one intent is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// `episode_task`: its planner plans the goal with the tools of `services`. Any other but `plan_task`: the goal is one step of it.
    pub task: String,
    /// Services whose registered tools that planner may call.
    #[serde(default)]
    pub services: Vec<String>,
}

/// The feedback service: outcomes on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Feedback {
    /// gRPC address. Default 127.0.0.1:7410.
    pub listen: SocketAddr,
    /// HTTP address (metrics, health). Default 127.0.0.1:7411.
    pub http_listen: SocketAddr,
    /// The SQLite file. Default data/outcomes.sqlite.
    pub store: PathBuf,
    /// Outcomes waiting for a commit at most; one more is RESOURCE_EXHAUSTED. Default 4096.
    pub queue: usize,
    /// How long open streams may take to end on shutdown. Default 5s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Default for Feedback {
    fn default() -> Self {
        Self {
            listen: loopback(7410),
            http_listen: loopback(7411),
            store: "data/outcomes.sqlite".into(),
            queue: 4096,
            drain: Duration::from_secs(5),
        }
    }
}

/// The concierge: a tool server over recorded data.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Concierge {
    /// gRPC address. Default 127.0.0.1:7415.
    pub listen: SocketAddr,
    /// HTTP address (metrics, health). Default 127.0.0.1:7416.
    pub http_listen: SocketAddr,
    /// What the services are: JSON. Default services/concierge/data/services.json.
    pub services: PathBuf,
    /// Rows that they answer from: gzipped JSON lines. Default services/concierge/data/tool_results.jsonl.gz.
    pub results: PathBuf,
    /// How long calls may take to end on shutdown. Default 5s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Default for Concierge {
    fn default() -> Self {
        Self {
            listen: loopback(7415),
            http_listen: loopback(7416),
            services: "services/concierge/data/services.json".into(),
            results: "services/concierge/data/tool_results.jsonl.gz".into(),
            drain: Duration::from_secs(5),
        }
    }
}

/// Traces and logs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Put prompts and outputs on spans. Default false.
    pub content: bool,
    /// OTLP gRPC endpoint, http://host:4317. `OTEL_EXPORTER_OTLP_ENDPOINT` wins. Default none: spans stay here.
    pub otlp_endpoint: Option<String>,
    /// Log filter, as tracing's EnvFilter reads it. Default "info".
    pub log: String,
}

impl Telemetry {
    /// Where spans go: what the standard's variables name, or else the file.
    #[must_use]
    pub fn endpoint(&self) -> Option<String> {
        let named = load::OTLP.into_iter().find_map(environment::var);
        named.or_else(|| self.otlp_endpoint.clone())
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            content: false,
            otlp_endpoint: None,
            log: "info".into(),
        }
    }
}

/// Where ONNX Runtime is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnnxRuntime {
    /// The shared library. Default: the system's, the cache's, or fetched.
    pub path: Option<PathBuf>,
    /// Where a fetched library is kept. Default: the user's cache folder.
    pub cache: Option<PathBuf>,
}

/// An OpenAI-compatible endpoint: the large-model tier.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Endpoint {
    /// Up to and with `/v1`.
    pub base_url: String,
    /// The model asked for.
    pub model: String,
    /// Name of the environment variable that holds the API key. Default none.
    pub api_key_env: Option<String>,
    /// Calls at once: concurrency of its own, so that neither tier starves the other. Default 4.
    pub max_in_flight: usize,
    /// One call's bound, within the plan's. Default 30s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// US dollars per million prompt tokens. Default 0.
    pub input_usd_per_million_tokens: f64,
    /// US dollars per million generated tokens. Default 0.
    pub output_usd_per_million_tokens: f64,
    /// Not good enough for what people read: human-facing nodes pass it over. Default false.
    pub machine_only: bool,
    /// Outside the mesh: private nodes pass it over. Default true.
    pub external: bool,
    /// Its answers come in pieces (`stream`, with usage at the end) where somebody hears them as they come. Default true; false for one that knows
    /// no `stream_options`.
    pub stream: bool,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            model: String::new(),
            api_key_env: None,
            max_in_flight: 4,
            timeout: Duration::from_secs(30),
            input_usd_per_million_tokens: 0.0,
            output_usd_per_million_tokens: 0.0,
            machine_only: false,
            external: true,
            stream: true,
        }
    }
}

/// A tool server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolServer {
    /// http://host:port.
    pub endpoint: String,
    /// Calls at once. Default 64.
    pub max_in_flight: usize,
}

impl Default for ToolServer {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            max_in_flight: 64,
        }
    }
}

/// How a task is routed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Task {
    /// Specialists and endpoints, smallest first. At least one.
    pub chain: Vec<String>,
    /// Under this confidence an answer goes to the next of the chain; with 0 none does. Default: the model card's.
    pub confidence_threshold: Option<f64>,
    /// Whether doubt alone moves a node on; failures and broken schemas always do. Default true.
    pub escalate: bool,
}

impl Default for Task {
    fn default() -> Self {
        Self {
            chain: Vec::new(),
            confidence_threshold: None,
            escalate: true,
        }
    }
}
