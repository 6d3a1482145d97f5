//! ONNX Runtime is found or fetched once, by the process that a person started, with a progress bar; children get the path.
use crate::{
    exit::{Failure, Result},
    output,
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use shoal_kit::{
    config::{self, MeshConfig},
    onnxruntime::{self, Library},
    task,
};
use std::{io::IsTerminal as _, path::PathBuf, sync::OnceLock};

/// What `shoal onnxruntime` takes.
#[derive(Args, Debug)]
pub struct LibraryArgs {
    /// The configuration file [default: mesh.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// {path, source} instead of the path; source is explicit, system, cache or fetched
    #[arg(long)]
    pub json: bool,
}

/// The command: the library's path is the only line on standard output.
pub(crate) async fn print(args: LibraryArgs) -> Result<()> {
    let config = MeshConfig::load(args.config.as_deref())?.config;
    let library = locate(&config.onnxruntime).await?;
    output::line(if args.json {
        serde_json::json!({"path": library.path, "source": library.source}).to_string()
    } else {
        library.path.display().to_string()
    });
    Ok(())
}

/// Finds the library, fetching it if it is nowhere. The bar is drawn on standard error, or, where that is no terminal, replaced
/// by one line at the start.
pub(crate) async fn locate(config: &config::OnnxRuntime) -> Result<Library> {
    let config = config.clone();
    let located = task::blocking("search for ONNX Runtime", move || {
        let bar: OnceLock<ProgressBar> = OnceLock::new();
        let found = onnxruntime::locate(&config, &|fetch| {
            let bar = bar.get_or_init(|| {
                if !std::io::stderr().is_terminal() {
                    eprintln!(
                        "fetching ONNX Runtime {} ({} MB)",
                        onnxruntime::VERSION,
                        fetch.total_bytes / 1_000_000
                    );
                }
                ProgressBar::new(fetch.total_bytes)
                    .with_style(style())
                    .with_message("fetching ONNX Runtime")
            });
            bar.set_position(fetch.done_bytes);
        });
        if let Some(bar) = bar.get() {
            bar.finish_and_clear();
        }
        found
    });
    match located.await {
        Ok(Ok(library)) => Ok(library),
        Ok(Err(error @ onnxruntime::Error::Missing { .. })) => Err(Failure::usage(error.to_string())),
        Ok(Err(error)) => Err(Failure::unavailable(error.to_string())),
        Err(error) => Err(Failure::internal(format!(
            "the search for ONNX Runtime broke off: {error}"
        ))),
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} [{bar:30.cyan/dim}] {bytes}/{total_bytes} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
