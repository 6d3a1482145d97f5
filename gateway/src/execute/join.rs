//! Steps that join a plan while it runs: from a planner that writes, and from a client that streams.
use super::{
    driver::{Driver, Ending},
    node::{Job, Run},
    report::Report,
    result::About,
};
use crate::{
    admit::{PLANNER, ROUTER, Step, node_bytes, wire},
    context::Context,
    decompose::{self, Draft, intent},
    error::Error,
    route::{Input, judge::Accept},
    schema::Allowance,
};
use futures::{StreamExt as _, stream::BoxStream};
use serde_json::Value;
use shoal_plan::{Kind, Node, Template, text};
use shoal_proto::v1::{self, execute_plan_stream_request::Message};
use std::sync::Arc;
use tokio::{sync::watch, time::Instant};
use tonic::Status;

/// What a streaming client sends.
pub(crate) type Incoming = BoxStream<'static, Result<v1::ExecutePlanStreamRequest, Status>>;

/// Where further steps come from.
pub(crate) struct Arrivals {
    client: Option<Incoming>,
    planner: Option<Writing>,
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

/// A planner at work.
struct Writing {
    goal: v1::Goal,
    draft: Arc<Draft>,
    changed: watch::Receiver<()>,
    /// How many of its steps have joined.
    joined: usize,
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
            Arrival::Written => return self.written(),
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

    /// Lets the steps join that the planner has finished.
    fn written(&mut self) -> Result<(), Error> {
        let Some(writing) = &self.arrivals.planner else {
            return Ok(());
        };
        let (nodes, garbled) = writing.draft.steps(writing.joined);
        self.join_planned(nodes)?;
        match garbled {
            Some(why) => Err(self.garbled(why)),
            None => Ok(()),
        }
    }

    fn join_planned(&mut self, nodes: Vec<Node>) -> Result<(), Error> {
        for node in nodes {
            let Some(writing) = &mut self.arrivals.planner else {
                return Ok(());
            };
            writing.joined += 1;
            let goal = writing.goal.clone();
            let said = format!("step {}", node.id);
            let admitted = decompose::allowed(&goal, &node)
                .map_err(|why| Error::Broken { what: why })
                .and_then(|()| self.context.admission(self.run.client.names()).written(&node));
            let joined = admitted.and_then(|step| self.join(step, |field| renamed(field, &said)));
            match joined {
                Ok(()) => {}
                // The text cannot be known to be wrong while a tool server has not been asked.
                Err(away @ Error::Away { .. }) => return Err(away),
                Err(error) => return Err(self.garbled(error.to_string())),
            }
        }
        Ok(())
    }

    /// The planner has ended: what it wrote is all there is.
    pub(super) fn planned(&mut self, output: Result<Value, Error>) -> Result<(), Ending> {
        let lost = |error: Error| Ending::Lost(error.fault());
        let text = match &output {
            Ok(text) => text.as_str().unwrap_or_default().to_owned(),
            Err(error) => return Err(lost(error.clone())),
        };
        let Some(joined) = self.arrivals.planner.as_ref().map(|w| w.joined) else {
            return Ok(());
        };
        let nodes = text::parse(&text).map_err(|g| {
            lost(Error::Garbled {
                why: g.to_string(),
                text: text.clone(),
            })
        })?;
        let told: Vec<Node> = self
            .arrivals
            .planner
            .as_ref()
            .map(|w| w.draft.steps(0).0)
            .unwrap_or_default();
        let same = nodes.len() >= joined && nodes.iter().zip(told.iter().take(joined)).all(|(a, b)| a == b);
        if !same {
            let why = "its whole text is not what it wrote line by line".to_owned();
            return Err(lost(Error::Garbled { why, text }));
        }
        self.join_planned(nodes[joined..].to_vec()).map_err(lost)?;
        self.arrivals.planner = None;
        Ok(())
    }

    fn garbled(&self, why: String) -> Error {
        let writing = self.arrivals.planner.as_ref();
        let text = writing.map(|w| w.draft.text()).unwrap_or_default();
        Error::Garbled { why, text }
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
fn renamed(field: &str, name: &str) -> String {
    match field.split_once('.') {
        Some((_, rest)) => format!("{name}.{rest}"),
        None if field.starts_with("nodes") => name.to_owned(),
        None => format!("{name}.{field}"),
    }
}

/// What a planner that executes is held to: its text must be a plan that could run.
pub(super) fn runnable(context: Arc<Context>, run: Arc<Run>, goal: v1::Goal) -> Box<Accept> {
    Box::new(move |text| decompose::runnable(text, &goal, &context.admission(run.client.names())))
}

/// The planner's call, as a node of its own.
pub(crate) fn planner(
    context: Arc<Context>,
    run: Arc<Run>,
    (task, input): (&str, Input),
    accept: Box<Accept>,
    report: Report,
) -> Job {
    let node = Node::new(PLANNER, asks(task));
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
