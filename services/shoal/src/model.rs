//! `shoal model add`: an exporter's folder becomes a specialist's.
//!
//! ```text
//! FOLDER --Draft::of--> what its card says --copied, summed, checked--> .adding-NAME --served once--> MODELS/NAME/N, lines for mesh.toml
//!             \--cannot be served, by name          \--nor this: exit 64, and nothing is left
//! ```
//!
//! What a card says of an export, and whether it may be served, is the specialist's own business ([`shoal_specialist::folder::draft`]). Here is what
//! surrounds it: `place` is where the version goes, whole or not at all, and `lines` are what the configuration lacks. Last it is started as the mesh
//! would start it, so what ONNX Runtime, the tokenizer or the chat template make impossible is known before anything is named.
mod lines;
mod place;

use crate::{
    exit::{Failure, Result},
    onnxruntime, output, supervise,
};
use clap::{Args, ValueEnum};
use place::{Place, Staged};
use serde_json::json;
use shoal_kit::{
    config::{self, Loaded, MeshConfig},
    shutdown, task,
};
use shoal_specialist::folder::{
    draft::{Draft, Said},
    manifest::{Kind, Output, Pooling, TEMPLATE},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tokio_util::sync::CancellationToken;

/// SPDX's word for a licence that nobody has said.
const UNSAID: &str = "NOASSERTION";

/// What `shoal model add` takes.
#[derive(Args, Debug)]
pub struct AddArgs {
    /// What an exporter wrote: genai_config.json or config.json, the graph with its weights, tokenizer.json
    pub folder: PathBuf,
    /// What it is to be called: its folder in --models, and its table [specialist.NAME]
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Which task it serves; give it again for each further one [default: of a further version, those of specialist.toml]
    #[arg(long, value_name = "TASK")]
    pub task: Vec<String>,
    /// Which version it is, beside others of that name [default: 1 of a new name]
    #[arg(id = "number", long = "version", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub version: Option<u32>,
    /// SPDX id of its licence
    #[arg(long, value_name = "SPDX", default_value = UNSAID)]
    pub licence: String,
    /// Hold its answers to the JSON Schema of this file
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// Hold them to the Lark grammar of this file, or, if its name ends in .lark.jinja, to one that it makes of each request
    #[arg(long, value_name = "FILE")]
    pub grammar: Option<PathBuf>,
    /// Tokens of a call, prompt and answer together [default: as many as the model knows, up to 4096, or 1024 of an encoder]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub context_tokens: Option<u32>,
    /// How an embedder's token vectors become one, where its files do not say
    #[arg(long, value_enum)]
    pub pooling: Option<How>,
    /// Where models are
    #[arg(long, value_name = "DIR", default_value = "models")]
    pub models: PathBuf,
    /// The configuration file [default: mesh.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// {model, folder, kind, context_tokens, max_new_tokens, files, mesh_toml} instead of the lines for mesh.toml
    #[arg(long)]
    pub json: bool,
}

/// Ways from token vectors to one.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum How {
    /// Their mean.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
}

impl From<How> for Pooling {
    fn from(how: How) -> Self {
        match how {
            How::Mean => Self::Mean,
            How::Cls => Self::Cls,
            How::Last => Self::Last,
        }
    }
}

/// The command.
pub(crate) async fn add(args: AddArgs) -> Result<()> {
    let loaded = MeshConfig::load(args.config.as_deref())?;
    let (place, draft) = added(&args, &loaded.config).await.map_err(|failure| Failure {
        message: format!("{failure}; nothing was added"),
        ..failure
    })?;
    said(&args, &loaded, &place, &draft);
    Ok(())
}

async fn added(args: &AddArgs, config: &MeshConfig) -> Result<(Place, Draft)> {
    let place = Place::find(&args.models, &args.name, args.version, &args.task)?;
    named(config, &place)?;
    let stop = shutdown::signal(false);
    let (staged, draft) = stage(args, place, &stop).await?;
    let served = served_once(args, config, &staged, &stop).await;
    served.map_err(|failure| staged.in_its_own_words(failure, &args.folder))?;
    Ok((staged.keep()?, draft))
}

/// Whether the configuration could have it: a target, a process and a log have its name.
fn named(config: &MeshConfig, place: &Place) -> Result<()> {
    let mut with = config.clone();
    let section = with.specialist.entry(place.name().to_owned()).or_default();
    section.folder.get_or_insert_with(|| place.root());
    let text = toml::to_string(&with).map_err(|e| Failure::internal(format!("configuration: {e}")))?;
    match MeshConfig::layer(None, &text, &[]) {
        Err(config::Error::Unfit { key, message, .. }) => Err(Failure::usage(format!("{key} {message}"))),
        fits => fits.map(drop).map_err(Failure::from),
    }
}

