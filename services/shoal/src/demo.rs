//! `shoal demo`: a mesh of separate processes on free ports, real goals, real models, every outcome kept.
//!
//! `goals` takes the goals from the task data's samples; `after` makes those that follow a conversation; `judge` says whether a plan's answer is right and whose fault
//! a failed plan is; `summary` adds up; `teach` is the other demonstration, of a model that learns.
mod after;
mod goals;
mod judge;
mod summary;
mod teach;

use crate::{
    client::{self, Mesh},
    exit::{Failure, Result},
    json, output, run,
    supervise::{self, Options},
    view::{PlanView, milliseconds},
};
use clap::Args;
use goals::{Goal, Kind};
use judge::Fault;
use shoal_kit::{config::MeshConfig, shutdown};
use shoal_proto::v1;
use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use summary::{Ran, Summary};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// How long the last outcomes may take from the gateway's spool to the store's disk. A commit takes milliseconds.
const SPOOL: Duration = Duration::from_secs(10);

/// Between two counts of the store.
const COUNT: Duration = Duration::from_millis(100);

/// What `shoal demo` takes.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// JSON events a line, then one object: {plans, succeeded, right, dependent_edges, outcomes_acknowledged,
    /// answered, trace_ids}
    #[arg(long)]
    pub json: bool,
    /// Where outcomes, spool and logs go [default: data/demo-TIME]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The configuration file [default: mesh.toml in this folder]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Show every process's log here instead of writing it to DATA/logs/NAME.log
    #[arg(long, short)]
    pub verbose: bool,
    /// Show instead how a model learns: a wrong answer, its correction, a retraining, the same request right
    ///
    /// Needs Python with services/trainer installed. The models are copied to DATA/models and changed there only. With --json the
    /// last object is {goal, right_before, right_after, answered_meanwhile, retrain}.
    #[arg(long)]
    pub teach: bool,
    /// Task data to rehearse and judge by, as `shoal retrain --data` [default: the committed samples]
    #[arg(long, value_name = "DIR", requires = "teach")]
    pub rows: Option<PathBuf>,
    /// A Python that has services/trainer installed [default: .venv/bin/python]
    #[arg(long, value_name = "FILE", requires = "teach")]
    pub python: Option<PathBuf>,
}

/// The command.
pub(crate) async fn demo(args: DemoArgs) -> Result<()> {
    let mut config = MeshConfig::load(args.config.as_deref())?.config;
    if !config.specialist.values().any(|s| s.folder.is_some()) {
        return Err(Failure::usage(
            "no specialist with a folder is configured: run the demo where mesh.toml is, or give --config FILE",
        ));
    }
    let data = args.data.clone().unwrap_or_else(fresh_folder);
    config.feedback.store = data.join("outcomes.sqlite");
    config.gateway.spool = data.join("spool");
    let learner = args
        .teach
        .then(|| teach::prepare(&mut config, &args, &data))
        .transpose()?;
    let _telemetry = client::quiet_telemetry("demo", &config)?;
    let stop = shutdown::signal(false);
    let since = Instant::now();
    let options = Options {
        free_ports: true,
        verbose: args.verbose,
        data: Some(data.clone()),
    };
    let mesh = supervise::Mesh::start(config, options, stop.clone()).await?;
    if !args.json {
        output::line(format!(
            "{} processes healthy after {:.1?}\n",
            mesh.addresses.len(),
            since.elapsed()
        ));
        supervise::show(&mesh).await;
    }
    if let Some(learner) = learner {
        let taught = teach::teach(&mesh, &args, learner, &data, &stop).await;
        mesh.stop().await;
        let taught = taught?;
        if args.json {
            output::line(taught.to_json().to_string());
        }
        return Ok(());
    }
    let summary = all(&mesh, &args, &stop).await;
    let store = mesh.config.feedback.store.clone();
    let otlp = mesh.config.telemetry.endpoint();
    mesh.stop().await;
    let summary = summary?;
    if args.json {
        output::line(summary.to_json().to_string());
    } else {
        summary.lines(&store, otlp.as_deref()).iter().for_each(output::line);
    }
    summary.verdict()
}

fn fresh_folder() -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    PathBuf::from("data").join(format!("demo-{}", now.as_secs()))
}

/// Every goal, then the count of the store.
async fn all(mesh: &supervise::Mesh, args: &DemoArgs, stop: &CancellationToken) -> Result<Summary> {
    let demonstration = Demonstration {
        client: Mesh::at(&mesh.gateway())?,
        endpoints: mesh.config.endpoint.keys().map(String::as_str).collect(),
        json: args.json,
        stop,
    };
    let mut summary = Summary::default();
    let served = |goal: &Goal| mesh.config.task.contains_key(goal.task().name());
    let goals = [goals::joined(), goals::trips(), goals::talks(), goals::others()];
    for goal in goals.into_iter().flatten().filter(served) {
        let talk = (goal.kind == Kind::Talk).then(|| goal.clone());
        let ran = demonstration.one(goal).await?;
        let follows = match &talk {
            // Of a plan that failed there is nothing to say but why.
            Some(talk) if ran.fault.is_none() => demonstration.after(talk, &ran.plan, served).await?,
            _ => Vec::new(),
        };
        summary.add(ran);
        follows.into_iter().for_each(|ran| summary.add(ran));
    }
    // One request after the other, as people made them, until the specialist hands one on.
    if mesh.config.endpoint.is_empty() {
        output_note(
            args.json,
            "no [endpoint] is configured: nothing can go to a larger model",
        );
    } else {
        let mut handed_on = false;
        for goal in goals::single() {
            let ran = demonstration.one(goal).await?;
            handed_on = ran.larger;
            summary.add(ran);
            if handed_on {
                break;
            }
        }
        if !handed_on {
            output_note(
                args.json,
                "the specialist was sure of every request: none went to the larger model",
            );
        }
    }
    if !mesh.config.gateway.feedback.is_empty() {
        let stored = acknowledged(&Mesh::at(&mesh.feedback())?, &summary).await?;
        summary.keep(&stored);
    }
    Ok(summary)
}

