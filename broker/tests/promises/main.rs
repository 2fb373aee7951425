//! What is promised to every agent and every operator, over the wire.

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod catalogue;
mod leaving;
mod limits;
mod times;
mod turns;

use toolpool_proto::v1::{self, OnDisconnect};

use support::Broker;
use support::agent::FakeAgent;
use support::worker::{FakeWorker, read_only, side_effecting};

fn at_most(parallel: u32) -> v1::Open {
    v1::Open {
        max_parallel: Some(parallel),
        ..Default::default()
    }
}

fn on_disconnect(action: OnDisconnect) -> v1::Open {
    v1::Open {
        on_disconnect: Some(action.into()),
        ..Default::default()
    }
}

/// A worker that can look up and send, and an agent.
async fn look_up_and_send(broker: &Broker, slots: u32, open: v1::Open) -> (FakeWorker, FakeAgent) {
    let tools = [read_only("look_up"), side_effecting("send")];
    let worker = broker.worker("w", slots, tools).await;
    (worker, broker.agent_with(open).await)
}
