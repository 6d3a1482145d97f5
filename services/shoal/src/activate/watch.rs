//! The processes of a specialist while they switch: who serves what, and what becomes of specialist.toml where one does not.
//!
//! A version that is refused, or that takes its process down, is not left in the file: what is there is what a restart loads, so that it
//! would end every process after the first as well.
use super::switch::write;
use crate::{
    client,
    exit::{Exit, Failure, Result},
};
use shoal_kit::{
    channel, config, deadline,
    resolve::{self, Lookup, SystemLookup},
};
use shoal_proto::v1::{self, specialist_service_client::SpecialistServiceClient};
use std::{path::Path, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request};

/// One Describe's bound: it is answered from memory, and a process that does not run refuses the connection at once.
const ASK: Duration = Duration::from_secs(2);

/// So often a process is asked that does not answer.
const ASKS: u32 = 3;

/// Between two asks. The process looks at its file twice a second.
const BETWEEN: Duration = Duration::from_millis(50);

/// So often in a row nobody must be there before the process counts as ended: one may be a connection's bad moment, and a supervisor's
/// first restart, which reads the file, comes after 100 ms.
const GONE: u32 = 2;

/// How long the old version may take to serve again: restarts after 0.1, 0.2 and 0.4 seconds, and a load of some megabytes.
const BACK: Duration = Duration::from_secs(20);

/// A process that serves the specialist now.
pub(super) struct Running {
    pub(super) url: String,
    pub(super) card: v1::DescribeResponse,
}

/// What is heard of a process.
enum Heard {
    Card(Box<v1::DescribeResponse>),
    /// Somebody is there, and does not answer in time.
    Nothing,
    /// Nobody is there.
    Gone,
}

/// Where processes of the specialist are asked: where the gateway calls them, at each address of a name, or where they listen.
///
/// # Errors
/// 69 for a name that cannot be looked up: replicas would switch with nobody watching.
async fn addresses(specialist: &config::Specialist, lookup: &dyn Lookup) -> Result<Vec<String>> {
    let urls = match (&specialist.endpoints[..], specialist.listen) {
        // Any free port: nobody knows which.
        ([], listen) if listen.port() == 0 => Vec::new(),
        ([], listen) => vec![client::reachable(listen)],
        (endpoints, _) => endpoints.to_vec(),
    };
    match resolve::addresses(lookup, &urls).await {
        (_, Some(error)) => Err(Failure::unavailable(format!(
            "{error}: nothing was changed; try again where the name is known, or switch unwatched with --wait 0"
        ))),
        (all, None) => Ok(all.iter().map(|address| format!("http://{address}")).collect()),
    }
}

/// Who was asked, and who of them runs.
#[derive(Default)]
pub(super) struct Found {
    pub(super) asked: Vec<String>,
    pub(super) running: Vec<Running>,
}

/// The processes that serve the specialist whose folder says `name`.
///
/// # Errors
/// 69 where one does not say what it serves: it might be one of them, and would switch with nobody watching.
pub(super) async fn running(specialist: &config::Specialist, name: &str) -> Result<Found> {
    let mut found = Found {
        asked: addresses(specialist, &SystemLookup).await?,
        running: Vec::new(),
    };
    for url in &found.asked {
        match heard(url).await {
            Heard::Card(card) if card.name == name => found.running.push(Running {
                url: url.clone(),
                card: *card,
            }),
            Heard::Card(_) | Heard::Gone => {}
            Heard::Nothing => {
                return Err(Failure::unavailable(format!(
                    "somebody is at {url} and has not said within {:?} what it serves: nothing was changed; try again, or switch unwatched with --wait 0",
                    ASK * ASKS
                )));
            }
        }
    }
    Ok(found)
}

/// What is heard in the end of a process that may be busy.
async fn heard(url: &str) -> Heard {
    for _ in 1..ASKS {
        match describe(url).await {
            Heard::Nothing => {}
            heard => return heard,
        }
    }
    describe(url).await
}

/// The card of the first process that serves it.
pub(super) async fn serving(specialist: &config::Specialist, name: &str) -> Option<v1::DescribeResponse> {
    let found = running(specialist, name).await.unwrap_or_default();
    found.running.into_iter().next().map(|r| r.card)
}

async fn describe(url: &str) -> Heard {
    let Ok(channel) = channel::connect_lazy(url) else {
        return Heard::Gone;
    };
    let mut request = Request::new(v1::DescribeRequest {});
    deadline::set(&mut request, ASK);
    match timeout(ASK, SpecialistServiceClient::new(channel).describe(request)).await {
        Ok(Ok(card)) => Heard::Card(Box::new(card.into_inner())),
        // Nobody, or no specialist.
        Ok(Err(status)) if matches!(status.code(), Code::Unavailable | Code::Unimplemented) => Heard::Gone,
        Ok(Err(_)) | Err(_) => Heard::Nothing,
    }
}

/// Waits until a process serves the version.
///
/// # Errors
/// It refused, ended, or does not answer, and the file names again what it served; or it has not got to it by `end`.
pub(super) async fn until(process: &Running, version: u32, end: Instant, folder: &Path) -> Result<()> {
    let Running { url, card: before } = process;
    let mut gone = 0;
    loop {
        let heard = describe(url).await;
        match &heard {
            // One that ended and was started again serves what is active now: that is the version too.
            Heard::Card(now) if now.version == version => return Ok(()),
            Heard::Card(now) => {
                gone = 0;
                let refused = now.refused.as_ref().filter(|r| r.version == version);
                if let Some(refused) = refused.filter(|r| before.refused.as_ref() != Some(r)) {
                    let back = give_back(folder, now.version);
                    let why = format!("{url} refused: {}; {back}, which it goes on serving", refused.reason);
                    return Err(Failure::refused(why));
                }
            }
            Heard::Nothing => gone = 0,
            Heard::Gone => gone += 1,
        }
        let over = Instant::now() >= end;
        match heard {
            _ if gone >= GONE => return Err(ended(url, version, before.version, folder).await),
            Heard::Card(_) if over => {
                return Err(Failure::unavailable(format!(
                    "{url} does not serve version {version} yet; it is active, and tried as soon as the process gets to it: see its \
                     log, or wait longer with --wait"
                )));
            }
            _ if over => {
                let back = give_back(folder, before.version);
                return Err(Failure::unavailable(format!(
                    "{url} does not answer since version {version} was activated; {back}: see its log, and restart it"
                )));
            }
            _ => sleep(BETWEEN).await,
        }
    }
}

/// The file says again what the process served, so that a restart does not end it. In words.
fn give_back(folder: &Path, served: u32) -> String {
    match write(folder, served) {
        Ok(()) => format!("specialist.toml names version {served} again"),
        Err(e) => format!("specialist.toml could not be written back to version {served}: {e}"),
    }
}

/// The process ended before it served the version: the old one is what its restart shall load. Says whether it does.
async fn ended(url: &str, version: u32, served: u32, folder: &Path) -> Failure {
    let back = give_back(folder, served);
    let end = Instant::now() + BACK;
    let (exit, now) = loop {
        match describe(url).await {
            Heard::Card(now) if now.version == served => break (Exit::Refused, "which serves again"),
            _ if Instant::now() >= end => break (Exit::Unavailable, "which does not serve yet"),
            _ => sleep(BETWEEN).await,
        }
    };
    let message = format!("{url} ended before it served version {version}; {back}, {now}: see its log");
    Failure { exit, message }
}

#[cfg(test)]
mod tests;
