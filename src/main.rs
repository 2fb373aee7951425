//! The command line of Toolpool.

mod command;
mod logging;
mod output;
mod signals;
mod telemetry;
mod top;
mod turn;

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use tonic::Status;

use crate::command::Command;
use crate::logging::Log;

/// A broker that runs a language model's tool calls on a pool of workers.
#[derive(Parser)]
#[command(name = "toolpool", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What is logged to stderr, such as `debug` or `toolpool_broker=debug,info` [default: `RUST_LOG`, then `warn` for
    /// agent-side commands and `info` for the broker and workers]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

/// What went wrong before any call could fail: usage, configuration, connection.
const TROUBLE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (log, run) = match logging::start(cli.log.as_deref(), cli.command.is_service()) {
        Ok(log) => (log, cli.command.run()),
        Err(error) => (Log::default(), Err(error)),
    };
    match run {
        Ok(code) => code,
        // Whoever read our output has gone: `toolpool tools | head -1`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            log.say(&format!("error: {}", joined(&error)));
            ExitCode::from(TROUBLE)
        }
    }
}

/// The error and its causes on one line. A cause that says no more than the one before it is left out.
fn joined(error: &anyhow::Error) -> String {
    let said = |cause: &(dyn Error + 'static)| match cause.downcast_ref::<Status>() {
        // It would go on with its own causes, as they look to a programmer.
        Some(status) if status.source().is_some() => status.message().to_owned(),
        _ => cause.to_string(),
    };
    let mut causes: Vec<String> = error.chain().map(said).collect();
    causes.dedup_by(|cause, before| before.contains(&**cause));
    causes.join(": ")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| {
        let json = cause.downcast_ref::<serde_json::Error>();
        json.and_then(serde_json::Error::io_error_kind)
            .or_else(|| cause.downcast_ref::<io::Error>().map(io::Error::kind))
    });
    io == Some(io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow::anyhow!("Connection refused")
            .context("tcp connect error: Connection refused")
            .context("tcp connect error: Connection refused")
            .context("transport error");
        let said = "transport error: tcp connect error: Connection refused";
        assert_eq!(joined(&error), said);
        let plain = anyhow::anyhow!("no such file").context("cannot read it");
        assert_eq!(joined(&plain), "cannot read it: no such file");
    }
}
