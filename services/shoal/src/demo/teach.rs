//! `shoal demo --teach`: a request in a shorthand that the model does not know, its correction, and the same request right, while the mesh
//! runs.
//!
//! The models are copied first, so the new version stays with the demo's data. The task's chain ends at the specialist: what is shown is
//! that it learns, not that a larger model would have known. `lesson` makes variants of the corrected request.
mod lesson;

use super::{COUNT, DemoArgs, Demonstration, SPOOL, goals, judge, output_note};
use crate::{
    client::{self, Mesh},
    exit::{Failure, Result},
    output,
    retrain::{self, Lesson, Report, Trainer},
    run, supervise,
    view::{PlanView, Show},
};
use serde_json::{Value as Json, json};
use shoal_kit::config::MeshConfig;
use shoal_proto::v1::{self, SubmitFeedbackRequest, submit_feedback_request::Value};
use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// What is taught.
const TASK: &str = "tool_call";

/// Variants that are corrected with the request: a third of them is held out, and the gate wants to see those get better.
const VARIANTS: usize = 35;

/// Variants that are run in search of those: people correct what came out wrong.
const TRIED: usize = 2 * VARIANTS;

/// Length of the training: with the committed samples 120 steps taught a 4.6 M decoder most of the lesson. Steps and not minutes, so
/// that a slow machine takes longer and does not learn less.
const STEPS: u32 = 120;

/// Candidates that are trained at most, with other draws each. Of the committed samples 67 rows judge what is forgotten, and the gate takes half a point:
/// one row that flips refuses a candidate, and which rows flip hangs on the draws and on the processor's rounding.
const CANDIDATES: u32 = 4;

/// Between two requests to the mesh while it learns: often enough to see that it answers, too seldom to take its cores.
const MEANWHILE: Duration = Duration::from_secs(10);

/// What `--teach` found and made.
pub(super) struct Taught {
    goal: String,
    report: Report,
    /// Requests that the mesh answered while it learned.
    meanwhile: usize,
}

impl Taught {
    /// The last object of `--json`.
    pub(super) fn to_json(&self) -> Json {
        json!({"goal": self.goal, "right_before": false, "right_after": true, "answered_meanwhile": self.meanwhile, "retrain": self.report.to_json()})
    }
}

/// Before anything starts: a trainer, copies of the models below `data`, and the task's chain cut to its specialist.
pub(super) fn prepare(config: &mut MeshConfig, args: &DemoArgs, data: &Path) -> Result<(Trainer, String)> {
    let trainer = Trainer::find(args.python.as_deref())?;
    let (name, _) = retrain::model(config, TASK, None)?;
    for (specialist, section) in &mut config.specialist {
        if let Some(folder) = &mut section.folder {
            let copy = data.join("models").join(specialist);
            copy_all(folder, &copy)
                .map_err(|e| Failure::usage(format!("cannot copy {} to {}: {e}", folder.display(), copy.display())))?;
            *folder = copy;
        }
    }
    if let Some(task) = config.task.get_mut(TASK) {
        task.chain = vec![name.clone()];
    }
    Ok((trainer, name))
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let there = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &there)?;
        } else {
            fs::copy(entry.path(), there)?;
        }
    }
    Ok(())
}

