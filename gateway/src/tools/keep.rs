//! Keeps what is known of a tool server fresh: its addresses, and what it offers.
use super::{Server, Tool};
use crate::{
    route::{Registry, replicas},
    schema::Schema,
};
use shoal_kit::{deadline, resolve::Lookup, task};
use shoal_proto::v1::{self, tool_service_client::ToolServiceClient};
use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, transport::Channel};

/// How often a server that answers is asked again. What it offers changes with its releases; a replica that comes or goes should
/// still be known within seconds.
const PERIOD: Duration = Duration::from_secs(10);

/// How often one that has not answered is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Between two looks at the least.
const PAUSE: Duration = Duration::from_millis(200);

/// One ListTools' bound.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a list at most: hundreds of tools with their schemas are a few of these.
const LIST_BYTES: usize = 16 << 20;

/// Looks once: addresses first, then the tools. Says whether it answered.
pub(crate) async fn look(server: &Arc<Server>, registry: &Registry, lookup: &dyn Lookup) -> bool {
    let addresses = server.replicas.resolve(lookup).await;
    server.serve_from(&addresses);
    let ask = async |(address, channel): (Arc<str>, Channel)| {
        let mut request = Request::new(v1::ListToolsRequest {});
        deadline::set(&mut request, PATIENCE);
        let mut client = ToolServiceClient::new(channel).max_decoding_message_size(LIST_BYTES);
        let answer = client.list_tools(request).await;
        let failed = |status: &Status| {
            tracing::debug!(server = &*server.name, %address, error = status.message(), "does not list its tools");
        };
        answer.inspect_err(failed).ok().map(|list| list.into_inner().tools)
    };
    let first = replicas::first_good(server.replicas.all().into_iter().map(ask));
    let Some(listed) = tokio::time::timeout(PATIENCE, first).await.ok().flatten() else {
        return false;
    };
    // All of it must be registered too: a name that another server has given up is free now.
    let same = server.listed()
        && *server.list.lock().unwrap_or_else(PoisonError::into_inner) == listed
        && listed.iter().all(|tool| registry.tool(&tool.name).is_some());
    if same {
        return true;
    }
    *server.list.lock().unwrap_or_else(PoisonError::into_inner) = listed.clone();
    let tools: Vec<Tool> = listed.into_iter().filter_map(|tool| read(tool, server)).collect();
    if !server.listed.swap(true, Ordering::AcqRel) {
        tracing::info!(server = &*server.name, tools = tools.len(), "tool server found");
    }
    registry.set_tools(&server.name, tools);
    true
}

/// A listed tool. One without a name is none; a schema that does not compile is said, and counts as none.
fn read(wire: v1::Tool, server: &Arc<Server>) -> Option<Tool> {
    if wire.name.is_empty() {
        tracing::warn!(server = &*server.name, "a tool without a name is left out");
        return None;
    }
    let schema = |text: &str, which: &str| match (!text.is_empty()).then(|| Schema::compile(text))? {
        Ok(schema) => Some(Arc::new(schema)),
        Err(error) => {
            tracing::warn!(
                server = &*server.name,
                tool = wire.name,
                which,
                error,
                "a tool's schema is not checked"
            );
            None
        }
    };
    let input = schema(&wire.input_schema_json, "input");
    Some(Tool {
        output: schema(&wire.output_schema_json, "output"),
        parameters: input.as_ref().map(|s| s.properties()).unwrap_or_default(),
        input,
        idempotent: wire.idempotent,
        server: server.clone(),
        name: wire.name,
    })
}

/// Looks again and again until `stop`.
pub(crate) fn start(server: Arc<Server>, registry: Arc<Registry>, lookup: Arc<dyn Lookup>, stop: CancellationToken) {
    task::spawn("tool list refresh", async move {
        let looking = async {
            let mut answered = server.listed();
            loop {
                let period = if answered { PERIOD } else { RETRY };
                drop(tokio::time::timeout(period, server.stale.notified()).await);
                answered = look(&server, &registry, &*lookup).await;
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = looking => {}
            () = stop.cancelled() => {}
        }
    });
}
