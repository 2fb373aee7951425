//! An agent that pipes its provider's own stream in: when its calls start, what becomes of a turn that ends badly, whose
//! calls are whose, and what comes back.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

#[path = "../support/mod.rs"]
mod support;

mod cuts;
mod dialects;
mod drops;
mod early;
mod names;
mod starts;
mod streams;

use toolpool_proto::v1;

use support::Broker;
use support::agent::FakeAgent;
use support::worker::{FakeWorker, once, read_only, side_effecting, tool};

/// A worker that can look up and send, and an agent of that dialect.
async fn look_up_and_send(broker: &Broker, open: v1::Open) -> (FakeWorker, FakeAgent) {
    let idempotent = v1::Policy {
        effects: Some(v1::Effects::Idempotent.into()),
        ..once()
    };
    let tools = [
        read_only("look_up"),
        side_effecting("send"),
        tool("put", idempotent),
    ];
    let worker = broker.worker("w", 9, tools).await;
    (worker, broker.agent_with(open).await)
}
