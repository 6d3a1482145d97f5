//! The pure core of plan execution: no tokio, no tonic, no clock.
//!
//! - [`mod@reference`]: `${node.field}` in texts and JSON, and how outputs fill it;
//! - [`graph`]: nodes and edges, checked against every rule at once;
//! - [`integers`]: which JSON numbers keep their value when they are read;
//! - [`frontier`]: which nodes may start now, given what has ended;
//! - [`slack`]: critical path and slack, given durations;
//! - [`text`]: plan text, the form that planners write and people read, parsed as it is written.

pub mod frontier;
pub mod graph;
pub mod integers;
pub mod reference;
pub mod slack;
pub mod text;

pub use frontier::Frontier;
pub use graph::{Graph, Kind, Limits, Node};
pub use reference::{Json, Template};
