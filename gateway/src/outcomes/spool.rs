//! The one thread that touches the spool's folder, and the handle to it.
//!
//! Appends that wait are written together, as one write. A write that the disk refuses stays in memory and is tried again; while it
//! waits, no further plan is taken. Syncing is not on the way of an append: a killed process cannot take back what is in the page
//! cache, and against a power cut the folder is synced about once a second, which loses at most that second of what feedback,
//! usually a millisecond away, has not acknowledged yet.
use super::{
    Unusable,
    files::{Files, Position},
    frame,
    outcome::{self, Undeliverable},
};
use crate::{error::Error, telemetry::Instruments};
use prost::Message as _;
use shoal_kit::task;
use shoal_proto::v1;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};

/// Commands that wait for the thread: four groups, so that it finds the next one whenever it has written one. An outcome that finds
/// the queue full waits beside it.
const QUEUE: usize = 1024;

/// Outcomes that wait beside the full queue before no further plan is taken: as many again as wait in it, which a burst of ended
/// nodes does not reach while the disk is well. Plans that run may go past it: what they were promised is kept.
const BESIDE: usize = QUEUE;

/// Commands taken at once: enough that a burst of ended nodes is one write.
const GROUP: usize = 256;

/// When a caller that met a full or broken spool may come back.
const RETRY: Duration = Duration::from_secs(5);

/// Some outcomes, and where to go on reading.
pub(super) type Portion = (Vec<(Position, v1::Outcome)>, Position);

enum Command {
    Append(Vec<u8>, oneshot::Sender<()>),
    Read(Position, usize, oneshot::Sender<std::io::Result<Portion>>),
    Acknowledge(Vec<Position>),
    Tick,
}

#[derive(Debug)]
struct State {
    bytes: AtomicU64,
    /// Outcomes on disk or in memory that are not acknowledged.
    waiting: watch::Sender<u64>,
    broken: Mutex<Option<String>>,
    /// Outcomes that found the queue full, and wait for room in it.
    beside: AtomicUsize,
    max_bytes: u64,
    folder: PathBuf,
}

impl State {
    /// Whether outcomes of one more plan will find room. Plans that run may write past the bound: what they were promised is kept.
    ///
    /// # Errors
    /// `Full`, with what to do.
    fn room(&self) -> Result<(), Error> {
        let folder = self.folder.display();
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let what = match broken {
            Some(error) => format!("outcomes cannot be written to {folder}: {error}; make room or mend the disk"),
            None if self.bytes.load(Ordering::Relaxed) >= self.max_bytes => format!(
                "{folder} holds {} bytes of outcomes that feedback has not acknowledged, as many as it may ([gateway] spool_max_bytes): start feedback",
                self.max_bytes
            ),
            None if self.beside.load(Ordering::Relaxed) >= BESIDE => {
                format!("{folder} takes outcomes more slowly than nodes end; look at the disk")
            }
            None => return Ok(()),
        };
        Err(Error::Full {
            what,
            retry_after: RETRY,
        })
    }
}

