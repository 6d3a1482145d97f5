//! The doors: shoal.v1.SpecialistService, the Open Inference Protocol, and an OpenAI-compatible one over HTTP.

mod chat;
mod door;
mod embeddings;
mod generate;
mod grpc;
mod oip;
mod request;
mod sse;

pub(crate) use chat::router;
pub(crate) use door::Doors;
pub(crate) use grpc::Service;
pub(crate) use oip::Inference;
