//! What Linux knows of a process.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// CPU time of all its threads so far, in user and kernel mode.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = read(pid, "stat")?;
    let ticks = ticks(&stat).with_context(|| format!("/proc/{pid}/stat is not as expected"))?;
    Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}

/// The most memory that it had in RAM at any time, in bytes.
pub(crate) fn peak_memory(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmHWM:")
}

/// The memory that it has in RAM, in bytes.
pub(crate) fn resident_memory(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, key: &str) -> anyhow::Result<u64> {
    let status = read(pid, "status")?;
    let kibibytes = kibibytes(&status, key);
    let kibibytes = kibibytes.with_context(|| format!("no {key} in /proc/{pid}/status"))?;
    Ok(kibibytes * 1024)
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// utime and stime. The command's name stands before them in parentheses and may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut times = behind_name.split_ascii_whitespace().skip(11);
    let utime: u64 = times.next()?.parse().ok()?;
    let stime: u64 = times.next()?.parse().ok()?;
    Some(utime + stime)
}

fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{kibibytes, ticks};

    #[test]
    fn the_ticks_stand_behind_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 42 8 0 0 20 0 1 0 1 1 1";
        assert_eq!(ticks(stat), Some(50));
    }

    #[test]
    fn memory_is_found_by_its_key() {
        let status = "Name:\tx\nVmHWM:\t    1234 kB\nVmRSS:\t     999 kB\n";
        assert_eq!(kibibytes(status, "VmHWM:"), Some(1234));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = std::process::id();
        super::cpu(pid).unwrap();
        // No comparison of the two: the kernel sums them up at different moments.
        assert!(super::peak_memory(pid).unwrap() > 0);
        assert!(super::resident_memory(pid).unwrap() > 0);
    }
}
