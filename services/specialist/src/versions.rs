//! Which version serves, and how another takes its place without a stop.
//!
//! ```text
//!   specialist.toml ──looked at──► the version before, if that is wanted and still kept; else check, load, warm up, beside the one that serves
//!                                       │ good: switch                 │ not: `Refused`
//!                                       ▼                              ▼
//!                          new calls get the new one;      the old one goes on serving
//!                          the old one is kept for
//!                          `keep_previous`, then goes
//!                          with its last call
//! ```
//!
//! Going back is what cannot wait: the version before is kept as it is, in memory that the switch itself had to have, so that it serves again at the
//! next look. Its files must be those that it was loaded from: a version that was mended is loaded.
//!
//! A call opens its door once ([`crate::server::Doors`]) and keeps the version that it found to its end. So the last call to an old
//! version is the last but one owner of it, and the keeper here, the last, ends its thread where blocking is no harm.
mod previous;
mod seen;

use crate::{
    engine::{Request, queue::Urgency},
    error::Error,
    folder::{Files, Folder, manifest::Manifest},
    loader::Loader,
    runtime,
    sampling::{Sampling, calibration::Calibration},
    specialist::Specialist,
    telemetry,
};
use previous::Previous;
use seen::Seen;
use shoal_kit::{config, task};
use shoal_proto::{time::timestamp, v1};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    fmt::Display,
    mem,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{Span, info, warn};

/// Between two looks at specialist.toml: a rollback is to serve within a second unless another version loads meanwhile, and a look costs a third of a millisecond,
/// which six idle specialists pay for too. Reading a hundred bytes works the same on every file system, over a network and in a container's volume too, where
/// notifications do not.
const LOOK: Duration = Duration::from_millis(500);

/// The warm-up's bound. It is a few milliseconds' work: what has not done it by then serves nobody.
const WARM_UP: Duration = Duration::from_secs(30);

/// Tokens of the warm-up's prompt: a usual one's, so that the arena of the runtime has grown to what usual calls need.
const WARM_PROMPT_TOKENS: usize = 64;

/// Tokens that it generates: the first comes of the prompt, the others of decode steps.
const WARM_NEW_TOKENS: usize = 4;

/// What the doors see.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    /// The version that serves.
    pub specialist: Arc<Specialist>,
    /// The version that specialist.toml names, if it is another.
    pub refused: Option<Arc<Refused>>,
}

/// A version that did not take over.
#[derive(Debug)]
pub(crate) struct Refused {
    /// 0 if specialist.toml does not say.
    version: u32,
    reason: String,
    time: SystemTime,
}

impl Refused {
    fn new(version: u32, reason: impl Display) -> Self {
        Self {
            version,
            reason: reason.to_string(),
            time: SystemTime::now(),
        }
    }

    /// As Describe tells it.
    pub(crate) fn to_wire(&self) -> v1::Refused {
        v1::Refused {
            version: self.version,
            reason: self.reason.clone(),
            time: Some(timestamp(self.time)),
        }
    }
}

/// Keeps the version that specialist.toml names serving.
#[derive(Debug)]
pub(crate) struct Versions {
    serving: watch::Sender<Serving>,
    now: Arc<Specialist>,
    config: config::Specialist,
    loader: Loader,
    seen: Option<Seen>,
    previous: Previous,
    /// Versions that serve no new call and are not given up yet.
    leaving: Vec<Arc<Specialist>>,
}

impl Versions {
    pub(crate) fn new(specialist: Specialist, config: config::Specialist, loader: Loader) -> Self {
        let now = Arc::new(specialist);
        Self {
            serving: watch::Sender::new(Serving {
                specialist: now.clone(),
                refused: None,
            }),
            now,
            previous: Previous::new(config.keep_previous),
            config,
            loader,
            seen: None,
            leaving: Vec::new(),
        }
    }

    /// What serves, now and later.
    pub(crate) fn serving(&self) -> watch::Receiver<Serving> {
        self.serving.subscribe()
    }

