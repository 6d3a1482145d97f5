//! From the spool to feedback: one stream, a window of outcomes without an acknowledgement, and from the beginning again when the
//! stream breaks. Feedback knows an outcome by its id, so what was on its way twice is stored once.
use super::{Acknowledged, files::Position, spool::Spool};
use crate::telemetry::Instruments;
use rand::Rng as _;
use shoal_kit::{status, task};
use shoal_proto::v1::{self, feedback_service_client::FeedbackServiceClient};
use std::{collections::HashMap, pin::pin, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

/// Outcomes on their way at once: half of what feedback holds per stream, a few groups of its writer.
const WINDOW: usize = 512;

/// Outcomes read from the spool at once.
const PORTION: usize = 64;

/// The first pause after a broken stream, about a restart's first moment, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often the spool syncs, and tries again what the disk refused.
const TICK: Duration = Duration::from_secs(1);

/// Delivers until `stop`.
pub(crate) async fn run(
    spool: Spool,
    channel: Channel,
    acknowledged: Acknowledged,
    instruments: Instruments,
    stop: CancellationToken,
) {
    let ticking = async {
        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            spool.tick();
        }
    };
    let delivering = async {
        let mut pause = PAUSE.0;
        let mut waiting = spool.waiting();
        loop {
            // Nothing to say: no stream to hold.
            if waiting.wait_for(|n| *n > 0).await.is_err() {
                return;
            }
            let mut delivery = Delivery {
                spool: &spool,
                acknowledged: &acknowledged,
                instruments: &instruments,
                on_the_way: HashMap::new(),
                delivered: 0,
            };
            let Err(status) = delivery.stream(&channel, &mut waiting).await;
            if delivery.delivered > 0 {
                pause = PAUSE.0;
            }
            let wait = status::retry_after(&status).unwrap_or(pause).min(PAUSE.1);
            tracing::warn!(error = status.message(), code = %status.code(), wait_seconds = wait.as_secs_f64(), "feedback does not take outcomes, they stay in the spool");
            let jitter = rand::rng().random_range(0.5..1.0);
            tokio::time::sleep(wait.mul_f64(jitter)).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    };
    tokio::select! {
        () = ticking => {}
        () = delivering => {}
        () = stop.cancelled() => {}
    }
}

struct Delivery<'a> {
    spool: &'a Spool,
    acknowledged: &'a Acknowledged,
    instruments: &'a Instruments,
    /// By outcome id: where it lies (an earlier gateway may have left one there twice), and whose it is.
    on_the_way: HashMap<String, (Vec<Position>, String)>,
    delivered: u64,
}

impl Delivery<'_> {
    /// One stream, until it breaks.
    async fn stream(
        &mut self,
        channel: &Channel,
        waiting: &mut watch::Receiver<u64>,
    ) -> Result<std::convert::Infallible, Status> {
        let (outcomes, receiver) = mpsc::channel::<v1::RecordRequest>(PORTION);
        let mut client = FeedbackServiceClient::new(channel.clone());
        let mut answers = pin!(client.record(ReceiverStream::new(receiver)).await?.into_inner());
        let broken = |what: &str| -> Status {
            status::Reason::Unavailable {
                message: what.to_owned(),
                retry_after: PAUSE.0,
            }
            .into()
        };
        let (mut from, mut pending) = (Position::default(), Vec::new().into_iter());
        loop {
            waiting.mark_unchanged();
            if pending.len() == 0 && self.on_the_way.len() < WINDOW {
                let read = self.spool.read(from, PORTION).await;
                let (found, next) = read.map_err(|e| broken(&format!("the spool cannot be read: {e}")))?;
                (from, pending) = (next, found.into_iter());
            }
            let free = pending.len() > 0 && self.on_the_way.len() < WINDOW;
            tokio::select! {
                answer = answers.message() => match answer? {
                    Some(answer) => self.note(answer.outcome_ids).await,
                    None => return Err(broken("feedback ended the stream")),
                },
                permit = outcomes.reserve(), if free => {
                    let permit = permit.map_err(|_| broken("feedback takes no more"))?;
                    if let Some((at, outcome)) = pending.next() {
                        let fresh = || (Vec::with_capacity(1), outcome.plan_id.clone());
                        self.on_the_way.entry(outcome.outcome_id.clone()).or_insert_with(fresh).0.push(at);
                        permit.send(v1::RecordRequest { outcome: Some(outcome) });
                    }
                }
                changed = waiting.changed(), if pending.len() == 0 => changed.map_err(|_| broken("the spool has ended"))?,
            }
        }
    }

    async fn note(&mut self, ids: Vec<String>) {
        let mut positions = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some((at, plan_id)) = self.on_the_way.remove(&id) {
                (self.acknowledged)(&plan_id);
                positions.extend(at);
            }
        }
        self.delivered += positions.len() as u64;
        self.instruments.acknowledged.add(positions.len() as u64, &[]);
        if !positions.is_empty() {
            self.spool.acknowledge(positions).await;
        }
    }
}

/// Starts the delivery; it ends with `stop`.
pub(crate) fn start(
    spool: Spool,
    channel: Channel,
    acknowledged: Acknowledged,
    instruments: Instruments,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    task::spawn("outcome delivery", run(spool, channel, acknowledged, instruments, stop))
}

/// Waits until everything is delivered, for at most `patience`.
pub(crate) async fn emptied(spool: &Spool, patience: Duration) {
    let mut waiting = spool.waiting();
    let empty = waiting.wait_for(|n| *n == 0);
    if tokio::time::timeout(patience, empty).await.is_err() {
        tracing::warn!(
            outcomes = *spool.waiting().borrow(),
            "leaving outcomes in the spool for the next start"
        );
    }
}
