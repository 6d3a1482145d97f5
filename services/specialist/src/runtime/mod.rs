//! ONNX Runtime: the only module that names `ort`.
//!
//! [`open`] loads the library and a checked model; [`decoder`] decodes over one of two kinds of [`kv`]: [`in_place`], whose graph appends to a
//! shared buffer ([`shared_kv`] holds the unsafe code of decoding, [`mover`] a graph that it needs on a device), and [`apart`], whose graph
//! takes a past and gives a present; [`encoder`] runs one batch of an encoder; [`heap`] gives back the memory of models that have gone;
//! [`pages`] puts what stays into huge pages;
//! [`cores`] says where the process's threads run, and after whom.

mod apart;
#[expect(unsafe_code, reason = "the scheduler's calls have no safe face")]
mod cores;
mod decoder;
mod encoder;
#[expect(unsafe_code, reason = "the allocator's trim has no safe face")]
mod heap;
mod in_place;
mod kv;
mod layout;
mod mover;
#[expect(unsafe_code, reason = "the operating system's calls for memory have no safe face")]
mod pages;
#[expect(
    unsafe_code,
    reason = "the C API is the only way to bind rows of one buffer as past and present (see its docs)"
)]
mod shared_kv;

pub(crate) use cores::{confine, this_thread};
pub(crate) use decoder::OrtDecoder;
pub(crate) use encoder::{Beside, OrtEncoder, Output, Padded};
pub(crate) use heap::trim;
pub use heap::{Allocator, settle};
pub(crate) use pages::{gather, let_go_of_code};

use crate::folder::exported::Number;
use ort::{
    environment::Environment,
    ep::{self, ArenaExtendStrategy, ExecutionProvider as _},
    session::{Session, builder::SessionBuilder},
};
use shoal_kit::{config::Provider, onnxruntime};
use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

/// What can go wrong with ONNX Runtime. None is the caller's fault, and none can be retried with the same model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library does not load.
    #[error("ONNX Runtime at {}: {message}: name a working libonnxruntime in [onnxruntime] path", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// CUDA was asked for and is not there.
    #[error(
        "provider = \"cuda\" was asked for, and {reason}: install the library of the onnxruntime-gpu wheel with its CUDA \
         libraries and name it in [onnxruntime] path, or set provider = \"cpu\""
    )]
    NoCuda {
        /// What is missing.
        reason: String,
    },
    /// The model is not one that this engine can run.
    #[error("{}: {message}", model.display())]
    Model {
        /// The ONNX file.
        model: PathBuf,
        /// What does not fit, and what would.
        message: String,
    },
    /// A run failed.
    #[error("onnx runtime failed: {0}")]
    Run(String),
}

impl<R> From<ort::Error<R>> for Error {
    fn from(error: ort::Error<R>) -> Self {
        Self::Run(error.message().to_owned())
    }
}

/// How a session is to run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Where.
    pub provider: Provider,
    /// Threads inside one operator. The library's own default is every core, in every process.
    pub intra_op_threads: usize,
    /// Whether those wait for each other awake within a run.
    pub spin: bool,
    /// Whether a run follows the one before at once, as a decode step does.
    pub steps: bool,
    /// Bytes that the CUDA arena may take; 0 leaves it to the library.
    pub gpu_mem_limit_bytes: usize,
    /// The token that fills up a shorter text beside a longer one; of encoders alone.
    pub pad_token: u32,
}

/// The one environment of the process (ONNX Runtime allows no second), and the library that it came from.
static ENVIRONMENT: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

fn environment(library: &Path) -> Result<Environment, Error> {
    let fault = |message: String| Error::Library {
        path: library.to_owned(),
        message,
    };
    let mut slot = ENVIRONMENT
        .lock()
        .map_err(|_| fault("an earlier load panicked".into()))?;
    if let Some((loaded, environment)) = slot.as_ref() {
        if loaded != library {
            return Err(fault(format!(
                "{} is loaded already, and a process can hold one",
                loaded.display()
            )));
        }
        return Ok(environment.clone());
    }
    let builder = ort::init_from(library).map_err(|e| fault(e.to_string()))?;
    let environment = builder
        .with_name("shoal")
        .with_telemetry(false)
        .build()
        .map_err(|e| fault(e.message().to_owned()))?;
    *slot = Some((library.to_owned(), environment.clone()));
    Ok(environment)
}

