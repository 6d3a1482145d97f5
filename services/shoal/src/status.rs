//! `shoal status`: what runs where.
use crate::{
    client::{ConnectArgs, Session},
    exit::{Failure, Result},
    output,
};
use clap::Args;
use serde_json::{Value, json};
use shoal_proto::v1::ProcessStatus;

/// What `shoal status` takes.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// [{name, pid, address, state, version, provider, in_flight}] instead of a table
    #[arg(long)]
    pub json: bool,
    /// Which mesh.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// The command. Exit 69 if a process cannot be reached, so that a script can wait for the mesh.
pub(crate) async fn status(args: StatusArgs) -> Result<()> {
    let session = Session::open(&args.connect, "status").await?;
    let processes = session.ask(session.mesh.status()).await;
    session.close().await;
    let processes = processes?;
    if args.json {
        output::line(Value::from(processes.iter().map(row).collect::<Vec<_>>()).to_string());
    } else {
        table(&processes).iter().for_each(output::line);
    }
    let away: Vec<&str> = processes
        .iter()
        .filter(|p| p.state == "unreachable")
        .map(|p| p.name.as_str())
        .collect();
    if away.is_empty() {
        return Ok(());
    }
    Err(Failure::unavailable(format!(
        "cannot be reached: {}; see their logs, or `shoal up`",
        away.join(", ")
    )))
}

fn row(p: &ProcessStatus) -> Value {
    json!({
        "name": p.name, "pid": p.pid, "address": p.address, "state": p.state, "version": p.version,
        "provider": p.provider, "in_flight": p.in_flight,
    })
}

/// The processes as lines of a table.
pub(crate) fn table(processes: &[ProcessStatus]) -> Vec<String> {
    let cells = |p: &ProcessStatus| {
        let provider = if p.provider.is_empty() { "-" } else { &p.provider };
        vec![
            p.name.clone(),
            p.pid.to_string(),
            p.address.clone(),
            p.state.clone(),
            p.version.clone(),
            provider.to_owned(),
            p.in_flight.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = processes.iter().map(cells).collect();
    output::table(
        &["name", "pid", "address", "state", "version", "provider", "in flight"],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_exactly_the_seven_keys() {
        let status = ProcessStatus {
            name: "planner".into(),
            pid: 7,
            provider: "cpu".into(),
            ..Default::default()
        };
        let row = row(&status);
        let keys: Vec<&str> = row.as_object().expect("object").keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["name", "pid", "address", "state", "version", "provider", "in_flight"]
        );
        assert_eq!(
            table(&[status])[1],
            "planner  7                             cpu       0"
        );
    }
}
