//! Has another version of a specialist serve: its folder is checked, specialist.toml written, and the process, if it runs, watched
//! until it has switched by itself.
use crate::{
    client,
    exit::{Failure, Result},
};
use shoal_kit::{channel, config, deadline, task};
use shoal_proto::v1::{self, specialist_service_client::SpecialistServiceClient};
use shoal_specialist::folder::Folder;
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;
use toml_edit::{DocumentMut, Item, Value};
use tonic::Request;

/// One Describe's bound: it is answered from memory, and a process that does not run refuses the connection at once.
const ASK: Duration = Duration::from_secs(2);

/// Between two of them. The process looks at its file once a second.
const BETWEEN: Duration = Duration::from_millis(50);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Activated {
    /// "name@version".
    pub model: String,
    /// From the writing of specialist.toml until every process that runs served it; `None` if none runs, or none was waited for.
    pub took: Option<Duration>,
    /// Whether a process runs.
    pub running: bool,
}

/// A process that serves the specialist now.
struct Running {
    url: String,
    card: v1::DescribeResponse,
}

/// Makes `version` the active one of the specialist `name`, and waits for at most `wait` until the processes that run serve it. One
/// that refuses it has specialist.toml written back to what it serves.
///
/// # Errors
/// 64 for a version whose folder is at fault, with nothing changed; 1 if a process refused it; 69 if none switched in time.
pub(crate) async fn activate(
    name: &str,
    specialist: &config::Specialist,
    version: u32,
    wait: Duration,
) -> Result<Activated> {
    let folder = folder(name, specialist)?;
    let checked = folder.clone();
    let opened = task::blocking("model folder check", move || Folder::open_version(&checked, version)).await;
    let opened = opened
        .map_err(|e| Failure::internal(format!("the check of the model folder broke off: {e}")))?
        .map_err(|e| Failure::usage(format!("specialist {name}: {e}")))?;
    let running = running(specialist, &opened.manifest.name).await;
    write(&folder, version).map_err(|e| Failure::usage(format!("{}: {e}", manifest(&folder).display())))?;
    let (written, mut took) = (Instant::now(), None);
    if !running.is_empty() && !wait.is_zero() {
        for process in &running {
            until(process, version, written + wait, &folder).await?;
        }
        took = Some(written.elapsed());
    }
    Ok(Activated {
        model: opened.identity(),
        took,
        running: !running.is_empty(),
    })
}

/// The folder of a specialist.
///
/// # Errors
/// 64 if it is not of this machine.
pub(super) fn folder(name: &str, specialist: &config::Specialist) -> Result<PathBuf> {
    specialist.folder.clone().ok_or_else(|| {
        Failure::usage(format!(
            "specialist {name} is served elsewhere ([specialist.{name}] has no folder): activate its version where its folder is"
        ))
    })
}

/// Writes `active_version`, and leaves every other byte as it is. Whoever reads meanwhile reads the old file or the new one.
pub(super) fn write(folder: &Path, version: u32) -> io::Result<()> {
    let path = manifest(folder);
    let text = activated(&fs::read_to_string(&path)?, version).map_err(io::Error::other)?;
    let partial = folder.join(format!("specialist.toml.{}.partial", std::process::id()));
    let written = (|| {
        let mut file = fs::File::create(&partial)?;
        file.set_permissions(fs::metadata(&path)?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, &path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&partial);
        return written;
    }
    // The name is in the folder, and the folder's own write may still be away after a power cut.
    fs::File::open(folder)?.sync_all()
}

fn manifest(folder: &Path) -> PathBuf {
    folder.join("specialist.toml")
}

/// The text with another version in it.
fn activated(text: &str, version: u32) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|e| format!("it does not parse: {e}"))?;
    let active = document.get_mut("active_version").and_then(Item::as_value_mut);
    let active = active.ok_or("it has no `active_version`")?;
    let mut new = Value::from(i64::from(version));
    *new.decor_mut() = active.decor().clone();
    *active = new;
    Ok(document.to_string())
}

/// Where processes of the specialist are asked: where the gateway calls them, or where they listen.
fn addresses(specialist: &config::Specialist) -> Vec<String> {
    match (&specialist.endpoints[..], specialist.listen) {
        // Any free port: nobody knows which.
        ([], listen) if listen.port() == 0 => Vec::new(),
        ([], listen) => vec![client::reachable(listen)],
        (endpoints, _) => endpoints.to_vec(),
    }
}

