//! Deadlines on the wire. tonic ignores a malformed `grpc-timeout`, and its own timer stops at the response headers, so a
//! stream would be unbounded: the mesh reads and enforces deadlines itself.
use crate::status::{self, Reason};
use std::time::Duration;
use tonic::metadata::{MetadataMap, MetadataValue};

const HEADER: &str = "grpc-timeout";

/// The caller's remaining time, or `None` if it set none.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is not one to eight digits and a unit of `H M S m u n`.
pub fn of(metadata: &MetadataMap) -> Result<Option<Duration>, Reason> {
    let Some(value) = metadata.get(HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    parse(text)
        .map(Some)
        .ok_or_else(|| status::invalid(HEADER, format!("`{text}` is not 1 to 8 digits and one of H M S m u n")))
}

/// Sets the time that the callee has.
pub fn set<T>(request: &mut tonic::Request<T>, remaining: Duration) {
    if let Ok(value) = MetadataValue::try_from(render(remaining)) {
        request.metadata_mut().insert(HEADER, value);
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// Eight digits at most, so the unit grows with the value; rounded down, so the callee never has longer than the caller.
fn render(d: Duration) -> String {
    const LIMIT: u128 = 99_999_999;
    match d {
        d if d.as_micros() <= LIMIT => format!("{}u", d.as_micros()),
        d if d.as_millis() <= LIMIT => format!("{}m", d.as_millis()),
        d => format!("{}S", d.as_secs().min(99_999_999)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_malformed_timeout_is_refused_and_says_so() {
        for bad in ["", "S", "123456789S", "1", "1s", "-1S", "1.5S", "\u{e9}S"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        let mut metadata = MetadataMap::new();
        metadata.insert(HEADER, MetadataValue::from_static("soon"));
        let status = tonic::Status::from(of(&metadata).expect_err("malformed"));
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains("soon"), "{}", status.message());
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read_back_and_never_longer(micros in 0u64..10_000_000_000_000) {
            let sent = Duration::from_micros(micros);
            let read = parse(&render(sent)).expect("rendered");
            prop_assert!(read <= sent && sent - read < Duration::from_secs(1));
        }
    }
}
