//! One node, from its filled input to its end. It runs inside the driver's task: when the driver drops it, everything that it has
//! started is dropped with it, down to the specialist's slot.
use super::{
    policy::{self, Came},
    progress::Progress,
    report::Report,
    result::{About, Ended, Got, result},
};
use crate::{
    admit::{Catalogue, Known, Step},
    context::Context,
    error::Error,
    outcomes::outcome::{self, Beyond},
    plans::Plan,
    route::{
        Input, Trail,
        budget::Budget,
        judge::Accept,
        walk::{self, Answer, Ask},
    },
    telemetry,
    tools::{
        call::{self, Wanted},
        client::{CLIENT, ClientTools},
    },
};
use serde_json::Value;
use shoal_kit::telemetry::{CONTENT_BYTES, cut, names};
use shoal_plan::{Kind, graph::OnFailure};
use shoal_proto::{time, v1};
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, Span, field::Empty, info_span};

/// Attempts of a model node that says nothing of them.
const ATTEMPTS: u32 = 2;

/// What the nodes of one plan share.
pub(crate) struct Run {
    pub(crate) plan: Arc<Plan>,
    pub(crate) budget: Budget,
    pub(crate) client: ClientTools,
    pub(crate) priority: v1::Priority,
}

/// A node that starts.
pub(crate) struct Job {
    pub(crate) context: Arc<Context>,
    pub(crate) run: Arc<Run>,
    pub(crate) step: Arc<Step>,
    pub(crate) about: About,
    /// The latest start with which the plan still ends in time, as far as anybody knows: its slack is what is left until then.
    pub(crate) start_by: Instant,
    /// References filled in, or why they cannot be.
    pub(crate) input: Result<Value, Error>,
    /// What a fallback is asked: the node's own input, or, of a derived call, that of the node that yielded it.
    pub(crate) fall_back_input: Option<Input>,
    /// Of the planner: what its text must be.
    pub(crate) accept: Option<Box<Accept>>,
    pub(crate) report: Report,
    pub(crate) trail: Arc<Trail>,
    pub(crate) progress: Arc<Progress>,
}

/// A node that has ended.
pub(crate) struct End {
    pub(crate) result: v1::NodeResult,
    pub(crate) output: Result<Value, Error>,
}

/// Runs it. Its outcome is kept when this returns.
pub(crate) async fn run(job: Job) -> End {
    let span = span(&job);
    let end = async {
        let came = match attempt(&job).await {
            Ok(got) => Came::Got(got),
            Err(error) => policy::apply(&job, error).await,
        };
        // Whoever failed before anybody was asked has started all the same.
        job.report.start("");
        finish(&job, came).await
    }
    .instrument(span.clone())
    .await;
    record(&span, &job, &end.result);
    end
}

/// The node's own work, within its own bound.
async fn attempt(job: &Job) -> Result<Got, Error> {
    let deadline = deadline(job);
    let work = async {
        let input = job.input.clone()?;
        job.trail.with(|way| way.input_json = input_json(job, &input));
        match &job.step.node.kind {
            Kind::Model { task, .. } => {
                let input = model_input(job, input);
                // The walk ends itself at the deadline: cut off from here, it would lose a doubted answer that it holds.
                let answer = walk_for(job, task, &input, true, deadline).await?;
                Ok(Got::answer(answer, &job.trail))
            }
            Kind::Tool { name, .. } => {
                let answered = async {
                    if job.run.client.names().contains(name) {
                        client_tool(job, name, &input).await
                    } else {
                        tool(job, name, &input, deadline).await
                    }
                };
                let ended = timeout_at(deadline, answered).await;
                ended.unwrap_or_else(|_| Err(shoal_stack::Error::Expired.into()))
            }
        }
    };
    let expired = || match job.step.node.timeout {
        Some(timeout) if deadline < job.run.plan.deadline => {
            format!("the node did not end within its timeout of {timeout:?}")
        }
        _ => "the plan's deadline ran out".to_owned(),
    };
    match work.await {
        // Whatever struck, it was this deadline, and the node knows whose it is.
        Err(Error::Expired { .. }) if Instant::now() >= deadline => Err(Error::Expired { what: expired() }),
        ended => ended,
    }
}

