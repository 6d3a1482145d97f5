//! A process that is started, and one that fetches what it waits for and never gets done.
use shoal_kit::onnxruntime;
use std::{
    fs,
    path::Path,
    process::{Child, Output},
    time::{Duration, Instant},
};

/// Longer than a start takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What it came to; killed if it does not end by itself, so that a failed test leaves no process: its status has no code then.
pub(crate) fn ended(mut child: Child) -> Output {
    let began = Instant::now();
    while child.try_wait().expect("waited for").is_none() && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    child.wait_with_output().expect("ended")
}

/// Holds the lock of whoever fetches ONNX Runtime into `cache` below the folder: all others wait for it.
pub(crate) fn fetching_onnxruntime(folder: &Path) -> fs::File {
    let cache = folder.join(format!("cache/onnxruntime-{}", onnxruntime::VERSION));
    fs::create_dir_all(&cache).expect("cache");
    let fetching = fs::File::create(cache.join("lock")).expect("lock");
    fetching.lock().expect("locked");
    fetching
}
