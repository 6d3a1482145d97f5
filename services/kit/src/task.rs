//! Every task and thread is started here and has a name, so that a dump of a stuck process reads like the architecture.
use std::{future::Future, io, thread};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Spawns a future under the current span. `name` is what it does: "outcome spool", "dns refresh".
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(
        async move {
            tracing::trace!(task = name, "task starts");
            future.await
        }
        .in_current_span(),
    )
}

/// Runs work that blocks on a thread of tokio's pool for it.
pub fn blocking<T, F>(name: &'static str, body: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || {
        let _inside = span.enter();
        tracing::trace!(task = name, "blocking work starts");
        body()
    })
}

/// Starts an operating-system thread. Linux shows the first 15 bytes of `name`.
///
/// # Errors
/// When the operating system has no thread to give.
pub fn thread<T, F>(name: &str, body: F) -> io::Result<thread::JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// The same with a stack of `stack_bytes`, for work that recurses as deep as its input says. Only what is used takes memory.
///
/// # Errors
/// When the operating system has no thread to give.
pub fn deep_thread<T, F>(name: &str, stack_bytes: usize, body: F) -> io::Result<thread::JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(stack_bytes)
        .spawn(body)
}
