//! The broker's runtime on one thread beside the same on two.

use crate::measure::Server;
use crate::pairs::{self, Contender, Scope};
use crate::report;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    scope: Scope,
    /// Threads of the second contender.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Whose runtime.
    #[arg(long, value_enum, default_value = "broker")]
    server: Server,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let contender = |name, threads| Contender {
        name,
        server: args.server,
        threads,
    };
    let one = contender("one", 1);
    let more = contender("more", args.threads);
    let comparison = pairs::run(&args.scope, one, more).await?;
    if args.scope.json {
        report::json(&comparison)?;
    }
    Ok(())
}
