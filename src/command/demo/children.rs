//! The demo's processes. They end with it, however it ends.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long a process may take to go when it is asked to.
const GRACE: Duration = Duration::from_secs(3);
/// Any port of this machine.
const LOOPBACK: &str = "127.0.0.1:0";
/// What the broker's variables begin with: the demo shows the defaults, whatever is set here.
const ENV_PREFIX: &str = "TOOLPOOL_";

/// The broker and the workers, in the order in which they were started.
///
/// Dropping it kills them. If this process is killed, the pipes to their stdin close, on which they end by themselves.
#[derive(Default)]
pub(super) struct Children {
    all: Vec<(String, Child)>,
    /// Open for as long as the broker may write to it.
    broker_says: Option<Lines<BufReader<ChildStdout>>>,
}

impl Children {
    /// Starts a broker on a port that the system chooses, and gives its address.
    pub(super) async fn start_broker(&mut self) -> Result<String> {
        let stdout = self.start(
            "broker",
            &["broker", "--listen", LOOPBACK, "--admin-listen", LOOPBACK],
        )?;
        let mut lines = BufReader::new(stdout).lines();
        let line = lines
            .next_line()
            .await
            .context("cannot read what the broker says")?;
        let line = line.context("the broker ended before it listened")?;
        let address = line.strip_prefix("listening on ");
        let address = address
            .with_context(|| format!("the broker said `{line}`"))?
            .to_owned();
        self.broker_says = Some(lines);
        Ok(address)
    }

    /// Starts a worker with the demo's tools.
    pub(super) fn start_worker(&mut self, broker: &str, id: &str) -> Result<()> {
        // What a worker says on stdout is of no use.
        drop(self.start(id, &["worker", "demo", "--broker", broker, "--id", id])?);
        Ok(())
    }

    /// Fails if one of them has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        for (name, child) in &mut self.all {
            if let Some(status) = child.try_wait()? {
                bail!("the {name} process has ended: {status}");
            }
        }
        Ok(())
    }

    /// Asks them to go, those that were started last first, and waits until they are gone.
    pub(super) async fn end(&mut self) {
        while let Some((name, mut child)) = self.all.pop() {
            // No id: it has ended, and is nobody to send a signal to.
            let pid = child
                .id()
                .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM);
            }
            if timeout(GRACE, child.wait()).await.is_err() {
                tracing::warn!(process = name, "does not end when asked to; killing it");
                let _ = child.kill().await;
            }
        }
    }

    fn start(&mut self, name: &str, arguments: &[&str]) -> Result<ChildStdout> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg("--exit-with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            // A group of its own: Ctrl-C is for the demo, which then ends them in order.
            .process_group(0);
        if std::env::var_os("RUST_LOG").is_none() {
            command.args(["--log", "warn"]);
        }
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with(ENV_PREFIX) {
                command.env_remove(key);
            }
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start the {name} process"))?;
        let stdout = child.stdout.take();
        ensure!(child.stdin.is_some(), "the {name} process has no stdin");
        // Its stdin stays in the child's handle, and so open until that is dropped.
        self.all.push((name.to_owned(), child));
        stdout.context("the process has no stdout")
    }
}
