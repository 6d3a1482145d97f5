//! Keeps what is known of a specialist fresh: its addresses and its card.
use super::{
    Registry,
    card::Card,
    replicas,
    target::{Target, Tier},
};
use shoal_kit::{deadline, resolve::Lookup, task};
use shoal_proto::v1::{self, specialist_service_client::SpecialistServiceClient};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Channel};

/// How often names are looked up and cards read again: a new replica should serve within seconds, and a question of a few hundred
/// bytes every five seconds is nothing.
const PERIOD: Duration = Duration::from_secs(5);

/// Between two looks at the least: a target that fails a thousand calls a second is looked at five times.
const PAUSE: Duration = Duration::from_millis(200);

/// One Describe's bound. It is answered from memory.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// Looks once: addresses first, then the card.
pub(crate) async fn look(target: &Target, registry: &Registry, lookup: &dyn Lookup) {
    let Tier::Specialist { replicas, .. } = &target.tier else {
        return;
    };
    let addresses = replicas.resolve(lookup).await;
    target.serve_from(&addresses);
    describe(target, registry).await;
}

/// Reads the card from a replica that gives it.
pub(crate) async fn describe(target: &Target, registry: &Registry) -> Option<Arc<Card>> {
    let Tier::Specialist { replicas, .. } = &target.tier else {
        return None;
    };
    read(target, registry, replicas.all()).await
}

/// Reads the card of a version from the replica that it answered at; `None` if another version is there by now.
pub(crate) async fn describe_version(
    target: &Target,
    registry: &Registry,
    address: &Arc<str>,
    model: &str,
) -> Option<Arc<Card>> {
    let Tier::Specialist { replicas, .. } = &target.tier else {
        return None;
    };
    let channel = replicas.channel(address)?;
    let card = read(target, registry, vec![(address.clone(), channel)]).await;
    card.filter(|card| card.identity == model)
}

async fn read(target: &Target, registry: &Registry, replicas: Vec<(Arc<str>, Channel)>) -> Option<Arc<Card>> {
    let ask = async |(address, channel): (Arc<str>, Channel)| {
        let mut request = Request::new(v1::DescribeRequest {});
        deadline::set(&mut request, PATIENCE);
        let answer = SpecialistServiceClient::new(channel).describe(request).await;
        let failed = |status: &Status| {
            tracing::debug!(target = &*target.name, %address, error = status.message(), "does not describe itself");
        };
        answer.inspect_err(failed).ok().map(Response::into_inner)
    };
    let first = replicas::first_good(replicas.into_iter().map(ask));
    let wire = tokio::time::timeout(PATIENCE, first).await.ok().flatten()?;
    let known = registry.card(&target.name);
    if let Some(card) = known.as_ref().filter(|card| card.says(&wire)) {
        return Some(card.clone());
    }
    let identity = format!("{}@{}", wire.name, wire.version);
    if known.as_ref().is_none_or(|c| c.identity != identity) {
        tracing::info!(
            target = &*target.name,
            model = identity,
            kind = wire.kind,
            "specialist found"
        );
    }
    let card = Arc::new(Card::of(wire));
    registry.set_card(&target.name, card.clone());
    Some(card)
}

/// Looks again and again until `stop`.
pub(crate) fn start(target: Arc<Target>, registry: Arc<Registry>, lookup: Arc<dyn Lookup>, stop: CancellationToken) {
    task::spawn("target refresh", async move {
        let looking = async {
            loop {
                // After failures at once, or else about every five seconds; never twice in a row.
                drop(tokio::time::timeout(PERIOD, target.stale.notified()).await);
                look(&target, &registry, &*lookup).await;
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = looking => {}
            () = stop.cancelled() => {}
        }
    });
}
