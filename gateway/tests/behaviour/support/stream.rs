//! A client of ExecutePlanStream.
use super::world::World;
use futures::StreamExt as _;
use shoal_proto::v1::{
    self,
    execute_plan_stream_request::{Message, Open},
    plan_event::Event,
    tool_result::Outcome,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// A client, and what it is told.
pub(crate) struct Client {
    pub(crate) sender: mpsc::Sender<v1::ExecutePlanStreamRequest>,
    pub(crate) events: Streaming<v1::PlanEvent>,
}

pub(crate) fn message(message: Message) -> v1::ExecutePlanStreamRequest {
    v1::ExecutePlanStreamRequest { message: Some(message) }
}

/// Opens a plan whose client answers these tools.
pub(crate) async fn open(
    world: &World,
    request: v1::ExecutePlanRequest,
    client_tools: &[&str],
) -> Result<Client, Status> {
    let (sender, receiver) = mpsc::channel(64);
    let opening = Open {
        request: Some(request),
        client_tools: client_tools.iter().map(|t| (*t).to_owned()).collect(),
    };
    sender.send(message(Message::Open(opening))).await.expect("open");
    let events = world
        .plans()
        .execute_plan_stream(ReceiverStream::new(receiver))
        .await?
        .into_inner();
    Ok(Client { sender, events })
}

impl Client {
    pub(crate) async fn step(&self, node: v1::Node) {
        self.sender.send(message(Message::Step(node))).await.expect("sent");
    }

    pub(crate) async fn result(&self, call_id: &str, outcome: Option<Outcome>) {
        let result = v1::ToolResult {
            call_id: call_id.into(),
            outcome,
        };
        self.sender
            .send(message(Message::ToolResult(result)))
            .await
            .expect("sent");
    }

    /// The next request to run a tool.
    pub(crate) async fn requested(&mut self) -> v1::ToolRequested {
        loop {
            match self.events.next().await.expect("more").expect("an event").event {
                Some(Event::ToolRequested(requested)) => return requested,
                Some(Event::Finished(finished)) => panic!("{finished:?}"),
                _ => {}
            }
        }
    }

    /// The rest, once nothing more comes from here.
    pub(crate) async fn rest(self) -> (Vec<v1::PlanEvent>, Option<Status>) {
        let Self { sender, mut events } = self;
        drop(sender);
        let mut rest = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => rest.push(event),
                Err(status) => return (rest, Some(status)),
            }
        }
        (rest, None)
    }
}

pub(crate) fn finished(events: &[v1::PlanEvent]) -> v1::PlanFinished {
    match events.last().and_then(|e| e.event.clone()) {
        Some(Event::Finished(finished)) => finished,
        other => panic!("{other:?}"),
    }
}