/// The handle. The thread ends, and gives the folder back, when the last one is gone and what was handed over is written.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    commands: mpsc::Sender<Command>,
    state: Arc<State>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Spool {
    /// Takes the folder and starts the thread.
    ///
    /// # Errors
    /// When the folder is held or cannot be written.
    pub(super) fn open(folder: &Path, max_bytes: u64, instruments: Instruments) -> Result<Self, Unusable> {
        let files = Files::open(folder)?;
        let (commands, queue) = mpsc::channel(QUEUE);
        let state = Arc::new(State {
            bytes: AtomicU64::new(files.bytes()),
            waiting: watch::Sender::new(files.waiting()),
            broken: Mutex::default(),
            beside: AtomicUsize::new(0),
            max_bytes,
            folder: folder.to_owned(),
        });
        let keeper = Keeper {
            files,
            state: state.clone(),
            held: Vec::new(),
            instruments,
        };
        let thread = task::thread("outcome spool", move || keeper.run(queue)).map_err(|source| Unusable::Io {
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self {
            commands,
            state,
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// Whether outcomes of one more plan will find room.
    ///
    /// # Errors
    /// `Full`, with what to do.
    pub(super) fn room(&self) -> Result<(), Error> {
        self.state.room()
    }

    /// Hands the outcome over, whatever becomes of the caller, and gives what to wait for: it comes once the outcome is in the page
    /// cache. An error means that the thread has ended without writing it, and has said so, or that it could never be delivered.
    pub(super) fn append(&self, outcome: &v1::Outcome) -> oneshot::Receiver<()> {
        let (done, written) = oneshot::channel();
        if let Err(why) = outcome::deliverable(outcome) {
            tracing::error!(plan_id = outcome.plan_id, node_id = outcome.node_id, %why, "an outcome can never be delivered and is not kept");
            return written;
        }
        let mut frame = Vec::with_capacity(outcome.encoded_len() + frame::HEADER);
        frame::write(&outcome.encode_to_vec(), &mut frame);
        if let Err(TrySendError::Full(append)) = self.commands.try_send(Command::Append(frame, done)) {
            // The thread is stuck in the disk perhaps. A caller who waited here for room would take the outcome along when it left.
            self.state.beside.fetch_add(1, Ordering::Relaxed);
            let (commands, state) = (self.commands.clone(), self.state.clone());
            task::spawn("outcome on its way to the spool", async move {
                drop(commands.send(append).await);
                state.beside.fetch_sub(1, Ordering::Relaxed);
            });
        }
        written
    }

    /// Outcomes from `from` on, at most `most`.
    pub(super) async fn read(&self, from: Position, most: usize) -> std::io::Result<Portion> {
        let (reply, answer) = oneshot::channel();
        let gone = || std::io::Error::other("the spool has ended");
        self.commands
            .send(Command::Read(from, most, reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Notes acknowledgements.
    pub(super) async fn acknowledge(&self, positions: Vec<Position>) {
        drop(self.commands.send(Command::Acknowledge(positions)).await);
    }

    /// About once a second: syncs what is not synced, and tries again what could not be written.
    pub(super) fn tick(&self) {
        // A full queue means that the thread is at work anyway.
        drop(self.commands.try_send(Command::Tick));
    }

    /// How many outcomes wait; changes whenever one more does or fewer do.
    pub(super) fn waiting(&self) -> watch::Receiver<u64> {
        self.state.waiting.subscribe()
    }

    /// Gives the folder back, once what waits in the queue and beside it is written. Every other handle must be gone; whoever still
    /// holds one keeps the thread alive, and this does not wait.
    pub(crate) fn close(self) {
        let Self { commands, thread, .. } = self;
        drop(commands);
        // Handles are counted, not senders: an outcome that waits for room in the queue holds one of those, and is waited for.
        let Some(thread) = Arc::into_inner(thread) else { return };
        let thread = thread.into_inner().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the spool's thread panicked");
        }
    }
}

/// What the thread owns.
struct Keeper {
    files: Files,
    state: Arc<State>,
    /// Frames that the disk has not taken yet, and who waits for them.
    held: Vec<(Vec<u8>, oneshot::Sender<()>)>,
    instruments: Instruments,
}

impl Keeper {
    fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut commands = Vec::with_capacity(GROUP);
        while queue.blocking_recv_many(&mut commands, GROUP) > 0 {
            let mut replies = Vec::new();
            let mut tick = false;
            for command in commands.drain(..) {
                match command {
                    Command::Append(frame, done) => self.held.push((frame, done)),
                    Command::Acknowledge(positions) => self.files.acknowledge(&positions),
                    Command::Read(from, most, reply) => replies.push((from, most, reply)),
                    Command::Tick => tick = true,
                }
            }
            let written = self.write();
            if tick && let Err(error) = self.files.sync() {
                tracing::warn!(%error, "cannot sync the spool");
            }
            // After the write: a reader that was woken by an append finds it.
            for (from, most, reply) in replies {
                drop(reply.send(self.read(from, most)));
            }
            self.publish(written);
        }
        self.write();
        if !self.held.is_empty() {
            tracing::error!(
                outcomes = self.held.len(),
                "outcomes are lost: the disk never took them"
            );
        }
    }

    /// Everything that waits, in one write. Whether anything was written.
    fn write(&mut self) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let result = self.files.append(self.held.iter().map(|(frame, _)| frame.as_slice()));
        let mut broken = self.state.broken.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => {
                if broken.take().is_some() {
                    tracing::info!(outcomes = self.held.len(), "the disk takes outcomes again");
                }
                // Who has stopped waiting has an outcome on disk all the same.
                self.held.drain(..).for_each(|(_, done)| _ = done.send(()));
                true
            }
            Err(error) => {
                if broken.is_none() {
                    tracing::error!(%error, folder = %self.state.folder.display(), "outcomes cannot be written: no further plan is taken");
                }
                *broken = Some(error.to_string());
                false
            }
        }
    }

    /// What feedback can take from `from` on. The rest of what lies there is set aside, or nothing behind it would arrive.
    fn read(&mut self, mut from: Position, most: usize) -> std::io::Result<Portion> {
        loop {
            let (found, next) = self.files.read(from, most)?;
            let (mut outcomes, mut undeliverable) = (Vec::with_capacity(found.len()), Vec::new());
            let last = found.is_empty();
            for (at, payload) in found {
                match outcome::read(&payload) {
                    Ok(outcome) => outcomes.push((at, outcome)),
                    Err(why) => undeliverable.push((at, payload, why)),
                }
            }
            self.set_aside(undeliverable);
            // Who is given nothing takes it for the end, and waits there for more to be written.
            if last || !outcomes.is_empty() {
                return Ok((outcomes, next));
            }
            from = next;
        }
    }

    fn set_aside(&mut self, undeliverable: Vec<(Position, Vec<u8>, Undeliverable)>) {
        if undeliverable.is_empty() {
            return;
        }
        for (at, _, why) in &undeliverable {
            tracing::warn!(?at, %why, "an outcome in the spool can never be delivered and is set aside");
        }
        let frames: Vec<_> = undeliverable
            .into_iter()
            .map(|(at, payload, _)| (at, payload))
            .collect();
        match self.files.set_aside(&frames) {
            Ok(kept) => tracing::warn!(outcomes = frames.len(), kept = %kept.display(), "set aside"),
            Err(error) => {
                tracing::error!(outcomes = frames.len(), %error, "cannot set outcomes aside: they stay in the spool and are passed over");
            }
        }
    }

    /// Wakes who reads when there is something new to read, even if as much was acknowledged meanwhile; and not when only a read was
    /// answered: the reader would be woken by its own reading, for ever.
    fn publish(&self, written: bool) {
        let bytes = self.files.bytes();
        self.state.bytes.store(bytes, Ordering::Relaxed);
        self.instruments.spool_bytes.record(bytes, &[]);
        let waiting = self.files.waiting() + self.held.len() as u64;
        self.state.waiting.send_if_modified(|told| {
            let news = written || *told != waiting;
            *told = waiting;
            news
        });
    }
}

#[cfg(test)]
mod tests;