    /// Looks again and again.
    pub(crate) async fn keep(mut self) -> Infallible {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look().await;
            self.give_up().await;
        }
    }

    async fn look(&mut self) {
        let now = self.now.clone();
        let root = now.folder().root.clone();
        let seen = task::blocking("specialist.toml", move || Seen::of(&root)).await.ok();
        if seen == self.seen {
            return;
        }
        self.seen = seen;
        let started = Instant::now();
        let name = now.folder().card.name.as_str();
        let refused = match Box::pin(self.next(&now)).await {
            Ok(None) => None,
            Ok(Some((next, how))) => {
                let model = next.identity();
                info!(
                    specialist = name,
                    model,
                    before = now.identity(),
                    how,
                    seconds = started.elapsed().as_secs_f64(),
                    "version switched"
                );
                telemetry::tried(model, how);
                let before = mem::replace(&mut self.now, next);
                let gone = self.previous.replaced(before, Instant::now());
                self.leaving.extend(gone);
                None
            }
            Err(refused) => {
                warn!(
                    specialist = name,
                    version = refused.version,
                    reason = refused.reason,
                    serving = now.identity(),
                    "version refused, the one that serves goes on"
                );
                telemetry::tried(format!("{name}@{}", refused.version), "refused");
                Some(Arc::new(refused))
            }
        };
        self.serving.send_replace(Serving {
            specialist: self.now.clone(),
            refused,
        });
    }

    /// The version that specialist.toml names, ready to serve, and how it came to be; `None` if it serves already, or is not named any more.
    async fn next(&mut self, now: &Specialist) -> Result<Option<(Arc<Specialist>, &'static str)>, Refused> {
        let (folder, root) = (now.folder(), now.folder().root.clone());
        let manifest = aside("specialist.toml", move || Folder::manifest(&root)).await;
        let manifest = manifest.map_err(|e| Refused::new(0, e))?;
        let version = manifest.active_version;
        let refused = |reason: &dyn Display| Refused::new(version, reason);
        alike(&folder.manifest, &manifest).map_err(|e| refused(&e))?;
        if version == folder.card.version {
            return Ok(None);
        }
        let of = folder.root.join(version.to_string());
        let files = task::blocking("model folder", move || Files::of(&of))
            .await
            .unwrap_or_default();
        if let Some(kept) = self.previous.take(version, &files) {
            return Ok(Some((kept, "resumed")));
        }
        let root = folder.root.clone();
        // What was held against this process's own, and not what the file says by now: that is the next look's.
        let opened = aside("model folder check", move || Folder::open_as(&root, manifest)).await;
        let opened = opened.map_err(|e| refused(&e))?;
        let (kind, other) = (folder.card.kind.name(), opened.card.kind.name());
        if kind != other {
            let what =
                format!("it is of kind \"{other}\", the one that serves of \"{kind}\": restart the process for that");
            return Err(refused(&what));
        }
        // There is memory for two, and for no third but what calls still run on.
        let gone = self.previous.let_go();
        self.leaving.extend(gone);
        self.give_up().await;
        let loaded = self.loader.load(opened, &self.config, now.library()).await;
        let next = loaded.map_err(|e| refused(&e))?;
        let warm = warm_up(&next).await;
        self.loader.settle(&self.config);
        if let Err(error) = warm {
            let reason = format!("{} does not answer: {error}", next.identity());
            end(next).await;
            return Err(refused(&reason));
        }
        // All of that took its time. Who went back meanwhile was told that the old one serves, and it does: the next look is at what the file
        // says now.
        let root = folder.root.clone();
        let manifest = aside("specialist.toml", move || Folder::manifest(&root)).await;
        if manifest.is_ok_and(|now| now.active_version != version) {
            info!(
                model = next.identity(),
                "version not named any more, given up before it served"
            );
            end(next).await;
            return Ok(None);
        }
        Ok(Some((Arc::new(next), "switched")))
    }

    /// Ends the versions whose last call has ended.
    async fn give_up(&mut self) {
        let expired = self.previous.expired(Instant::now());
        self.leaving.extend(expired);
        // Nobody gets an old version any more: when this is the last owner, it stays that.
        let (idle, busy) = self.leaving.drain(..).partition(|old| Arc::strong_count(old) == 1);
        self.leaving = busy;
        let idle: Vec<Arc<Specialist>> = idle;
        for old in idle {
            let (model, started) = (old.identity(), Instant::now());
            end(old).await;
            info!(model, seconds = started.elapsed().as_secs_f64(), "version given up");
        }
    }
}

