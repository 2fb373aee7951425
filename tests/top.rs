//! `toolpool top` on a terminal of its own: what it draws, and how it leaves.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use toolpool_proto::v1::{WorkerState, WorkerStatus};

use support::fake_admin::{FakeAdmin, State};
use support::{Process, eventually};

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// A terminal so wide that nothing on it is written over something else, and everything that was written on it.
struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    process: Process,
}

/// Starts `toolpool top` on a terminal; its other end.
fn on_terminal(admin: &FakeAdmin, stderr: impl FnOnce(&File) -> Stdio) -> (File, Process) {
    // Closed in every child, or a terminal would never be gone.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: 160,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&ours, size).unwrap();
    let theirs = File::from(ioctl_tiocgptpeer(&ours, flags).unwrap());
    let mut command = admin.command(&["top", "--interval", "100ms"]);
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    command.stdin(theirs.try_clone().unwrap());
    command.stderr(stderr(&theirs)).stdout(theirs);
    // The command goes, or the other end stays open here.
    (File::from(ours), Process::start(&mut command))
}

impl Terminal {
    /// Starts `toolpool top` on it, and waits until it has drawn this.
    async fn top(admin: &FakeAdmin, until: &str) -> Self {
        let (keyboard, process) = on_terminal(admin, |_| Stdio::null());
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut read, written) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        // It ends with the process.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = read.read(&mut bytes) {
                written.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        let terminal = Self {
            keyboard,
            screen,
            process,
        };
        terminal.shows(until).await;
        terminal
    }

    fn written(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until this was written. Only what has changed is written, so it should be one word.
    async fn shows(&self, word: &str) {
        eventually(&format!("it writes {word:?}"), async || {
            self.written().contains(word)
        })
        .await;
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether keys come one by one and unseen.
    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.keyboard).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for its end; its exit code. The terminal must be as it was.
    async fn left(&mut self) -> Option<i32> {
        let code = self.process.exit_code().await;
        self.shows(LEAVE).await;
        let written = self.written();
        let after = &written[written.rfind(ENTER).unwrap()..];
        assert!(after.contains(SHOW_CURSOR), "{after:?}");
        assert!(!self.is_raw(), "keys are seen again");
        code
    }
}

fn admin() -> FakeAdmin {
    FakeAdmin::start(State {
        workers: vec![WorkerStatus {
            worker_id: "worker-one".to_owned(),
            state: WorkerState::Connected.into(),
            slots: 4,
            ..WorkerStatus::default()
        }],
        ..State::default()
    })
}

#[tokio::test]
async fn keys_end_it() {
    let admin = admin();
    for key in ["q", "\x1b", "\x03"] {
        let mut terminal = Terminal::top(&admin, "worker-one").await;
        assert!(terminal.is_raw());
        terminal.press(key);
        assert_eq!(terminal.left().await, Some(0), "{key:?}");
    }
}

#[tokio::test]
async fn signals_end_it() {
    let admin = admin();
    for (signal, code) in [
        (Signal::TERM, 143),
        (Signal::INT, 130),
        (Signal::QUIT, 131),
        (Signal::HUP, 129),
    ] {
        let mut terminal = Terminal::top(&admin, "worker-one").await;
        terminal.process.signal(signal);
        assert_eq!(terminal.left().await, Some(code), "{signal:?}");
    }
}

#[tokio::test]
async fn a_broker_that_is_gone_is_tried_again() {
    let mut admin = admin();
    let mut terminal = Terminal::top(&admin, "worker-one").await;
    admin.stop();
    terminal.shows("answer").await;
    admin.state().workers[0].worker_id = "worker-two".to_owned();
    admin.start_again().await;
    // Of the name, only what is other than before is written.
    terminal.shows("two").await;
    terminal.press("p");
    terminal.shows("paused").await;
    terminal.press("\tspq");
    assert_eq!(terminal.left().await, Some(0));
}

#[tokio::test]
async fn a_terminal_that_is_gone_ends_it_in_order() {
    let admin = admin();
    let (mut terminal, mut process) =
        on_terminal(&admin, |terminal| terminal.try_clone().unwrap().into());
    let mut written = Vec::new();
    while !String::from_utf8_lossy(&written).contains("worker-one") {
        let mut bytes = [0; 4096];
        let count = terminal.read(&mut bytes).unwrap();
        written.extend_from_slice(&bytes[..count]);
    }
    drop(terminal);
    let code = process.exit_code().await;
    assert!(matches!(code, Some(0 | 2)), "no signal, no panic: {code:?}");
}
