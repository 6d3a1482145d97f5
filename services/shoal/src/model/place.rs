//! Where a version goes: beside the others of its name or as the first of it, never over anything. It is there whole or not at all: made under a name that no
//! specialist has, checked and tried there, and renamed.
use super::Held;
use crate::exit::{Failure, Result};
use shoal_specialist::folder::{
    Folder,
    draft::{About, Draft},
    manifest::{Kind, Manifest},
};
use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};
use tokio_util::sync::CancellationToken;

/// Bytes that are copied between two looks for Ctrl-C: some tenths of a second of a slow disk.
const PIECE: u64 = 64 << 20;

/// The file that is locked while a version is made.
const LOCK: &str = "lock";

/// A place that is free.
#[derive(Debug, Clone)]
pub(super) struct Place {
    models: PathBuf,
    manifest: Manifest,
    /// Whether there are other versions.
    beside: bool,
    /// Of which kind the active one of them is, where its card says so.
    kind: Option<Kind>,
}

impl Place {
    /// The place of version `version` of the specialist `name` in `models`.
    ///
    /// # Errors
    /// Something is there, or what is there does not go with it.
    pub(super) fn find(models: &Path, name: &str, version: Option<u32>, tasks: &[String]) -> Result<Self> {
        let wanted = Manifest {
            name: name.to_owned(),
            tasks: tasks.to_vec(),
            active_version: version.unwrap_or(1),
        };
        let root = models.join(name);
        // A name that is none is no path either.
        let named = Manifest {
            tasks: vec!["t".into()],
            ..wanted.clone()
        };
        named
            .text(Path::new("--name"))
            .map_err(|e| Failure::usage(e.to_string()))?;
        if root.symlink_metadata().is_err() {
            if tasks.is_empty() {
                return Err(Failure::usage(format!("say which task {name} serves: --task TASK")));
            }
            wanted
                .text(Path::new("--task"))
                .map_err(|e| Failure::usage(e.to_string()))?;
            return Ok(Self {
                models: models.to_owned(),
                manifest: wanted,
                beside: false,
                kind: None,
            });
        }
        let shown = root.display();
        let there = Folder::manifest(&root).map_err(|e| {
            Failure::usage(format!(
                "{shown} is there, and is no specialist's folder to add a version to ({e}): give another --name, or move it away"
            ))
        })?;
        let versions = Folder::versions(&root).map_err(|e| Failure::usage(e.to_string()))?;
        let Some(version) = version else {
            let numbers: Vec<String> = versions.iter().map(|v| v.version.to_string()).collect();
            let next = versions.iter().map(|v| v.version).max().unwrap_or(0).saturating_add(1);
            return Err(Failure::usage(format!(
                "{shown} is there already (versions: {}): add this one beside them with --version {next}, or give another --name",
                if numbers.is_empty() {
                    "none".into()
                } else {
                    numbers.join(", ")
                }
            )));
        };
        let at = root.join(version.to_string());
        if at.symlink_metadata().is_ok() {
            return Err(Failure::usage(format!(
                "{} is there already, and nothing is written over: give another --version; an export that lies there is added from elsewhere, so \
                 move it first",
                at.display()
            )));
        }
        if there.name != name || !(tasks.is_empty() || tasks == there.tasks) {
            return Err(Failure::usage(format!(
                "{shown} is of specialist {} for {}: another version of it is for the same, or give another --name",
                there.name,
                there.tasks.join(", ")
            )));
        }
        let active = versions.into_iter().find(|v| v.version == there.active_version);
        let kind = active.and_then(|v| Some(v.card.ok()?.kind));
        Ok(Self {
            models: models.to_owned(),
            manifest: Manifest {
                active_version: version,
                ..there
            },
            beside: true,
            kind,
        })
    }

