//! Tools: what a plan's tool nodes call.
//!
//! [`keep`] asks each server what it offers, at start and again and again; [`wire`] is one call to one replica; [`call`] is a
//! node's call with all that is checked before and after it; [`client`] is for tools that a plan's own client answers.
use crate::{
    route::{
        replicas::Replicas,
        stack::{self, Endpoint, Sizes, Stack},
    },
    schema::Schema,
};
use shoal_kit::config;
use shoal_proto::v1;
use shoal_stack::{balance::Endpoints, hedge::Telling, pace::Pace};
use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

pub(crate) mod call;
pub(crate) mod client;
pub(crate) mod keep;
mod wire;

/// Bytes of a tool's answer at most: it goes into prompts, and no model here reads a megabyte.
pub(crate) const ANSWER_BYTES: usize = 1 << 20;

/// A tool server of mesh.toml.
pub(crate) struct Server {
    pub(crate) name: Arc<str>,
    pub(crate) replicas: Replicas,
    pub(crate) endpoints: Endpoints<Endpoint<Arc<v1::CallToolRequest>, String>>,
    /// How long its tools take.
    pub(crate) pace: Pace,
    /// Told when what it offers may be out of date.
    pub(crate) stale: Notify,
    stack: Stack<Arc<v1::CallToolRequest>, String>,
    /// In which a replica that is well has answered.
    fair: Duration,
    listed: AtomicBool,
    /// What it said last: the same again needs nothing to be compiled anew.
    list: Mutex<Vec<v1::Tool>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server. It has no replicas until they are looked up.
    pub(crate) fn new(name: &str, config: &config::ToolServer, gateway: &config::Gateway) -> Self {
        let name: Arc<str> = name.into();
        let (endpoints, pace) = (Endpoints::new(name.clone()), Pace::default());
        Self {
            replicas: Replicas::new(vec![config.endpoint.clone()]),
            stack: stack::stack(
                &name,
                stack::Kind {
                    method: "shoal.v1.ToolService/CallTool",
                    telling: Telling::nothing(),
                },
                Sizes::new(gateway, config.max_in_flight),
                pace.clone(),
                endpoints.clone(),
            ),
            fair: stack::done(gateway.tool_timeout),
            name,
            endpoints,
            pace,
            stale: Notify::new(),
            listed: AtomicBool::new(false),
            list: Mutex::default(),
        }
    }

    /// Whether it has ever said what it offers.
    pub(crate) fn listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    fn serve_from(&self, addresses: &[Arc<str>]) {
        let reachable: Vec<Arc<str>> = addresses
            .iter()
            .filter(|a| self.replicas.channel(a).is_some())
            .cloned()
            .collect();
        self.endpoints.update(&reachable, |address, breaker| {
            let wire = wire::Replica::new(address.clone(), self.replicas.channel(address));
            stack::endpoint(address, breaker, self.fair, wire)
        });
    }
}

/// A tool that a server offers.
#[derive(Debug)]
pub(crate) struct Tool {
    /// "Service.Method".
    pub(crate) name: String,
    pub(crate) server: Arc<Server>,
    pub(crate) idempotent: bool,
    pub(crate) input: Option<Arc<Schema>>,
    pub(crate) output: Option<Arc<Schema>>,
    /// What its arguments are called, in its schema's order.
    pub(crate) parameters: Vec<String>,
}
