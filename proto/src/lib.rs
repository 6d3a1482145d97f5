//! The contract: `shoal.v1` ([`v1`]) and the Open Inference Protocol v2 ([`oip`]).
//!
//! Generated code stands behind this facade; the documentation of every message is in the `.proto` files, and comes
//! through to rustdoc. [`DESCRIPTORS`] is what server reflection answers from.

/// Serialised `FileDescriptorSet` of every .proto file of the workspace, imports included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Plans, specialists, tools, feedback, mesh status.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    reason = "generated"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/shoal.v1.rs"));
}

/// The Open Inference Protocol, version 2.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod oip {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

pub mod time;
