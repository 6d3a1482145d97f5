//! Which ONNX Runtime is ours: the library that this process and the specialists that it starts have, and the version that it is.
use anyhow::Result;
use shoal_kit::{config, onnxruntime, task};
use std::{fs, path::PathBuf};

/// Before the version among a library's own symbols: every build of ONNX Runtime exports its API under such a name.
const MARK: &[u8] = b"VERS_";

/// The library that is found here, as every specialist finds it.
///
/// # Errors
/// When there is none, and none can be fetched.
pub(crate) async fn library() -> Result<PathBuf> {
    let found = task::blocking("onnx runtime", || {
        onnxruntime::locate(&config::OnnxRuntime::default(), &|_| {})
    });
    Ok(found.await??.path)
}

/// Its version. Not by its name: whoever names a library by `ORT_DYLIB_PATH` may have called it anything.
///
/// # Errors
/// As [`library`].
pub(crate) async fn version() -> Result<Option<String>> {
    let path = library().await?;
    let bytes = task::blocking("onnx runtime's version", || fs::read(path));
    Ok(version_in(&bytes.await??))
}

fn version_in(library: &[u8]) -> Option<String> {
    let versions = library.windows(MARK.len()).enumerate().filter(|(_, at)| *at == MARK);
    let read = |(at, _): (usize, _)| {
        let rest = library.get(at + MARK.len()..)?;
        let end = rest.iter().position(|b| !b.is_ascii_digit() && *b != b'.')?;
        let version = std::str::from_utf8(&rest[..end]).ok()?;
        version.contains('.').then(|| version.to_owned())
    };
    versions.filter_map(read).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_says_its_version_by_its_symbols_and_another_file_says_none() {
        assert_eq!(
            version_in(b"\x7fELF\0NO_VERS_\0libonnxruntime.so.1\0VERS_1.32.0\0").as_deref(),
            Some("1.32.0")
        );
        assert_eq!(version_in(b"OVERS_2\0"), None);
        assert_eq!(version_in(b"VERS_"), None);
    }

    #[tokio::test]
    async fn the_library_that_is_found_here_says_one() {
        assert!(version().await.expect("ONNX Runtime").is_some());
    }
}
