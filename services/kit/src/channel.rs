//! The client side of the wire, with the house's settings.
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// A connection attempt's bound: on loopback and inside a data centre an answer comes in milliseconds; a host that drops
/// packets would otherwise cost a plan's whole deadline.
const CONNECT: Duration = Duration::from_secs(2);

/// How often an idle-looking connection with calls in flight is probed, and how long the answer may take. Together they
/// bound how long a peer that vanished without a FIN can hold a call: under ten seconds.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(4));

/// Streams that may be reset and not yet forgotten. The default of 10 ends connections of a mesh that cancels on purpose.
pub(crate) const RESETS: usize = 4096;

/// A channel that connects on first use and reconnects by itself. `endpoint` is `http://host:port`.
///
/// # Errors
/// When `endpoint` is not a URI.
pub fn connect_lazy(endpoint: &str) -> Result<Channel, tonic::transport::Error> {
    Ok(Endpoint::from_shared(endpoint.to_owned())?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .http2_max_concurrent_reset_streams(RESETS)
        .http2_max_local_error_reset_streams(RESETS)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .connect_lazy())
}
