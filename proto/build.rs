//! Compiles the protocol with a protobuf compiler written in Rust: no `protoc` has to be installed.

use std::error::Error;

const FILES: [&str; 3] = [
    "toolpool/v1/types.proto",
    "toolpool/v1/broker.proto",
    "toolpool/v1/worker.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure()
        // Payloads are slices of the receive buffer, never copies of it.
        .bytes(".toolpool.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
