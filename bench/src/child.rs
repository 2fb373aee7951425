//! A child process: this program again in another role, or another program in one.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// The longest that a child may be silent when its parent waits for it.
const PATIENCE: Duration = Duration::from_mins(2);

/// Ends when it is dropped, and when this process ends in whatever way: its stdin ends then.
pub(crate) struct Child {
    role: &'static str,
    process: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
    _stdin: ChildStdin,
}

impl Child {
    pub(crate) fn spawn(
        role: &'static str,
        args: impl IntoIterator<Item = String>,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        Self::start(role, Command::new(program).arg(role).args(args))
    }

    /// Another program in a role; it has to end when its stdin does.
    pub(crate) fn start(role: &'static str, command: &mut Command) -> anyhow::Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the {role}"))?;
        let stdin = process.stdin.take().context("no stdin")?;
        let stdout = process.stdout.take().context("no stdout")?;
        Ok(Self {
            role,
            process,
            lines: BufReader::new(stdout).lines(),
            _stdin: stdin,
        })
    }

    /// The next line, which is `word` and maybe something behind it; gives what is behind it.
    pub(crate) async fn line(&mut self, word: &str) -> anyhow::Result<String> {
        let (said, rest) = self.next().await?;
        if said != word {
            bail!("the {} said `{said} {rest}`, not `{word}`", self.role);
        }
        Ok(rest)
    }

    /// The next line, as its first word and the rest.
    pub(crate) async fn next(&mut self) -> anyhow::Result<(String, String)> {
        let line = timeout(PATIENCE, self.lines.next_line())
            .await
            .with_context(|| format!("the {} is silent", self.role))??;
        let Some(line) = line else {
            let status = self.process.wait().await?;
            bail!("the {} ended early with {status}", self.role);
        };
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        Ok((word.into(), rest.into()))
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        let role = self.role;
        self.process
            .id()
            .with_context(|| format!("the {role} has ended"))
    }

    /// Fails if the child is not there any more.
    pub(crate) fn must_live(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the {} ended early with {status}", self.role),
        }
    }

    /// Asks it to go, and waits until it has.
    pub(crate) async fn terminate(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.pid()?.try_into()?).context("0 is no process")?;
        kill_process(pid, Signal::TERM)?;
        let status = timeout(PATIENCE, self.process.wait()).await;
        let status = status.with_context(|| format!("the {} does not go", self.role))??;
        ensure!(
            status.success(),
            "the {} ended with {status} when it was asked to go",
            self.role
        );
        Ok(())
    }

    /// Ends it and waits until it is gone, so that the next measurement is not disturbed.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        Ok(self.process.kill().await?)
    }
}
