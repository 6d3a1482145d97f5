//! Group commit: everything that waits goes into one transaction, and is acknowledged after it returned.
//!
//! Callers put work into a bounded queue; one thread owns the store. While it waits for the disk, the next group gathers: so
//! the slower the disk, the larger the groups, and no timer is needed.
use crate::store::{Error, Store};
use shoal_kit::{status::Reason, task, telemetry};
use shoal_proto::v1;
use std::{
    io,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{mpsc, oneshot};

/// Outcomes of one transaction at most. SQLite with `synchronous=FULL` was measured at 48,000 rows/s in groups of 32 and
/// 68,000 in groups of 256: past that a group only makes its first caller wait.
const GROUP: usize = 256;

/// When a caller that met a full queue or disk may come back: a few commits later.
const RETRY: Duration = Duration::from_millis(250);

type Done<T> = oneshot::Sender<Result<T, Error>>;

enum Work {
    Append(Box<v1::Outcome>, Done<()>),
    Judge(Box<v1::SubmitFeedbackRequest>, Done<()>),
    /// Nothing is taken after this one.
    End,
}

/// Puts work into the writer's queue.
#[derive(Debug, Clone)]
pub(crate) struct Commits(mpsc::Sender<Work>);

/// Starts the writer. It ends, with everything written that it was handed, at [`Commits::end`] or when every [`Commits`] is gone.
pub(crate) fn start(store: Box<dyn Store>, queue: usize) -> io::Result<(Commits, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel(queue);
    let thread = task::thread("outcome writer", move || write(store, receiver))?;
    Ok((Commits(sender), thread))
}

impl Commits {
    /// Queues an outcome; the receiver resolves when it is on disk.
    pub(crate) fn append(&self, outcome: v1::Outcome) -> Result<oneshot::Receiver<Result<(), Error>>, Reason> {
        let (done, receiver) = oneshot::channel();
        self.put(Work::Append(Box::new(outcome), done))?;
        Ok(receiver)
    }

    /// Queues a word on a node or a plan; it stays behind what was queued before it.
    pub(crate) fn judge(
        &self,
        feedback: v1::SubmitFeedbackRequest,
    ) -> Result<oneshot::Receiver<Result<(), Error>>, Reason> {
        let (done, receiver) = oneshot::channel();
        self.put(Work::Judge(Box::new(feedback), done))?;
        Ok(receiver)
    }

    /// Ends the writer for all holders, once what is queued by now is written; what comes later is refused. Not left to the
    /// last [`Commits`]: a connection holds one for as long as its client likes, past the server's end.
    pub(crate) async fn end(&self) {
        // Waits for room, which the writer makes. An error is a writer that has ended.
        let _ = self.0.send(Work::End).await;
    }

    fn put(&self, work: Work) -> Result<(), Reason> {
        self.0.try_send(work).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Reason::Exhausted {
                message: "the queue of outcomes is full ([feedback] queue)".into(),
                retry_after: RETRY,
            },
            mpsc::error::TrySendError::Closed(_) => shoal_kit::serve::draining("feedback"),
        })
    }
}

/// What a store's error means to a caller.
pub(crate) fn reason(error: &Error) -> Reason {
    match error {
        Error::Full(said) => Reason::Exhausted {
            message: said.clone(),
            retry_after: RETRY * 20,
        },
        Error::NoOutcome { .. } => Reason::NotFound {
            reason: "OUTCOME_UNKNOWN",
            message: error.to_string(),
        },
        Error::Broken(_) => Reason::Unavailable {
            message: error.to_string(),
            retry_after: RETRY * 20,
        },
    }
}

fn write(mut store: Box<dyn Store>, mut queue: mpsc::Receiver<Work>) {
    let meter = telemetry::meter();
    let stored = meter
        .u64_counter("shoal_outcomes_stored")
        .with_description("outcomes committed")
        .build();
    let seconds = meter
        .f64_histogram("shoal_commit_seconds")
        .with_boundaries(telemetry::SECONDS.to_vec())
        .with_description("one transaction, fsync included")
        .build();
    let size = meter
        .u64_histogram("shoal_commit_outcomes")
        .with_description("outcomes of one transaction")
        .build();
    let mut waiting = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut waiting, GROUP) > 0 {
        let (mut outcomes, mut done, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for work in waiting.drain(..) {
            match work {
                Work::Append(outcome, sender) => {
                    outcomes.push(*outcome);
                    done.push(sender);
                }
                Work::Judge(feedback, sender) => words.push((feedback, sender)),
                // What got in before the queue closed is still received, and written.
                Work::End => queue.close(),
            }
        }
        if !outcomes.is_empty() {
            let began = Instant::now();
            let result = store.append(&outcomes, SystemTime::now());
            seconds.record(began.elapsed().as_secs_f64(), &[]);
            size.record(outcomes.len() as u64, &[]);
            match &result {
                Ok(()) => stored.add(outcomes.len() as u64, &[]),
                Err(error) => {
                    tracing::error!(%error, outcomes = outcomes.len(), "cannot commit, nothing was acknowledged")
                }
            }
            done.into_iter().for_each(|sender| drop(sender.send(copy(&result))));
        }
        // After the outcomes of their own group: feedback may be about one of them.
        for (feedback, sender) in words {
            drop(sender.send(store.judge(&feedback, SystemTime::now())));
        }
    }
}

