//! Where ONNX Runtime is, and how it gets there: an explicit path, then the system, then our cache, then the PyPI wheel.
//!
//! The wheel of any CPython carries the very library that C programs use, so one file and one sha256 per platform serve
//! every machine. pip fetches it: it knows the machine's mirrors, proxies and certificates, and we need not.
use crate::{config, environment};
use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// The version that is fetched and tested with.
pub const VERSION: &str = "1.32.0";

/// The oldest minor version whose C API has what we call (`ort` is built with `api-22`).
const OLDEST_MINOR: u32 = 22;

/// Environment variable with a path, as `ort` itself reads it.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// Where Linux distributions and NVIDIA's images put shared libraries.
const SYSTEM: [&str; 5] = [
    "/usr/local/lib",
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

/// A library that is there.
#[derive(Debug, Clone)]
pub struct Library {
    /// The shared object.
    pub path: PathBuf,
    /// "explicit", "system", "cache" or "fetched".
    pub source: &'static str,
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy)]
pub struct Fetch {
    /// Bytes on disk so far.
    pub done_bytes: u64,
    /// Bytes of the wheel.
    pub total_bytes: u64,
}

/// Why there is no library.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The named file is not there: mend the path.
    #[error(
        "{origin} names {path}, which is not a file; correct it, or unset it to let shoal find or fetch ONNX Runtime"
    )]
    Missing {
        /// The key or variable.
        origin: &'static str,
        /// What it says.
        path: PathBuf,
    },
    /// No wheel for this machine: install ONNX Runtime and name it.
    #[error("no ONNX Runtime {VERSION} is fetched for {0}; install one and set `[onnxruntime] path` or {VARIABLE}")]
    Platform(String),
    /// pip could not.
    #[error(
        "cannot fetch onnxruntime {VERSION} with `{command}`: {reason}; install it by hand and set `[onnxruntime] path` or {VARIABLE}"
    )]
    Pip {
        /// The command as it was run.
        command: String,
        /// Its last words.
        reason: String,
    },
    /// What came is not what was published.
    #[error(
        "the wheel {path} has sha256 {found}, expected {expected}; delete it and try again, or check your package mirror"
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Of the file.
        found: String,
        /// As published.
        expected: &'static str,
    },
    /// The cache cannot be written.
    #[error("cannot use the cache {path}: {source}; set `[onnxruntime] cache` to a folder that can be written")]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
}

/// A published wheel.
struct Wheel {
    platform: &'static str,
    sha256: &'static str,
    bytes: u64,
}

fn wheel() -> Result<Wheel, Error> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Ok(Wheel {
            platform: "manylinux_2_28_x86_64",
            sha256: "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
            bytes: 27_780_211,
        }),
        ("linux", "aarch64") => Ok(Wheel {
            platform: "manylinux_2_28_aarch64",
            sha256: "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
            bytes: 23_196_724,
        }),
        (os, arch) => Err(Error::Platform(format!("{os}/{arch}"))),
    }
}

/// Finds or fetches the library. `progress` is called a few times a second while a fetch runs.
///
/// # Errors
/// See [`Error`]; every one says what to do.
pub fn locate(config: &config::OnnxRuntime, progress: &dyn Fn(Fetch)) -> Result<Library, Error> {
    let explicit = [
        ("[onnxruntime] path", config.path.clone()),
        (VARIABLE, environment::var(VARIABLE).map(PathBuf::from)),
    ];
    if let Some((origin, path)) = explicit.into_iter().find_map(|(origin, path)| Some((origin, path?))) {
        return if path.is_file() {
            Ok(Library {
                path,
                source: "explicit",
            })
        } else {
            Err(Error::Missing { origin, path })
        };
    }
    if let Some(path) = SYSTEM.iter().find_map(|folder| newest_in(Path::new(folder))) {
        return Ok(Library { path, source: "system" });
    }
    let cache = config
        .cache
        .clone()
        .unwrap_or_else(default_cache)
        .join(format!("onnxruntime-{VERSION}"));
    let path = cache.join(format!("libonnxruntime.so.{VERSION}"));
    if path.is_file() {
        return Ok(Library { path, source: "cache" });
    }
    let here = |source| Error::Cache {
        path: cache.clone(),
        source,
    };
    fs::create_dir_all(&cache).map_err(here)?;
    // One fetch at a time on a machine: the processes that waited find the file.
    let lock = fs::File::create(cache.join("lock")).map_err(here)?;
    lock.lock().map_err(here)?;
    if path.is_file() {
        return Ok(Library { path, source: "cache" });
    }
    fetch(&cache, &path, progress)?;
    Ok(Library {
        path,
        source: "fetched",
    })
}

