//! `toolpool call`: a batch from the prompt.

use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use toolpool_client::{BatchOptions, Call as ClientCall, Error, FinishedBatch};

use super::{BrokerAddress, parse_duration, read_bounded, wait};
use crate::output::{Output, json};
use crate::turn::{Pace, Turn, Watch, play};

/// Run tool calls as one batch
///
/// Tools that no worker has brought yet are waited for, up to 3 s.
///
/// The exit code is 0 if every call succeeded, 1 if one failed, and 2 if the batch could not be run.
#[derive(Args)]
#[command(override_usage = "toolpool call [OPTIONS] TOOL JSON [TOOL JSON ...]")]
pub(crate) struct Call {
    #[command(flatten)]
    broker: BrokerAddress,
    /// A tool's name and its arguments as JSON, as often as there are calls; `@FILE` reads the arguments from a file, `-`
    /// from stdin
    #[arg(required = true, num_args = 2.., value_names = ["TOOL", "JSON"])]
    calls: Vec<String>,
    /// Print the finished batch as JSON
    #[arg(long)]
    json: bool,
    /// Print every output in full below the table
    #[arg(long, conflicts_with = "json")]
    full: bool,
    /// Time for the whole batch, such as 30s
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    deadline: Option<Duration>,
    /// Calls that may run at the same time; 1 is one at a time, in the order given
    #[arg(long, value_name = "CALLS")]
    max_parallel: Option<NonZeroU32>,
}

impl Call {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let calls = self.read_calls()?;
        let asked = calls.len();
        let turn = Turn::of_calls(calls);
        let mut options = BatchOptions::default();
        if let Some(deadline) = self.deadline {
            options = options.deadline(deadline);
        }
        if let Some(calls) = self.max_parallel {
            options = options.max_parallel(calls);
        }
        let client = self.broker.connect().await?;
        let named = self.calls.iter().step_by(2);
        let all_there = |tools: &Vec<_>| named.clone().all(|name| wait::has(tools, name));
        // A name that still is not there is the broker's to judge.
        let tools = wait::until(async || client.tools().await, all_there).await;
        tools.map_err(|error| self.broker.explain(error))?;
        let mut output = Output::new();
        let watch = if self.json {
            Watch::Nothing
        } else {
            Watch::Status
        };
        let played = play(&client, options, turn, Pace::Max, &mut output, watch).await;
        let batch = played.map_err(|error| explain(&self.broker, error))?.batch;
        if self.json {
            output.json(&json::batch(&batch))?;
        } else {
            output.batch(&batch, self.full)?;
        }
        let taken = batch.results().len();
        ensure!(
            taken == asked,
            "the batch was over when {taken} of {asked} calls had been taken; the others were not run: give it more time"
        );
        Ok(exit_code(&batch))
    }

    fn read_calls(&self) -> Result<Vec<ClientCall>> {
        let (pairs, rest) = self.calls.as_chunks::<2>();
        ensure!(
            rest.is_empty(),
            "`{}` has no arguments; give each tool its JSON, `{{}}` if it takes none",
            rest.join(" ")
        );
        let from_stdin = pairs
            .iter()
            .filter(|[_, arguments]| arguments == "-")
            .count();
        ensure!(
            from_stdin <= 1,
            "stdin can be the arguments of one call only"
        );
        let call = |(number, [tool, arguments]): (u32, &[String; 2])| {
            let arguments = read_arguments(arguments)?;
            Ok(ClientCall::new(format!("call_{number}"), tool, arguments))
        };
        (1..).zip(pairs).map(call).collect()
    }
}

/// 0 if every call succeeded, else 1.
pub(super) fn exit_code(batch: &FinishedBatch) -> ExitCode {
    if batch.all_succeeded() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Says what to do about an error of the client's; leaves others as they are.
pub(super) fn explain(broker: &BrokerAddress, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(error) => broker.explain(error),
        Err(error) => error,
    }
}

fn read_arguments(given: &str) -> Result<Vec<u8>> {
    if given == "-" {
        return read_bounded(std::io::stdin()).context("cannot read the arguments from stdin");
    }
    match given.strip_prefix('@') {
        Some(path) => std::fs::File::open(path)
            .map_err(anyhow::Error::from)
            .and_then(read_bounded)
            .with_context(|| format!("cannot read the arguments from {path}")),
        None => Ok(given.as_bytes().to_owned()),
    }
}