    /// Whether a version of this kind goes there: a process that runs takes no other.
    pub(super) fn fits(&self, kind: Kind) -> Result<()> {
        match self.kind {
            Some(others) if others != kind => Err(Failure::usage(format!(
                "it is of kind \"{}\", and the version of {} that is active of kind \"{}\": give another --name",
                kind.name(),
                self.name(),
                others.name()
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.manifest.name
    }

    pub(super) fn version(&self) -> u32 {
        self.manifest.active_version
    }

    pub(super) fn tasks(&self) -> &[String] {
        &self.manifest.tasks
    }

    /// The specialist's folder.
    pub(super) fn root(&self) -> PathBuf {
        self.models.join(self.name())
    }

    /// Where it is made: on the same file system, so that it can be renamed.
    fn staging(&self) -> PathBuf {
        match self.beside {
            false => self.models.join(format!(".adding-{}", self.name())),
            true => self.root().join(format!(".adding-{}", self.version())),
        }
    }
}

/// A specialist's folder in the making; gone with this, unless it is kept.
pub(super) struct Staged {
    place: Place,
    path: PathBuf,
    /// `models` was not there before.
    made_models: bool,
    _lock: File,
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        if self.made_models {
            // Not if a specialist is in it now.
            let _ = fs::remove_dir(&self.place.models);
        }
    }
}

impl Staged {
    /// An empty folder, held against whoever adds the same.
    pub(super) fn make(place: Place) -> Result<Self> {
        let path = place.staging();
        let unwritable = |e: io::Error| unwritable(&path, &e);
        let made_models = match fs::create_dir(&place.models) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(self::unwritable(&place.models, &e)),
        };
        let made = fs::create_dir(&path);
        made.or_else(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(unwritable(e)),
        })?;
        let lock = File::options()
            .create(true)
            .append(true)
            .open(path.join(LOCK))
            .map_err(unwritable)?;
        if lock.try_lock().is_err() {
            return Err(Failure::usage(format!(
                "somebody else is adding {} right now",
                place.name()
            )));
        }
        let staged = Self {
            place,
            path,
            made_models,
            _lock: lock,
        };
        // What is left of one that was killed.
        for left in [staged.root(), staged.path.join("scratch")] {
            let _ = fs::remove_dir_all(left);
        }
        Ok(staged)
    }

    /// The specialist's folder, as long as it is in the making.
    pub(super) fn root(&self) -> PathBuf {
        self.path.join(self.place.name())
    }

    fn at(&self) -> PathBuf {
        self.root().join(self.place.version().to_string())
    }

    /// An empty folder that goes with it.
    pub(super) fn scratch(&self) -> Result<PathBuf> {
        let path = self.path.join("scratch");
        fs::create_dir(&path).map_err(|e| unwritable(&path, &e))?;
        Ok(path)
    }

    /// Copies the export, writes both TOML files, and checks all of it as a specialist does.
    pub(super) fn fill(
        &self,
        draft: &Draft,
        from: &Path,
        held: &Held,
        licence: &str,
        stop: &CancellationToken,
    ) -> Result<()> {
        let (root, at) = (self.root(), self.at());
        fs::create_dir_all(&at).map_err(|e| unwritable(&at, &e))?;
        let files = draft.files.iter().map(|name| (from.join(name), name));
        let forms = held.files.iter().map(|(path, name)| (path.clone(), name));
        for (file, name) in files.chain(forms) {
            copy(&file, &at.join(name), stop)
                .map_err(|e| Failure::usage(format!("cannot copy {} to {}: {e}", file.display(), at.display())))?;
        }
        let fault = |e: shoal_specialist::folder::Error| Failure::usage(e.to_string());
        let manifest = root.join("specialist.toml");
        write(&manifest, &self.place.manifest.text(&manifest).map_err(fault)?)?;
        let about = About {
            name: self.place.name(),
            version: self.place.version(),
            licence,
            tasks: self.place.tasks(),
            output: held.output.as_ref(),
        };
        write(&at.join("card.toml"), &draft.card(&about, &at).map_err(fault)?)?;
        for folder in [&at, &root] {
            File::open(folder)
                .and_then(|f| f.sync_all())
                .map_err(|e| unwritable(folder, &e))?;
        }
        Folder::open(&root).map(drop).map_err(fault)
    }

    /// A failure with the export's own folder in place of the copy's, which will not be there.
    pub(super) fn in_its_own_words(&self, failure: Failure, folder: &Path) -> Failure {
        let (at, folder) = (self.at(), folder.display().to_string());
        let whole = std::path::absolute(&at).unwrap_or_else(|_| at.clone());
        let message = failure.message.replace(&*whole.to_string_lossy(), &folder);
        Failure {
            message: message.replace(&*at.to_string_lossy(), &folder),
            ..failure
        }
    }

    /// Gives it its name.
    pub(super) fn keep(self) -> Result<Place> {
        let root = self.place.root();
        let (from, to) = match self.place.beside {
            false => (self.root(), root),
            true => (self.at(), root.join(self.place.version().to_string())),
        };
        if to.symlink_metadata().is_ok() {
            return Err(Failure::usage(format!(
                "{} is there by now, and nothing is written over",
                to.display()
            )));
        }
        fs::rename(&from, &to).map_err(|e| unwritable(&to, &e))?;
        if let Some(parent) = to.parent() {
            // The name is in the folder, whose own write may still be away after a power cut.
            File::open(parent)
                .and_then(|f| f.sync_all())
                .map_err(|e| unwritable(parent, &e))?;
        }
        Ok(self.place.clone())
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("cannot write {}: {error}", path.display()))
}

/// A file with its content on the disk. A link is followed: what is copied is what the user sees.
fn copy(from: &Path, to: &Path, stop: &CancellationToken) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let (mut source, mut file) = (File::open(from)?, File::create_new(to)?);
    while io::copy(&mut (&mut source).take(PIECE), &mut file)? > 0 {
        if stop.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
    }
    file.sync_all()
}

fn write(path: &Path, text: &str) -> Result<()> {
    let written = fs::write(path, text).and_then(|()| File::open(path)?.sync_all());
    written.map_err(|e| unwritable(path, &e))
}
