//! `toolpool replay`: a recorded turn, at its pace, or a provider's stream.

mod input;
mod own_broker;
mod stubs;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::Args;
use toolpool_client::{BatchOptions, Client, FinishedBatch, Turn as ProviderTurn, TurnEnd};

use self::own_broker::OwnBroker;
use self::stubs::Stubs;
use super::BrokerAddress;
use super::call::{exit_code, explain};
use crate::output::{Output, json, note};
use crate::turn::{Dialect, Pace, Turn, Watch, play};

/// Play a recorded turn of a model, or a provider's stream
///
/// A recorded turn has a JSON object a line: `at`, in seconds from the start, and one of `block_start` {index, id, tool},
/// `block_delta` {index, fragment}, `block_stop` {index}, `call` {id, tool, arguments} and `seal` {`turn_end`}. Of a provider's
/// stream it has `provider_event` {…} (one event, as JSON) or `provider_data` "…" (text of the HTTP body) instead of blocks and
/// calls, and its first line may be `open` {dialect, `local_tools`}. There are examples in docs/examples: turn.ndjson and
/// anthropic.ndjson.
///
/// Anything else is taken for a provider's stream as it came over HTTP, or as one JSON event a line; there is an example in
/// docs/examples/anthropic.sse. It has no times, and goes out as fast as it can be read and the broker
/// takes it.
///
/// The exit code is 0 if every call succeeded (and if there is none), 1 if one failed or the stream broke off, and 2 if the
/// batch could not be run or nothing tells what the stream is.
#[derive(Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    broker: BrokerAddress,
    /// The recording or the stream; `-` reads stdin. A provider's stream from there is played as it comes, unless stubs are
    /// wanted: then it is read to its end first, to know the tools
    file: PathBuf,
    /// The format of a provider's stream [default: a recorded turn is known by the `at` of its first line, and anything else is
    /// `auto`]
    #[arg(long, value_enum)]
    dialect: Option<Dialect>,
    /// A tool that the agent would run itself: its calls are passed over; may be given more than once
    #[arg(long = "local-tool", value_name = "NAME")]
    local_tools: Vec<String>,
    /// Serve every tool that the turn names with a stub that reads only, takes any object and says that it is a stub. The
    /// command then brings its own broker, unless --broker or `TOOLPOOL_BROKER` names one; tools which that one knows are left
    /// to their own workers
    #[arg(long)]
    stub_tools: bool,
    /// How many times faster than recorded, or `max`
    #[arg(long, value_name = "FACTOR", default_value = "1")]
    speed: Pace,
    /// Print nothing but the finished batch, as JSON
    #[arg(long)]
    json: bool,
    /// Print nothing but the answer to the provider, as JSON: the messages that go after the assistant's
    #[arg(long, conflicts_with = "json")]
    answer: bool,
}

impl Replay {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let mut turn = input::read(&self.file, self.dialect, self.stub_tools)?;
        self.check(&mut turn)?;
        let own = if self.stub_tools && self.broker.broker.is_none() {
            Some(OwnBroker::start().await?)
        } else {
            None
        };
        let broker = own.as_ref().map_or(&self.broker, |own| &own.address);
        let client = broker.connect().await?;
        let stubs = if self.stub_tools {
            // A name of its own, where no other worker can have it.
            let id = own.as_ref().map(|_| "stubs");
            Stubs::join(broker, id, &client, turn.tools()).await?
        } else {
            None
        };
        let mut output = Output::new();
        let played = self.play(&client, turn, &mut output).await;
        if let Some(stubs) = stubs {
            stubs.leave().await;
        }
        let batch = played.map_err(|error| explain(broker, error))?;
        let ended = ended(&batch);
        // Whoever takes an answer from stdin must not take one of nothing.
        if !(self.answer && ended.is_err()) {
            self.show(&batch, &mut output)?;
        }
        ended
    }

    /// Whether the flags are of any use with the turn; takes up what they say of it.
    fn check(&self, turn: &mut Turn) -> Result<()> {
        let Some(provider) = &mut turn.provider else {
            ensure!(
                self.local_tools.is_empty(),
                "--local-tool is for a provider's stream; leave a local tool's blocks out of the recording instead"
            );
            ensure!(
                !self.answer,
                "--answer is for a provider's stream: blocks and calls have no provider to answer"
            );
            return Ok(());
        };
        provider.local_tools.extend_from_slice(&self.local_tools);
        Ok(())
    }

    async fn play(
        &self,
        client: &Client,
        turn: Turn,
        output: &mut Output,
    ) -> Result<FinishedBatch> {
        let watch = if self.json || self.answer {
            Watch::Nothing
        } else {
            Watch::Lines(client.tools().await?)
        };
        let options = BatchOptions::default();
        let played = play(client, options, turn, self.speed, output, watch).await?;
        Ok(played.batch)
    }

    fn show(&self, batch: &FinishedBatch, output: &mut Output) -> Result<()> {
        if self.json {
            output.json(&json::batch(batch))?;
        } else if self.answer {
            match &batch.turn {
                Some(turn) => {
                    output.json_text(&turn.answer)?;
                    note_cut(turn);
                }
                None => bail!("the broker says nothing of the provider's turn: it is too old"),
            }
        } else {
            output.line("")?;
            if batch.summary.calls > 0 {
                output.batch(batch, false)?;
            }
            if let Some(turn) = &batch.turn {
                output.turn(turn, batch.summary.calls)?;
            }
        }
        Ok(())
    }
}

/// For whoever sees the answer alone: an empty one of a turn that was cut does not say that nothing is due.
fn note_cut(turn: &ProviderTurn) {
    let why = turn.error.as_ref().or(turn.stop_reason.as_ref());
    if turn.end != TurnEnd::Complete {
        note(&format!(
            "the turn is cut short: {}",
            why.map_or("nothing says why", |why| why)
        ));
    }
}

/// 1 also for a stream that broke off, since then the turn is not what its provider wanted to say.
fn ended(batch: &FinishedBatch) -> Result<ExitCode> {
    let Some(turn) = &batch.turn else {
        return Ok(exit_code(batch));
    };
    ensure!(
        turn.dialect.is_some(),
        "nothing in it tells which provider's stream it is; if it is one, name its format with --dialect"
    );
    Ok(match turn.error {
        Some(_) => ExitCode::FAILURE,
        None => exit_code(batch),
    })
}
