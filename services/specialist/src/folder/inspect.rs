//! One file: inside the folder, regular, with no second name, and with the listed checksum.
use super::Error;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

/// The path of `name` under `root`, every step of it looked at without following links.
pub(super) fn inside(root: &Path, name: &str) -> Result<PathBuf, Error> {
    let escapes = || Error::Escapes {
        root: root.to_owned(),
        name: name.to_owned(),
    };
    // A backslash separates on the systems that exporters also run on: no honest file name has one.
    if name.is_empty() || name.contains(['\\', '\0']) {
        return Err(escapes());
    }
    let mut path = root.to_owned();
    let steps: Vec<_> = Path::new(name).components().collect();
    for (i, step) in steps.iter().enumerate() {
        let Component::Normal(step) = step else {
            return Err(escapes());
        };
        path.push(step);
        let meta = metadata(&path)?;
        let last = i + 1 == steps.len();
        if meta.is_symlink() {
            return Err(Error::Symlink { path });
        }
        if last && !meta.is_file() {
            return Err(Error::NotRegular { path, wanted: "file" });
        }
        if !last && !meta.is_dir() {
            return Err(Error::NotRegular {
                path,
                wanted: "directory",
            });
        }
        if last && links(&meta) > 1 {
            return Err(Error::HardLink {
                path,
                links: links(&meta),
            });
        }
    }
    Ok(path)
}

/// A directory directly under `root`, not a link.
pub(super) fn directory(root: &Path, name: &str) -> Result<PathBuf, Error> {
    let path = root.join(name);
    let meta = metadata(&path)?;
    match (meta.is_symlink(), meta.is_dir()) {
        (true, _) => Err(Error::Symlink { path }),
        (false, false) => Err(Error::NotRegular {
            path,
            wanted: "directory",
        }),
        (false, true) => Ok(path),
    }
}

/// Size of a file under `root`.
pub(super) fn size(root: &Path, name: &str) -> Result<u64, Error> {
    let path = inside(root, name)?;
    Ok(metadata(&path)?.len())
}

/// Holds the file to its listed checksum, without reading it into memory.
pub(super) fn matches(root: &Path, name: &str, listed: &str) -> Result<(), Error> {
    let (path, found) = sha256(root, name)?;
    compare(&path, listed, &found)
}

/// The path and the checksum of `name` under `root`.
pub(super) fn sha256(root: &Path, name: &str) -> Result<(PathBuf, String), Error> {
    let path = inside(root, name)?;
    let unreadable = |source| Error::Unreadable {
        path: path.clone(),
        source,
    };
    let mut hasher = Sha256::new();
    let mut file = File::open(&path).map_err(unreadable)?;
    io::copy(&mut file, &mut hasher).map_err(unreadable)?;
    let sum = hex(&hasher.finalize());
    Ok((path, sum))
}

/// Reads a text file and holds what was read to its listed checksum.
pub(super) fn text(root: &Path, name: &str, listed: &str, limit: u64) -> Result<String, Error> {
    let path = inside(root, name)?;
    let bytes = read(&path, limit)?;
    compare(&path, listed, &hex(&Sha256::digest(&bytes)))?;
    String::from_utf8(bytes).map_err(|e| Error::Syntax {
        path,
        message: format!("not UTF-8: {e}"),
    })
}

/// Reads a file that nobody lists: specialist.toml and card.toml themselves.
pub(super) fn unlisted(root: &Path, name: &str, limit: u64) -> Result<(PathBuf, String), Error> {
    let path = inside(root, name)?;
    let bytes = read(&path, limit)?;
    let text = String::from_utf8(bytes).map_err(|e| Error::Syntax {
        path: path.clone(),
        message: format!("not UTF-8: {e}"),
    })?;
    Ok((path, text))
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    if bytes > limit {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            bytes,
            limit,
        });
    }
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content).map_err(unreadable)?;
    Ok(content)
}

fn compare(path: &Path, listed: &str, found: &str) -> Result<(), Error> {
    if listed.eq_ignore_ascii_case(found) {
        return Ok(());
    }
    Err(Error::Changed {
        path: path.to_owned(),
        listed: listed.to_owned(),
        found: found.to_owned(),
    })
}

fn metadata(path: &Path) -> Result<Metadata, Error> {
    fs::symlink_metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.to_owned() },
        _ => Error::Unreadable {
            path: path.to_owned(),
            source,
        },
    })
}

#[cfg(unix)]
fn links(meta: &Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    meta.nlink()
}

#[cfg(not(unix))]
fn links(_: &Metadata) -> u64 {
    1
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
