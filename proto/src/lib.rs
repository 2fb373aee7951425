//! The messages and gRPC stubs of `toolpool.v1`, generated from `proto/toolpool/v1/*.proto`.
//!
//! The contract (units, who sets what, what absence means) is written in those files.

/// Version 1 of the protocol.
#[allow(
    clippy::all,
    clippy::pedantic,
    reason = "generated code is not ours to lint"
)]
pub mod v1 {
    tonic::include_proto!("toolpool.v1");
}

/// The protocol's description, as server reflection gives it out: a serialised `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/toolpool.v1.bin"));
