//! Has another version of a specialist serve: its folder is checked, specialist.toml written, and the process, if it runs, watched
//! until it has switched by itself.
use super::watch::{Found, running, until};
use crate::exit::{Failure, Result};
use shoal_kit::{config, task};
use shoal_specialist::folder::Folder;
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;
use toml_edit::{DocumentMut, Item, Value};

/// What came of it.
#[derive(Debug)]
pub(crate) struct Activated {
    /// "name@version".
    pub model: String,
    /// From the writing of specialist.toml until every process that runs served it; `None` if none runs, or none was waited for.
    pub took: Option<Duration>,
    /// Whether a process was found running.
    pub running: bool,
    /// Where processes were looked for.
    asked: Vec<String>,
}

impl Activated {
    /// "c@2 serves", or what is known instead where nobody was watched.
    pub(crate) fn words(&self) -> String {
        let model = &self.model;
        match self.took {
            Some(took) => format!("{model} serves, {:.1} s after it was activated", took.as_secs_f64()),
            None if self.running => format!("{model} is active; the process that runs switches to it"),
            None if self.asked.is_empty() => format!(
                "{model} is active; where its processes listen is not in the configuration (`listen` is any port): one that runs switches to it with nobody watching"
            ),
            None => format!(
                "{model} is active; no process of it was found at {}, and the next serves it. One that runs elsewhere switches to it with nobody \
                 watching: of a mesh on free ports name the configuration that it runs by, with --config",
                self.asked.join(", ")
            ),
        }
    }
}

/// Makes `version` the active one of the specialist `name`, and waits for at most `wait` until the processes that run serve it. One
/// that refuses it, or ends over it, has specialist.toml written back to what it served.
///
/// # Errors
/// 64 for a version whose folder is at fault, with nothing changed; 1 if a process refused it or ended over it; 69 if none switched in
/// time, or the one that ended is not back.
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
    let Found { asked, running } = match running(specialist, &opened.manifest.name).await {
        Err(_) if wait.is_zero() => Found::default(),
        found => found?,
    };
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
        asked,
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
}