/// When the node must have ended, if it starts now: the plan's deadline, or its own if that is sooner.
pub(super) fn deadline(job: &Job) -> Instant {
    let own = job.step.node.timeout.and_then(|t| Instant::now().checked_add(t));
    own.map_or(job.run.plan.deadline, |own| own.min(job.run.plan.deadline))
}

fn model_input(job: &Job, filled: Value) -> Input {
    match &job.step.conversation {
        Some(messages) => Input::Conversation(messages.clone()),
        None => Input::of(filled),
    }
}

fn input_json(job: &Job, filled: &Value) -> String {
    match &job.step.node.kind {
        Kind::Model { .. } => model_input(job, filled.clone()).json().to_string(),
        Kind::Tool { .. } => filled.to_string(),
    }
}

/// Walks a task's chain for this node, until `deadline`; `own` says that it is the node's own task and not its fallback's.
pub(super) async fn walk_for(
    job: &Job,
    task: &str,
    input: &Input,
    own: bool,
    deadline: Instant,
) -> Result<Answer, Error> {
    let node = &job.step.node;
    let ask = Ask {
        task,
        input,
        sampling: job.step.sampling.as_ref(),
        schema: job.step.schema.as_ref(),
        human_facing: node.human_facing,
        private: node.private,
        priority: job.run.priority,
        max_attempts: node.max_attempts.unwrap_or(ATTEMPTS),
        start_by: job.start_by.min(deadline),
        deadline,
        has_fallback: own && matches!(node.on_failure, OnFailure::FallBack(_)),
        budget: &job.run.budget,
        accept: job.accept.as_deref(),
        listener: &job.report,
        trail: &job.trail,
    };
    walk::walk(&job.context.registry, &job.context.instruments, ask).await
}

async fn tool(job: &Job, name: &str, arguments: &Value, deadline: Instant) -> Result<Got, Error> {
    let Some(tool) = job.context.registry.tool(name) else {
        return Err(match Catalogue::tool(&*job.context.registry, name) {
            Known::Unlisted(server) => Error::Away {
                what: format!("tool server `{server}` has not answered yet, and may offer `{name}`"),
            },
            Known::Registered(_) | Known::Unknown(_) => Error::Passed(v1::Fault {
                code: tonic::Code::NotFound as i32,
                reason: "TOOL_UNKNOWN".into(),
                message: format!("no tool `{name}` is registered any more"),
            }),
        });
    };
    job.report.start(&tool.server.name);
    job.trail
        .with(|way| tool.server.name.to_string().clone_into(&mut way.target));
    let wanted = Wanted {
        arguments,
        plan_id: &job.run.plan.id,
        node_id: &job.about.node_id,
        max_attempts: job.step.node.max_attempts,
        priority: job.run.priority,
        start_by: job.start_by,
        deadline,
        timeout: job.context.config.tool_timeout,
    };
    let began = Instant::now();
    let answered = call::call(&tool, wanted).await?;
    if let Some(hedged) = &answered.hedged {
        job.trail.decide(v1::Decision {
            target: tool.server.name.to_string(),
            endpoint: answered.endpoint.clone(),
            verdict: v1::decision::Verdict::Chosen.into(),
            reason: hedged.to_string(),
            elapsed: Some(time::duration(began.elapsed())),
            ..v1::Decision::default()
        });
    }
    Ok(Got::answered(&tool.server.name, answered))
}

async fn client_tool(job: &Job, name: &str, arguments: &Value) -> Result<Got, Error> {
    job.report.start(CLIENT);
    job.trail.with(|way| CLIENT.clone_into(&mut way.target));
    let mut call = job.run.client.open()?;
    job.report.requested(&call.id, name, arguments.to_string());
    let value = call.answer().await?;
    Ok(Got {
        value,
        target: CLIENT.to_owned(),
        ..Got::default()
    })
}