fn output_note(json: bool, note: &str) {
    if json {
        eprintln!("shoal: {note}")
    } else {
        output::line(note)
    }
}

/// What every goal is run with.
struct Demonstration<'a> {
    client: Mesh,
    /// Names of the larger tier's targets.
    endpoints: Vec<&'a str>,
    json: bool,
    stop: &'a CancellationToken,
}

impl Demonstration<'_> {
    /// One goal through the gateway, shown as it runs, judged.
    async fn one(&self, goal: Goal) -> Result<Ran> {
        if !self.json {
            output::line(format!("\n{}", goal.title()));
        }
        let span = tracing::info_span!("shoal demo", otel.kind = "client", goal = goal.id());
        let ran = async {
            let stream = self.client.execute(goal.request.clone()).await?;
            run::follow(stream, self.json, Some(&self.client), self.stop).await
        }
        .instrument(span)
        .await;
        if self.stop.is_cancelled() {
            return Err(Failure::refused("interrupted"));
        }
        let (plan, fault) = match ran {
            Ok(plan) => {
                let fault = judge::fault(&goal, &plan);
                (plan, fault)
            }
            Err(status) if judge::garbled(&status) => {
                (PlanView::default(), Some(Fault::Model(status.message().to_owned())))
            }
            Err(status) => return Err(Failure::from(status)),
        };
        if !self.json && goal.kind == Kind::Joined && !plan.plan_id.is_empty() {
            self.intent(&plan.plan_id).await?;
        }
        let right = judge::right(&goal, &plan);
        let larger = plan.nodes.iter().any(|n| self.endpoints.contains(&n.target.as_str()));
        if !self.json {
            self.verdict(&goal, right, larger);
        }
        Ok(Ran {
            kind: goal.kind,
            plan,
            right,
            larger,
            fault,
        })
    }

    /// What follows a conversation whose plan has run: the replies, then the note.
    async fn after(&self, talk: &Goal, plan: &PlanView, served: impl Fn(&Goal) -> bool) -> Result<Vec<Ran>> {
        let mut follows = Vec::new();
        let Some(replies) = after::replies(talk, plan).filter(&served) else {
            return Ok(follows);
        };
        follows.push(self.one(replies).await?);
        let note = after::note(talk, plan, &follows[0].plan).filter(&served);
        if let Some(note) = note {
            follows.push(self.one(note).await?);
        }
        Ok(follows)
    }

    /// Says what the goal's intent was found to be, if anybody was asked.
    async fn intent(&self, plan_id: &str) -> Result<()> {
        let record = self.client.plan(plan_id).await?;
        if let Some(router) = record.nodes.iter().find(|n| n.node_id == "router") {
            let sure = router.confidence.as_ref().map_or(0.0, |c| c.score);
            let took = milliseconds(json::seconds(router.elapsed.as_ref()));
            output::line(format!(
                "intent: {} ({sure:.2}, {took})",
                router.output_json.trim_matches('"')
            ));
        }
        Ok(())
    }

    fn verdict(&self, goal: &Goal, right: bool, larger: bool) {
        if larger {
            output::line("handed on: the larger model answered");
        }
        output::line(match goal.kind {
            Kind::Beyond => "nobody wrote down a right call: none of the tools does this".to_owned(),
            _ if right => "right".to_owned(),
            Kind::Reply => "wrong: a reply leaves a value out".to_owned(),
            Kind::Note => format!("wrong; the calls were: {}", goal.target()),
            _ => format!("wrong; people wrote: {}", goal.target()),
        });
    }
}

/// The plans' outcomes in the store, once the spool has had time to empty.
async fn acknowledged(store: &Mesh, summary: &Summary) -> Result<Vec<v1::Outcome>> {
    let wanted = summary.outcomes_sent();
    let until = Instant::now() + SPOOL;
    let mut before = None;
    loop {
        let mut stored = Vec::new();
        for plan_id in summary.plan_ids() {
            let request = client::short(v1::ListOutcomesRequest {
                plan_id: plan_id.to_owned(),
            });
            stored.extend(store.feedback().list_outcomes(request).await?.into_inner().outcomes);
        }
        // Planners' own calls are outcomes too, and no event counts them: two equal counts are the end.
        if (stored.len() >= wanted && before == Some(stored.len())) || Instant::now() >= until {
            return Ok(stored);
        }
        before = Some(stored.len());
        tokio::time::sleep(COUNT).await;
    }
}
