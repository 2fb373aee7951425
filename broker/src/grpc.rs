//! The services: protobuf in, our types inside, protobuf out.

pub(crate) mod admin;
pub(crate) mod agent;
pub(crate) mod convert;
pub(crate) mod delivery;
pub(crate) mod first_bytes;
pub(crate) mod health;
mod listing;
pub(crate) mod reflection;
pub(crate) mod reset;
pub(crate) mod status;
pub(crate) mod worker;

/// About how large a packet gets when there is more to send: far below the 4 MiB that gRPC clients take by default.
pub(crate) const PACKET_BYTES: usize = 1 << 20;
/// Frames that a packet may have. An empty frame takes two bytes on the wire and a hundred in memory.
pub(crate) const PACKET_FRAMES: usize = 10_000;
/// How long a new stream may take to say what it is.
pub(crate) const FIRST_FRAME: std::time::Duration = std::time::Duration::from_secs(10);
