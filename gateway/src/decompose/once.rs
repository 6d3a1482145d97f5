//! Decompose: the planner's text as a typed plan, and nothing run. Its calls are outcomes like any other.
use crate::{
    admit::{self, INTENT_PLANNER, PLANNER},
    context::Context,
    decompose::{
        self,
        intent::{self, Fork, Routed, Turn},
    },
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
use futures::{FutureExt as _, future::OptionFuture};
use shoal_plan::{Node, text};
use shoal_proto::v1;
use std::{collections::BTreeSet, sync::Arc};
use tokio::time::timeout_at;

/// What a planner wrote.
struct Written {
    nodes: Vec<Node>,
    text: String,
    call: v1::NodeResult,
}

/// Has a goal planned. `opening` names the plan that the outcomes belong to, and bounds the calls.
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
    let router = intent::task(&goal, &context.config)
        .map(|task| node::run(join::router(context.clone(), run.clone(), task, &goal.text)).boxed());
    let both = futures::future::join(
        OptionFuture::from(router),
        planned(&context, &run, PLANNER, &goal).boxed(),
    );
    let (router, planner) = in_time(&run.plan, both).await?;
    let (mut router, planner) = (router.map(|end| end.result), planner?);
    let intent = router.as_ref().and_then(|answer| intent::sure(answer, &context.config));
    let routed = intent.and_then(|intent| intent::routed(&goal, intent, &context.config, &context.registry));
    let fork = routed.map(Fork::Sure);
    let turn = fork.as_ref().map(|fork| fork.turn(planner.nodes.len(), true));
    if let Some((turn, answer)) = turn.as_ref().zip(router.as_mut()) {
        intent::note(answer, *turn == Turn::Follow);
    }
    match fork.filter(|_| turn == Some(Turn::Follow)) {
        Some(Fork::Sure(Routed::Goal(goal))) => {
            let chosen = in_time(&run.plan, planned(&context, &run, INTENT_PLANNER, &goal)).await??;
            Ok(v1::DecomposeResponse {
                intent_planner: Some(chosen.call),
                ..response(&chosen.nodes, chosen.text, planner.call, router)
            })
        }
        Some(Fork::Sure(Routed::Step(node))) => {
            Ok(response(&[*node.clone()], text::print(&node), planner.call, router))
        }
        _ => Ok(response(&planner.nodes, planner.text, planner.call, router)),
    }
}

fn response(
    nodes: &[Node],
    plan_text: String,
    planner: v1::NodeResult,
    router: Option<v1::NodeResult>,
) -> v1::DecomposeResponse {
    v1::DecomposeResponse {
        plan: Some(v1::Plan {
            nodes: nodes.iter().map(admit::wire).collect(),
        }),
        plan_text,
        planner: Some(planner),
        router,
        intent_planner: None,
    }
}

/// Asks a goal's planner.
async fn planned(context: &Arc<Context>, run: &Arc<Run>, id: &str, goal: &v1::Goal) -> Result<Written, Error> {
    let question = decompose::question(goal, &context.config, &context.registry);
    let accept = |text: &str| text::parse(text).map(drop).map_err(|garbled| garbled.to_string());
    let report = Report::new(run.plan.clone(), id);
    let job = join::planner(context.clone(), run.clone(), question, Box::new(accept), report);
    let ended = node::run(job).await;
    let text = ended.output?.as_str().unwrap_or_default().to_owned();
    let nodes = text::parse(&text).map_err(|garbled| Error::Garbled {
        why: garbled.to_string(),
        text: text.clone(),
    })?;
    Ok(Written {
        nodes,
        text,
        call: ended.result,
    })
}

/// What calls ahead of the steps come to, within the decomposition's bound.
async fn in_time<T>(plan: &Plan, calls: impl Future<Output = T>) -> Result<T, Error> {
    timeout_at(plan.deadline, calls).await.map_err(|_| Error::Expired {
        what: "the planner did not answer in time".into(),
    })
}
