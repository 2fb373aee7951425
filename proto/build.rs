//! Compiles the protocol with a protobuf compiler written in Rust: no `protoc` has to be installed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use protox::Compiler;

const FILES: [&str; 4] = [
    "toolpool/v1/types.proto",
    "toolpool/v1/broker.proto",
    "toolpool/v1/worker.proto",
    "toolpool/v1/admin.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut compiler = Compiler::new(["."])?;
    // With its comments, so that a tool which asks a server for its protocol can show the contract too.
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?;
    let described = PathBuf::from(env::var("OUT_DIR")?).join("toolpool.v1.bin");
    fs::write(described, compiler.encode_file_descriptor_set())?;
    let descriptors = compiler.file_descriptor_set();
    tonic_prost_build::configure()
        // Payloads are slices of the receive buffer, never copies of it.
        .bytes(".toolpool.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
