//! Decompose: the planner's text as a typed plan, and nothing run. Its call is an outcome like any other.
use crate::{
    admit,
    context::Context,
    decompose,
    error::Error,
    execute::{
        join,
        node::{self, Run},
        report::Report,
    },
    plans::{Opening, Plan},
    route::budget::Budget,
    tools::client::ClientTools,
};
use shoal_plan::text;
use shoal_proto::v1;
use std::{collections::BTreeSet, sync::Arc};
use tokio::time::timeout_at;

/// Has a goal planned. `opening` names the plan that the outcome belongs to, and bounds the call.
///
/// # Errors
/// The planner's, `Garbled` among them.
pub(crate) async fn decompose(
    context: Arc<Context>,
    goal: v1::Goal,
    opening: Opening,
) -> Result<v1::DecomposeResponse, Error> {
    let run = Arc::new(Run {
        plan: Arc::new(Plan::new(opening)),
        budget: Budget::default(),
        client: ClientTools::new(BTreeSet::new()),
        priority: v1::Priority::Normal,
    });
    let question = decompose::question(&goal, &context.config, &context.registry);
    let accept = |text: &str| text::parse(text).map(drop).map_err(|garbled| garbled.to_string());
    let report = Report::new(run.plan.clone(), admit::PLANNER);
    let job = join::planner(context.clone(), run.clone(), question, Box::new(accept), report);
    let ended = timeout_at(run.plan.deadline, node::run(job))
        .await
        .map_err(|_| Error::Expired {
            what: "the planner did not answer in time".into(),
        })?;
    let text = ended.output?.as_str().unwrap_or_default().to_owned();
    let nodes = text::parse(&text).map_err(|garbled| Error::Garbled {
        why: garbled.to_string(),
        text: text.clone(),
    })?;
    Ok(v1::DecomposeResponse {
        plan: Some(v1::Plan {
            nodes: nodes.iter().map(admit::wire).collect(),
        }),
        plan_text: text,
        planner: Some(ended.result),
    })
}