/// Does what blocks on a thread for it.
async fn aside<T, E>(
    name: &'static str,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Box<dyn Display + Send>>
where
    T: Send + 'static,
    E: Display + Send + 'static,
{
    match task::blocking(name, work).await {
        Ok(done) => done.map_err(|e| Box::new(e) as _),
        Err(broken) => Err(Box::new(broken)),
    }
}

/// Ends a model on a thread that may wait for the model's own, and gives its memory back.
async fn end(model: impl Send + 'static) {
    let end = move || {
        drop(model);
        runtime::trim();
    };
    let _ = task::blocking("version ends", end).await;
}

/// Whether nothing but the version differs: names and tasks are what others know this process by.
fn alike(now: &Manifest, then: &Manifest) -> Result<(), String> {
    let set = |tasks: &[String]| tasks.iter().cloned().collect::<BTreeSet<_>>();
    if now.name != then.name {
        return Err(format!(
            "specialist.toml is of `{}`, this process serves `{}`: restart it for that",
            then.name, now.name
        ));
    }
    if set(&now.tasks) != set(&then.tasks) {
        return Err(format!(
            "specialist.toml names the tasks {}, this process serves {}: restart it for that",
            then.tasks.join(", "),
            now.tasks.join(", ")
        ));
    }
    Ok(())
}

/// One short generation, so that the first caller does not pay for what is done once.
async fn warm_up(next: &Specialist) -> Result<(), Error> {
    let deadline = Some(Instant::now() + WARM_UP);
    let folder = next.folder();
    // An encoder has run two batches when it was proven at load.
    let (Some(engine), Some(exported)) = (next.engine(), &folder.exported) else {
        return Ok(());
    };
    let room = engine.shape().context_tokens - 1;
    let ticket = engine.submit(Request {
        prompt: vec![exported.bos.unwrap_or(exported.eos[0]); WARM_PROMPT_TOKENS.min(room)],
        sampling: Sampling::greedy(WARM_NEW_TOKENS),
        grammar: None,
        required: Default::default(),
        calibration: Calibration::default(),
        urgency: Urgency::until(deadline),
        tokenize: Duration::ZERO,
        span: Span::none(),
    })?;
    ticket.complete().await.map(drop)
}

/// Waits until the model that serves has stopped by itself, and says which it was.
pub(crate) async fn stopped(mut serving: watch::Receiver<Serving>) -> String {
    loop {
        let (model, stopped): (String, CancellationToken) = {
            let now = serving.borrow_and_update();
            (now.specialist.identity(), now.specialist.stopped())
        };
        tokio::select! {
            // First: a version that was replaced may stop.
            biased;
            Ok(()) = serving.changed() => {}
            () = stopped.cancelled() => return model,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, tasks: &[&str]) -> Manifest {
        Manifest {
            name: name.into(),
            tasks: tasks.iter().map(|t| (*t).to_owned()).collect(),
            active_version: 1,
        }
    }

    #[test]
    fn a_switch_changes_the_version_and_nothing_that_others_know_a_process_by() {
        let now = manifest("a", &["x", "y"]);
        assert_eq!(alike(&now, &manifest("a", &["y", "x"])), Ok(()));
        let told = |then| alike(&now, &then).expect_err("refused");
        assert!(told(manifest("b", &["x", "y"])).contains("`b`"));
        assert!(told(manifest("a", &["x"])).contains("the tasks x, this process serves x, y"));
    }
}
