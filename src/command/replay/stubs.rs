//! Stand-ins for the tools that a turn names, served by a worker in this process.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use toolpool_client::Client;
use toolpool_worker::{Effects, Error, Output, Shutdown, Tool, Worker};

use crate::command::BrokerAddress;
use crate::output::note;

/// The longest that the worker may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that it may take to leave: no stub runs for long.
const GRACE: Duration = Duration::from_secs(2);
/// Between two looks at the catalogue.
const PAUSE: Duration = Duration::from_millis(10);

/// The worker that serves the stubs. Dropped, it is gone at once; a batch that goes on then has nobody to run its calls.
pub(super) struct Stubs {
    worker: JoinSet<Result<(), Error>>,
    shutdown: Shutdown,
}

impl Stubs {
    /// Joins the broker with a stub for each of the tools, and waits until they are served. `None`: there is no tool to
    /// stand in for.
    ///
    /// Tools that the broker knows are left alone: a stub would take the calls of others, and its definition would be
    /// everybody's.
    pub(super) async fn join(
        broker: &BrokerAddress,
        id: Option<&str>,
        client: &Client,
        mut names: BTreeSet<String>,
    ) -> Result<Option<Self>> {
        for known in client.tools().await? {
            if names.remove(&known.name) {
                note(&format!(
                    "no stub for {}: the broker knows this tool",
                    known.name
                ));
            }
        }
        let tools = names.into_iter().map(stub).filter(|tool| {
            let alone = Worker::builder(broker.url()).tool(tool.clone()).build();
            alone
                .inspect_err(|error| note(&format!("no stub: {error}")))
                .is_ok()
        });
        let tools: Vec<_> = tools.collect();
        if tools.is_empty() {
            return Ok(None);
        }
        let served = tools.iter().map(|tool| tool.name().to_owned()).collect();
        let mut builder = Worker::builder(broker.url());
        if let Some(id) = id {
            builder = builder.id(id);
        }
        let worker = builder
            .tools(tools)
            .version(env!("CARGO_PKG_VERSION"))
            .drain_grace(GRACE)
            .build()?;
        let shutdown = Shutdown::new();
        let mut stubs = Self {
            worker: JoinSet::new(),
            shutdown: shutdown.clone(),
        };
        stubs.worker.spawn(worker.run(shutdown));
        match timeout(PATIENCE, stubs.until_served(client, served)).await {
            Ok(served) => served?,
            Err(_) => bail!(
                "the worker with the stubs was not there within {PATIENCE:?}; try --log debug"
            ),
        }
        Ok(Some(stubs))
    }

    /// Leaves the broker in good order.
    pub(super) async fn leave(mut self) {
        self.shutdown.drain.cancel();
        if timeout(2 * GRACE, self.worker.join_next()).await.is_err() {
            tracing::warn!("the worker with the stubs does not leave; it is dropped");
        }
    }

    async fn until_served(&mut self, client: &Client, names: BTreeSet<String>) -> Result<()> {
        loop {
            let tools = client.tools().await?;
            let served = tools
                .iter()
                .filter(|tool| tool.workers > 0 && names.contains(&tool.name));
            if served.count() == names.len() {
                return Ok(());
            }
            if let Some(ended) = self.worker.try_join_next() {
                return ended?.context("the worker with the stubs could not join");
            }
            sleep(PAUSE).await;
        }
    }
}

fn stub(name: String) -> Tool {
    let said = format!("stub result of {name}");
    Tool::raw(
        name,
        "A stand-in that does nothing.",
        json!({ "type": "object" }),
        move |_, _| {
            let said = said.clone();
            async move { Ok(Output::text(said)) }
        },
    )
    .effects(Effects::ReadOnly)
}
