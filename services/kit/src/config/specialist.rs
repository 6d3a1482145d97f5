//! `[specialist.NAME]`: one model, where it is served and what it may take.
use super::loopback;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

/// What executes a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// ONNX Runtime's CPU provider.
    #[default]
    Cpu,
    /// ONNX Runtime's CUDA provider; refused at start where it is not there.
    Cuda,
}

impl Provider {
    /// "cpu" or "cuda".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

/// One specialist: a model folder served by this machine, or a service served elsewhere, or both.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Specialist {
    /// The model folder; without it `shoal up` starts no process for it.
    pub folder: Option<PathBuf>,
    /// gRPC address of the process. Default 127.0.0.1:0 (any free port).
    pub listen: SocketAddr,
    /// HTTP address (OpenAI-compatible door, metrics, health). Default 127.0.0.1:0.
    pub http_listen: SocketAddr,
    /// Where the gateway calls it: http://host:port each. A host name stands for all its addresses. Default http://`listen`.
    pub endpoints: Vec<String>,
    /// Tasks that it serves. Default: what its Describe says.
    pub tasks: Vec<String>,
    /// "cpu" (default) or "cuda".
    pub provider: Provider,
    /// Sequences that decode together. Default 16.
    pub slots: usize,
    /// Rows of KV memory beside `slots` in which prompts are read and then stay, the least recently used making room, so that a prompt
    /// which begins as one of them does copies that part instead of reading it. Each takes what a slot takes; as many prompts, of different
    /// urgency, can be under way at once. 0 keeps nothing, in one row that prompts are read in. Default 4.
    pub prefix_slots: usize,
    /// ONNX Runtime threads inside one operator, 1 to 1024; 0 is this specialist's share of the machine's cores (those of `[machine]` over the
    /// specialists that have a folder, at least 1, and at most one for each of `cpus`). Default 1: co-located specialists share the cores. An encoder of less than 1 MiB has one.
    /// Calls are carried by threads beside these, half as many as the process has cores when it starts, or `TOKIO_WORKER_THREADS`.
    pub intra_op_threads: usize,
    /// Whether threads inside an operator wait for each other awake. Default: if there are several, and the machine has a core for each thread
    /// of each specialist; awake on a core that another needs, they would only be in its way. After a run they sleep, those of a
    /// decoder within some tenth of a millisecond: its next step mostly comes before.
    pub spin: Option<bool>,
    /// Run only on what others leave of the cores (Linux: SCHED_IDLE): for batch work beside specialists that somebody waits for. Default false.
    /// Give it `cpus` too, and those that are waited for the others: on a core that both may use, Linux's scheduler lets it finish a slice of
    /// some three milliseconds now and then, which the p99 of a request of four shows.
    pub background: bool,
    /// Cores that the process may use, by the operating system's numbers. Default: all.
    pub cpus: Vec<usize>,
    /// Prompt tokens waiting for a slot at most; more are RESOURCE_EXHAUSTED. Batch calls may fill three quarters of it and normal ones seven
    /// eighths, so that who is more urgent still gets in. Default 65536.
    pub queue_tokens: usize,
    /// CUDA memory cap in MiB; 0 is none. Default 0.
    pub gpu_mem_limit_mb: u64,
    /// Calls that the gateway has open to it at once, over all endpoints; more wait. Default 64.
    pub max_in_flight: usize,
    /// How long the version that served before stays loaded, so that going back to it takes no load but half a second. Both are in memory
    /// until then, as they are during the switch, and no third but one that calls still run on: a third version whose files are good takes its place
    /// before it loads. 0s gives its memory back at once. Default 1m.
    #[serde(with = "humantime_serde")]
    pub keep_previous: Duration,
    /// How long calls may take to end on shutdown. Default 5s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Default for Specialist {
    fn default() -> Self {
        Self {
            folder: None,
            listen: loopback(0),
            http_listen: loopback(0),
            endpoints: Vec::new(),
            tasks: Vec::new(),
            provider: Provider::Cpu,
            slots: 16,
            prefix_slots: 4,
            intra_op_threads: 1,
            spin: None,
            background: false,
            cpus: Vec::new(),
            queue_tokens: 65_536,
            gpu_mem_limit_mb: 0,
            max_in_flight: 64,
            keep_previous: Duration::from_secs(60),
            drain: Duration::from_secs(5),
        }
    }
}

impl Specialist {
    /// How many cores `cpus` names; `None` if it names none, which is all of them.
    #[must_use]
    pub fn own_cores(&self) -> Option<usize> {
        let cores = self.cpus.iter().collect::<BTreeSet<_>>().len();
        (cores > 0).then_some(cores)
    }

    /// Where the gateway calls it.
    #[must_use]
    pub fn called_at(&self) -> Vec<String> {
        if self.endpoints.is_empty() {
            vec![format!("http://{}", self.listen)]
        } else {
            self.endpoints.clone()
        }
    }
}
