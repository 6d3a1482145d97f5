//! What the tests stand on: a gateway on real sockets, and stubs of everybody that it calls.
pub(crate) mod endpoint;
pub(crate) mod metrics;
pub(crate) mod model;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod store;
pub(crate) mod stream;
pub(crate) mod tools;
pub(crate) mod world;

use std::time::{Duration, Instant};

/// Waits until `done`; half a minute means never.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Milliseconds.
pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
