//! `shoal feedback export` and `shoal feedback submit`: the store's clients.
use crate::{
    client::{self, Mesh},
    exit::{Failure, Result},
    output,
};
use clap::{Args, ValueEnum};
use shoal_kit::config::MeshConfig;
use shoal_proto::v1::{
    self, ExportDatasetRequest, SubmitFeedbackRequest, export_dataset_request::Format, submit_feedback_request::Value,
};
use std::path::PathBuf;

/// Where the store is.
#[derive(Args, Debug)]
pub struct StoreArgs {
    /// The configuration file [default: mesh.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The feedback service's gRPC address, instead of `[gateway] feedback` in the configuration
    #[arg(long, value_name = "URL")]
    pub feedback: Option<String>,
}

/// What `shoal feedback export` takes.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// Only this task or tool, for example tool_call
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Only answers of this model, name@version
    #[arg(long, value_name = "NAME@VERSION")]
    pub model: Option<String>,
    /// Shape of a line
    #[arg(long, value_enum, default_value = "chat")]
    pub format: ExportFormat,
    /// Only outcomes that succeeded and that nobody called wrong, and those that were corrected
    #[arg(long)]
    pub successful: bool,
    /// Only outcomes with a correction or a demonstration
    #[arg(long)]
    pub corrected: bool,
    /// Only outcomes that the store recorded at or after this time: 2026-11-23 or 2026-11-23T08:00:00Z
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub after: Option<prost_types::Timestamp>,
    /// Only outcomes that the store recorded before this time
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub before: Option<prost_types::Timestamp>,
    /// Lines at most; 0 for all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub limit: u64,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Shapes of a line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ExportFormat {
    /// {"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}: OpenAI fine-tuning and TRL
    Chat,
    /// {"id", "task", "input", "target"}, of a corrected row also "source" and "corrected_at": what services/trainer reads
    Task,
}

/// What `shoal feedback submit` takes.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("word").required(true).multiple(false)))]
pub struct SubmitArgs {
    /// The plan
    pub plan_id: String,
    /// The node in it, as `shoal why` shows it; `planner` is the call that made the plan, `router` the one that told its intent, and
    /// `intent-planner`, if it is there, the one that made the plan of that; none for the whole plan
    pub node_id: Option<String>,
    /// The output was right
    #[arg(long, group = "word")]
    pub right: bool,
    /// The output was wrong
    #[arg(long, group = "word")]
    pub wrong: bool,
    /// 0 (useless) to 1 (perfect)
    #[arg(long, group = "word", value_name = "0..1")]
    pub rating: Option<f64>,
    /// In words
    #[arg(long, group = "word", value_name = "TEXT")]
    pub comment: Option<String>,
    /// What the output should have been, as JSON; exports take it over the answer
    #[arg(long, group = "word", value_name = "JSON")]
    pub correction: Option<String>,
    /// Who says so: a name or a pseudonym
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub source: String,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
}

pub(crate) fn open(args: &StoreArgs) -> Result<(Mesh, shoal_kit::telemetry::Guard)> {
    let config = MeshConfig::load(args.config.as_deref())?.config;
    let guard = client::quiet_telemetry("feedback-client", &config)?;
    let url = args.feedback.clone().unwrap_or(config.gateway.feedback);
    if url.is_empty() {
        return Err(Failure::usage(
            "[gateway] feedback is empty, so no outcomes are kept: give --feedback URL",
        ));
    }
    Ok((Mesh::at(&client::with_scheme(&url))?, guard))
}

/// `shoal feedback export`: JSON lines on standard output, as long as somebody reads them.
pub(crate) async fn export(args: ExportArgs) -> Result<()> {
    let (mesh, _telemetry) = open(&args.store)?;
    let format = match args.format {
        ExportFormat::Chat => Format::Chat,
        ExportFormat::Task => Format::Task,
    };
    let request = ExportDatasetRequest {
        name: args.task.unwrap_or_default(),
        model: args.model.unwrap_or_default(),
        successful_only: args.successful,
        corrected_only: args.corrected,
        recorded_after: args.after,
        recorded_before: args.before,
        format: format.into(),
        limit: args.limit,
    };
    let mut stream = mesh
        .feedback()
        .export_dataset(client::traced(request))
        .await
        .map_err(Failure::of_store)?
        .into_inner();
    let mut lines = 0_u64;
    while let Some(part) = stream.message().await.map_err(Failure::of_store)? {
        lines += part.lines.len() as u64;
        // Nobody reads on, and nobody asks how many there were.
        if output::lines(&part.lines)?.is_break() {
            return Ok(());
        }
    }
    eprintln!("{lines} rows");
    Ok(())
}

/// `shoal feedback submit`.
pub(crate) async fn submit(args: SubmitArgs) -> Result<()> {
    let value = if let Some(rating) = args.rating {
        Value::Rating(rating)
    } else if let Some(comment) = args.comment {
        Value::Comment(comment)
    } else if let Some(correction) = args.correction {
        serde_json::from_str::<serde_json::Value>(&correction).map_err(|e| {
            Failure::usage(format!(
                "--correction is not JSON ({e}); text needs quotes: '\"like this\"'"
            ))
        })?;
        Value::CorrectionJson(correction)
    } else {
        Value::Success(args.right)
    };
    let (mesh, _telemetry) = open(&args.store)?;
    let request = SubmitFeedbackRequest {
        feedback_id: uuid::Uuid::now_v7().to_string(),
        plan_id: args.plan_id,
        node_id: args.node_id.unwrap_or_default(),
        source: args.source,
        value: Some(value),
    };
    let answer: v1::SubmitFeedbackResponse = mesh
        .feedback()
        .submit_feedback(client::short(request))
        .await
        .map_err(Failure::of_store)?
        .into_inner();
    output::line(format!("kept as {}", answer.feedback_id));
    Ok(())
}

/// "2026-11-23" (midnight UTC) or RFC 3339.
fn time(text: &str) -> Result<prost_types::Timestamp, String> {
    let full = if text.len() == 10 {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    full.parse()
        .map_err(|_| format!("`{text}` is no time: write 2026-11-23 or 2026-11-23T08:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn a_date_is_midnight_and_nonsense_is_refused() {
        assert_eq!(
            time("2026-11-23").map(|t| t.seconds),
            time("2026-11-23T00:00:00Z").map(|t| t.seconds)
        );
        assert_eq!(time("1970-01-01T00:00:10Z").map(|t| t.seconds), Ok(10));
        assert!(time("yesterday").is_err());
    }
}