/// The processes that serve the specialist whose folder says `name`.
async fn running(specialist: &config::Specialist, name: &str) -> Vec<Running> {
    let mut running = Vec::new();
    for url in addresses(specialist) {
        if let Some(card) = describe(&url).await.filter(|card| card.name == name) {
            running.push(Running { url, card });
        }
    }
    running
}

/// The card of the first process that serves it.
pub(super) async fn serving(specialist: &config::Specialist, name: &str) -> Option<v1::DescribeResponse> {
    running(specialist, name).await.into_iter().next().map(|r| r.card)
}

async fn describe(url: &str) -> Option<v1::DescribeResponse> {
    let mut client = SpecialistServiceClient::new(channel::connect_lazy(url).ok()?);
    let mut request = Request::new(v1::DescribeRequest {});
    deadline::set(&mut request, ASK);
    let answer = tokio::time::timeout(ASK, client.describe(request)).await;
    Some(answer.ok()?.ok()?.into_inner())
}

/// Waits until a process serves the version.
async fn until(process: &Running, version: u32, end: Instant, folder: &Path) -> Result<()> {
    let Running { url, card: before } = process;
    loop {
        // One that does not answer may have ended, and may be started again: with the version that is active now.
        if let Some(now) = describe(url).await {
            if now.version == version {
                return Ok(());
            }
            if let Some(refused) = now
                .refused
                .filter(|r| before.refused.as_ref() != Some(r) && r.version == version)
            {
                return Err(give_back(folder, url, now.version, &refused.reason));
            }
        }
        if Instant::now() >= end {
            return Err(Failure::unavailable(format!(
                "{url} does not serve version {version} yet; it is active, and tried as soon as the process gets to it: see its log, \
                 or wait longer with --wait"
            )));
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// A process refused: the file says again what it serves, so that a restart does not end it.
fn give_back(folder: &Path, url: &str, serves: u32, reason: &str) -> Failure {
    let back = match write(folder, serves) {
        Ok(()) => format!("specialist.toml names version {serves} again, which it goes on serving"),
        Err(e) => format!("it goes on serving version {serves}, and specialist.toml could not be written back: {e}"),
    };
    Failure::refused(format!("{url} refused: {reason}; {back}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# ours\nname = \"a\"   # the name\n\ntasks = [\n  \"x\", # one\n]\nactive_version = 1 # since May\n";

    #[test]
    fn only_the_number_changes_and_comments_and_blanks_stay() {
        let text = activated(TEXT, 12).expect("written");
        assert_eq!(text, TEXT.replace("= 1 ", "= 12 "));
        assert_eq!(activated(&text, 1).expect("written"), TEXT);
        assert!(
            activated("name = \"a\"\n", 2)
                .expect_err("refused")
                .contains("active_version")
        );
        assert!(activated("name = ", 2).expect_err("refused").contains("does not parse"));
    }

    #[test]
    fn a_write_replaces_the_file_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("specialist.toml");
        fs::write(&path, TEXT).expect("written");
        let before = fs::File::open(&path).expect("opened");
        write(folder.path(), 2).expect("written");
        assert_eq!(
            io::read_to_string(before).expect("still there"),
            TEXT,
            "who had it open reads on"
        );
        assert!(
            fs::read_to_string(&path)
                .expect("readable")
                .contains("active_version = 2 # since May")
        );
        fs::write(&path, "name = ").expect("written");
        write(folder.path(), 3).expect_err("refused");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "name = ");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_process_is_asked_where_it_is_called_or_listens() {
        let at = |listen: &str, endpoints: &[&str]| {
            addresses(&config::Specialist {
                listen: listen.parse().expect("address"),
                endpoints: endpoints.iter().map(|e| (*e).to_owned()).collect(),
                ..config::Specialist::default()
            })
        };
        assert_eq!(at("0.0.0.0:7500", &[]), ["http://127.0.0.1:7500"]);
        assert_eq!(
            at("0.0.0.0:7500", &["http://a:1", "http://b:1"]),
            ["http://a:1", "http://b:1"]
        );
        assert!(at("127.0.0.1:0", &[]).is_empty());
    }
}
