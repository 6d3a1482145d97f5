//! Threads for what is too long, or recurses too deep, for the thread of a request: compiling grammars, and reading long
//! prompts. They are few, so that a flood of work waits here and leaves the engine its core. It waits as requests do, the more urgent
//! first: who waits for a slot by class would be no sooner there if all had stood in one line before it.
use crate::{
    engine::queue::{Queue, Urgency},
    error::Error,
};
use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;
use tracing::Span;

/// Work done at once: two, so that one slow form does not hold up everybody's.
const THREADS: usize = 2;

/// Work that may wait, less of it if it is not urgent. A grammar takes a millisecond or three: these are half a second of it.
const WAITING: usize = 256;

/// Bytes of a thread's stack: llguidance recurses along chains of definitions, and the longest that a form of
/// [`crate::constrain::FORM_BYTES`] can hold took between 64 and 128 MB unoptimised, 16 MB optimised. Only what is used takes
/// memory.
const STACK_BYTES: usize = 256 << 20;

type Work = Box<dyn FnOnce() + Send>;

struct State {
    waiting: Queue<Work>,
    closing: bool,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    /// A panic while it was held leaves plain data that is still whole: every change to it is one call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let work = loop {
                if state.closing {
                    return;
                }
                match state.waiting.take() {
                    Some(work) => break work,
                    None => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            // Whoever waits for it is told by the dropped channel; the thread stays for the next.
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
    }
}

/// The threads. Dropping it ends them after the work that they are in.
pub(crate) struct Workshop {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Workshop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workshop").finish_non_exhaustive()
    }
}

impl Workshop {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the operating system has none to give.
    pub(crate) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                waiting: Queue::new(WAITING, WAITING),
                closing: false,
            }),
            wake: Condvar::new(),
        });
        let mut workshop = Self {
            shared,
            threads: Vec::with_capacity(THREADS),
        };
        for _ in 0..THREADS {
            let shared = workshop.shared.clone();
            let thread = shoal_kit::task::deep_thread("workshop", STACK_BYTES, move || shared.work())?;
            workshop.threads.push(thread);
        }
        Ok(workshop)
    }

    /// Does `work` on one of the threads, in the current span, when it is its turn. If the caller leaves before, it is not done.
    ///
    /// # Errors
    /// `Busy` when too much waits, `Broken` when the work panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        urgency: Urgency,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let span = Span::current();
        let work = move || {
            if !reply.is_closed() {
                let _ = reply.send(span.in_scope(work));
            }
        };
        self.offer(urgency, Box::new(work))?;
        answer.await.map_err(|_| broken())
    }

    /// The same for a thread that may block.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = mpsc::channel();
        let work = move || {
            let _ = reply.send(work());
        };
        self.offer(Urgency::default(), Box::new(work))?;
        answer.recv().map_err(|_| broken())
    }

    fn offer(&self, urgency: Urgency, work: Work) -> Result<(), Error> {
        let mut state = self.shared.lock();
        let offered = state.waiting.offer(work, 1, urgency.class, urgency.due());
        offered.map_err(|refused| Error::Busy {
            message: format!(
                "{} requests wait for their grammar or their tokens",
                refused.waiting_tokens
            ),
            retry_after: Duration::from_millis(500),
        })?;
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.shared.lock();
            state.closing = true;
            state.waiting.remove(|_| true)
        };
        drop(waiting);
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn broken() -> Error {
    Error::Broken {
        message: "reading the request broke off".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::queue::Class;
    use std::{
        future::Future as _,
        sync::atomic::{AtomicUsize, Ordering},
        task::{Context, Waker},
    };

    #[tokio::test]
    async fn work_that_panics_fails_its_caller_alone() {
        let workshop = Workshop::start().expect("threads");
        for _ in 0..2 * THREADS {
            let ended = workshop
                .run(Urgency::default(), || panic!("as the test wants it"))
                .await;
            assert!(matches!(ended, Err::<(), _>(Error::Broken { .. })));
        }
        assert_eq!(workshop.run(Urgency::default(), || 7).await, Ok(7));
    }

    /// One whose threads are busy until what is given is dropped, and a message frees one of them; they may not have taken their first work yet.
    fn held() -> (Workshop, mpsc::Sender<()>) {
        let workshop = Workshop::start().expect("threads");
        let (hold, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..THREADS {
            let held = held.clone();
            let work = move || drop(held.lock().map(|h| h.recv()));
            workshop.offer(Urgency::default(), Box::new(work)).expect("takes it");
        }
        (workshop, hold)
    }

    #[tokio::test]
    async fn the_more_urgent_work_is_done_first_and_a_batch_leaves_it_room() {
        let (workshop, hold) = held();
        while !workshop.shared.lock().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        let done = Arc::new(Mutex::new(Vec::new()));
        let mut calls = Vec::new();
        let mut ask = |class: Class| {
            let (done, urgency) = (
                done.clone(),
                Urgency {
                    class,
                    ..Urgency::default()
                },
            );
            let mut call = Box::pin(workshop.run(urgency, move || done.lock().map(|mut d| d.push(class)).is_ok()));
            let waits = call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
            if waits {
                calls.push(call);
            }
            waits
        };
        let mut batch = 0;
        while ask(Class::Batch) {
            batch += 1;
        }
        assert!(batch < WAITING && ask(Class::Interactive));
        hold.send(()).expect("a thread waits");
        futures::future::join_all(calls).await;
        let done = done.lock().expect("whole");
        assert_eq!((done[0], done.len()), (Class::Interactive, batch + 1));
    }

    #[tokio::test]
    async fn a_full_workshop_refuses_and_what_nobody_waits_for_is_not_done() {
        let (workshop, hold) = held();
        let done = Arc::new(AtomicUsize::new(0));
        // Until the threads have taken their first work, it counts as waiting.
        let mut waiting = Vec::new();
        let refused = loop {
            let done = done.clone();
            let mut call = Box::pin(workshop.run(Urgency::default(), move || done.fetch_add(1, Ordering::Relaxed)));
            match futures::poll!(call.as_mut()) {
                std::task::Poll::Pending => waiting.push(call),
                std::task::Poll::Ready(refused) => break refused,
            }
        };
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        let last = waiting.pop();
        drop(waiting);
        drop(hold);
        assert!(last.expect("one waits").await.is_ok());
        assert_eq!(done.load(Ordering::Relaxed), 1, "the others had left");
    }

    #[test]
    fn a_thread_here_recurses_where_an_ordinary_one_would_overflow() {
        fn deep(levels: usize) -> usize {
            let room = std::hint::black_box([levels; 128]);
            if levels == 0 { room[0] } else { 1 + deep(room[1] - 1) }
        }
        let workshop = Workshop::start().expect("threads");
        assert_eq!(workshop.run_blocking(|| deep(50_000)), Ok(50_000));
    }
}
