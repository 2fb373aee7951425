//! A broker that the command brings along, so that it works with nothing running.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use toolpool_broker::{Config, Shutdown};

use crate::command::BrokerAddress;

/// A broker on a loopback port that the system chose, in this process. It ends when it is dropped.
pub(super) struct OwnBroker {
    pub(super) address: BrokerAddress,
    _serving: JoinSet<()>,
}

impl OwnBroker {
    /// As a broker is by default, whatever is set here for others.
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("cannot listen on a loopback port")?;
        let url = format!("http://{}", listener.local_addr()?);
        let config = Config {
            // Every worker that will ever come is there before the batch.
            no_worker_wait: Duration::ZERO,
            ..Config::default()
        };
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            if let Err(error) = toolpool_broker::run(config, listener, Shutdown::default()).await {
                tracing::error!(%error, "the command's own broker has failed");
            }
        });
        Ok(Self {
            address: BrokerAddress { broker: Some(url) },
            _serving: serving,
        })
    }
}
