//! The doors.
//!
//! [`open`] is the one way from a request to a running plan; [`plans`] (shoal.v1.PlanService), [`inference`] (the Open Inference
//! Protocol) and [`chat`] (OpenAI's protocol over HTTP) lead to it, each in its own words. [`again`] answers for plans that ran
//! before and are forgotten here. [`mesh`] says what runs where.
mod again;
pub(crate) mod chat;
pub(crate) mod inference;
pub(crate) mod mesh;
pub(crate) mod open;
pub(crate) mod plans;
mod single;
mod sse;
