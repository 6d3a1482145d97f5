//! `shoal run`, `shoal watch` and `shoal cancel`: a plan through the gateway, watched as it runs.
use crate::{
    client::{ConnectArgs, Mesh, Session},
    exit::{Failure, Result},
    json, output, plan_file,
    view::{self, PlanView, Show},
};
use clap::Args;
use shoal_proto::{time, v1};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

/// What `shoal run` takes.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// A goal in words, or a plan file: NAME.yaml, NAME.json (typed) or NAME.plan (plan text). Words that end in such a name are a goal, unless
    /// that file, blanks in its name and all, is there
    #[arg(required_unless_present = "turns", conflicts_with = "turns")]
    pub what: Option<String>,
    /// Plan a conversation: a file with what the user said, one turn a line, oldest first
    #[arg(long, value_name = "FILE")]
    pub turns: Option<PathBuf>,
    /// End the plan after this long: 500ms, 30s, 5m [default: the gateway's default_deadline]
    #[arg(long, value_parser = plan_file::duration, value_name = "TIME")]
    pub deadline: Option<Duration>,
    /// Tokens in and out at most, over all model calls
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u64>,
    /// US dollars at most, by the model cards' prices
    #[arg(long, value_name = "USD")]
    pub max_cost: Option<f64>,
    /// How urgently it is wanted
    #[arg(long, value_enum)]
    priority: Option<plan_file::Priority>,
    /// An id of your own: the same id with the same content watches the first run instead of starting another
    #[arg(long, value_name = "ID")]
    pub plan_id: Option<String>,
    /// Let the plan go on when this command ends; `shoal watch` finds it again
    #[arg(long)]
    pub detach: bool,
    /// One JSON event a line, then {plan_id, state, nodes, outputs}
    #[arg(long)]
    pub json: bool,
    /// Which mesh.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// What `shoal watch` and `shoal cancel` take.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// The plan
    pub plan_id: String,
    /// JSON instead of words
    #[arg(long)]
    pub json: bool,
    /// Which mesh.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// `shoal run`.
pub(crate) async fn run(args: RunArgs) -> Result<()> {
    let request = request(&args)?;
    let session = Session::open(&args.connect, "run").await?;
    let span = tracing::info_span!("shoal run", otel.kind = "client");
    let result = execute(&session, request, args.json, args.detach)
        .instrument(span)
        .await;
    let interrupted = session.stop.is_cancelled();
    session.close().await;
    verdict(&result?, interrupted)
}

async fn execute(session: &Session, request: v1::ExecutePlanRequest, json: bool, detach: bool) -> Result<PlanView> {
    let stream = tokio::select! {
        stream = session.mesh.execute(request) => stream?,
        () = session.stop.cancelled() => return Err(Failure::refused("interrupted before the gateway took the plan")),
    };
    let give_up = (!detach).then_some(&session.mesh);
    Ok(follow(stream, json, give_up, &session.stop).await?)
}

/// `shoal watch`.
pub(crate) async fn watch(args: PlanArgs) -> Result<()> {
    let session = Session::open(&args.connect, "watch").await?;
    let plan = async {
        let stream = session.ask(session.mesh.watch(&args.plan_id, 0)).await?;
        Ok::<_, Failure>(follow(stream, args.json, None, &session.stop).await?)
    }
    .await;
    let interrupted = session.stop.is_cancelled();
    session.close().await;
    verdict(&plan?, interrupted)
}

/// `shoal cancel`.
pub(crate) async fn cancel(args: PlanArgs) -> Result<()> {
    let session = Session::open(&args.connect, "cancel").await?;
    let state = session.ask(session.mesh.cancel(&args.plan_id, "shoal cancel")).await;
    session.close().await;
    let state = json::state(state?.into());
    output::line(if args.json {
        serde_json::json!({"plan_id": args.plan_id, "state": state}).to_string()
    } else {
        format!("plan {} is {state}", args.plan_id)
    });
    Ok(())
}

/// Shows a plan's events until they end. On Ctrl-C the plan is cancelled through `give_up`, if that is given, or just left.
pub(crate) async fn follow(
    stream: Streaming<v1::PlanEvent>,
    json: bool,
    give_up: Option<&Mesh>,
    stop: &CancellationToken,
) -> Result<PlanView, Status> {
    let mut show: Box<dyn Show + Send> = if json { Box::new(Lines) } else { view::for_reader() };
    let plan = collect(stream, &mut *show, give_up, stop).await?;
    // One that a person stopped watching did not break off: the verdict says so. The last object of --json comes all the same.
    if json || plan.finished.is_some() || !stop.is_cancelled() {
        show.end(&plan);
    }
    Ok(plan)
}

