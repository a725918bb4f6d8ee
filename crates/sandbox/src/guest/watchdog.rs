//! A limit on memory where control groups give none: looked at every now and then, so that a program can be over it for
//! a moment. What is over it loses its largest process, as the kernel would do.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Often enough that a program cannot take much more; seldom enough to cost nothing.
const INTERVAL: Duration = Duration::from_millis(250);

pub(super) struct Watchdog {
    limit_bytes: u64,
    next: Instant,
}

impl Watchdog {
    pub(super) fn new(limit_bytes: u64, now: Instant) -> Self {
        Self { limit_bytes, next: now + INTERVAL }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn advance(&mut self, now: Instant) {
        if now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        let processes = processes();
        let all: u64 = processes.iter().map(|(_, bytes)| bytes).sum();
        if all <= self.limit_bytes {
            return;
        }
        if let Some((pid, _)) = processes.into_iter().max_by_key(|(_, bytes)| *bytes) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Returns each process but this one with the memory that it shares with nobody.
fn processes() -> Vec<(Pid, u64)> {
    let page = crate::sys::page_bytes();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != 1)
        .filter_map(|pid| {
            let sizes = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
            let mut sizes = sizes.split_whitespace().skip(1).map_while(|size| size.parse::<u64>().ok());
            let (resident, shared) = (sizes.next()?, sizes.next()?);
            Some((Pid::from_raw(pid)?, resident.saturating_sub(shared).saturating_mul(page)))
        })
        .collect()
}