/// The lesson, from the wrong answer to the right one.
pub(super) async fn teach(
    mesh: &supervise::Mesh,
    args: &DemoArgs,
    (trainer, name): (Trainer, String),
    data: &Path,
    stop: &CancellationToken,
) -> Result<Taught> {
    let demonstration = Demonstration {
        client: Mesh::at(&mesh.gateway())?,
        endpoints: Vec::new(),
        json: args.json,
        stop,
    };
    let store = Mesh::at(&mesh.feedback())?;
    let rows = goals::requests();
    let goal = lesson::shorthand();
    let lessons = wrong(&demonstration, &goal, &rows).await?;
    let note = |text: &str| output_note(args.json, text);
    note(&format!(
        "\ncorrecting it over SubmitFeedback, and {} requests like it that came out wrong as well",
        lessons.len()
    ));
    for row in [&goal].into_iter().chain(&lessons) {
        correct(&demonstration, &store, row).await?;
    }
    let section = &mesh.config.specialist[&name];
    let mut lesson = Lesson {
        task: TASK.into(),
        folder: section.folder.clone().unwrap_or_default(),
        section: section.clone(),
        data: Some(match &args.rows {
            Some(rows) => rows.clone(),
            None => lesson::sample(&goal, &data.join("rows"))?,
        }),
        dry_run: false,
        work: data.join("retrain"),
        minutes: 0.0,
        steps: STEPS,
        seed: 1,
        name,
    };
    note(&format!(
        "retraining {} in the background; the mesh goes on answering\n",
        lesson.name
    ));
    let mut meanwhile = 0;
    let report = loop {
        let report = {
            let learning = retrain::turn(&lesson, &store, &trainer, stop);
            tokio::pin!(learning);
            loop {
                tokio::select! {
                    report = &mut learning => break report?,
                    () = tokio::time::sleep(MEANWHILE) => {
                        quietly(&demonstration, &rows[meanwhile % rows.len()]).await?;
                        meanwhile += 1;
                    }
                }
            }
        };
        if !args.json {
            report.lines().iter().for_each(output::line);
        }
        if report.accepted != Some(false) || lesson.seed == CANDIDATES {
            break report;
        }
        lesson.seed += 1;
        lesson.work = data.join(format!("retrain-{}", lesson.seed));
        note("\nthe gate refused that candidate; another one, with other draws\n");
    };
    report.verdict(&lesson.work)?;
    note(&format!(
        "the mesh answered {meanwhile} requests meanwhile; the same request again:"
    ));
    let again = demonstration.one(goals::single_of(goal.clone())).await?;
    if !again.right {
        return Err(Failure::refused(format!(
            "{} {} is better on what was held out, and still wrong on the request that was corrected",
            report.model, report.to_version
        )));
    }
    let goal = goal["input"].as_str().unwrap_or_default().to_owned();
    Ok(Taught {
        goal,
        report,
        meanwhile,
    })
}

/// Shows that the request comes out wrong; gives those like it that do as well.
async fn wrong(demonstration: &Demonstration<'_>, goal: &Json, rows: &[Json]) -> Result<Vec<Json>> {
    let known = demonstration.one(goals::single_of(goal.clone())).await?.right;
    let mut like = Vec::new();
    for variant in lesson::variants(goal, rows, TRIED) {
        if like.len() < VARIANTS && !came_out_right(demonstration, &variant).await? {
            like.push(variant);
        }
    }
    if known || like.len() < VARIANTS {
        return Err(Failure::refused(format!(
            "the model knows the shorthand already: of {TRIED} requests like this one {} came out wrong",
            like.len()
        )));
    }
    Ok(like)
}

async fn came_out_right(demonstration: &Demonstration<'_>, row: &Json) -> Result<bool> {
    let plan = quietly(demonstration, row).await?;
    Ok(judge::right(&goals::single_of(row.clone()), &plan))
}

/// Runs a request and says what its answer should have been.
async fn correct(demonstration: &Demonstration<'_>, store: &Mesh, row: &Json) -> Result<()> {
    let plan = quietly(demonstration, row).await?;
    let node_id = plan.nodes.first().map(|n| n.id.clone()).unwrap_or_default();
    let until = Instant::now() + SPOOL;
    loop {
        let request = SubmitFeedbackRequest {
            plan_id: plan.plan_id.clone(),
            node_id: node_id.clone(),
            source: "demo".into(),
            value: Some(Value::CorrectionJson(row["target"].to_string())),
            ..Default::default()
        };
        match store.feedback().submit_feedback(client::short(request)).await {
            Ok(_) => return Ok(()),
            // The outcome is still on its way from the gateway's spool to the store.
            Err(status) if status.code() == tonic::Code::NotFound && Instant::now() < until => {
                tokio::time::sleep(COUNT).await;
            }
            Err(status) => return Err(status.into()),
        }
    }
}

/// Runs a request and shows nothing.
async fn quietly(demonstration: &Demonstration<'_>, row: &Json) -> Result<PlanView> {
    let stream = demonstration
        .client
        .execute(goals::single_of(row.clone()).request)
        .await?;
    let plan = run::collect(stream, &mut Unseen, Some(&demonstration.client), demonstration.stop).await?;
    if demonstration.stop.is_cancelled() {
        return Err(Failure::refused("interrupted"));
    }
    Ok(plan)
}

struct Unseen;

impl Show for Unseen {
    fn event(&mut self, _: &v1::PlanEvent, _: &PlanView, _: Option<usize>) {}
    fn end(&mut self, _: &PlanView) {}
}
