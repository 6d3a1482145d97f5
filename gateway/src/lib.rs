//! Agent plan in, subtask RPCs out.
//!
//! One request's way, which is also a reading order:
//!
//! 1. `server`: the doors (PlanService, Open Inference Protocol, OpenAI's), all of which lead to one way in;
//! 2. `admit`: what came over the wire, made into checked steps and bounds;
//! 3. `plans`: running and ended plans, each with its events;
//! 4. `decompose`: a goal becomes steps while the planner still writes;
//! 5. `execute`: one task per plan starts each node the moment it can, and ends them all when the plan ends;
//! 6. `route`: which target answers, from the smallest to the largest, and the tower stack that each call goes through;
//! 7. `tools`: calls to tool servers, or back to the client;
//! 8. `outcomes`: what is kept of every node, on disk before anybody is told, until feedback has it.
//!
//! `gateway` puts them together; `context` is what they share; `error` is everything that can go wrong, with its one mapping to
//! the wire; `telemetry` names what is measured.
mod admit;
mod context;
mod decompose;
mod error;
mod execute;
mod gateway;
mod outcomes;
mod plans;
mod route;
mod schema;
mod server;
pub mod telemetry;
mod tools;

pub use error::Error;
pub use gateway::{Gateway, check, run};
pub use outcomes::Unusable;
pub use shoal_kit::resolve::{Lookup, SystemLookup};
