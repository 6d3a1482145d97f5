//! What an endpoint's errors mean, in the house's table.
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde_json::Value;
use shoal_kit::status::Reason;
use std::time::Duration;
use tonic::Status;

/// Characters of an endpoint's words that are repeated.
const TOLD: usize = 300;

/// When to come back to an endpoint that does not say.
const RETRY: Duration = Duration::from_secs(1);

/// The connection broke, was never made, or took too long.
pub(super) fn transport(error: &reqwest::Error) -> Status {
    // The URL may carry credentials; its host is named by whoever reports this.
    let mut said = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(inner) = cause {
        said = inner.to_string();
        cause = inner.source();
    }
    let what = if error.is_timeout() {
        "it did not answer in time".to_owned()
    } else if error.is_connect() {
        format!("it cannot be reached: {said}")
    } else {
        format!("the connection broke: {said}")
    };
    Reason::Unavailable {
        message: what,
        retry_after: RETRY,
    }
    .into()
}

/// It began to answer, and did not end: with the code that it would have answered with at once, if it said so.
pub(super) fn broke_off(code: Option<StatusCode>, said: &str) -> Status {
    let message = format!("its answer broke off: {said}");
    match code {
        Some(code) => status(code, None, &message),
        None => Reason::Unavailable {
            message,
            retry_after: RETRY,
        }
        .into(),
    }
}

/// It answered with something that is no answer. Asking again will not mend it.
pub(super) fn nonsense(what: &str) -> Status {
    Reason::Precondition {
        reason: "ENDPOINT_ANSWER_INVALID",
        message: what.to_owned(),
    }
    .into()
}

/// It refused.
pub(super) fn status(code: StatusCode, retry_after: Option<Duration>, said: &str) -> Status {
    let message = format!("it answered {code}: {said}");
    match code {
        // One that names no time may mean a minute's rate or a month's quota: at once is as good as any, and it is not waited for.
        StatusCode::TOO_MANY_REQUESTS => Reason::Exhausted {
            message,
            retry_after: retry_after.unwrap_or_default(),
        },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Reason::Precondition {
            reason: "ENDPOINT_REFUSED",
            message: format!("{message}; check api_key_env"),
        },
        StatusCode::NOT_FOUND => Reason::Precondition {
            reason: "ENDPOINT_REFUSED",
            message: format!("{message}; check base_url and model"),
        },
        code if code.is_client_error() && code != StatusCode::REQUEST_TIMEOUT => Reason::Precondition {
            reason: "ENDPOINT_REFUSED",
            message,
        },
        _ => Reason::Unavailable {
            message,
            retry_after: retry_after.unwrap_or(RETRY),
        },
    }
    .into()
}

/// `Retry-After` in seconds. Dates are rare there, and a second is near enough.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The words of an error's body: OpenAI's `error.message`, or the beginning of whatever it is; without the key, should the endpoint
/// repeat it.
pub(super) fn message(body: &[u8], key: Option<&str>) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let told = parsed
        .as_ref()
        .and_then(|v| v["error"]["message"].as_str().map(str::to_owned));
    let told = told.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    // Before the cut, which could leave a part of it.
    let told = match key {
        Some(key) => told.replace(key, "[api key]"),
        None => told,
    };
    told.chars().take(TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_kit::status;
    use tonic::Code;

    #[test]
    fn each_refusal_has_the_code_that_says_what_to_do() {
        for (code, expected) in [
            (429, Code::ResourceExhausted),
            (401, Code::FailedPrecondition),
            (404, Code::FailedPrecondition),
            (400, Code::FailedPrecondition),
            (408, Code::Unavailable),
            (500, Code::Unavailable),
            (503, Code::Unavailable),
        ] {
            let refused = super::status(
                StatusCode::from_u16(code).expect("code"),
                Some(Duration::from_secs(7)),
                "no",
            );
            assert_eq!(refused.code(), expected, "{code}");
            if expected != Code::FailedPrecondition {
                assert_eq!(status::retry_after(&refused), Some(Duration::from_secs(7)));
            }
        }
    }

    #[test]
    fn an_endpoints_own_words_are_repeated_and_bounded() {
        assert_eq!(message(br#"{"error":{"message":"too long"}}"#, None), "too long");
        assert_eq!(message(b"<html>", Some("key")), "<html>");
        assert_eq!(message(&[0xff; 5000], None).chars().count(), TOLD);
    }

    #[test]
    fn a_key_is_never_repeated_and_no_part_of_it_either_wherever_the_cut_falls() {
        let key = "sk-0123456789abcdef0123456789abcdef";
        for before in TOLD - key.len() - 12..TOLD + 2 {
            let body = format!("{} {key}", "x".repeat(before));
            let told = message(body.as_bytes(), Some(key));
            assert!(!told.contains(&key[..8]), "{before}: {told}");
            assert!(told.chars().count() <= TOLD);
        }
    }
}
