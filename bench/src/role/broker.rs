//! The broker under test.

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;
use toolpool_broker::Shutdown;
use toolpool_broker::config::{Config, Sources};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Threads of the runtime; 1 is the current-thread flavour.
    #[arg(long, default_value_t = 1)]
    pub(super) threads: usize,
    /// A setting of the broker that differs from its default.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

fn setting(text: &str) -> anyhow::Result<(String, String)> {
    let Some((key, value)) = text.split_once('=') else {
        bail!("a setting is written KEY=VALUE");
    };
    Ok((key.into(), value.into()))
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let config = Config::load(Sources {
        file: None,
        env: Vec::new(),
        flags: args.settings,
    })?;
    let listener = super::listen().await?;
    // Never asked to go: it ends with its parent.
    let shutdown = Shutdown {
        drain: CancellationToken::new(),
        now: CancellationToken::new(),
    };
    toolpool_broker::run(config, listener, shutdown)
        .await
        .context("the broker has failed")
}
