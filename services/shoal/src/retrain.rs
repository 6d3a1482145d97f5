//! `shoal retrain TASK`: what people corrected becomes the next version of the model that was wrong.
//!
//! ```text
//! feedback --export--> corrections.jsonl --trainer--> candidate, report --accepted--> NAME/N+1 --active_version--> specialist
//!                                          (Python)       |  \--at fault, or another version was activated: exit 64 or 1, not touched
//!                                                         \--refused: exit 3; the model's folder was not touched
//! ```
//!
//! The trainer decides: it sets poisoned corrections aside, trains from the active version's own weights, and weighs the candidate
//! against the incumbent on corrections that it held out and on dev rows (services/trainer/shoal_trainer/retrain.py). Here is what
//! surrounds it: `trainer` finds and runs it, `version` gives an accepted candidate its place, and [`activate()`] has it served. Everything
//! but the accepted version is written to a work folder, which is kept: the quarantined rows and a refused candidate are worth a look.
mod report;
mod trainer;
mod version;

pub(crate) use report::Report;
pub(crate) use trainer::Trainer;

use crate::{
    activate::activate,
    client::{self, Mesh},
    exit::{Exit, Failure, Result},
    feedback::{self, StoreArgs},
    output,
};
use clap::Args;
use shoal_kit::{
    config::{self, MeshConfig},
    shutdown, task,
};
use shoal_proto::v1::{ExportDatasetRequest, export_dataset_request::Format};
use shoal_specialist::folder::Folder;
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio_util::sync::CancellationToken;

/// How long running specialists may take to serve what was activated: they look twice a second, and load a model.
const FOLLOW: Duration = Duration::from_secs(60);

