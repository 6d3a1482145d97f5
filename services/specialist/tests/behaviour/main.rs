//! The specialist as its callers see it: over real ONNX Runtime and tiny models with random weights, and, where a step has to
//! be held still, over a decoder that is a few lines of arithmetic.

mod batching;
mod cards;
mod constrained;
mod cuda;
mod deadlines;
mod doors;
mod embeddings;
mod encoders;
mod fill;
mod folders;
mod foreign;
mod foreign_encoders;
mod foreign_refused;
mod grammar_templates;
mod graphs;
mod hostile;
mod http;
mod limits;
mod long_prompts;
mod metrics;
mod oip;
mod plan_text;
mod prefixes;
mod reference;
mod required;
mod sampled;
mod spans_of_input;
mod stub;
mod tag_folders;
mod tagged;
mod tagged_objects;
mod templates;
mod versions;
mod versions_refused;
mod world;
