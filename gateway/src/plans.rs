//! Plans that run or have ended: [`log`] holds a plan's events, [`record`] folds them into what GetPlan answers, [`rebuilt`]
//! does the same from stored outcomes, and this file keeps a bounded number of them.
use crate::{error::Error, telemetry::Instruments};
use dashmap::{DashMap, Entry};
use shoal_proto::v1::{self, plan_event::Event};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) mod log;
pub(crate) mod rebuilt;
pub(crate) mod record;

use log::Log;

/// Bytes of ended plans' events in memory at most. `[gateway] plans_kept` alone would let a thousand plans of a megabyte each stay.
const KEPT_BYTES: usize = 256 << 20;

/// When a caller that met a full gateway may come back: a plan of a few nodes takes about that long.
const RETRY: Duration = Duration::from_millis(500);

/// One plan: its clock, its events, and the way to end it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) id: String,
    pub(crate) trace_id: String,
    pub(crate) accepted_at: SystemTime,
    pub(crate) began: Instant,
    /// When it will be cut off.
    pub(crate) deadline: Instant,
    /// The calls ahead of its steps that have been begun, in order.
    ahead: Mutex<Vec<v1::NodeResult>>,
    pub(crate) log: Arc<Log>,
    /// Of its outcomes, those that feedback has acknowledged.
    pub(crate) acknowledged: AtomicU32,
    /// What was sent, hashed: the same id may come again with the same content.
    content: u64,
    /// Somebody who executes it wants it to go on without anybody.
    detached: AtomicBool,
    attached: AtomicUsize,
    cancelled: CancellationToken,
    why: Mutex<Option<Error>>,
    refused: Mutex<Option<Error>>,
}

/// What makes a plan.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) plan_id: String,
    pub(crate) trace_id: String,
    pub(crate) deadline: Duration,
    pub(crate) content: u64,
    pub(crate) detach: bool,
}

impl Plan {
    /// A plan that no store holds yet, or ever will.
    pub(crate) fn new(opening: Opening) -> Self {
        let began = Instant::now();
        Self {
            log: Arc::new(Log::new(&opening.plan_id)),
            id: opening.plan_id,
            trace_id: opening.trace_id,
            accepted_at: SystemTime::now(),
            began,
            deadline: began + opening.deadline,
            ahead: Mutex::default(),
            acknowledged: AtomicU32::new(0),
            content: opening.content,
            detached: AtomicBool::new(opening.detach),
            attached: AtomicUsize::new(0),
            cancelled: CancellationToken::new(),
            why: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// A call ahead of its steps begins.
    pub(crate) fn begin_ahead(&self, node_id: &str, task: &str) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.push(waiting(node_id, task));
    }

    /// Notes how such a call goes.
    pub(crate) fn ahead_is(&self, node_id: &str, note: impl FnOnce(&mut v1::NodeResult)) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(call) = ahead.iter_mut().find(|call| call.node_id == node_id) {
            note(call);
        }
    }

    /// Such a call has ended.
    pub(crate) fn ahead_ends(&self, result: v1::NodeResult) {
        let id = result.node_id.clone();
        self.ahead_is(&id, |call| *call = result);
    }

    /// Those calls, as far as they have got.
    pub(crate) fn ahead(&self) -> Vec<v1::NodeResult> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what of its client's stream was refused: the stream's own end says it with every field.
    pub(crate) fn refuse(&self, error: Error) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// What was refused, if anything was.
    pub(crate) fn refused(&self) -> Option<Error> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resolves once the last event is told.
    pub(crate) async fn ended(&self) {
        use futures::StreamExt as _;
        let past_the_end = self.log.clone().watch(u64::MAX);
        past_the_end.for_each(|_| std::future::ready(())).await;
    }

    /// Cancels what still runs; the first reason stays.
    pub(crate) fn cancel(&self, why: Error) {
        let mut first = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(why);
        drop(first);
        self.cancelled.cancel();
    }

    /// Resolves when somebody has cancelled it, with the reason.
    pub(crate) async fn cancelled(&self) -> Error {
        self.cancelled.cancelled().await;
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        why.unwrap_or_else(|| Error::Cancelled { why: String::new() })
    }

    /// Whether it goes on without anybody.
    pub(crate) fn detached(&self) -> bool {
        self.detached.load(Ordering::Acquire)
    }

    /// Where it is.
    pub(crate) fn state(&self) -> v1::State {
        let last = self.log.events().last().cloned();
        match last.as_ref().and_then(|e| e.event.as_ref()) {
            Some(Event::Finished(finished)) => finished.state(),
            _ => v1::State::Running,
        }
    }

    /// Somebody executes it, until the guard is dropped. When the last one is gone, it is cancelled, unless it was detached.
    pub(crate) fn attach(self: Arc<Self>) -> Attached {
        self.attached.fetch_add(1, Ordering::AcqRel);
        Attached(self)
    }
}

/// A call that has not begun.
fn waiting(node_id: &str, task: &str) -> v1::NodeResult {
    v1::NodeResult {
        node_id: node_id.into(),
        kind: "model".into(),
        name: task.into(),
        state: v1::State::Pending.into(),
        ..v1::NodeResult::default()
    }
}

