//! When to stop: a signal, or the end of the parent.
use std::io::Read as _;
use tokio::signal;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// A token that is cancelled by SIGINT or SIGTERM, and, with `exit_with_parent`, by the end of standard input.
///
/// The supervisor holds the other end of its children's standard input: when it is gone, however it went (SIGKILL too),
/// the pipe closes and the children drain and leave. That needs no unsafe code and works on every Unix.
#[must_use]
pub fn signal(exit_with_parent: bool) -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    crate::task::spawn("shutdown signal", async move {
        let why = tokio::select! {
            _ = signal::ctrl_c() => "SIGINT",
            () = terminate() => "SIGTERM",
            () = parent_gone(), if exit_with_parent => "parent has ended",
        };
        info!(why, "shutting down");
        cancelled.cancel();
    });
    token
}

async fn terminate() {
    match signal::unix::signal(signal::unix::SignalKind::terminate()) {
        Ok(mut stream) => {
            stream.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "cannot listen for SIGTERM");
            std::future::pending().await
        }
    }
}

async fn parent_gone() {
    let gone = CancellationToken::new();
    let seen = gone.clone();
    // A thread of our own: tokio's standard input would hold up the runtime's end. What is read is ignored: only the end
    // matters, and nothing is ever written.
    let watcher = crate::task::thread("parent watcher", move || {
        let (mut stdin, mut buffer) = (std::io::stdin(), [0; 64]);
        while stdin.read(&mut buffer).is_ok_and(|n| n > 0) {}
        seen.cancel();
    });
    match watcher {
        Ok(_detached) => gone.cancelled().await,
        Err(error) => {
            tracing::warn!(%error, "cannot watch for the parent's end");
            std::future::pending().await
        }
    }
}
