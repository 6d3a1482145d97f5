//! `shoal decompose`: the planner's plan, nothing run.
use crate::{
    client::{ConnectArgs, Session},
    exit::Result,
    json, output, plan_file, run,
    view::milliseconds,
};
use clap::Args;
use shoal_plan::{Json, Template, reference::Reference};
use shoal_proto::v1;
use std::{path::PathBuf, time::Duration};
use tracing::Instrument as _;

/// What `shoal decompose` takes.
#[derive(Args, Debug)]
pub struct DecomposeArgs {
    /// The goal in words
    #[arg(required_unless_present = "turns", conflicts_with = "turns")]
    pub goal: Option<String>,
    /// Plan a conversation: a file with what the user said, one turn a line, oldest first
    #[arg(long, value_name = "FILE")]
    pub turns: Option<PathBuf>,
    /// How long the planner may take: 500ms, 30s
    #[arg(long, value_parser = plan_file::duration, value_name = "TIME", default_value = "60s")]
    pub deadline: Duration,
    /// {plan_text, nodes, router, planner, intent_planner} instead of words
    #[arg(long)]
    pub json: bool,
    /// Which mesh.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// The command.
pub(crate) async fn decompose(args: DecomposeArgs) -> Result<()> {
    let turns = args.turns.as_deref().map(run::turns).transpose()?.unwrap_or_default();
    let goal = v1::Goal {
        text: args.goal.unwrap_or_default(),
        turns,
        methods: Vec::new(),
    };
    let session = Session::open(&args.connect, "decompose").await?;
    let span = tracing::info_span!("shoal decompose", otel.kind = "client");
    let question = session.mesh.decompose(goal, args.deadline).instrument(span);
    let answer = session.ask(question).await;
    session.close().await;
    let answer = answer?;
    let nodes = answer.plan.map(|p| p.nodes).unwrap_or_default();
    if args.json {
        let nodes: Vec<_> = nodes.iter().map(json::node).collect();
        let call = |call: &Option<v1::NodeResult>| call.as_ref().map(json::result);
        let (router, planner) = (call(&answer.router), call(&answer.planner));
        let of_intent = call(&answer.intent_planner);
        output::line(
            serde_json::json!({"plan_text": answer.plan_text, "nodes": nodes, "router": router, "planner": planner, "intent_planner": of_intent})
                .to_string(),
        );
        return Ok(());
    }
    output::line(answer.plan_text.trim_end());
    let edges: Vec<String> = nodes.iter().flat_map(edges).collect();
    output::line(if edges.is_empty() {
        "no edges: every step can start at once".into()
    } else {
        format!("edges: {}", edges.join(", "))
    });
    answer.router.as_ref().and_then(intent).iter().for_each(output::line);
    if let Some(planner) = answer.intent_planner.or(answer.planner) {
        let took = milliseconds(json::seconds(planner.elapsed.as_ref()));
        output::line(format!("planned by {} ({}) in {took}", planner.target, planner.model));
    }
    Ok(())
}

/// What the goal's intent was found to be, and whether it was followed; of a router that failed nothing.
fn intent(router: &v1::NodeResult) -> Option<String> {
    let label: String = serde_json::from_str(&router.output_json).ok()?;
    let sure = router.confidence.as_ref().map_or(0.0, |c| c.score);
    let reason = router
        .decisions
        .last()
        .map(|d| d.reason.as_str())
        .filter(|r| !r.is_empty());
    Some(format!(
        "intent {label} ({sure:.2}): {}",
        reason.unwrap_or("no reason given")
    ))
}

/// "1 -> 3" for every node that this one references or comes after, each once.
fn edges(node: &v1::Node) -> Vec<String> {
    let mut from: Vec<String> = Vec::new();
    for id in node.after.iter().cloned().chain(references(node)) {
        if !from.contains(&id) {
            from.push(id);
        }
    }
    from.into_iter().map(|id| format!("{id} -> {}", node.id)).collect()
}

/// The nodes that this one references, in order. What is no template has none: the gateway refused it before we saw it.
fn references(node: &v1::Node) -> Vec<String> {
    let ids = |references: Vec<&Reference>| references.into_iter().map(|r| r.node.clone()).collect();
    match &node.kind {
        Some(v1::node::Kind::Model(model)) => {
            Template::parse(&model.input).map_or_else(|_| Vec::new(), |input| ids(input.references().collect()))
        }
        Some(v1::node::Kind::Tool(tool)) => {
            Json::parse(&json::value(&tool.arguments_json)).map_or_else(|_| Vec::new(), |a| ids(a.references()))
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_is_listed_once_and_a_dollar_sign_is_none() {
        let call = v1::ToolCall {
            name: "S.M".into(),
            arguments_json: r#"{"a":"${1.x} of ${2.y}, ${1.z}","b":"$${9.q}"}"#.into(),
        };
        let node = v1::Node {
            id: "3".into(),
            kind: Some(v1::node::Kind::Tool(call)),
            after: vec!["0".into(), "2".into()],
            ..Default::default()
        };
        assert_eq!(edges(&node), ["0 -> 3", "2 -> 3", "1 -> 3"]);
    }
}
