//! Compiles the .proto files with protox (no protoc needed) into one descriptor set, which feeds both the generated code and reflection.
use prost::Message as _;
use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 5] = [
    "shoal/v1/plan.proto",
    "shoal/v1/specialist.proto",
    "shoal/v1/tool.proto",
    "shoal/v1/feedback.proto",
    "shoal/v1/mesh.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=shoal");
    println!("cargo:rerun-if-changed=inference");
    let files = FILES.iter().copied().chain(["inference/grpc_service.proto"]);
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(true)
        .compile_fds(descriptors)?;
    Ok(())
}