/// See [`Plan::attach`].
#[derive(Debug)]
pub(crate) struct Attached(Arc<Plan>);

impl Drop for Attached {
    fn drop(&mut self) {
        let others = self.0.attached.fetch_sub(1, Ordering::AcqRel) - 1;
        if others == 0 && !self.0.detached() && !self.0.log.closed() {
            self.0.cancel(Error::Cancelled {
                why: "its client has gone".into(),
            });
        }
    }
}

/// A plan that was begun, or one that is there already with the same content.
#[derive(Debug)]
pub(crate) enum Begun {
    New(Arc<Plan>, Running),
    Same(Arc<Plan>),
}

/// A running plan's share of max_plans, given back on drop.
#[derive(Debug)]
pub(crate) struct Running(Arc<Inner>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|n| *n -= 1);
    }
}

#[derive(Debug)]
struct Inner {
    plans: DashMap<String, Arc<Plan>>,
    ended: Mutex<Ended>,
    running: watch::Sender<usize>,
    max_plans: usize,
    plans_kept: usize,
    instruments: Instruments,
}

#[derive(Debug, Default)]
struct Ended {
    order: VecDeque<(Arc<Plan>, usize)>,
    bytes: usize,
}

/// Every plan that this gateway knows; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Plans(Arc<Inner>);

impl Plans {
    pub(crate) fn new(max_plans: usize, plans_kept: usize, instruments: Instruments) -> Self {
        Self(Arc::new(Inner {
            plans: DashMap::new(),
            ended: Mutex::default(),
            running: watch::Sender::new(0),
            max_plans,
            plans_kept,
            instruments,
        }))
    }

    /// Takes one of the places for running plans, for work that is no plan of its own: a decomposition.
    pub(crate) fn place(&self) -> Result<Running, Error> {
        let most = self.0.max_plans;
        let taken = self.0.running.send_if_modified(|n| {
            let free = *n < most;
            *n += usize::from(free);
            free
        });
        if taken {
            return Ok(Running(self.0.clone()));
        }
        Err(Error::Full {
            what: format!("{most} plans run, as many as may ([gateway] max_plans)"),
            retry_after: RETRY,
        })
    }

    /// Begins a plan, or finds the one that was begun by the same request.
    pub(crate) fn begin(&self, opening: Opening) -> Result<Begun, Error> {
        let place = match self.0.plans.get(&opening.plan_id) {
            // A repetition needs no place.
            Some(_) => None,
            None => Some(self.place()?),
        };
        match self.0.plans.entry(opening.plan_id.clone()) {
            Entry::Occupied(known) if known.get().content == opening.content => {
                // Who comes later may want it to stay as well; that somebody does not is no reason to end what another has detached.
                known.get().detached.fetch_or(opening.detach, Ordering::AcqRel);
                Ok(Begun::Same(known.get().clone()))
            }
            Entry::Occupied(_) => Err(Error::PlanTaken {
                plan_id: opening.plan_id,
                by: "other content",
            }),
            Entry::Vacant(free) => {
                // Evicted between the two looks: one more try finds it gone.
                let place = place.map_or_else(|| self.place(), Ok)?;
                let plan = Arc::new(Plan::new(opening));
                free.insert(plan.clone());
                self.0.instruments.plan_began();
                Ok(Begun::New(plan, place))
            }
        }
    }

    /// The plan has told its last event. Forgets the oldest ended ones past the bounds.
    pub(crate) fn ended(&self, plan: &Arc<Plan>) {
        self.0.instruments.plan_ended(plan.state(), plan.began.elapsed());
        let bytes = plan.log.bytes();
        let mut ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.bytes += bytes;
        ended.order.push_back((plan.clone(), bytes));
        while ended.order.len() > self.0.plans_kept || (ended.bytes > KEPT_BYTES && ended.order.len() > 1) {
            let Some((oldest, bytes)) = ended.order.pop_front() else {
                break;
            };
            ended.bytes -= bytes;
            self.0
                .plans
                .remove_if(&oldest.id, |_, known| Arc::ptr_eq(known, &oldest));
        }
    }

    /// The plan of that id.
    pub(crate) fn get(&self, plan_id: &str) -> Option<Arc<Plan>> {
        self.0.plans.get(plan_id).map(|known| known.clone())
    }

    /// Resolves once nothing runs.
    pub(crate) async fn idle(&self) {
        let mut running = self.0.running.subscribe();
        // The sender lives in this store, which outlives the wait.
        drop(running.wait_for(|n| *n == 0).await);
    }

    /// Cancels whatever runs.
    pub(crate) fn cancel_all(&self, why: &Error) {
        let running: Vec<Arc<Plan>> = self
            .0
            .plans
            .iter()
            .map(|p| p.value().clone())
            .filter(|p| !p.log.closed())
            .collect();
        running.iter().for_each(|plan| plan.cancel(why.clone()));
    }
}

#[cfg(test)]
mod tests;
