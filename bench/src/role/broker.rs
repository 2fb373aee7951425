//! The broker under test.

/// The broker's command line here.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Threads of the runtime; 1 is the current-thread flavour.
    #[arg(long, default_value_t = 1)]
    pub(super) threads: usize,
    /// Settings that differ from the defaults.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let _ = args.settings;
    let _listener = super::listen().await?;
    anyhow::bail!("there is no broker yet")
}
