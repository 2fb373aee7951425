//! `toolpool replay`: a recorded turn, at its pace.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use toolpool_client::BatchOptions;

use super::call::{exit_code, explain};
use super::{BrokerAddress, read_bounded};
use crate::output::{Output, json};
use crate::turn::{Pace, Turn, Watch, play};

/// Play a recorded turn of a model
///
/// FILE has a JSON object a line: `at`, in seconds from the start, and one of `block_start` {index, id, tool}, `block_delta`
/// {index, fragment}, `block_stop` {index}, `call` {id, tool, arguments} and `seal` {`turn_end`}. There is an example in
/// docs/examples/turn.ndjson. The exit code is 0 if every call succeeded, 1 if one failed, and 2 if the batch could not be
/// run.
#[derive(Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    broker: BrokerAddress,
    /// The recording
    file: PathBuf,
    /// How many times faster than recorded, or `max`
    #[arg(long, value_name = "FACTOR", default_value = "1")]
    speed: Pace,
    /// Print nothing but the finished batch, as JSON
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let path = self.file.display();
        let text = std::fs::File::open(&self.file)
            .map_err(anyhow::Error::from)
            .and_then(read_bounded)
            .and_then(|bytes| Ok(String::from_utf8(bytes)?))
            .with_context(|| format!("cannot read {path}"))?;
        let turn = Turn::parse(&text).with_context(|| format!("{path} is not a recorded turn"))?;

        let client = self.broker.connect().await?;
        let mut output = Output::new();
        let watch = if self.json {
            Watch::Nothing
        } else {
            Watch::Lines(client.tools().await?)
        };
        let played = play(
            &client,
            BatchOptions::default(),
            &turn,
            self.speed,
            &mut output,
            watch,
        )
        .await;
        let batch = played.map_err(|error| explain(&self.broker, error))?.batch;
        if self.json {
            output.json(&json::batch(&batch))?;
        } else {
            output.line("")?;
            output.batch(&batch, false)?;
        }
        Ok(exit_code(&batch))
    }
}
