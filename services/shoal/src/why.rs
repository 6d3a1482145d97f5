//! `shoal why`: a plan that has run, as a waterfall: the critical path, the edges, where each node ran and why.
mod critical;
mod waterfall;

pub use critical::critical_path;
pub use waterfall::waterfall;

use crate::{
    client::{ConnectArgs, Session},
    exit::Result,
    json, output,
};
use clap::Args;
use serde_json::Value;
use shoal_proto::v1::GetPlanResponse;

/// What `shoal why` takes.
#[derive(Args, Debug)]
pub struct WhyArgs {
    /// The plan, as `shoal run` printed it
    pub plan_id: String,
    /// The record as JSON, with `critical_path` and `edges`
    #[arg(long)]
    pub json: bool,
    /// Which mesh.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// The command.
pub(crate) async fn why(args: WhyArgs) -> Result<()> {
    let session = Session::open(&args.connect, "why").await?;
    let record = session.ask(session.mesh.plan(&args.plan_id)).await;
    session.close().await;
    let record = record?;
    if args.json {
        output::line(to_json(&record).to_string());
    } else {
        waterfall(&record, output::is_terminal()).iter().for_each(output::line);
    }
    Ok(())
}

fn to_json(record: &GetPlanResponse) -> Value {
    let mut out = json::record(record);
    let ids = |path: Vec<usize>| {
        path.into_iter()
            .map(|i| record.nodes[i].node_id.clone())
            .collect::<Vec<_>>()
    };
    let edges: Vec<_> = edges(record)
        .into_iter()
        .map(|(from, to)| serde_json::json!([from, to]))
        .collect();
    if let Value::Object(map) = &mut out {
        map.insert("critical_path".into(), ids(critical_path(&record.nodes)).into());
        map.insert("edges".into(), edges.into());
    }
    out
}

/// (earlier, later) of every dependency.
pub(crate) fn edges(record: &GetPlanResponse) -> Vec<(&str, &str)> {
    let nodes = record.nodes.iter();
    nodes
        .flat_map(|n| n.depends_on.iter().map(|d| (d.as_str(), n.node_id.as_str())))
        .collect()
}
