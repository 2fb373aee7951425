//! The lines that wait to be written by a thread of their own: whoever logs never waits for whoever reads the log.

use std::io::{self, Write};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// What may wait. Beyond it lines are dropped and counted.
const MOST_BYTES: usize = 1 << 20;

/// A bounded queue of lines.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// A line came.
    came: Condvar,
    /// All lines that had come are written.
    written: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// A line was dropped behind these. So that the gap stays in one place, all are until these are taken.
    has_gap: bool,
    /// Since the start.
    lost: u64,
    is_writing: bool,
}

impl Queue {
    /// Starts the thread, which writes for as long as the process runs.
    pub(super) fn start(to: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self::default());
        let taken = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || taken.write(to))?;
        Ok(queue)
    }

    /// Adds whole lines, if there is room.
    pub(super) fn push(&self, lines: &[u8]) {
        let mut waiting = self.waiting.lock();
        if waiting.has_gap || waiting.lines.len() + lines.len() > MOST_BYTES {
            waiting.has_gap = true;
            waiting.lost += 1;
        } else {
            waiting.lines.extend_from_slice(lines);
        }
        drop(waiting);
        self.came.notify_one();
    }

    /// Waits until everything is written, but not longer than this.
    pub(super) fn finish(&self, patience: Duration) {
        let mut waiting = self.waiting.lock();
        let is_left = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        self.written.wait_while_for(&mut waiting, is_left, patience);
    }

    fn write(&self, mut to: impl Write) {
        let mut lines = Vec::new();
        loop {
            let lost = self.take(&mut lines);
            // One by one: other processes may write to the same pipe.
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                // There is nobody whom it could be told.
                let _ = to.write_all(line);
            }
            if let Some(lost) = lost {
                tracing::warn!(lines.lost = lost, "lines of this log were lost");
            }
        }
    }

    /// Waits for lines, or for one too large to be kept. If some were dropped behind them, how many that makes since the start.
    fn take(&self, lines: &mut Vec<u8>) -> Option<u64> {
        lines.clear();
        let mut waiting = self.waiting.lock();
        waiting.is_writing = false;
        if waiting.lines.is_empty() {
            self.written.notify_all();
        }
        let nothing_came = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.has_gap;
        self.came.wait_while(&mut waiting, nothing_came);
        waiting.is_writing = true;
        mem::swap(&mut waiting.lines, lines);
        mem::take(&mut waiting.has_gap).then_some(waiting.lost)
    }
}

/// Writes into the queue, a line at a time.
pub(super) struct Writer(pub(super) Arc<Queue>);

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A reader who takes a line when the test lets go of one.
    struct Reader {
        go: Receiver<()>,
        lines: Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.go.recv();
            let _ = self.lines.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_no_time() {
        let (go, stalled) = channel();
        let (lines, read) = channel();
        let queue = Queue::start(Reader { go: stalled, lines }).unwrap();
        let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
        for _ in 0..5_000 {
            queue.push(&line);
        }
        assert!(queue.waiting.lock().lost >= 5_000 - 2 * 1_024);
        queue.finish(Duration::ZERO);
        // Goes on: what was kept is written.
        drop(go);
        queue.finish(Duration::from_mins(1));
        let lost = usize::try_from(queue.waiting.lock().lost).unwrap();
        assert_eq!(read.try_iter().count(), 5_000 - lost);
        queue.push(b"again\n");
        assert_eq!(read.recv().unwrap(), b"again\n");
    }

    #[test]
    fn a_line_that_is_larger_than_the_queue_does_not_stop_the_log() {
        let (go, stalled) = channel();
        drop(go);
        let (lines, read) = channel();
        let queue = Queue::start(Reader { go: stalled, lines }).unwrap();
        queue.push(&vec![b'x'; MOST_BYTES + 1]);
        // Until the gap is seen lines are lost with it.
        let again = (0..60_000).any(|_| {
            queue.push(b"again\n");
            read.recv_timeout(Duration::from_millis(1)).is_ok()
        });
        assert!(again);
    }

    #[test]
    fn whoever_lets_go_of_the_log_waits_for_its_last_lines() {
        let (go, stalled) = channel();
        let (lines, read) = channel();
        let queue = Queue::start(Reader { go: stalled, lines }).unwrap();
        for _ in 0..500 {
            queue.push(b"line\n");
        }
        drop(go);
        drop(super::super::Log { queue: Some(queue) });
        assert_eq!(read.try_iter().count(), 500);
    }
}