/// What `shoal retrain` takes.
#[derive(Args, Debug)]
pub struct RetrainArgs {
    /// The task whose answers were corrected, for example tool_call
    pub task: String,
    /// Folder with TASK.train.jsonl[.gz] (rehearsed, against forgetting) and TASK.dev.jsonl[.gz] (judged by), for every task that the
    /// model serves; needed unless with --dry-run, which sets aside with it what these rows contradict
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Export and sort the corrections, train nothing; what of them the data contradicts is known only with --data
    #[arg(long)]
    pub dry_run: bool,
    /// How long to train; judging both versions takes about as long again
    #[arg(long, default_value_t = 4.0, value_name = "N")]
    pub minutes: f64,
    /// Train for so many steps instead, the same on a busy machine; 0 goes by the clock
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub steps: u32,
    /// Of the order of rows and the variants of them: another one makes another candidate
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u32,
    /// Which model [default: the first of the task's chain that has a folder]
    #[arg(long, value_name = "NAME")]
    pub specialist: Option<String>,
    /// Where quarantine.jsonl, report.json and the candidate go [default: retrain-TASK-TIME beside the feedback store]
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// A Python that has services/trainer installed [default: .venv/bin/python]
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
    /// One object last: {task, model, from_version, to_version, corrections, quarantined, held_out, dev, accepted, seconds}
    #[arg(long)]
    pub json: bool,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// One retraining: whose, from what, where.
#[derive(Debug)]
pub(crate) struct Lesson {
    /// The task.
    pub(crate) task: String,
    /// The model's name.
    pub(crate) name: String,
    /// Its folder, the one that holds `specialist.toml`.
    pub(crate) folder: PathBuf,
    /// Its section of the configuration: where its processes are, if any run.
    pub(crate) section: config::Specialist,
    /// Task data; only a dry run may be without.
    pub(crate) data: Option<PathBuf>,
    /// Sort the corrections, by the data if there is any, and train nothing.
    pub(crate) dry_run: bool,
    /// Where everything is written that is not an accepted version.
    pub(crate) work: PathBuf,
    /// Minutes of training.
    pub(crate) minutes: f64,
    /// Steps of training instead; 0 goes by the clock.
    pub(crate) steps: u32,
    /// Of order and variants.
    pub(crate) seed: u32,
}

/// `shoal retrain`.
pub(crate) async fn retrain(args: RetrainArgs) -> Result<()> {
    let config = MeshConfig::load(args.store.config.as_deref())?.config;
    let (name, folder) = model(&config, &args.task, args.specialist.as_deref())?;
    if args.data.is_none() && !args.dry_run {
        return Err(without_rows(&args.task, &folder));
    }
    let trainer = Trainer::find(args.python.as_deref())?;
    if let Some(data) = args.data.as_deref().filter(|d| !d.is_dir()) {
        return Err(Failure::usage(format!(
            "--data {} is no folder: it must hold TASK.train.jsonl[.gz] and TASK.dev.jsonl[.gz]",
            data.display()
        )));
    }
    let lesson = Lesson {
        section: config.specialist[&name].clone(),
        work: args.work.unwrap_or_else(|| work(&config, &args.task)),
        task: args.task,
        data: args.data,
        dry_run: args.dry_run,
        minutes: args.minutes,
        steps: args.steps,
        seed: args.seed,
        name,
        folder,
    };
    let (store, _telemetry) = feedback::open(&args.store)?;
    let report = turn(&lesson, &store, &trainer, &shutdown::signal(false)).await?;
    if args.json {
        output::line(report.to_json().to_string());
    } else {
        report.lines().iter().for_each(output::line);
    }
    report.verdict(&lesson.work)
}

/// The whole turn, up to the new version being served; a candidate that was refused, or could not be put in service, is a report too.
pub(crate) async fn turn(lesson: &Lesson, store: &Mesh, trainer: &Trainer, stop: &CancellationToken) -> Result<Report> {
    fs::create_dir_all(&lesson.work).map_err(|e| unwritable(&lesson.work, &e))?;
    let corrections = lesson.work.join("corrections.jsonl");
    let rows = tokio::select! {
        rows = export(store, &lesson.task, &corrections) => rows?,
        () = stop.cancelled() => return Err(Failure::refused("interrupted; nothing was changed")),
    };
    eprintln!(
        "{rows} corrected rows of {} are in {}",
        lesson.task,
        corrections.display()
    );
    let mut report = trainer.run(lesson, &corrections, stop).await?;
    if report.accepted == Some(true) {
        // A report all the same: the training was long, and its figures are worth having.
        report.hindrance = put_in_service(lesson, &report, stop).await.err();
    }
    Ok(report)
}

/// Gives an accepted candidate its place and has it served; a failure says what was left.
async fn put_in_service(lesson: &Lesson, report: &Report, stop: &CancellationToken) -> Result<()> {
    let candidate = report.candidate.clone().ok_or_else(|| {
        Failure::internal(
            "the trainer accepted a candidate and did not say where it is: services/trainer is of another release",
        )
    })?;
    let (folder, from, to) = (lesson.folder.clone(), report.from_version, report.to_version);
    let placed = task::blocking("candidate's place", move || {
        version::place(&candidate, &folder, from, to)
    })
    .await;
    placed.map_err(|e| Failure::internal(format!("the copy of the candidate broke off: {e}")))??;
    let activated = tokio::select! {
        done = activate(&lesson.name, &lesson.section, to, FOLLOW) => done,
        () = stop.cancelled() => Err(Failure::refused("interrupted while the new version took over")),
    };
    let activated = activated.map_err(|failure| left(failure, lesson, to))?;
    eprintln!("{}", activated.words());
    Ok(())
}

/// A failed activation, and how the folder is now.
fn left(failure: Failure, lesson: &Lesson, version: u32) -> Failure {
    let active = match Folder::manifest(&lesson.folder) {
        Ok(manifest) => format!("version {} is active", manifest.active_version),
        Err(error) => error.to_string(),
    };
    let (name, folder) = (&lesson.name, lesson.folder.display());
    Failure {
        message: format!(
            "{failure}; the new version is in {folder}/{version}, and {active}: `shoal activate {name} N` changes that"
        ),
        ..failure
    }
}

/// Corrected rows to a file; says how many.
async fn export(store: &Mesh, task: &str, file: &Path) -> Result<u64> {
    let request = ExportDatasetRequest {
        name: task.to_owned(),
        corrected_only: true,
        format: Format::Task.into(),
        ..Default::default()
    };
    let mut stream = store
        .feedback()
        .export_dataset(client::traced(request))
        .await
        .map_err(Failure::of_store)?
        .into_inner();
    let mut out = fs::File::create(file).map_err(|e| unwritable(file, &e))?;
    let mut rows = 0;
    while let Some(part) = stream.message().await.map_err(Failure::of_store)? {
        for line in part.lines {
            writeln!(out, "{line}").map_err(|e| unwritable(file, &e))?;
            rows += 1;
        }
    }
    Ok(rows)
}

/// What is missing where nobody gave rows. The samples of tests/data would do for the form of it, and not for the matter: they are of dev, so that a model that
/// rehearsed them could not be judged by dev any more, and a third of two hundred rows judges nothing to half a point. `demo --teach` uses them,
/// on copies that nobody keeps.
fn without_rows(task: &str, folder: &Path) -> Failure {
    let tasks = Folder::manifest(folder).map_or_else(|_| vec![task.to_owned()], |manifest| manifest.tasks);
    let files = tasks
        .iter()
        .flat_map(|task| ["train", "dev"].map(|split| format!("{task}.{split}.jsonl[.gz]")));
    Failure::usage(format!(
        "say with --data DIR what is rehearsed and judged by. DIR holds\n  {}\neach of such lines:\n  \
         {{\"id\": \"1\", \"task\": \"{task}\", \"input\": …, \"target\": …}}\n\
         `shoal feedback export --task {task} --format task --successful` writes them of what the mesh was asked and answered, and services/trainer/README.md says what the shipped \
         models were trained on, which is not in this repository. Its few samples judge no version that is to serve: `shoal demo --teach` shows a \
         retraining on them, on copies of the models. What there is to learn from is told without rows, by --dry-run",
        files.collect::<Vec<_>>().join("\n  ")
    ))
}

/// The model to be retrained, and its folder.
pub(crate) fn model(config: &MeshConfig, task: &str, named: Option<&str>) -> Result<(String, PathBuf)> {
    let chain = config.task.get(task).map(|t| t.chain.as_slice()).unwrap_or_default();
    let folder = |name: &str| config.specialist.get(name).and_then(|s| s.folder.clone());
    let found = match named {
        Some(name) => folder(name).map(|f| (name.to_owned(), f)),
        None => chain.iter().find_map(|name| Some((name.clone(), folder(name)?))),
    };
    found.ok_or_else(|| {
        Failure::usage(match named {
            Some(name) => format!("[specialist.{name}] is not in the configuration, or has no folder"),
            None => format!("[task.{task}] chain names no specialist that has a folder: name one with --specialist"),
        })
    })
}

fn work(config: &MeshConfig, task: &str) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    config
        .feedback
        .store
        .with_file_name(format!("retrain-{task}-{}", now.as_secs()))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure {
        exit: Exit::Usage,
        message: format!(
            "cannot write {}: {error}; give another folder with --work",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> MeshConfig {
        MeshConfig::layer(None, text, &[]).expect("configuration").config
    }

    #[test]
    fn without_rows_the_files_of_every_task_of_the_model_are_named_and_where_rows_may_come_from() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/generalist");
        let failure = without_rows("summarize", &shipped);
        assert_eq!(failure.exit, Exit::Usage);
        for said in [
            "--data DIR",
            "\n  summarize.train.jsonl[.gz]",
            "\n  summarize.dev.jsonl[.gz]",
            "\n  episode.dev.jsonl[.gz]",
            "\"task\": \"summarize\"",
            "shoal demo --teach",
            "--dry-run",
        ] {
            assert!(failure.message.contains(said), "`{said}` is not in: {failure}");
        }
    }

    #[test]
    fn the_first_of_the_chain_that_has_a_folder_is_retrained_unless_another_is_named() {
        let config = config(
            "[specialist.far]\nendpoints = [\"http://h:1\"]\n[specialist.near]\nfolder = \"m/near\"\n[specialist.wide]\nfolder = \"m/wide\"\n\
             [task.t]\nchain = [\"far\", \"near\", \"wide\"]\n[task.u]\nchain = [\"far\"]\n",
        );
        assert_eq!(model(&config, "t", None).expect("near").0, "near");
        assert_eq!(model(&config, "t", Some("wide")).expect("wide").1, Path::new("m/wide"));
        for (task, named) in [("u", None), ("nobody", None), ("t", Some("far")), ("t", Some("x"))] {
            assert!(
                model(&config, task, named).is_err_and(|f| f.exit == Exit::Usage),
                "{task}, {named:?}"
            );
        }
    }
}
