//! Where a task runs.
//!
//! Reading order: [`question`] (what a model is asked and what it says), [`target`] (a specialist or an endpoint: its replicas, its
//! pace), [`card`], [`cards`] and [`keep`] (what a specialist says of itself, version by version, and how that and its addresses are kept
//! fresh), [`registry`] (all of them: the one place of shared mutable state), [`pass`] (who may be asked), [`judge`] (whether an
//! answer is taken), [`walk`] (from the smallest target to the largest). [`stack`] is the tower stack that every call goes through; under it are
//! [`specialist`] and [`openai`], which put a question on the wire.
pub(crate) mod budget;
pub(crate) mod card;
pub(crate) mod cards;
pub(crate) mod judge;
pub(crate) mod keep;
mod lost;
pub(crate) mod openai;
pub(crate) mod pass;
pub(crate) mod question;
pub(crate) mod registry;
pub(crate) mod replicas;
mod specialist;
pub(crate) mod stack;
pub(crate) mod target;
pub(crate) mod trail;
pub(crate) mod walk;

pub(crate) use question::{Input, Sink};
pub(crate) use registry::Registry;
pub(crate) use trail::Trail;
