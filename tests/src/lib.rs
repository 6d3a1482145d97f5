//! The whole mesh under test: what the tests of this package share.
//!
//! [`mesh`] runs `shoal up` as its user would and finds the addresses; [`collector`] is an OTLP receiver that keeps what it gets;
//! [`specialist`] runs one specialist alone; [`command`] runs one command of the binary and reads its JSON.

pub mod collector;
pub mod command;
pub mod mesh;
pub mod specialist;

use std::path::PathBuf;

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
