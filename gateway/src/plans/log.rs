//! A plan's events, in order, for whoever watches now or comes later.
//!
//! There is one copy of the events and no queue per watcher: a watcher is a position in the list. So a slow one holds up nobody,
//! late ones miss nothing, and sequence numbers have no gaps. What could grow without end are the pieces of running models'
//! texts; past a bound no more of them are told, and each node's last event has its whole text anyway.
use futures::Stream;
use shoal_proto::{
    time,
    v1::{self, plan_event::Event},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};
use tokio::sync::watch;

/// Pieces of text that one plan tells at most, and their bytes: sixteen nodes of a few hundred tokens each, a megabyte at most.
const DELTAS: (usize, usize) = (4096, 1 << 20);

#[derive(Debug, Default)]
struct Inner {
    events: Vec<Arc<v1::PlanEvent>>,
    deltas: (usize, usize),
    bytes: usize,
    closed: bool,
}

/// The list.
#[derive(Debug)]
pub(crate) struct Log {
    plan_id: String,
    inner: Mutex<Inner>,
    /// How many events there are: what watchers wait on.
    length: watch::Sender<usize>,
}

impl Log {
    pub(crate) fn new(plan_id: &str) -> Self {
        Self {
            plan_id: plan_id.to_owned(),
            inner: Mutex::default(),
            length: watch::Sender::new(0),
        }
    }

    /// Appends. Nothing comes after `finished`.
    pub(crate) fn push(&self, event: Event) {
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        if let Event::NodeDelta(delta) = &event {
            let bytes = inner.deltas.1 + delta.text.len();
            if inner.deltas.0 >= DELTAS.0 || bytes > DELTAS.1 {
                // Nor is a smaller one told after it: what is told of a text is a beginning of it, and has no holes.
                inner.deltas.0 = DELTAS.0;
                return;
            }
            inner.deltas = (inner.deltas.0 + 1, bytes);
        }
        inner.closed = matches!(event, Event::Finished(_));
        let event = v1::PlanEvent {
            plan_id: self.plan_id.clone(),
            sequence: inner.events.len() as u64 + 1,
            time: Some(time::timestamp(SystemTime::now())),
            event: Some(event),
        };
        inner.bytes += prost::Message::encoded_len(&event);
        inner.events.push(Arc::new(event));
        let length = inner.events.len();
        drop(inner);
        self.length.send_replace(length);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every event so far.
    pub(crate) fn events(&self) -> Vec<Arc<v1::PlanEvent>> {
        self.lock().events.clone()
    }

    /// Bytes of memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Whether the last event is there.
    pub(crate) fn closed(&self) -> bool {
        self.lock().closed
    }

    /// The event at a position, or whether there will be none.
    fn get(&self, at: usize) -> Result<Option<Arc<v1::PlanEvent>>, Closed> {
        let inner = self.lock();
        match inner.events.get(at) {
            Some(event) => Ok(Some(event.clone())),
            None if inner.closed => Err(Closed),
            None => Ok(None),
        }
    }

    /// Events after the first `after`, then the new ones until the last.
    pub(crate) fn watch(self: Arc<Self>, after: u64) -> impl Stream<Item = Arc<v1::PlanEvent>> + Send + 'static {
        let at = usize::try_from(after).unwrap_or(usize::MAX);
        let length = self.length.subscribe();
        futures::stream::unfold((self, length, at), async |(log, mut length, at)| {
            loop {
                match log.get(at) {
                    Ok(Some(event)) => return Some((event, (log, length, at + 1))),
                    Err(Closed) => return None,
                    // The sender lives in the log that this stream holds: the wait ends by an event.
                    Ok(None) => length.changed().await.ok()?,
                }
            }
        })
    }
}

struct Closed;

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;

    fn delta(text: &str) -> Event {
        Event::NodeDelta(v1::NodeDelta {
            node_id: "n".into(),
            text: text.into(),
        })
    }

    fn sequences(events: &[Arc<v1::PlanEvent>]) -> Vec<u64> {
        events.iter().map(|e| e.sequence).collect()
    }

    #[tokio::test]
    async fn a_late_watcher_sees_every_event_and_nothing_follows_the_last() {
        let log = Arc::new(Log::new("p"));
        log.push(delta("a"));
        let early = tokio::spawn(log.clone().watch(0).collect::<Vec<_>>());
        log.push(delta("b"));
        log.push(Event::Finished(v1::PlanFinished::default()));
        log.push(delta("too late"));
        let late: Vec<_> = log.clone().watch(0).collect().await;
        assert_eq!(sequences(&late), [1, 2, 3]);
        assert_eq!(early.await.expect("watched"), late);
        assert_eq!(sequences(&log.clone().watch(2).collect::<Vec<_>>().await), [3]);
        assert!(log.clone().watch(u64::MAX).collect::<Vec<_>>().await.is_empty());
    }

    #[test]
    fn no_piece_of_text_is_told_after_one_that_was_not() {
        let log = Log::new("p");
        for bytes in [DELTAS.1 - 1, 10, 1] {
            log.push(delta(&"x".repeat(bytes)));
        }
        assert_eq!(log.events().len(), 1);
    }

    #[tokio::test]
    async fn a_watcher_that_reads_nothing_holds_nothing_up_and_pieces_of_text_are_bounded() {
        let log = Arc::new(Log::new("p"));
        let mut slow = Box::pin(log.clone().watch(0));
        for _ in 0..3 * DELTAS.0 {
            log.push(delta("x"));
        }
        log.push(delta(&"y".repeat(DELTAS.1)));
        log.push(Event::Finished(v1::PlanFinished::default()));
        assert_eq!(log.events().len(), DELTAS.0 + 1, "bounded, and the end is told");
        let seen: Vec<_> = (&mut slow).collect().await;
        let gapless: Vec<u64> = (1..=DELTAS.0 as u64 + 1).collect();
        assert_eq!(sequences(&seen), gapless);
    }
}
