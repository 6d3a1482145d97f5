//! The gateway as its callers see it: on real sockets, with stubs of everybody that it calls.

mod ending;
mod execution;
mod planning;
mod recorded;
mod routing;
mod streamed;
mod support;
mod toolcalls;
mod watched;
