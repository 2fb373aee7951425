//! The services: protobuf in, our types inside, protobuf out.

pub(crate) mod agent;
pub(crate) mod convert;
pub(crate) mod reset;
pub(crate) mod status;
pub(crate) mod worker;

/// About how large a packet gets when there is more to send: far below the 4 MiB that gRPC clients take by default.
pub(crate) const PACKET_BYTES: usize = 1 << 20;
