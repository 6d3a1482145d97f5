//! Errors as OpenAI's clients read them.
use crate::error::Error;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use shoal_kit::{serve::Unread, status};
use tonic::{Code, Status};

/// The body of an error.
pub(crate) fn object(error: &Error) -> Value {
    let fault = error.fault();
    let kind = match Code::from(fault.code) {
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::AlreadyExists => {
            "invalid_request_error"
        }
        _ => "server_error",
    };
    json!({"error": {"message": fault.message, "type": kind, "code": fault.reason, "param": null}})
}

/// The whole response.
pub(crate) fn response(error: &Error) -> Response {
    let status = Status::from(error.clone());
    let code = match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        // Nginx's word for a client that has closed its request; nobody reads it.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = (code, Json(object(error))).into_response();
    if let Some(after) = status::retry_after(&status) {
        let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A body that is no completion request, or that never came.
pub(crate) fn body(unread: &Unread) -> Response {
    let mut response = response(&Error::invalid("body", unread.said()));
    *response.status_mut() = unread.status();
    response
}
