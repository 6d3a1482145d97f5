//! What every process of the mesh links, and nothing that only one of them needs.
//!
//! Rooms: [`config`] (one file, `mesh.toml`), [`environment`] (the one reader of environment variables), [`telemetry`] and
//! [`propagate`] (traces, logs, metrics), [`serve`] and [`shutdown`] (bind, announce, drain), [`status`] and [`deadline`]
//! (errors and time on the wire), [`oip`] (texts in the inference protocol's tensors), [`openai`] (OpenAI's chat completions), [`channel`] and [`resolve`] (the client side of the
//! wire; all addresses of a name), [`task`] (every task has a name), [`onnxruntime`] (where the library is, and how it gets there).

pub mod channel;
pub mod config;
pub mod deadline;
pub mod environment;
mod log;
pub mod oip;
pub mod onnxruntime;
pub mod openai;
pub mod propagate;
pub mod resolve;
pub mod serve;
pub mod shutdown;
pub mod status;
pub mod task;
pub mod telemetry;