/// Keeps the outcome, and says what is told.
async fn finish(job: &Job, came: Came) -> End {
    let way = job.trail.so_far();
    let (ended, output, beyond) = match &came {
        Came::Got(got) => (Ended::Got(got), Ok(got.value.clone()), got.beyond.clone()),
        Came::Default(value, error) => (Ended::Failed(error), Ok(value.clone()), Beyond::default()),
        Came::Failed(error) | Came::BothFailed(error, _) => {
            (Ended::Failed(error), Err(error.clone()), Beyond::default())
        }
    };
    let mut told = result(&job.run.plan, &job.about, &way, &ended);
    let outcome = (!told.outcome_id.is_empty()).then(|| outcome(job, &came, &told, beyond));
    if let Came::Default(value, _) = &came {
        // The plan goes on with the value; the fault says why it is not the node's own. The outcome stays a failure: nobody should
        // learn from a stand-in.
        told.state = v1::State::Succeeded.into();
        told.output_json = value.to_string();
    }
    if let Some(outcome) = outcome {
        // Once handed over it is kept, whoever cuts the node off while it is written: no other end must be told then.
        job.progress.end(told.clone());
        job.context.recorder.keep(outcome).await;
    }
    End { result: told, output }
}

/// What is kept of an end of which this is told.
fn outcome(job: &Job, came: &Came, told: &v1::NodeResult, beyond: Beyond) -> v1::Outcome {
    let mut kept = job.progress.kept(told);
    if let Came::BothFailed(_, own) = came {
        kept.fault = Some(own.fault());
    }
    let beyond = Beyond {
        valid: beyond.valid.or(policy::invalid(&kept)),
        ..beyond
    };
    outcome::of(&job.run.plan.id, &job.run.plan.trace_id, &kept, beyond)
}

fn span(job: &Job) -> Span {
    let (kind, operation) = match (job.about.kind, job.accept.is_some()) {
        ("tool", _) => ("TOOL", "execute_tool"),
        _ => ("CHAIN", "chat"),
    };
    let shown = match job.accept {
        Some(_) => format!("planner {}", job.about.name),
        None => format!("node {} {}", job.about.node_id, job.about.name),
    };
    let span = info_span!(
        "node",
        otel.name = shown,
        otel.status_code = Empty,
        { names::OPENINFERENCE_KIND } = kind,
        { names::GEN_AI_OPERATION } = operation,
        { names::PLAN_ID } = job.run.plan.id,
        { names::NODE_ID } = job.about.node_id,
        { names::GEN_AI_TOOL_NAME } = Empty,
        { names::GEN_AI_RESPONSE_MODEL } = Empty,
        { names::GEN_AI_INPUT_TOKENS } = Empty,
        { names::GEN_AI_OUTPUT_TOKENS } = Empty,
        { names::INPUT_VALUE } = Empty,
        { names::OUTPUT_VALUE } = Empty,
        { telemetry::TASK } = Empty,
        { telemetry::TARGET } = Empty,
        { telemetry::STATE } = Empty,
        { telemetry::CONFIDENCE } = Empty,
        { telemetry::COST_USD } = Empty,
    );
    let named = if job.about.kind == "tool" {
        names::GEN_AI_TOOL_NAME
    } else {
        telemetry::TASK
    };
    span.record(named, job.about.name.as_str());
    span
}

/// What the span says of the end. Content only where it is switched on.
fn record(span: &Span, job: &Job, result: &v1::NodeResult) {
    let state = result.state();
    counted(&job.context, &job.run, &job.about, state);
    span.record(telemetry::STATE, telemetry::word(state));
    span.record(telemetry::TARGET, result.target.as_str());
    if state != v1::State::Succeeded {
        span.record("otel.status_code", "ERROR");
    }
    if job.about.kind == "model" {
        let usage = result.usage.unwrap_or_default();
        span.record(names::GEN_AI_RESPONSE_MODEL, result.model.as_str());
        span.record(names::GEN_AI_INPUT_TOKENS, usage.input_tokens);
        span.record(names::GEN_AI_OUTPUT_TOKENS, usage.output_tokens);
        span.record(telemetry::COST_USD, usage.cost_usd);
        if let Some(confidence) = &result.confidence {
            span.record(telemetry::CONFIDENCE, confidence.score);
        }
    }
    if job.context.content {
        span.record(names::INPUT_VALUE, cut(&plain(&result.input_json), CONTENT_BYTES));
        span.record(names::OUTPUT_VALUE, cut(&plain(&result.output_json), CONTENT_BYTES));
    }
}

/// Counts an end.
pub(super) fn counted(context: &Context, run: &Run, about: &About, state: v1::State) {
    let name = match about.kind {
        "tool" => run.client.label(&about.name),
        _ => &about.name,
    };
    context
        .instruments
        .node_ended(about.kind, name, state, about.began.elapsed());
}

/// A JSON string's text; anything else as it is. People read it.
fn plain(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())
}
