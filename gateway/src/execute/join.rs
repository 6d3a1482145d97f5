//! Steps that join a plan while it runs: from a planner that writes, and from a client that streams.
use super::{
    driver::Driver,
    node::{Job, Run},
    report::Report,
    result::About,
};
use crate::{
    admit::{ROUTER, Step, node_bytes, wire},
    context::Context,
    decompose::{Draft, intent},
    error::Error,
    route::{Input, judge::Accept},
    schema::Allowance,
};
use futures::{StreamExt as _, stream::BoxStream};
use serde_json::Value;
use shoal_plan::{Kind, Node, Template};
use shoal_proto::v1::{self, execute_plan_stream_request::Message};
use std::sync::Arc;
use tokio::{sync::watch, time::Instant};
use tonic::Status;

/// What a streaming client sends.
pub(crate) type Incoming = BoxStream<'static, Result<v1::ExecutePlanStreamRequest, Status>>;

/// Where further steps come from.
pub(crate) struct Arrivals {
    client: Option<Incoming>,
    pub(super) planner: Option<Writing>,
    sent: Sent,
}

/// Steps that the client has sent.
#[derive(Default)]
struct Sent {
    steps: usize,
    /// With those of its first message.
    bytes: usize,
    /// What their schemas may still weigh, beside those of its first message.
    schemas: Allowance,
}

/// A planner at work, or one whose steps wait for the goal's intent.
pub(super) struct Writing {
    pub(super) goal: v1::Goal,
    pub(super) draft: Arc<Draft>,
    changed: watch::Receiver<()>,
    /// How many of its steps have joined.
    pub(super) joined: usize,
    /// All of its steps, once it has ended.
    pub(super) whole: Option<Vec<Node>>,
}

/// Something has come.
pub(super) enum Arrival {
    /// The planner has written more.
    Written,
    /// The client has sent something, or has nothing more to send, or is gone.
    Sent(Option<Box<Result<v1::ExecutePlanStreamRequest, Status>>>),
}

impl Arrivals {
    /// Nothing more comes: the plan is all there.
    pub(crate) fn none() -> Self {
        Self {
            client: None,
            planner: None,
            sent: Sent::default(),
        }
    }

    /// A client streams; so many bytes of input came with its first message.
    pub(crate) fn from_client(incoming: Incoming, bytes: usize) -> Self {
        Self {
            client: Some(incoming),
            planner: None,
            sent: Sent {
                bytes,
                ..Sent::default()
            },
        }
    }

    pub(super) fn expect(&mut self, goal: v1::Goal, draft: Arc<Draft>) {
        self.planner = Some(Writing {
            goal,
            changed: draft.watch(),
            draft,
            joined: 0,
            whole: None,
        });
    }

    /// Whether no further step can come.
    pub(super) fn closed(&self) -> bool {
        self.client.is_none() && self.planner.is_none()
    }

