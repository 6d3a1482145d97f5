//! When to stop: a signal, or the end of the parent.
use std::io::Read as _;
use tokio::signal::unix::{self, Signal, SignalKind};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// A token that is cancelled by SIGINT, SIGTERM or SIGHUP (the terminal is gone), and, with `exit_with_parent`, by the end of standard
/// input. They are listened for from here on, not from the token's first use. SIGHUP is not if it was ignored, as by nohup.
///
/// The supervisor holds the other end of its children's standard input: when it is gone, however it went (SIGKILL too),
/// the pipe closes and the children drain and leave. That needs no unsafe code and works on every Unix.
#[must_use]
pub fn signal(exit_with_parent: bool) -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let mut interrupt = listen("SIGINT", SignalKind::interrupt());
    let mut terminate = listen("SIGTERM", SignalKind::terminate());
    let mut hangup = (!hangup_ignored())
        .then(|| listen("SIGHUP", SignalKind::hangup()))
        .flatten();
    crate::task::spawn("shutdown signal", async move {
        let why = tokio::select! {
            () = received(&mut interrupt) => "SIGINT",
            () = received(&mut terminate) => "SIGTERM",
            () = received(&mut hangup) => "SIGHUP",
            () = parent_gone(), if exit_with_parent => "parent has ended",
        };
        info!(why, "shutting down");
        cancelled.cancel();
    });
    token
}

fn listen(name: &'static str, kind: SignalKind) -> Option<Signal> {
    unix::signal(kind)
        .inspect_err(|error| tracing::warn!(%error, "cannot listen for {name}"))
        .ok()
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether this process was started to outlive its terminal. Linux says so; elsewhere it was not.
fn hangup_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

/// SIGHUP is signal 1: the lowest bit of `SigIgn`, a mask in hexadecimal.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_that_nohup_ignores_is_read_off_the_mask() {
        assert!(ignores_hangup("SigBlk:\t0000\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup(
            "SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n"
        ));
        assert!(!ignores_hangup(""));
    }
}
