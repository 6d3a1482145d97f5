//! The specialist as its callers see it: over real ONNX Runtime and tiny models with random weights, and, where a step has to
//! be held still, over a decoder that is a few lines of arithmetic.

mod batching;
mod constrained;
mod cuda;
mod doors;
mod encoders;
mod folders;
mod hostile;
mod http;
mod limits;
mod oip;
mod reference;
mod sampled;
mod spans;
mod stub;
mod world;
