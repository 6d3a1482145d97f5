//! `shoal up`: all of it, until Ctrl-C.
use super::{Mesh, Options, layout};
use crate::{
    client,
    exit::{Failure, Result},
    output, status,
};
use clap::Args;
use shoal_kit::{
    config::{FILE, Loaded, MeshConfig},
    shutdown, telemetry,
};
use std::path::PathBuf;

/// What `shoal up` takes.
#[derive(Args, Debug, Clone)]
pub struct UpArgs {
    /// The configuration file [default: mesh.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Take free ports instead of the configured ones
    #[arg(long)]
    pub free_ports: bool,
    /// Where logs and generated files go [default: the folder of the feedback store]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Show every process's log here instead of writing it to DATA/logs/NAME.log
    #[arg(long, short)]
    pub verbose: bool,
    /// End when standard input ends
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// Starts the mesh, shows what runs where, and stays until told to stop.
pub(crate) async fn up(args: UpArgs) -> Result<()> {
    let config = some(MeshConfig::load(args.config.as_deref())?)?;
    let _telemetry = telemetry::init("up", &config.telemetry)?;
    let stop = shutdown::signal(args.exit_with_parent);
    let options = Options {
        free_ports: args.free_ports,
        verbose: args.verbose,
        data: args.data,
    };
    let mesh = Mesh::start(config, options, stop.clone()).await?;
    show(&mesh).await;
    stop.cancelled().await;
    output::line("stopping");
    mesh.stop().await;
    Ok(())
}

/// The configuration, if there is anything in it to run: in a folder without a file there is not, and a gateway that can ask nobody would say so only to
/// its callers.
///
/// # Errors
/// Where to look for the file.
pub(crate) fn some(loaded: Loaded) -> Result<MeshConfig> {
    let Loaded { config, path, .. } = loaded;
    if path.is_none() && config.specialist.is_empty() && config.endpoint.is_empty() && config.tools.is_empty() {
        let said = format!(
            "no {FILE} in this folder, and nothing else says what to run: start it where {FILE} is, or give --config"
        );
        return Err(Failure::usage(said));
    }
    Ok(config)
}

/// A table of what runs where, and where to look.
pub(crate) async fn show(mesh: &Mesh) {
    match client::Mesh::at(&mesh.gateway()) {
        Ok(client) => match client.status().await {
            Ok(processes) => status::table(&processes).iter().for_each(output::line),
            Err(status) => output::line(format!("the gateway does not say what runs: {}", status.message())),
        },
        Err(failure) => output::line(failure.to_string()),
    }
    output::line("");
    let http = client::reachable(mesh.config.gateway.http_listen);
    output::line(format!("gateway    {}", mesh.gateway()));
    output::line(format!("OpenAI API {http}/v1"));
    for (name, addresses) in &mesh.addresses {
        output::line(format!(
            "metrics    {}/metrics ({name})",
            client::reachable(addresses.http)
        ));
    }
    output::line(match mesh.config.telemetry.endpoint() {
        Some(endpoint) => format!("traces     go to {endpoint} (OTLP over gRPC)"),
        None => {
            "traces     stay here; set [telemetry] otlp_endpoint or OTEL_EXPORTER_OTLP_ENDPOINT to send them".into()
        }
    });
    output::line(format!("outcomes   {}", outcomes(&mesh.config)));
    output::line(format!("logs       {}", mesh.logs.display()));
    output::line(format!(
        "config     {} (--config of other commands, where ports are free ones)",
        mesh.config_file().display()
    ));
    let count = layout::processes(&mesh.config).len();
    output::line(format!("\n{count} processes are healthy; Ctrl-C ends them"));
}

/// Where outcomes are kept: a file here, or a service elsewhere.
fn outcomes(config: &MeshConfig) -> String {
    let elsewhere = config.gateway.feedback.as_str();
    if elsewhere.is_empty() {
        "are not kept ([gateway] feedback is empty)".into()
    } else if layout::names(elsewhere, config.feedback.listen) {
        config.feedback.store.display().to_string()
    } else {
        elsewhere.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_shown_where_they_are_kept() {
        let shown = |feedback: &str| {
            let text = format!(
                "[gateway]\nfeedback = \"{feedback}\"\n[feedback]\nlisten = \"0.0.0.0:7410\"\nstore = \"kept\"\n"
            );
            outcomes(&MeshConfig::layer(None, &text, &[]).expect("valid").config)
        };
        assert_eq!(shown("http://localhost:7410"), "kept");
        assert_eq!(shown("http://store.example:7410"), "http://store.example:7410");
        assert!(shown("").contains("not kept"));
    }
}
