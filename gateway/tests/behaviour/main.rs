//! The gateway as its callers see it: on real sockets, with stubs of everybody that it calls.

mod ending;
mod execution;
mod planning;
mod routing;
mod support;
mod toolcalls;