/// Takes a plan's events in until they end.
pub(crate) async fn collect(
    mut stream: Streaming<v1::PlanEvent>,
    show: &mut (dyn Show + Send),
    give_up: Option<&Mesh>,
    stop: &CancellationToken,
) -> Result<PlanView, Status> {
    let mut plan = PlanView::default();
    let mut cancelled = false;
    loop {
        let event = tokio::select! {
            event = stream.message() => event?,
            () = stop.cancelled(), if !cancelled => {
                cancelled = true;
                match give_up {
                    // The stream's last events say what came of it.
                    Some(mesh) if !plan.plan_id.is_empty() => {
                        mesh.cancel(&plan.plan_id, "interrupted by its client").await?;
                        continue;
                    }
                    // Nobody has said what it is called; dropping the stream cancels it too.
                    _ => return Ok(plan),
                }
            }
        };
        let Some(event) = event else { return Ok(plan) };
        let node = plan.apply(&event);
        show.event(&event, &plan, node);
    }
}

/// One JSON event a line.
struct Lines;

impl Show for Lines {
    fn event(&mut self, event: &v1::PlanEvent, _: &PlanView, _: Option<usize>) {
        output::line(json::event(event).to_string());
    }

    fn end(&mut self, plan: &PlanView) {
        output::line(plan.to_json().to_string());
    }
}

/// Exit 0 for a plan that succeeded, 1 for any other end, and for one that a person stopped watching.
fn verdict(plan: &PlanView, interrupted: bool) -> Result<()> {
    let Some(finished) = &plan.finished else {
        return Err(match plan.plan_id.as_str() {
            _ if !interrupted => Failure::unavailable(view::summary(plan)),
            "" => Failure::refused("interrupted before the gateway named the plan"),
            id => Failure::refused(format!(
                "interrupted; plan {id} is not cancelled: `shoal watch {id}` finds it again, `shoal cancel {id}` ends it"
            )),
        });
    };
    if finished.state() == v1::State::Succeeded {
        return Ok(());
    }
    let why = finished
        .fault
        .as_ref()
        .map_or(String::new(), |f| format!(": {}", f.message));
    Err(Failure::refused(format!(
        "plan {} {}{why}; `shoal why {}` shows where",
        plan.plan_id,
        json::state(finished.state),
        plan.plan_id
    )))
}

fn request(args: &RunArgs) -> Result<v1::ExecutePlanRequest> {
    let mut request = match (&args.what, &args.turns) {
        (_, Some(file)) => of_goal(v1::Goal {
            turns: turns(file)?,
            ..Default::default()
        }),
        (Some(what), None) if is_file(what) => plan_file::read(Path::new(what))?,
        (what, None) => of_goal(v1::Goal {
            text: what.clone().unwrap_or_default(),
            ..Default::default()
        }),
    };
    let limits = request.limits.get_or_insert_default();
    limits.deadline = args.deadline.map(time::duration).or(limits.deadline.take());
    limits.max_tokens = args.max_tokens.unwrap_or(limits.max_tokens);
    limits.max_cost_usd = args.max_cost.unwrap_or(limits.max_cost_usd);
    if let Some(priority) = args.priority {
        limits.priority = v1::Priority::from(priority).into();
    }
    if let Some(id) = &args.plan_id {
        request.plan_id.clone_from(id);
    }
    request.detach = args.detach;
    Ok(request)
}

/// Whether a plan file is meant. Words may end in a file's name too: with blanks in it, only what is there is one. Without, it is one
/// whether it is there or not, so that a mistyped name is told and not planned.
fn is_file(what: &str) -> bool {
    let path = Path::new(what);
    let extension = path.extension().and_then(|e| e.to_str());
    matches!(extension, Some("yaml" | "yml" | "json" | "plan"))
        && (!what.contains(char::is_whitespace) || path.is_file())
}

/// A request that has its goal planned and run.
pub(crate) fn of_goal(goal: v1::Goal) -> v1::ExecutePlanRequest {
    let source = Some(v1::execute_plan_request::Source::Goal(goal));
    v1::ExecutePlanRequest {
        source,
        ..Default::default()
    }
}

/// The non-empty lines of a file.
pub(crate) fn turns(file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    let turns: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(str::to_owned)
        .collect();
    if turns.is_empty() {
        return Err(Failure::usage(format!(
            "{}: holds no turn; write one a line",
            file.display()
        )));
    }
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_plan_that_a_person_stops_watching_did_not_break_off() {
        let plan = PlanView {
            plan_id: "p".into(),
            ..Default::default()
        };
        let left = verdict(&plan, true).expect_err("no end was seen");
        assert_eq!(left.exit, Exit::Refused);
        assert!(left.message.contains("shoal watch p"), "{left}");
        assert!(!left.message.contains("broke off"), "{left}");
        let broke = verdict(&plan, false).expect_err("no end was seen");
        assert_eq!(broke.exit, Exit::Unavailable);
        assert!(broke.message.contains("broke off"), "{broke}");
    }

    #[test]
    fn a_goal_is_told_apart_from_a_plan_file() {
        assert!(is_file("plan.yaml") && is_file("a/b.plan") && is_file("x.json"));
        assert!(!is_file("play some jazz") && !is_file("what is on at 8.30") && !is_file("rate this book 5."));
        assert!(!is_file("summarise the figures in q3.json"), "words about a file");
        let folder = tempfile::tempdir().expect("a folder");
        let there = folder.path().join("my trip.yaml");
        std::fs::write(&there, "nodes: []").expect("written");
        assert!(is_file(&there.display().to_string()), "a file whose name has a blank");
    }
}
