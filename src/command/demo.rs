//! `toolpool demo`: the main job on one machine.

mod children;
mod script;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};
use toolpool_client::{BatchOptions, Client, ConnectOptions, Tool};

use self::children::Children;
use crate::output::{Output, StatusLine, human, json};
use crate::turn::{Pace, Played, Turn, Watch, play};

/// Workers that the demo starts.
const WORKERS: u32 = 2;
/// The longest that broker and workers may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the model takes to read the first batch.
const READING: Duration = Duration::from_millis(1200);

/// See it work: a broker, two workers and an agent's two turns, on this machine
///
/// Starts real processes on loopback ports that the system chooses, and ends them. Takes a few seconds.
#[derive(Args)]
pub(crate) struct Demo {
    /// Print nothing but the two finished batches, as JSON
    #[arg(long)]
    json: bool,
}

impl Demo {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        let mut children = Children::default();
        let ended = tokio::select! {
            shown = self.show(&mut children) => shown.map(|()| ExitCode::SUCCESS),
            _ = terminate.recv() => Ok(ExitCode::from(128 + 15)),
            _ = interrupt.recv() => Ok(ExitCode::from(128 + 2)),
        };
        // In every case, before anything else: no process stays behind.
        children.end().await;
        ended
    }

    async fn show(&self, children: &mut Children) -> Result<()> {
        let mut output = Output::new();
        let began = Instant::now();
        let (client, tools) = start(children).await?;
        if !self.json {
            output.line(format!(
                "A broker and {WORKERS} workers run as processes of their own, with {} tools (ready after {}).",
                tools.len(),
                human(began.elapsed())
            ))?;
        }

        let title = "TURN 1  The model asks for six things at once. Each call starts while it still writes the next.";
        let first = self
            .play(&client, title, script::first_turn(), &tools, &mut output)
            .await?;

        let supplier = script::supplier(&first.batch)
            .context("the first turn did not bring the supplier that the second needs")?;
        if !self.json {
            output.line("")?;
            output.line(format!(
                "The model reads the batch, and finds in it that the supplier is {supplier}."
            ))?;
        }
        sleep(READING).await;

        let title = "TURN 2  It orders there. An order has side effects, so the call is held until the turn is sealed.";
        let second = self
            .play(
                &client,
                title,
                script::second_turn(&supplier),
                &tools,
                &mut output,
            )
            .await?;
        if self.json {
            let batches = [&first, &second].map(|played| json::batch(&played.batch));
            output.json(&json!({ "turns": batches }))?;
        }
        Ok(())
    }

    async fn play(
        &self,
        client: &Client,
        title: &str,
        turn: Turn,
        tools: &[Tool],
        output: &mut Output,
    ) -> Result<Played> {
        let options = BatchOptions::default();
        let pace = Pace::Recorded(1.0);
        if self.json {
            return play(client, options, turn, pace, output, Watch::Nothing).await;
        }
        output.line("")?;
        output.line(output.paint.bold(title))?;
        output.line("")?;
        let played = play(
            client,
            options,
            turn,
            pace,
            output,
            Watch::Lines(tools.to_vec()),
        )
        .await?;
        output.line("")?;
        output.batch(&played.batch, false)?;
        if played.batch.summary.calls > 1 {
            output.line(comparison(&played))?;
        }
        Ok(played)
    }
}

/// What the turn took, against the same calls one after another.
fn comparison(played: &Played) -> String {
    let summary = &played.batch.summary;
    format!(
        "The model wrote for {}, and the finished batch was there {} after the turn began. Started when the model was \
         done, and run one after another, the same calls would have ended after {}.",
        human(played.wrote),
        human(summary.elapsed),
        human(played.wrote + summary.summed_run)
    )
}

/// Starts the broker and the workers, and waits until every tool is served by all of them.
async fn start(children: &mut Children) -> Result<(Client, Vec<Tool>)> {
    let mut status = StatusLine::new();
    status.show("starting a broker and two workers …");
    let starting = async {
        let url = format!("http://{}", children.start_broker().await?);
        for number in 1..=WORKERS {
            children.start_worker(&url, &format!("demo-{number}"))?;
        }
        let options = ConnectOptions::default().connect_timeout(PATIENCE);
        let client = Client::connect_with(&url, options).await?;
        loop {
            let tools = client.tools().await?;
            if !tools.is_empty() && tools.iter().all(|tool| tool.workers == WORKERS) {
                return anyhow::Ok((client, tools));
            }
            children.check()?;
            sleep(Duration::from_millis(20)).await;
        }
    };
    match timeout(PATIENCE, starting).await {
        Ok(started) => started,
        Err(_) => bail!(
            "broker and workers were not ready within {}; try --log debug",
            human(PATIENCE)
        ),
    }
}