fn default_cache() -> PathBuf {
    let home = || environment::var("HOME").map(|home| PathBuf::from(home).join(".cache"));
    environment::var("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("shoal")
}

/// The minor version that the name of a library's file says, links followed: of `libonnxruntime.so.1.N*` N. `None` where it says none.
#[must_use]
pub fn minor_of(library: &Path) -> Option<u32> {
    minor(&library.canonicalize().ok()?)
}

fn minor(path: &Path) -> Option<u32> {
    path.file_name()?
        .to_str()?
        .strip_prefix("libonnxruntime.so.1.")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// The newest `libonnxruntime.so.1.N*` of the folder that is new enough.
fn newest_in(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| minor(path).is_some_and(|minor| minor >= OLDEST_MINOR))
        .max_by_key(|path| minor(path))
}

/// Downloads, checks, unpacks and renames into place: the file is there whole or not at all.
fn fetch(cache: &Path, path: &Path, progress: &dyn Fn(Fetch)) -> Result<(), Error> {
    let wheel = wheel()?;
    let here = |source| Error::Cache {
        path: cache.to_owned(),
        source,
    };
    let work = cache.join(format!("fetch-{}", std::process::id()));
    fs::create_dir_all(&work).map_err(here)?;
    let result = (|| {
        let file = download(&wheel, &work, progress)?;
        let found = sha256(&file).map_err(here)?;
        if found != wheel.sha256 {
            return Err(Error::Checksum {
                path: file,
                found,
                expected: wheel.sha256,
            });
        }
        let out = work.join("out");
        run(
            Command::new("python3")
                .args(["-m", "zipfile", "-e"])
                .arg(&file)
                .arg(&out),
            &mut || (),
        )?;
        let library = out
            .join("onnxruntime")
            .join("capi")
            .join(format!("libonnxruntime.so.{VERSION}"));
        fs::rename(library, path).map_err(here)
    })();
    // Leftovers cost space, not correctness.
    let _ = fs::remove_dir_all(&work);
    result
}

fn download(wheel: &Wheel, work: &Path, progress: &dyn Fn(Fetch)) -> Result<PathBuf, Error> {
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--no-deps",
        "--only-binary=:all:",
    ])
    .args(["--python-version", "3.12", "--implementation", "cp", "--abi", "cp312"])
    .args(["--platform", wheel.platform, "--dest"])
    .arg(work)
    .arg(format!("onnxruntime=={VERSION}"))
    // pip downloads into its temporary folder first: there its progress can be seen.
    .env("TMPDIR", work);
    run(&mut pip, &mut || {
        progress(Fetch {
            done_bytes: bytes_under(work).min(wheel.bytes),
            total_bytes: wheel.bytes,
        })
    })?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|e| e == "whl");
    let found = fs::read_dir(work)
        .ok()
        .and_then(|mut d| d.find_map(|e| Some(e.ok()?.path()).filter(is_wheel)));
    found.ok_or_else(|| Error::Pip {
        command: "pip download".into(),
        reason: "it left no wheel".into(),
    })
}

/// Runs a command to its end, calling `tick` ten times a second.
fn run(command: &mut Command, tick: &mut dyn FnMut()) -> Result<(), Error> {
    let fail = |command: &Command, reason: String| Error::Pip {
        command: format!("{command:?}").replace('"', ""),
        reason,
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| fail(command, format!("{e} (is python3 with pip installed?)")))?;
    loop {
        tick();
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(100)),
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                let mut said = String::new();
                if let Some(mut stderr) = child.stderr.take() {
                    let _ = io::Read::read_to_string(&mut stderr, &mut said);
                }
                let last = said
                    .lines()
                    .rev()
                    .find(|l| l.contains("ERROR") || l.contains("No module"))
                    .unwrap_or("no reason given");
                return Err(fail(command, format!("{status}: {last}")));
            }
            Err(e) => return Err(fail(command, e.to_string())),
        }
    }
}

fn bytes_under(folder: &Path) -> u64 {
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_under(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    fs::read_dir(folder)
        .map(|entries| entries.flatten().map(size).sum())
        .unwrap_or(0)
}

/// Hex sha256 of a file.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_path_that_is_not_there_is_refused_and_nothing_else_is_tried() {
        let config = config::OnnxRuntime {
            path: Some("no/such/library.so".into()),
            cache: None,
        };
        let error = locate(&config, &|_| panic!("nothing is fetched")).expect_err("missing");
        assert!(error.to_string().contains("no/such/library.so"), "{error}");
    }

    #[test]
    fn what_is_in_the_cache_is_taken_from_there() {
        let cache = tempfile::tempdir().expect("tempdir");
        let folder = cache.path().join(format!("onnxruntime-{VERSION}"));
        fs::create_dir_all(&folder).expect("create");
        fs::write(folder.join(format!("libonnxruntime.so.{VERSION}")), "x").expect("write");
        let config = config::OnnxRuntime {
            path: None,
            cache: Some(cache.path().to_owned()),
        };
        let found = locate(&config, &|_| panic!("nothing is fetched")).expect("found");
        assert!(["cache", "system", "explicit"].contains(&found.source));
    }

    #[test]
    fn the_newest_system_library_wins_and_old_ones_are_passed_over() {
        let folder = tempfile::tempdir().expect("tempdir");
        for name in [
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.23.1",
            "libonnxruntime.so.1.32.0",
            "libonnxruntime.so",
        ] {
            fs::write(folder.path().join(name), "x").expect("write");
        }
        assert_eq!(
            newest_in(folder.path()),
            Some(folder.path().join("libonnxruntime.so.1.32.0"))
        );
        fs::remove_file(folder.path().join("libonnxruntime.so.1.32.0")).expect("remove");
        fs::remove_file(folder.path().join("libonnxruntime.so.1.23.1")).expect("remove");
        assert_eq!(newest_in(folder.path()), None);
    }
}
