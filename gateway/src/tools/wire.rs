//! One call to one replica of a tool server.
use super::ANSWER_BYTES;
use crate::telemetry;
use futures::future::BoxFuture;
use shoal_kit::{
    deadline, propagate,
    status::{self, Reason},
    telemetry::names,
};
use shoal_proto::v1::{self, tool_service_client::ToolServiceClient};
use shoal_stack::{Call, Error};
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tonic::{Code, Request, Status, transport::Channel};
use tower::Service;
use tracing::{Instrument as _, info_span};

/// What a message may have beyond the answer in it.
const MARGIN: usize = 64;

/// One replica.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    address: Arc<str>,
    channel: Option<Channel>,
}

impl Replica {
    pub(super) fn new(address: Arc<str>, channel: Option<Channel>) -> Self {
        Self { address, channel }
    }
}

impl Service<Call<Arc<v1::CallToolRequest>>> for Replica {
    type Response = String;
    type Error = Error;
    type Future = BoxFuture<'static, Result<String, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call<Arc<v1::CallToolRequest>>) -> Self::Future {
        let span = info_span!(
            "attempt",
            otel.kind = "internal",
            { telemetry::SERVER_ADDRESS } = &*self.address,
            { telemetry::ATTEMPT } = call.attempt,
            { names::GEN_AI_TOOL_NAME } = call.request.name,
        );
        let (address, channel) = (self.address.clone(), self.channel.clone());
        let attempt = async move {
            let answer = match channel {
                Some(channel) => ask(channel, &call).await,
                None => Err(gone()),
            };
            answer.map_err(|status| Error::call(&address, read(status)))
        };
        Box::pin(attempt.instrument(span))
    }
}

async fn ask(channel: Channel, call: &Call<Arc<v1::CallToolRequest>>) -> Result<String, Status> {
    let mut request = Request::new((*call.request).clone());
    let left = call.deadline.saturating_duration_since(tokio::time::Instant::now());
    deadline::set(&mut request, left);
    propagate::inject(request.metadata_mut());
    let mut client = ToolServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES + MARGIN);
    Ok(client.call_tool(request).await?.into_inner().result_json)
}

fn gone() -> Status {
    Reason::Unavailable {
        message: "its address is gone".into(),
        retry_after: Duration::from_secs(1),
    }
    .into()
}

/// tonic's own words for an answer that cannot be read, which is the tool's fault and no transport's.
fn read(status: Status) -> Status {
    let ours = status::error_reason(&status).is_some();
    let unreadable = match status.code() {
        Code::OutOfRange => status.message().contains("too large"),
        Code::Internal => status.message().contains("failed to decode"),
        _ => false,
    };
    if ours || !unreadable {
        status
    } else {
        nonsense(status.message()).into()
    }
}

/// An answer that is none.
pub(super) fn nonsense(what: &str) -> Reason {
    Reason::Precondition {
        reason: "TOOL_ANSWER_INVALID",
        message: format!(
            "the tool's answer cannot be used: {what}; a tool answers with one JSON value of at most {ANSWER_BYTES} bytes"
        ),
    }
}
