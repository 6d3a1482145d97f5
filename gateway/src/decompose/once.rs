//! Decompose: the planner's text as a typed plan, and nothing run. Its call is an outcome like any other.
use crate::{
    admit,
    context::Context,
    decompose::{
        self,
        intent::{self, Routed},
    },
    error::Error,
    execute::{
        join,
        node::{self, End, Run},
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
    let router = match intent::task(&goal, &context.config) {
        Some(task) => {
            let job = join::router(context.clone(), run.clone(), task, &goal.text);
            Some(in_time(&run.plan, node::run(job)).await?.result)
        }
        None => None,
    };
    let intent = router.as_ref().and_then(|answer| intent::sure(answer, &context.config));
    let goal = match intent::routed(goal, intent, &context.config, &context.registry) {
        Routed::Goal(goal) => goal,
        Routed::Step(node) => {
            return Ok(v1::DecomposeResponse {
                plan: Some(v1::Plan {
                    nodes: vec![admit::wire(&node)],
                }),
                plan_text: text::print(&node),
                planner: None,
                router,
            });
        }
    };
    let question = decompose::question(&goal, &context.config, &context.registry);
    let accept = |text: &str| text::parse(text).map(drop).map_err(|garbled| garbled.to_string());
    let report = Report::new(run.plan.clone(), admit::PLANNER);
    let job = join::planner(context.clone(), run.clone(), question, Box::new(accept), report);
    let ended = in_time(&run.plan, node::run(job)).await?;
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
        router,
    })
}

/// What a call ahead of the steps comes to, within the decomposition's bound.
async fn in_time(plan: &Plan, call: impl Future<Output = End>) -> Result<End, Error> {
    timeout_at(plan.deadline, call).await.map_err(|_| Error::Expired {
        what: "the planner did not answer in time".into(),
    })
}
