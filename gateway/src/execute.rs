//! Running a plan. One task per plan, the [`driver`], owns the graph and asks its frontier for what may start.
//!
//! Reading order: [`driver`] (what starts, what ends, and when the plan does), [`start`] (a node's input and its call), [`join`] (steps that come while it runs), [`goal`] (who
//! plans them, and what an intent makes of them), [`node`]
//! (one node, from its filled input to its end), [`policy`] (what its failure means), [`progress`] (what it leaves when it is cut off), [`result`] (what is told and kept of it),
//! [`derived`] (calls that `tool_call` nodes yield), [`report`] (events as a node goes), [`end`] (the plan's last events).
pub(crate) mod derived;
pub(crate) mod driver;
mod end;
mod goal;
pub(crate) mod join;
pub(crate) mod node;
mod policy;
mod progress;
pub(crate) mod report;
pub(crate) mod result;
mod start;