    /// What comes next. Cancel-safe: a message is taken only when this returns it.
    pub(super) async fn next(&mut self) -> Arrival {
        let sent = async {
            match &mut self.client {
                Some(client) => client.next().await,
                None => std::future::pending().await,
            }
        };
        let written = async {
            match &mut self.planner {
                // The sender lives in the draft that is held here.
                Some(writing) => drop(writing.changed.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = sent => Arrival::Sent(message.map(Box::new)),
            () = written => Arrival::Written,
        }
    }
}

impl Driver {
    /// Takes in what has come.
    pub(super) fn take(&mut self, arrival: Arrival) -> Result<(), Error> {
        let sent = match arrival {
            Arrival::Written => return self.advance(),
            Arrival::Sent(sent) => sent,
        };
        match sent.map(|sent| *sent) {
            None => {
                self.gone();
                Ok(())
            }
            Some(Err(status)) => {
                self.gone();
                match unreadable(&status) {
                    // A client that is lost is no other end than one that goes.
                    Error::Cancelled { .. } if self.run.plan.detached() => Ok(()),
                    error => Err(error),
                }
            }
            Some(Ok(message)) => match message.message {
                Some(Message::Step(step)) => self.sent(&step),
                Some(Message::ToolResult(result)) => self.run.client.answer(result),
                Some(Message::Open(_)) => {
                    let said = "the plan is open already; send steps and tool results";
                    Err(Error::invalid("open", said))
                }
                None => Err(Error::invalid("message", "set one of step and tool_result")),
            },
        }
    }

    /// The client has nothing more to say.
    fn gone(&mut self) {
        self.arrivals.client = None;
        // Nothing can answer its tools any more: who waits for that must not wait until the deadline.
        self.run.client.close();
    }

    fn sent(&mut self, wire: &v1::Node) -> Result<(), Error> {
        let sent = &mut self.arrivals.sent;
        let (number, bytes) = (sent.steps, sent.bytes.saturating_add(node_bytes(wire)));
        let most = self.context.config.max_input_bytes;
        if bytes > most {
            let said = format!(
                "{bytes} bytes with it; at most {most} are taken over the whole stream ([gateway] max_input_bytes)"
            );
            return Err(Error::invalid(format!("step[{number}]"), said));
        }
        (sent.steps, sent.bytes) = (number + 1, bytes);
        let admission = self.context.admission(self.run.client.names());
        let step = admission.further(wire, number, &mut sent.schemas)?;
        self.join(step, |field| renamed(field, &format!("step[{number}]")))
    }
}

/// A message that cannot be read is the client's to mend; anything else that ends the stream is the client's end.
fn unreadable(status: &Status) -> Error {
    match shoal_kit::serve::unreadable(status) {
        Some(reason) => reason.into(),
        None => Error::Cancelled {
            why: format!("its client has gone: {}", status.message()),
        },
    }
}

/// `step[2].model.input` of the graph's `nodes[7].model.input`.
pub(super) fn renamed(field: &str, name: &str) -> String {
    match field.split_once('.') {
        Some((_, rest)) => format!("{name}.{rest}"),
        None if field.starts_with("nodes") => name.to_owned(),
        None => format!("{name}.{field}"),
    }
}

/// A planner's call, as a node of its own.
pub(crate) fn planner(
    context: Arc<Context>,
    run: Arc<Run>,
    (task, input): (&str, Input),
    accept: Box<Accept>,
    report: Report,
) -> Job {
    let node = Node::new(report.node_id(), asks(task));
    Job {
        accept: Some(accept),
        ..ahead(context, run, node, input, report)
    }
}

/// The call that tells a goal's intent, as a node of its own.
pub(crate) fn router(context: Arc<Context>, run: Arc<Run>, task: &str, goal: &str) -> Job {
    let mut node = Node::new(ROUTER, asks(task));
    node.timeout = Some(intent::PATIENCE);
    let report = Report::new(run.plan.clone(), ROUTER);
    ahead(context, run, node, Input::Text(goal.to_owned()), report)
}

fn asks(task: &str) -> Kind {
    Kind::Model {
        task: task.to_owned(),
        input: Template::default(),
    }
}

/// A call that is made ahead of a plan's steps, with every default.
fn ahead(context: Arc<Context>, run: Arc<Run>, node: Node, input: Input, report: Report) -> Job {
    let step = Step {
        wire: wire(&node),
        node,
        sampling: None,
        schema: None,
        conversation: None,
    };
    let (id, task) = (step.node.id.clone(), step.task().unwrap_or_default().to_owned());
    run.plan.begin_ahead(&id, &task);
    let filled = match input {
        Input::Text(text) => Value::String(text),
        other => other.json(),
    };
    Job {
        about: About {
            node_id: id,
            kind: "model",
            name: task,
            depends_on: Vec::new(),
            began: Instant::now(),
            outcome_id: context.recorder.id(),
        },
        step: Arc::new(step),
        // Everything waits for it, and how much that will be is not known: it has no slack.
        start_by: Instant::now(),
        input: Ok(filled),
        fall_back_input: None,
        accept: None,
        report,
        trail: Arc::default(),
        progress: Arc::default(),
        context,
        run,
    }
}
