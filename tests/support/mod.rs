//! Whole processes for tests: a broker on a port of its own, workers, commands. Every guard ends the process that it
//! started, and no other.

#![expect(dead_code, reason = "no test file uses all of it")]
#![expect(clippy::expect_used, reason = "tests may fail loudly")]

pub(crate) mod collector;
pub(crate) mod fake_admin;
pub(crate) mod http;
pub(crate) mod jaeger;
pub(crate) mod workshop;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use toolpool_client::{Client, ConnectOptions, Tool};

/// The longest that anything which is waited for may take, on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The program under test.
#[must_use]
pub(crate) fn toolpool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toolpool"));
    for (key, _) in std::env::vars_os() {
        // What is set on this machine is no part of the test.
        let name = key.to_string_lossy();
        if name.starts_with("TOOLPOOL_") || name.starts_with("OTEL_") {
            command.env_remove(key);
        }
    }
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// A process that is ended when the test lets go of it.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.spawn().expect("the program starts");
        Self { child }
    }

    /// Its id, for signals and for `/proc`.
    #[must_use]
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process is there");
    }

    /// What it prints, if that was asked for with [`Stdio::piped`].
    pub(crate) fn take_stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("it is a pipe")
    }

    /// What it logs, if that was asked for with [`Stdio::piped`].
    pub(crate) fn take_stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("it is a pipe")
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("the process can be waited for")
    }

    /// Waits for its end, while the test's own tasks go on; its exit code.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the process ends", async || {
            status = self.ended();
            status.is_some()
        })
        .await;
        status?.code()
    }

    /// Whether it has ended; how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("the process can be waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker on a port that the system chose.
pub(crate) struct Broker {
    /// Its process.
    pub(crate) process: Process,
    /// Where it can be dialled: `http://127.0.0.1:…`.
    pub(crate) url: String,
    // Held: a broker that writes to a closed pipe would end.
    stdout: BufReader<ChildStdout>,
}

impl Broker {
    /// Starts a broker with further flags, and waits until it listens.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_in(&[], flags)
    }

    /// The same with variables of its own.
    pub(crate) fn start_in(environment: &[(&str, &str)], flags: &[&str]) -> Self {
        Self::listen("127.0.0.1:0", environment, flags).expect("the broker listens")
    }

    /// Starts a broker where this one was, which has ended.
    pub(crate) async fn start_again(&mut self, flags: &[&str]) {
        let address = self.url.trim_start_matches("http://").to_owned();
        // Its port may be another's for a moment: the system lends free ports to whoever dials out.
        eventually("the broker listens again", async || {
            let again = Self::listen(&address, &[], flags);
            again.map(|broker| *self = broker).is_some()
        })
        .await;
    }

    fn listen(address: &str, environment: &[(&str, &str)], flags: &[&str]) -> Option<Self> {
        let mut command = toolpool();
        command.envs(environment.iter().copied());
        command.args(["broker", "--listen", address]);
        command.args(["--admin-listen", "127.0.0.1:0"]).args(flags);
        let mut process = Process::start(command.stdout(Stdio::piped()));
        let mut stdout = BufReader::new(process.take_stdout());
        let mut line = String::new();
        stdout
            .read_line(&mut line)
            .expect("what the broker says can be read");
        let address = line.trim().strip_prefix("listening on ")?;
        Some(Self {
            url: format!("http://{address}"),
            process,
            stdout,
        })
    }

    /// Where its admin port is, which it says after the first line: `127.0.0.1:…`. Can be asked once.
    pub(crate) fn admin_address(&mut self) -> String {
        let mut line = String::new();
        self.stdout
            .read_line(&mut line)
            .expect("what the broker says can be read");
        let address = line.trim().strip_prefix("admin listening on ");
        address.expect("it says where its admin port is").to_owned()
    }

    /// A command on the agent's side, with this broker's address.
    #[must_use]
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = toolpool();
        command.args(arguments).args(["--broker", &self.url]);
        command
    }

    /// Runs such a command to its end.
    #[must_use]
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the command runs")
    }

    /// Runs such a command to its end with something on its stdin.
    #[must_use]
    pub(crate) fn run_with_stdin(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the command starts");
        let mut pipe = child.stdin.take().expect("it is a pipe");
        pipe.write_all(stdin.as_bytes()).expect("the command reads");
        drop(pipe);
        child.wait_with_output().expect("the command runs")
    }

    /// Starts a worker with the demo's tools.
    pub(crate) fn demo_worker(&self, id: &str, flags: &[&str]) -> Process {
        let mut command = self.command(&["worker", "demo", "--id", id]);
        Process::start(command.args(flags))
    }

    /// Starts a worker whose tools are commands.
    pub(crate) fn exec_worker(&self, id: &str, tools: &Path, flags: &[&str]) -> Process {
        self.exec_worker_in(&[], id, tools, flags)
    }

    /// The same with variables of its own.
    pub(crate) fn exec_worker_in(
        &self,
        environment: &[(&str, &str)],
        id: &str,
        tools: &Path,
        flags: &[&str],
    ) -> Process {
        let mut command = self.command(&["worker", "exec", "--id", id]);
        command.envs(environment.iter().copied());
        Process::start(command.arg("--tools").arg(tools).args(flags))
    }

    /// A client of this broker.
    #[must_use]
    pub(crate) fn client(&self) -> Client {
        Client::lazy(&self.url, ConnectOptions::default()).expect("the address is one")
    }

    /// Waits until `tool` is served by so many workers.
    pub(crate) async fn wait_for_workers(&self, tool: &str, workers: u32) {
        let client = self.client();
        let served = |tools: &[Tool]| {
            let tool = tools.iter().find(|known| known.name == tool);
            tool.map_or(0, |tool| tool.workers) == workers
        };
        eventually(
            &format!("{tool} is served by {workers} workers"),
            async || client.tools().await.is_ok_and(|tools| served(&tools)),
        )
        .await;
    }
}

/// Asks again and again, for a bounded time, until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, asking).await.is_ok(),
        "it never came about that {what}"
    );
}

/// Whether a process with this id runs. One that has ended and that nobody has waited for does not.
#[must_use]
pub(crate) fn is_alive(pid: Pid) -> bool {
    group_of(&pid.as_raw_nonzero().to_string()).is_some()
}

/// Whether a process of this group runs.
#[must_use]
pub(crate) fn is_group_alive(group: Pid) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut groups = processes.filter_map(|entry| group_of(entry.file_name().to_str()?));
    groups.any(|other| other == group)
}

/// The group of a process that runs.
fn group_of(pid: &str) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the state may have anything in it, brackets too. Then come state, parent and group.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let group: i32 = fields.nth(1)?.parse().ok()?;
    // One that is just being forgotten has none: -1.
    let runs = group > 0 && !matches!(state, "Z" | "X");
    runs.then(|| Pid::from_raw(group)).flatten()
}

/// The processes whose parent this is.
#[must_use]
pub(crate) fn children_of(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let children =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    children
        .flat_map(|line| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}

/// What a command printed as JSON.
#[must_use]
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("the command prints JSON")
}

/// What a command printed for people.
#[must_use]
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command complained of.
#[must_use]
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file that comes with the repository.
#[must_use]
pub(crate) fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