/// A checked copy under a name that no specialist has.
async fn stage(args: &AddArgs, place: Place, stop: &CancellationToken) -> Result<(Staged, Draft)> {
    let folder = args.folder.clone();
    let said = Said {
        context_tokens: args.context_tokens,
        pooling: args.pooling.map(Pooling::from),
    };
    let (licence, stop) = (args.licence.clone(), stop.clone());
    let forms = (args.schema.clone(), args.grammar.clone());
    let staging = task::blocking("model folder's making", move || {
        let draft = Draft::of(&folder, said).map_err(|e| Failure::usage(e.to_string()))?;
        place.fits(draft.kind)?;
        let held = Held::of(&forms, &draft)?;
        let staged = Staged::make(place)?;
        let made = staged.fill(&draft, &folder, &held, &licence, &stop);
        if stop.is_cancelled() {
            return Err(Failure::refused("interrupted"));
        }
        made.map_err(|failure| staged.in_its_own_words(failure, &folder))?;
        Ok((staged, draft))
    });
    staging
        .await
        .map_err(|e| Failure::internal(format!("the making of the model folder broke off: {e}")))?
}

/// What answers are held to, and where each file of it is from; its name in the version's folder is ours.
#[derive(Debug, Default)]
struct Held {
    output: Option<Output>,
    files: Vec<(PathBuf, String)>,
}

impl Held {
    fn of((schema, grammar): &(Option<PathBuf>, Option<PathBuf>), draft: &Draft) -> Result<Self> {
        if schema.is_none() && grammar.is_none() {
            return Ok(Self::default());
        }
        if draft.kind != Kind::Generate {
            return Err(Failure::usage(format!(
                "a model of kind \"{}\" writes no text that a schema or a grammar could hold: leave them out",
                draft.kind.name()
            )));
        }
        let is_template = |file: &PathBuf| file.to_string_lossy().ends_with(TEMPLATE);
        let lark = match grammar.as_ref().is_some_and(is_template) {
            true => format!("output{TEMPLATE}"),
            false => "output.lark".to_owned(),
        };
        let schema = schema.clone().map(|file| (file, "output.schema.json".to_owned()));
        let grammar = grammar.clone().map(|file| (file, lark));
        Ok(Self {
            output: Some(Output {
                schema: schema.as_ref().map(|(_, name)| name.clone()),
                grammar: grammar.as_ref().map(|(_, name)| name.clone()),
                ..Output::default()
            }),
            files: schema.into_iter().chain(grammar).collect(),
        })
    }
}

/// Starts the copy as the mesh would.
async fn served_once(args: &AddArgs, config: &MeshConfig, staged: &Staged, stop: &CancellationToken) -> Result<()> {
    let library = tokio::select! {
        found = onnxruntime::locate(&config.onnxruntime) => found?,
        () = stop.cancelled() => return Err(Failure::refused("interrupted")),
    };
    let section = config::Specialist {
        folder: Some(staged.root()),
        endpoints: Vec::new(),
        tasks: Vec::new(),
        // Its section says on what it will run, if there is one already.
        ..config.specialist.get(&args.name).cloned().unwrap_or_default()
    };
    let alone = MeshConfig {
        telemetry: config.telemetry.clone(),
        onnxruntime: config::OnnxRuntime {
            path: Some(library.path),
            ..config.onnxruntime.clone()
        },
        machine: config.machine.clone(),
        specialist: BTreeMap::from([(args.name.clone(), section)]),
        ..MeshConfig::default()
    };
    Box::pin(supervise::trial(alone, &staged.scratch()?, stop)).await
}

/// The lines for mesh.toml on standard output, so that `>>` appends them; the rest on standard error.
fn said(args: &AddArgs, loaded: &Loaded, place: &Place, draft: &Draft) {
    let folder = place.root();
    let lines = lines::of(&loaded.config, place, &shown(&folder, loaded), draft.kind);
    let version = folder.join(place.version().to_string());
    let name = format!("{}@{}", place.name(), place.version());
    if args.json {
        let told = json!({
            "model": name, "folder": folder, "kind": draft.kind.name(), "context_tokens": draft.context_tokens,
            "max_new_tokens": draft.max_new_tokens, "files": draft.files, "mesh_toml": lines.join("\n"),
        });
        output::line(told.to_string());
        return;
    }
    let (kind, files) = (draft.kind.name(), draft.files.len());
    eprintln!(
        "{name} is in {}: {kind}, {}, {files} files with their sums in card.toml; it was loaded, and was healthy",
        version.display(),
        draft.architecture
    );
    let known = match draft.known_tokens {
        Some(known) => format!(" of the {known} that the model knows"),
        None => String::new(),
    };
    let new = match draft.kind {
        Kind::Generate => format!(", of which an answer has {}", draft.max_new_tokens),
        _ => String::new(),
    };
    eprintln!(
        "a call may have {} tokens{known}{new} at most: [limits] of card.toml, which may be edited",
        draft.context_tokens
    );
    if args.licence == UNSAID {
        eprintln!("its licence is not said: write the SPDX id into card.toml, or give --licence");
    }
    if lines.is_empty() {
        let (name, version) = (place.name(), place.version());
        eprintln!("have it served with `shoal activate {name} {version}`");
        return;
    }
    eprintln!("for mesh.toml, and then `shoal config check` and `shoal up`:");
    lines.iter().for_each(output::line);
}

/// A folder as the configuration would name it: paths in it are relative to the file.
fn shown(folder: &Path, loaded: &Loaded) -> String {
    let here = loaded.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let (Ok(base), Ok(whole)) = (std::path::absolute(here.join(".")), std::path::absolute(folder)) else {
        return folder.display().to_string();
    };
    whole.strip_prefix(&base).unwrap_or(&whole).display().to_string()
}