/// Opens a model that [`crate::folder`] has checked.
fn open(library: &Path, model: &Path, options: &Options) -> Result<Session, Error> {
    let refused = |e: ort::Error| Error::Model {
        model: model.to_owned(),
        message: e.message().to_owned(),
    };
    builder(library, options)?.commit_from_file(model).map_err(refused)
}

/// Microseconds for which the threads of a pool wait awake for the next step, which mostly comes before they are over: to wake one that sleeps costs a step
/// of one row some 3 in 100 (loadtest/after_a_run.py).
const AWAKE_MICROS: &str = "100";

/// The minor version that can be told so. One before it would be awake for milliseconds.
const AWAKE_SINCE: u32 = 26;

/// What a pool does after a run. Within one, threads that sleep between operators are late for each of them. After it nothing is to be done, but for the
/// next step of a decoder: threads that wait on would take the cores of the process next door.
fn after_a_run(library: &Path, options: &Options) -> (&'static str, &'static str) {
    let able = || onnxruntime::minor_of(library).is_some_and(|minor| minor >= AWAKE_SINCE);
    if options.spin && options.steps && able() {
        ("session.intra_op.spin_duration_us", AWAKE_MICROS)
    } else {
        ("session.force_spinning_stop", "1")
    }
}

/// A session's settings.
fn builder(library: &Path, options: &Options) -> Result<SessionBuilder, Error> {
    let environment = environment(library)?;
    let (key, value) = after_a_run(library, options);
    let mut builder = Session::builder(&environment)?
        .with_intra_threads(options.intra_op_threads.max(1))?
        .with_inter_threads(1)?
        .with_intra_op_spinning(options.spin)?
        .with_config_entry(key, value)?
        .with_inter_op_spinning(false)?
        // Prompts have other shapes each time, and a step has others every few tokens: patterns would be learned and seldom reused.
        .with_memory_pattern(false)?;
    if options.provider == Provider::Cuda {
        match ep::CUDA::is_available() {
            Ok(true) => {}
            Ok(false) => {
                return Err(Error::NoCuda {
                    reason: format!("{} was built without it", library.display()),
                });
            }
            Err(e) => {
                return Err(Error::NoCuda {
                    reason: e.message().to_owned(),
                });
            }
        }
        // TF32 would round fp32 to ten bits of mantissa in every product: other logits than the CPU's, and other greedy tokens.
        let mut cuda = ep::CUDA::default()
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
            .with_tf32(false);
        if options.gpu_mem_limit_bytes > 0 {
            cuda = cuda.with_memory_limit(options.gpu_mem_limit_bytes);
        }
        builder = builder
            .with_execution_providers([cuda.build().error_on_failure()])
            .map_err(|e| Error::NoCuda {
                reason: e.message().to_owned(),
            })?;
    }
    Ok(builder)
}

/// The session that moves rows of `caches` caches of `number` in device memory.
fn open_mover(library: &Path, caches: usize, number: Number, options: &Options) -> Result<Session, Error> {
    Ok(builder(library, options)?.commit_from_memory(&mover::model(caches, number))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn only_a_decoder_that_may_spin_waits_awake_and_only_in_a_library_that_can_be_told_how_long() {
        let folder = tempfile::tempdir().expect("folder");
        let library = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, "").expect("written");
            path
        };
        let (old, new) = (library("libonnxruntime.so.1.25.0"), library("libonnxruntime.so.1.26.1"));
        let (linked, unnamed) = (folder.path().join("libonnxruntime.so"), library("libort.so"));
        symlink(&new, &linked).expect("linked");
        let waits = |library: &Path, spin: bool, steps: bool| {
            let options = Options {
                provider: Provider::Cpu,
                intra_op_threads: 2,
                spin,
                steps,
                gpu_mem_limit_bytes: 0,
                pad_token: 0,
            };
            after_a_run(library, &options) == ("session.intra_op.spin_duration_us", AWAKE_MICROS)
        };
        assert!(waits(&new, true, true) && waits(&linked, true, true));
        assert!(!waits(&new, false, true) && !waits(&new, true, false));
        assert!(!waits(&old, true, true) && !waits(&unnamed, true, true));
    }
}
