//! Health, asked by the standard protocol.
use shoal_kit::channel;
use std::time::Duration;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// One health question's bound. A process that is loading its model has bound its port and does not answer yet.
const ASK: Duration = Duration::from_secs(1);

/// Between two questions: short beside the time that a model takes to load.
const BETWEEN: Duration = Duration::from_millis(25);

/// Asks once. `Ok(true)` is SERVING.
///
/// # Errors
/// The answer was an error, or none came within `patience`.
pub(crate) async fn check(address: &str, service: &str, patience: Duration) -> Result<bool, String> {
    let channel = channel::connect_lazy(address).map_err(|e| format!("{address} is no address: {e}"))?;
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    match tokio::time::timeout(patience, client.check(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner().status() == ServingStatus::Serving),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("no answer within {patience:?}")),
    }
}

/// Returns once the process at `address` says SERVING. Bound it with a timeout.
pub(super) async fn healthy(address: std::net::SocketAddr) {
    let url = format!("http://{address}");
    while !matches!(check(&url, "", ASK).await, Ok(true)) {
        tokio::time::sleep(BETWEEN).await;
    }
}
