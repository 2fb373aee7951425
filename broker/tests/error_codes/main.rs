//! Every error code of the protocol, brought about over the wire.
//!
//! `INTERNAL` is missing: nothing that an agent or a worker can send leads to it, so its test is beside the batch's task.

#[path = "../support/mod.rs"]
mod support;

mod arguments;
mod outcomes;
mod turn_ends;
mod waits;

use toolpool_proto::v1::Effect;

const NOT_STARTED: (bool, Effect) = (false, Effect::NotStarted);

const TRY_AGAIN: (bool, Effect) = (true, Effect::NotStarted);