fn copy(result: &Result<(), Error>) -> Result<(), Error> {
    match result {
        Ok(()) => Ok(()),
        Err(Error::Full(said)) => Err(Error::Full(said.clone())),
        Err(other) => Err(Error::Broken(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Filter, Judged, Position, memory::Memory, suite::outcome};
    use std::sync::{Arc, Barrier, Mutex};

    /// A store whose commit waits for the test, and which notes the sizes of its groups.
    struct Gate(Memory, Arc<Barrier>, Arc<Mutex<Vec<usize>>>);

    impl Store for Gate {
        fn append(&mut self, outcomes: &[v1::Outcome], now: SystemTime) -> Result<(), Error> {
            self.1.wait();
            self.2.lock().expect("sizes").push(outcomes.len());
            self.0.append(outcomes, now)
        }
        fn judge(&mut self, feedback: &v1::SubmitFeedbackRequest, now: SystemTime) -> Result<(), Error> {
            self.0.judge(feedback, now)
        }
        fn of_plan(&mut self, plan_id: &str) -> Result<Vec<v1::Outcome>, Error> {
            self.0.of_plan(plan_id)
        }
        fn page(&mut self, filter: &Filter, after: Position, rows: usize, bytes: usize) -> Result<Vec<Judged>, Error> {
            self.0.page(filter, after, rows, bytes)
        }
    }

    #[test]
    fn nothing_is_acknowledged_before_its_commit_and_what_waits_is_one_group() {
        let (barrier, sizes) = (Arc::new(Barrier::new(2)), Arc::new(Mutex::new(Vec::new())));
        let (commits, thread) =
            start(Box::new(Gate(Memory::default(), barrier.clone(), sizes.clone())), 64).expect("thread");
        let mut first = commits.append(outcome("o0", "p", "0")).expect("queued");
        // The writer is inside its first commit, or about to be: what comes now is the second group.
        std::thread::sleep(Duration::from_millis(50));
        let mut rest: Vec<_> = (1..20)
            .map(|i| commits.append(outcome(&format!("o{i}"), "p", "1")).expect("queued"))
            .collect();
        assert!(first.try_recv().is_err(), "acknowledged before the commit returned");
        barrier.wait();
        barrier.wait();
        assert!(first.blocking_recv().expect("answered").is_ok());
        assert!(
            rest.drain(..)
                .all(|done| done.blocking_recv().expect("answered").is_ok())
        );
        drop(commits);
        thread.join().expect("writer");
        assert_eq!(*sizes.lock().expect("sizes"), [1, 19]);
    }

    // The only test of this crate that sets telemetry up: it may be done once a process.
    #[test]
    fn a_commit_counts_in_bounds_that_are_seconds() {
        let quiet = shoal_kit::config::Telemetry {
            log: "off".into(),
            ..Default::default()
        };
        let guard = telemetry::init("commit-test", &quiet).expect("telemetry");
        let (commits, thread) = start(Box::<Memory>::default(), 64).expect("thread");
        let stored = commits.append(outcome("o", "p", "1")).expect("queued");
        assert!(stored.blocking_recv().expect("answered").is_ok());
        drop(commits);
        thread.join().expect("writer");
        let text = telemetry::render_metrics();
        let bound = |le: &str| {
            let mut lines = text.lines().filter(|l| l.starts_with("shoal_commit_seconds_bucket"));
            lines.any(|l| l.contains(&format!("le=\"{le}\"")))
        };
        assert!(bound("0.001") && bound("60") && !bound("10000"), "{text}");
        drop(guard);
    }

    #[test]
    fn an_end_writes_what_was_handed_over_and_refuses_what_comes_after() {
        let (commits, thread) = start(Box::<Memory>::default(), 64).expect("thread");
        let handed: Vec<_> = (0..20)
            .map(|i| commits.append(outcome(&format!("o{i}"), "p", "1")).expect("queued"))
            .collect();
        // A sender of it lives on, as an open connection's does.
        futures::executor::block_on(commits.end());
        thread.join().expect("writer");
        for done in handed {
            assert!(done.blocking_recv().expect("answered").is_ok());
        }
        let late = commits.append(outcome("late", "p", "1"));
        assert!(
            matches!(late, Err(Reason::Unavailable { .. })),
            "taken and never written"
        );
    }

    #[test]
    fn a_full_queue_refuses_and_says_when_to_come_back() {
        let barrier = Arc::new(Barrier::new(2));
        let (commits, thread) =
            start(Box::new(Gate(Memory::default(), barrier.clone(), Arc::default())), 2).expect("thread");
        let queued: Vec<_> = (0..10)
            .map(|i| commits.append(outcome(&format!("o{i}"), "p", "1")))
            .collect();
        let refused = queued.iter().filter_map(|q| q.as_ref().err()).collect::<Vec<_>>();
        assert!(!refused.is_empty() && refused.iter().all(|r| matches!(r, Reason::Exhausted { .. })));
        drop(commits);
        while !thread.is_finished() {
            barrier.wait();
            std::thread::sleep(Duration::from_millis(20));
            if thread.is_finished() || queued.len() - refused.len() <= 2 {
                break;
            }
        }
    }
}
