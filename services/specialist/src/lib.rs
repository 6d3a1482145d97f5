//! One ONNX model behind gRPC: the slot engine and its server.
//!
//! A specialist is a folder, not a crate. One request's way through, and the reading order:
//! [`folder`] (checked before ONNX Runtime sees it) -> `server` (three doors) -> `generator` -> [`prompt`] (template, tokens) ->
//! [`constrain`] (grammar; compiled in the `workshop`) -> [`engine`] (queue, slots, owner thread) -> `runtime` (ONNX Runtime,
//! the one module that names its binding) -> [`sampling`] (a token, its text, how sure it was) -> back through the request's
//! channel. Encoders go `server` -> [`encoder`] -> `runtime`; a [`tagger`] and a [`filler`] generate without decoding, in one run of
//! an encoder (`one_run`) over a text or an object's fields. [`specialist`] puts one model together, `versions` puts another in its place while it serves; [`load`]
//! and [`serve`] are the process.

pub mod constrain;
pub mod encoder;
pub mod engine;
mod error;
mod faults;
pub mod filler;
pub mod folder;
mod generator;
mod loader;
mod one_run;
mod process;
pub mod prompt;
mod runtime;
pub mod sampling;
mod server;
pub mod specialist;
pub mod tagger;
pub mod telemetry;
mod versions;
pub mod vocabulary;
mod workshop;

pub use error::Error;
pub use loader::{Loader, confine};
pub use process::{load, serve};
pub use runtime::{Allocator, Error as RuntimeError, settle};
