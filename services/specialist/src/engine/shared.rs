//! What a handle and its owner thread share: the queue, and the end. The slot engine's waiting requests, a tagger's waiting texts and
//! an encoder's waiting calls are kept, refused, dropped and failed alike.
use super::queue::{Class, Full, Line, Queue, Refused, Urgency};
use crate::{
    error::Error,
    telemetry::{Counters, Instruments},
};
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Requests that may wait, whatever their size: a bound on memory for one-token prompts.
const QUEUE_REQUESTS: usize = 4096;

/// Between two looks at all that waits, of an owner thread that has other work: to look at 2,184 requests takes some 16 microseconds of a step of a
/// millisecond. Who is let in is looked at then, and who waits for news of a deadline hears it as much later at most.
const LOOK: Duration = Duration::from_millis(10);

fn busy(refused: Refused) -> Error {
    let tokens = refused.waiting_tokens;
    let message = match refused.full {
        Full::Tokens(may) => {
            format!(
                "the queue is full: {tokens} prompt tokens wait, and {may} may for one of this priority ([specialist.NAME] queue_tokens)"
            )
        }
        Full::Requests(may) => {
            format!("the queue is full: {may} requests or more wait, and no more of this priority may, however short")
        }
    };
    Error::queue_full(tokens, message)
}

/// What waits in a queue.
pub(crate) trait Waits {
    /// Nobody hears what becomes of it any more.
    fn left(&self) -> bool;
    /// How soon its answer is wanted.
    fn urgency(&self) -> Urgency;
    /// Ends it without an answer.
    fn fail(self, error: Error);

    /// As [`gone`] says.
    fn gone(&self, now: Instant) -> Option<&'static str> {
        gone(self.left(), self.urgency().deadline, now)
    }
}

/// Why nobody waits for an answer any more, as requests are counted; `None` while somebody does.
pub(crate) fn gone(left: bool, deadline: Option<Instant>, now: Instant) -> Option<&'static str> {
    // A caller whose time is up leaves as well: that it left does not say why.
    if deadline.is_some_and(|d| d <= now) {
        return Some("expired");
    }
    left.then_some("cancelled")
}

/// A request that somebody waits for; one that nobody does is ended.
pub(crate) fn still_wanted<T: Waits>(waiting: T, now: Instant, instruments: &Instruments) -> Option<T> {
    let Some(outcome) = waiting.gone(now) else {
        return Some(waiting);
    };
    instruments.ended(outcome);
    waiting.fail(Error::Expired { generated: 0 });
    None
}

/// The queue of one owner thread.
pub(crate) struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
    counters: Arc<Counters>,
}

pub(crate) struct State<T> {
    pub(crate) queue: Queue<T>,
    pub(crate) closing: bool,
    looked: Option<Instant>,
}

impl<T> Shared<T> {
    /// `queue_tokens` prompt tokens may wait; `counters` are told how many do.
    pub(crate) fn new(queue_tokens: usize, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                queue: Queue::new(queue_tokens, QUEUE_REQUESTS),
                closing: false,
                looked: None,
            }),
            wake: Condvar::new(),
            counters,
        })
    }

    /// A panic while it was held leaves plain data that is still whole: every change to it is one call.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until somebody offers something, or closes.
    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.wake.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so many prompt tokens would be taken now, of a class.
    ///
    /// # Errors
    /// `Busy` when the queue is full, `Closing` at the end.
    pub(crate) fn check(&self, tokens: usize, class: Class) -> Result<(), Error> {
        let state = self.lock();
        match state.queue.fits(tokens, class) {
            _ if state.closing => Err(Error::Closing),
            Ok(()) => Ok(()),
            Err(refused) => Err(busy(refused)),
        }
    }

    /// Queues, in a line.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) fn offer(&self, waiting: T, tokens: usize, line: impl Into<Line>) -> Result<(), Error>
    where
        T: Waits,
    {
        let due = waiting.urgency().due();
        let mut state = self.lock();
        if state.closing {
            return Err(Error::Closing);
        }
        let offered = state.queue.offer(waiting, tokens, line, due);
        offered.map_err(busy)?;
        self.count(&state);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Tells the gauge what waits.
    pub(crate) fn count(&self, state: &State<T>) {
        let tokens = state.queue.waiting_tokens() as u64;
        self.counters.queue_tokens.store(tokens, Ordering::Relaxed);
    }

    /// Refuses what comes from now on, and wakes the owner thread to its end.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }
}

impl<T: Waits> State<T> {
    /// Takes out what nobody waits for any more; now and then only, for an owner thread that is `busy`.
    pub(crate) fn drop_dead(&mut self, instruments: &Instruments, busy: bool) {
        if self.queue.is_empty() {
            return;
        }
        let now = Instant::now();
        if busy && self.looked.is_some_and(|looked| now < looked + LOOK) {
            return;
        }
        self.looked = Some(now);
        for waiting in self.queue.remove(|w| w.gone(now).is_some()) {
            still_wanted(waiting, now, instruments);
        }
    }
}

/// Held by the owner thread: however it ends, by a panic too, nobody is left waiting for it.
pub(crate) struct End<T: Waits> {
    pub(crate) shared: Arc<Shared<T>>,
    pub(crate) stopped: CancellationToken,
}

impl<T: Waits> Drop for End<T> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.shared.lock();
            state.closing = true;
            state.queue.remove(|_| true)
        };
        for waiting in waiting {
            waiting.fail(Error::Closing);
        }
        self.stopped.cancel();
    }
}
