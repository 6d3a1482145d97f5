//! The gateway as its callers see it: on real sockets, with stubs of everybody that it calls.

mod again;
mod clienttools;
mod doors;
mod ending;
mod endpoints;
mod execution;
mod fallbacks;
mod inference;
mod intents;
mod passed;
mod planning;
mod recorded;
mod refused;
mod replicas;
mod routing;
mod spans;
mod status;
mod streamed;
mod support;
mod tagging;
mod toolcalls;
mod versions;
mod watched;
