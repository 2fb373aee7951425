//! Streams that are cut, outcomes that come late or twice, readers that stop, and the end under load.

#[path = "../support/mod.rs"]
mod support;

mod agents;
mod breaches;
mod drain;
mod outcomes;
mod workers;

use toolpool_proto::v1;

use support::Broker;
use support::agent::FakeAgent;
use support::worker::{FakeWorker, register, side_effecting};

/// A worker that has a side-effecting call, and the agent that waits for it.
async fn sending(broker: &Broker) -> (FakeWorker, FakeAgent, v1::Assignment) {
    let mut worker = broker.worker("w", 1, [side_effecting("send")]).await;
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    (worker, agent, assignment)
}

/// The same worker, back after a break, with these leases.
fn back(running: &[u64]) -> v1::Register {
    v1::Register {
        running_leases: running.to_vec(),
        ..register("w", 1, [side_effecting("send")])
    }
}

/// Another process under the same id.
fn restarted() -> v1::Register {
    v1::Register {
        instance_id: "w-2".to_owned(),
        ..back(&[])
    }
}
