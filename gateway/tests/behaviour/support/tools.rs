//! A tool server that answers as the test wants.
use super::process::{Killable, anywhere};
use shoal_kit::status::Reason;
use shoal_proto::v1::{
    self,
    tool_service_server::{ToolService, ToolServiceServer},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tonic::{Request, Response, Status};

/// What a call comes to.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// This text, JSON or not.
    Text(String),
    /// Never.
    Never,
    /// A refusal.
    Refuse(Reason),
}

type Replying = Box<dyn Fn(&v1::CallToolRequest, usize) -> Reply + Send + Sync>;

#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) calls: Mutex<Vec<v1::CallToolRequest>>,
    pub(crate) dropped: AtomicUsize,
}

impl Notes {
    pub(crate) fn seen(&self) -> Vec<v1::CallToolRequest> {
        self.calls.lock().expect("calls").clone()
    }

    /// Arguments of the calls of a tool, in order.
    pub(crate) fn arguments(&self, tool: &str) -> Vec<serde_json::Value> {
        let of_tool = self.seen().into_iter().filter(|c| c.name == tool);
        of_tool
            .map(|c| serde_json::from_str(&c.arguments_json).expect("JSON"))
            .collect()
    }
}

/// A stub at work.
pub(crate) struct Tools {
    pub(crate) server: Killable,
    pub(crate) notes: Arc<Notes>,
}

/// Tools `(name, idempotent)`, each with an object of texts as arguments.
pub(crate) fn start(
    tools: &[(&str, bool)],
    reply: impl Fn(&v1::CallToolRequest, usize) -> Reply + Send + Sync + 'static,
) -> Tools {
    start_at(anywhere(), tools, reply)
}

/// The same, at an address.
pub(crate) fn start_at(
    address: SocketAddr,
    tools: &[(&str, bool)],
    reply: impl Fn(&v1::CallToolRequest, usize) -> Reply + Send + Sync + 'static,
) -> Tools {
    serve(address, tools, false, reply)
}

/// One that answers calls, and never says which tools it has: it leaves whoever asks waiting.
pub(crate) fn mute_at(
    address: SocketAddr,
    tools: &[(&str, bool)],
    reply: impl Fn(&v1::CallToolRequest, usize) -> Reply + Send + Sync + 'static,
) -> Tools {
    serve(address, tools, true, reply)
}

fn serve(
    address: SocketAddr,
    tools: &[(&str, bool)],
    mute: bool,
    reply: impl Fn(&v1::CallToolRequest, usize) -> Reply + Send + Sync + 'static,
) -> Tools {
    let tool = |(name, idempotent): &(&str, bool)| {
        v1::Tool {
        name: (*name).to_owned(),
        input_schema_json: r#"{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}},"additionalProperties":{"type":"string"}}"#.into(),
        output_schema_json: r#"{"type":"object"}"#.into(),
        idempotent: *idempotent,
        ..v1::Tool::default()
    }
    };
    let notes = Arc::new(Notes::default());
    let stub = Stub {
        tools: tools.iter().map(tool).collect(),
        mute,
        reply: Box::new(reply),
        notes: notes.clone(),
    };
    let server = Killable::serve(address, "concierge", |s| s.add(ToolServiceServer::new(stub)));
    Tools { server, notes }
}

struct Stub {
    tools: Vec<v1::Tool>,
    mute: bool,
    reply: Replying,
    notes: Arc<Notes>,
}

struct Waiting(Arc<Notes>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl ToolService for Stub {
    async fn list_tools(&self, _: Request<v1::ListToolsRequest>) -> Result<Response<v1::ListToolsResponse>, Status> {
        if self.mute {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(v1::ListToolsResponse {
            tools: self.tools.clone(),
        }))
    }

    async fn call_tool(&self, request: Request<v1::CallToolRequest>) -> Result<Response<v1::CallToolResponse>, Status> {
        let request = request.into_inner();
        if !self.tools.iter().any(|t| t.name == request.name) {
            return Err(Reason::NotFound {
                reason: "TOOL_UNKNOWN",
                message: format!("no tool {}", request.name),
            }
            .into());
        }
        let reply = {
            let mut calls = self.notes.calls.lock().expect("calls");
            let reply = (self.reply)(&request, calls.len());
            calls.push(request);
            reply
        };
        match reply {
            Reply::Text(result_json) => Ok(Response::new(v1::CallToolResponse { result_json })),
            Reply::Refuse(reason) => Err(reason.into()),
            Reply::Never => {
                let _waiting = Waiting(self.notes.clone());
                std::future::pending().await
            }
        }
    }
}
