//! The benchmark: what the broker costs beside a bare relay that does nothing but pass calls on.
//!
//! Everything that is measured runs in a process of its own: this binary starts itself again as agent, worker,
//! broker or relay (`role`), and measures them from outside (`measure`). A mode (`compare`, `threads`, `flat`,
//! `soak`, `decoders`, `early`, `tracing`) decides which of them run together, under which load, and what is said about it (`report`).

mod child;
mod compare;
mod decoders;
mod early;
mod flat;
mod measure;
mod pairs;
mod procfs;
mod report;
mod role;
mod soak;
mod stats;
mod threads;
mod tracing;

use clap::{Parser, Subcommand};

/// Measures the broker against a bare relay, in processes of their own. Without a mode: the table of both.
#[derive(Parser)]
#[command(
    name = "toolpool-bench",
    version,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    mode: Option<Mode>,
    #[command(flatten)]
    compare: compare::Args,
}

#[derive(Subcommand)]
enum Mode {
    /// Compares the broker on one thread with the broker on two.
    Threads(threads::Args),
    /// Shows what idle workers, other tools and a long queue cost the calls of another tool.
    Flat(flat::Args),
    /// Runs a great many calls and watches the broker's memory.
    Soak(soak::Args),
    /// Measures how fast providers' streams are read.
    Decoders(decoders::Args),
    /// Shows what traces cost: none, a tenth, all, and with a collector that is gone.
    Tracing(tracing::Args),
    /// Shows what it is worth to start calls while the model still writes the turn.
    Early(early::Args),
    #[command(flatten)]
    Role(role::Role),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let mode = match cli.mode {
        Some(Mode::Role(role)) => return role.run(),
        mode => mode,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match mode {
            None => compare::run(&cli.compare).await,
            Some(Mode::Threads(args)) => threads::run(&args).await,
            Some(Mode::Flat(args)) => flat::run(&args).await,
            Some(Mode::Soak(args)) => soak::run(&args).await,
            Some(Mode::Decoders(args)) => decoders::run(&args),
            Some(Mode::Early(args)) => early::run(&args).await,
            Some(Mode::Tracing(args)) => tracing::run(&args).await,
            Some(Mode::Role(_)) => Ok(()),
        }
    })
}
