//! Each target's room: so many calls at once, and a line before it that is let in by [`order`].
//!
//! Tower's concurrency limit lets its waiters in by arrival, and its load shedding has no line at all: whoever was turned away and
//! came back was let in by chance. What a call needs first is that those who have the least time to lose go first.
//!
//! A call waits for as long as its patience says and is shed then; where the line is full it is shed at once. Either way the plan
//! hears RESOURCE_EXHAUSTED, or goes elsewhere.
use crate::{Call, Error};
use futures::future::BoxFuture;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tower::{Layer, Service, ServiceExt as _};

pub mod order;
use order::{Order, Rank, Ticket};

/// Admits so many calls at once; clones share the room.
#[derive(Debug, Clone)]
pub struct QueueLayer {
    room: Arc<Room>,
}

impl QueueLayer {
    /// Of one target: `places` calls at once, and `most` that wait.
    #[must_use]
    pub fn new(target: Arc<str>, places: usize, most: usize) -> Self {
        let line = Line {
            free: places,
            order: Order::new(most),
        };
        Self {
            room: Arc::new(Room {
                target,
                line: Mutex::new(line),
            }),
        }
    }

    /// Calls that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.room.line().order.len()
    }
}

impl<S> Layer<S> for QueueLayer {
    type Service = Queue<S>;
    fn layer(&self, inner: S) -> Queue<S> {
        Queue {
            inner,
            room: self.room.clone(),
        }
    }
}

#[derive(Debug)]
struct Room {
    target: Arc<str>,
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    free: usize,
    order: Order<oneshot::Sender<Place>>,
}

/// A place, handed to the next in line when it is dropped.
#[derive(Debug)]
struct Place(Option<Arc<Room>>);

impl Drop for Place {
    fn drop(&mut self) {
        let Some(room) = self.0.take() else { return };
        loop {
            let next = {
                let mut line = room.line();
                let next = line.order.pop(Instant::now());
                line.free += usize::from(next.is_none());
                next
            };
            // Outside the lock: a place that nobody takes any more comes back, and goes to the one after.
            match next.map(|next| next.send(Place(Some(room.clone())))) {
                None | Some(Ok(())) => return,
                Some(Err(mut untaken)) => drop(untaken.0.take()),
            }
        }
    }
}

/// Leaves the line when the call is dropped.
struct InLine<'a>(&'a Room, Ticket);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.line().order.remove(self.1);
    }
}

impl Room {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, at once or in turn.
    async fn enter(self: &Arc<Self>, rank: Rank, patience: Instant) -> Result<Place, Error> {
        let shed = || Error::Shed {
            target: self.target.clone(),
        };
        let (sender, place) = oneshot::channel();
        let ticket = {
            let mut line = self.line();
            if line.free > 0 {
                line.free -= 1;
                return Ok(Place(Some(self.clone())));
            }
            let now = Instant::now();
            if now >= patience {
                return Err(shed());
            }
            line.order.push(rank, now, sender).map_err(|_| shed())?
        };
        let _in_line = InLine(self, ticket);
        match timeout_at(patience, place).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(shed()),
        }
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub struct Queue<S> {
    inner: S,
    room: Arc<Room>,
}

impl<S, R> Service<Call<R>> for Queue<S>
where
    S: Service<Call<R>, Error = Error> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = Error;
    type Future = BoxFuture<'static, Result<S::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // There is no readiness to hold: a place is taken by a call, in its turn, and not by whoever asks first.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call<R>) -> Self::Future {
        let (inner, room) = (self.inner.clone(), self.room.clone());
        Box::pin(async move {
            let rank = Rank {
                class: call.class,
                start_by: call.start_by,
            };
            let _place = room.enter(rank, call.patience.min(call.deadline)).await?;
            inner.oneshot(call).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use order::Class;
    use std::time::Duration;
    use tower::service_fn;

    const MS: Duration = Duration::from_millis(1);

    /// A call by that name, with so much slack; calls take ten milliseconds, and are noted as they begin.
    struct World {
        layer: QueueLayer,
        begun: Arc<Mutex<Vec<String>>>,
    }

    impl World {
        fn new(places: usize, most: usize) -> Self {
            Self {
                layer: QueueLayer::new("t".into(), places, most),
                begun: Arc::default(),
            }
        }

        fn call(&self, name: &'static str, class: Class, slack: u32, patience: u32) -> tokio::task::JoinHandle<bool> {
            let begun = self.begun.clone();
            let service = self.layer.layer(service_fn(move |call: Call<String>| {
                begun.lock().expect("begun").push(call.request);
                async {
                    tokio::time::sleep(MS * 10).await;
                    Ok(())
                }
            }));
            let now = Instant::now();
            let call = Call {
                class,
                start_by: now + MS * slack,
                patience: now + MS * patience,
                ..Call::new(name.to_owned(), now + MS * 60_000, 1)
            };
            tokio::spawn(async move { service.oneshot(call).await.is_ok() })
        }

        fn begun(&self) -> Vec<String> {
            self.begun.lock().expect("begun").clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_let_in_by_class_and_then_by_least_slack() {
        let world = World::new(1, 9);
        let calls = [
            ("first", Class::Batch, 900),
            ("batch", Class::Batch, 1),
            ("easy", Class::Normal, 800),
            ("tight", Class::Normal, 50),
            ("person", Class::Interactive, 900),
        ];
        let mut under_way = Vec::new();
        for (name, class, slack) in calls {
            under_way.push(world.call(name, class, slack, 60_000));
            tokio::time::sleep(MS).await;
        }
        for call in under_way {
            assert!(call.await.expect("ran"));
        }
        assert_eq!(world.begun(), ["first", "person", "tight", "easy", "batch"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_longer_than_its_patience_or_finds_the_line_full_is_shed() {
        let world = World::new(1, 1);
        let first = world.call("first", Class::Normal, 1, 1000);
        tokio::time::sleep(MS).await;
        let impatient = world.call("impatient", Class::Normal, 1, 3);
        tokio::time::sleep(MS).await;
        assert_eq!(world.layer.waiting(), 1);
        assert!(
            !world
                .call("one too many", Class::Interactive, 1, 1000)
                .await
                .expect("ran")
        );
        assert!(!impatient.await.expect("ran"));
        assert_eq!(world.layer.waiting(), 0);
        assert!(first.await.expect("ran"));
        assert_eq!(world.begun(), ["first"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_never_lost_whoever_gives_up_waiting_or_running() {
        let world = World::new(2, 99);
        for round in 0..50u32 {
            let calls: Vec<_> = (0..6).map(|n| world.call("x", Class::Normal, n, 40)).collect();
            tokio::time::sleep(MS * (round % 25)).await;
            // Some wait, some run, some have just been handed a place.
            calls.iter().step_by(2).for_each(tokio::task::JoinHandle::abort);
            for call in calls {
                drop(call.await);
            }
        }
        assert_eq!((world.layer.waiting(), world.layer.room.line().free), (0, 2));
    }
}
