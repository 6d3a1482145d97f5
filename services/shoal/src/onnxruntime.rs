//! ONNX Runtime is found or fetched once, by the process that a person started, with a progress bar; children get the path.
use crate::exit::{Failure, Result};
use indicatif::{ProgressBar, ProgressStyle};
use shoal_kit::{
    config,
    onnxruntime::{self, Library},
};
use std::{io::IsTerminal as _, sync::OnceLock};

/// Finds the library, fetching it if it is nowhere. The bar is drawn on standard error, or, where that is no terminal, replaced
/// by one line at the start.
pub(crate) async fn locate(config: &config::OnnxRuntime) -> Result<Library> {
    let config = config.clone();
    let located = tokio::task::spawn_blocking(move || {
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
