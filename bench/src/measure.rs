//! A server with its workers, and what a load costs it.

use std::time::Duration;

use serde::Serialize;

use crate::child::Child;
use crate::procfs;
use crate::role::agent::{Load, Tally};

/// The tool that every measured call is for.
pub(crate) const TOOL: &str = "noop";
const MEBIBYTE: f64 = 1024.0 * 1024.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Server {
    Relay,
    Broker,
}

impl Server {
    fn role(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Broker => "broker",
        }
    }
}

/// One server process and the worker processes that joined it.
pub(crate) struct Stand {
    pub(crate) server: Child,
    pub(crate) address: String,
    workers: Vec<Child>,
}

/// What a load cost. Time, memory and CPU are the server's.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Reading {
    pub(crate) calls_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) cpu_seconds_per_100k_calls: f64,
    pub(crate) peak_memory_mib: f64,
}

impl Stand {
    /// `settings` are the broker's, as KEY=VALUE; the relay has none.
    pub(crate) async fn start(
        server: Server,
        threads: usize,
        settings: &[&str],
    ) -> anyhow::Result<Self> {
        let mut args = vec!["--threads".into(), threads.to_string()];
        for setting in settings {
            args.extend(["--set".into(), (*setting).into()]);
        }
        let mut server = Child::spawn(server.role(), args)?;
        let address = server.line("listening").await?;
        Ok(Self::of(server, address))
    }

    /// A server that listens there already.
    pub(crate) fn of(server: Child, address: String) -> Self {
        Self {
            server,
            address,
            workers: Vec::new(),
        }
    }

    /// Adds workers of the measured tool, which answer at once.
    pub(crate) async fn add_workers(&mut self, count: usize) -> anyhow::Result<()> {
        for n in 0..count {
            self.add_worker(&format!("worker-{n}"), &[TOOL]).await?;
        }
        Ok(())
    }

    /// Adds a worker of some tools; `tool=300` takes so many milliseconds.
    pub(crate) async fn add_worker(&mut self, id: &str, tools: &[&str]) -> anyhow::Result<()> {
        let mut args = [&self.address, "--id", id].map(String::from).to_vec();
        for tool in tools {
            args.extend(["--tool", tool].map(String::from));
        }
        let mut worker = Child::spawn("worker", args)?;
        worker.line("ready").await?;
        self.workers.push(worker);
        Ok(())
    }

    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        procfs::cpu(self.server.pid()?)
    }

    pub(crate) fn agent(&self, load: &Load) -> anyhow::Result<Child> {
        let options = [
            ("--tool", Some(load.tool.clone())),
            ("--batch", Some(load.batch.to_string())),
            ("--open", Some(load.open.to_string())),
            ("--warm-up-ms", Some(load.warm_up_ms.to_string())),
            ("--window-ms", Some(load.window_ms.to_string())),
            ("--calls", load.calls.map(|calls| calls.to_string())),
        ];
        let mut args = vec![self.address.clone()];
        for (option, value) in options {
            args.extend(value.into_iter().flat_map(|value| [option.into(), value]));
        }
        Child::spawn("agent", args)
    }

    /// Runs the load in an agent's process.
    pub(crate) async fn load(&self, load: &Load) -> anyhow::Result<Reading> {
        let mut agent = self.agent(load)?;
        agent.line("start").await?;
        let before = self.cpu()?;
        agent.line("end").await?;
        let cpu = self.cpu()?.saturating_sub(before);
        let tally = tally(&agent.line("tally").await?)?;
        agent.end().await?;
        self.reading(&tally, cpu)
    }

    pub(crate) fn reading(&self, tally: &Tally, cpu: Duration) -> anyhow::Result<Reading> {
        let calls = count(tally.calls);
        Ok(Reading {
            calls_per_second: calls / tally.seconds,
            p50_us: tally.p50_us,
            p99_us: tally.p99_us,
            cpu_seconds_per_100k_calls: cpu.as_secs_f64() / calls * 1e5,
            peak_memory_mib: mebibytes(procfs::peak_memory(self.server.pid()?)?),
        })
    }

    /// Lets the server go by itself, which writes down what it has measured of itself.
    pub(crate) async fn drain(self) -> anyhow::Result<()> {
        for worker in self.workers {
            worker.end().await?;
        }
        self.server.terminate().await
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        for worker in self.workers {
            worker.end().await?;
        }
        self.server.end().await
    }
}

pub(crate) fn tally(json: &str) -> anyhow::Result<Tally> {
    Ok(serde_json::from_str(json)?)
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub(crate) fn count(count: u64) -> f64 {
    count as f64
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    count(bytes) / MEBIBYTE
}
