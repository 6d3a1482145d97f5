//! Protobuf's time types to and from std's, total on what the wire can bring.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A std duration as the wire's; saturates at `i64::MAX` seconds.
#[must_use]
pub fn duration(d: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        nanos: d.subsec_nanos() as i32,
    }
}

/// The wire's duration as std's; `None` if it is negative or out of range.
#[must_use]
pub fn std_duration(d: &prost_types::Duration) -> Option<Duration> {
    let (seconds, nanos) = (u64::try_from(d.seconds).ok()?, u32::try_from(d.nanos).ok()?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// A system time as the wire's timestamp; times before 1970 become 1970.
#[must_use]
pub fn timestamp(t: SystemTime) -> prost_types::Timestamp {
    let d = t.duration_since(UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        nanos: d.subsec_nanos() as i32,
    }
}

/// The wire's timestamp as a system time; `None` if it is before 1970 or out of range.
#[must_use]
pub fn system_time(t: &prost_types::Timestamp) -> Option<SystemTime> {
    let (seconds, nanos) = (u64::try_from(t.seconds).ok()?, u32::try_from(t.nanos).ok()?);
    (nanos < 1_000_000_000)
        .then(|| UNIX_EPOCH.checked_add(Duration::new(seconds, nanos)))
        .flatten()
}
