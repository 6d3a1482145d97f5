//! One ONNX model behind gRPC: the slot engine and its server.
//!
//! A specialist is a folder, not a crate. One request's way through, and the reading order:
//! [`folder`] (checked before ONNX Runtime sees it) -> `server` (three doors) -> [`prompt`] (template, tokens) ->
//! [`constrain`] (grammar) -> [`engine`] (queue, slots, owner thread) -> `runtime` (ONNX Runtime, the one module that names
//! its binding) -> [`sampling`] (a token, its text, how sure it was) -> back through the request's channel. Encoders go
//! `server` -> [`encoder`] -> `runtime`. [`specialist`] puts one model together; [`run()`] is the process.

pub mod constrain;
pub mod encoder;
pub mod engine;
mod error;
pub mod folder;
pub mod prompt;
mod run;
mod runtime;
pub mod sampling;
mod server;
pub mod specialist;
pub mod telemetry;
pub mod vocabulary;

pub use error::Error;
pub use run::run;
pub use runtime::Error as RuntimeError;
