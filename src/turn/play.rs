//! Plays a turn to a broker, at its pace, and waits for the finished batch.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until};
use toolpool_client::{BatchOptions, BatchWriter, Client, FinishedBatch, Over, Progress, TurnEnd};

use super::live::Live;
use super::{Step, TimedStep, Turn, Watch};
use crate::output::Output;

/// How often the status line shows that time goes by.
const TICK: Duration = Duration::from_millis(100);

/// How fast a turn is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// So many times the speed at which it was recorded; more than 0.
    Recorded(f64),
    /// As fast as the broker takes it.
    Max,
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let speed: f64 = text.parse().unwrap_or(f64::NAN);
        if (0.001..=1000.0).contains(&speed) {
            Ok(Self::Recorded(speed))
        } else {
            Err("permitted is 0.001 to 1000, or max".to_owned())
        }
    }
}

/// A turn that was played.
pub(crate) struct Played {
    pub(crate) batch: FinishedBatch,
    /// From the batch's acceptance to the seal.
    pub(crate) wrote: Duration,
}

/// Opens a batch and plays the turn to it. A turn without a seal is sealed as complete at its end. If the rest of it
/// cannot be read, the stream is reset: the turn is given up.
pub(crate) async fn play(
    client: &Client,
    options: BatchOptions,
    turn: Turn,
    pace: Pace,
    output: &mut Output,
    watch: Watch,
) -> Result<Played> {
    enum Event {
        Due(Option<TimedStep>),
        Came(Option<io::Result<Bytes>>),
        Told(Option<Progress>),
        Tick,
    }

    let mut live = Live::new(watch, output);
    let options = turn.options(options).progress(live.wants_progress());
    let batch = client.batch(options).await?;
    live.reads_by(turn.decoder(batch.id()));
    let began = Instant::now();
    let (writer, mut reader) = batch.split();
    // Until it is sealed, or the broker has finished first.
    let mut writer = Some(writer);
    let mut wrote = Duration::ZERO;
    let Turn {
        steps, mut rest, ..
    } = turn;
    let mut steps = steps.into_iter().peekable();
    let mut tick = interval(TICK);

    loop {
        let due = match (steps.peek(), pace) {
            (Some(next), Pace::Recorded(speed)) => began + next.at.div_f64(speed),
            _ => began,
        };
        let (open, waits) = (writer.is_some(), steps.peek().is_none() && rest.is_some());
        let event = tokio::select! {
            // Steps first: what begins at the moment when another call starts is seen to be written meanwhile.
            biased;
            () = sleep_until(due), if open && !waits => Event::Due(steps.next()),
            piece = next(&mut rest), if open && waits => Event::Came(piece),
            told = reader.next_progress() => Event::Told(told?),
            _ = tick.tick() => Event::Tick,
        };
        let step = match event {
            Event::Due(Some(due)) => due.step,
            Event::Due(None) => Step::Seal(TurnEnd::Complete),
            Event::Came(Some(piece)) => {
                Step::ProviderData(piece.context("cannot read the rest of the stream")?)
            }
            Event::Came(None) => {
                rest = None;
                continue;
            }
            Event::Told(Some(progress)) => {
                live.told(&progress)?;
                continue;
            }
            Event::Told(None) => break,
            Event::Tick => {
                live.tick(began.elapsed());
                continue;
            }
        };
        live.writes(began.elapsed(), &step)?;
        if matches!(step, Step::Seal(_)) {
            wrote = began.elapsed();
        }
        // Over: the broker has ended the stream, and the reader knows how.
        writer = match writer.take() {
            Some(writer) => write(writer, step).await.unwrap_or(None),
            None => None,
        };
    }
    drop(live);
    let batch = reader.finished().await?;
    Ok(Played { batch, wrote })
}

async fn next(rest: &mut Option<mpsc::Receiver<io::Result<Bytes>>>) -> Option<io::Result<Bytes>> {
    rest.as_mut()?.recv().await
}

/// Writes a step; the writer comes back unless it was the seal.
async fn write(mut writer: BatchWriter, step: Step) -> Result<Option<BatchWriter>, Over> {
    match step {
        Step::BlockStart(start) => {
            let (index, id, tool) = (start.index, start.id, start.tool);
            match start.idempotency_key {
                Some(key) => writer.start_keyed(index, id, tool, key).await?,
                None => writer.start(index, id, tool).await?,
            }
        }
        Step::BlockDelta { index, fragment } => writer.delta(index, fragment).await?,
        Step::BlockStop { index } => writer.stop(index).await?,
        Step::Call(call) => writer.push(call).await?,
        Step::ProviderEvent(json) => writer.provider_event(json).await?,
        Step::ProviderData(bytes) => writer.provider_data(bytes).await?,
        Step::Seal(end) => {
            writer.seal(end).await?;
            return Ok(None);
        }
    }
    Ok(Some(writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_a_factor_or_max() {
        assert_eq!("max".parse(), Ok(Pace::Max));
        assert_eq!("2.5".parse(), Ok(Pace::Recorded(2.5)));
        for wrong in ["0", "-1", "fast", "inf", "NaN", ""] {
            assert!(wrong.parse::<Pace>().is_err(), "{wrong}");
        }
    }
}
