//! Where versions are loaded: before others, also in a process that is behind them.
//!
//! A process of `background = true` has what busy neighbours leave, which may be three thousandths of a core: a load of a second would take minutes,
//! and the warm-up behind it would run out of time and have a good version refused. A thread cannot leave SCHED_IDLE again without a privilege; so one
//! never goes there, and what it loads follows once it is warm.
use crate::{
    folder::Folder,
    runtime,
    specialist::{LoadError, Specialist},
};
use shoal_kit::{config, task};
use std::{
    io,
    path::Path,
    sync::{Arc, mpsc},
};
use tokio::sync::oneshot;
use tracing::warn;

type Work = Box<dyn FnOnce() + Send>;

/// Loads versions. Of a process that is not behind others on whatever thread may block.
#[derive(Debug, Clone, Default)]
pub struct Loader {
    thread: Option<Arc<Thread>>,
}

/// The thread that stays where it was. It ends with its last handle.
#[derive(Debug)]
struct Thread {
    works: mpsc::Sender<Work>,
    number: i32,
}

/// Puts this process where its budget says: on `cpus`, and with `background` behind all who are not. After [`crate::load`]: every thread that there
/// is is put there, those of ONNX Runtime too, and those that later versions bring as soon as they are warm.
///
/// # Errors
/// In words, when the operating system refuses; it is a matter of configuration.
pub fn confine(config: &config::Specialist) -> Result<Loader, String> {
    let loader = if config.background {
        Loader::aside().map_err(|e| format!("there is no thread to load versions on: {e}"))?
    } else {
        Loader::default()
    };
    loader.confine(config)?;
    Ok(loader)
}

impl Loader {
    fn aside() -> io::Result<Self> {
        let (works, taken) = mpsc::channel::<Work>();
        let (tell, number) = mpsc::channel();
        task::thread("loader", move || {
            let _ = tell.send(runtime::this_thread());
            taken.iter().for_each(|work| work());
        })?;
        let number = number.recv().map_err(io::Error::other)?;
        Ok(Self {
            thread: Some(Arc::new(Thread { works, number })),
        })
    }

    fn confine(&self, config: &config::Specialist) -> Result<(), String> {
        let spared = self.thread.as_ref().map(|thread| thread.number);
        runtime::confine(&config.cpus, config.background, spared).map_err(|e| {
            let (cpus, background) = (&config.cpus, config.background);
            format!("the operating system does not grant cpus = {cpus:?} with background = {background} ({e}): name cores that this process may use, or leave them out")
        })
    }

    /// Puts the threads that a load left behind where the process is.
    pub(crate) fn settle(&self, config: &config::Specialist) {
        if self.thread.is_some()
            && let Err(error) = self.confine(config)
        {
            warn!(error, "what was loaded stays before others");
        }
    }

    /// Loads a checked folder with the ONNX Runtime at `library`.
    ///
    /// # Errors
    /// When a file of the folder, ONNX Runtime or the provider is at fault; all of it is a matter of configuration.
    pub(crate) async fn load(
        &self,
        folder: Folder,
        config: &config::Specialist,
        library: &Path,
    ) -> Result<Specialist, LoadError> {
        let (config, library) = (config.clone(), library.to_owned());
        let load = move || {
            runtime::settle();
            let loaded = Specialist::of(folder, &config, &library);
            // What reading, parsing and optimising a graph took and freed: 45 MB of an int8 encoder of 12 MB, and its process keeps it for nothing.
            runtime::trim();
            runtime::gather();
            runtime::let_go_of_code();
            loaded
        };
        let ended = |e| LoadError::Thread(io::Error::other(e));
        let Some(thread) = &self.thread else {
            return task::blocking("load", load)
                .await
                .map_err(|e| LoadError::Thread(io::Error::other(e)))?;
        };
        let (tell, loaded) = oneshot::channel();
        let work = move || {
            // Whoever waited for it may have gone.
            let _ = tell.send(load());
        };
        let offered = thread.works.send(Box::new(work));
        offered.map_err(|_| ended("the thread that loads versions has ended"))?;
        loaded
            .await
            .map_err(|_| ended("the thread that loads versions broke off"))?
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs;

    /// The scheduler of a thread: field 41 of its stat, behind its name; 5 is SCHED_IDLE.
    fn policy(thread: &str) -> String {
        let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).expect("a thread");
        let behind = stat.rsplit_once(')').expect("a name").1;
        behind.split_whitespace().nth(38).expect("41 fields").to_owned()
    }

    #[tokio::test]
    async fn a_process_behind_others_loads_its_next_version_before_them_and_puts_it_behind_them_then() {
        let config = config::Specialist {
            background: true,
            ..config::Specialist::default()
        };
        let loader = confine(&config).expect("granted");
        let this = runtime::this_thread().to_string();
        assert_eq!(policy(&this), "5", "the process is behind others");
        let (tell, told) = mpsc::channel();
        let thread = loader.thread.as_ref().expect("a thread of its own");
        // As an engine's thread is started by a load.
        let works = thread.works.send(Box::new(move || {
            let own = policy(&runtime::this_thread().to_string());
            let (end, ends) = mpsc::channel::<()>();
            let left = task::thread("left", move || {
                tell.send((own, runtime::this_thread().to_string(), end))
                    .expect("heard");
                ends.recv().expect_err("the other end is dropped");
            });
            left.expect("a thread");
        }));
        works.expect("it listens");
        let (own, started, _end) = told.recv().expect("it works");
        assert_eq!((own.as_str(), policy(&started).as_str()), ("0", "0"));
        loader.settle(&config);
        assert_eq!(policy(&started), "5", "what a load leaves behind follows");
        assert_eq!(
            policy(&thread.number.to_string()),
            "0",
            "the next load is before others again"
        );
    }
}
