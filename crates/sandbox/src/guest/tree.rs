//! Everything that one exec started, however it tried to hide: forked twice, with a session of its own.
//!
//! With control groups of version 2 the kernel knows. Without, a subreaper stands between the guest and the program:
//! what loses its parent becomes the subreaper's child, so that the tree below it is complete. A program can kill its
//! subreaper (they have the same user id); then, and only then, everything that has no known parent is killed with it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use super::exec::{Step, fail};
use crate::sys::{self, Cloned};
use crate::wire::ExecEvent;

/// How often a tree without a control group is walked again while it is being killed.
const KILL_AGAIN: Duration = Duration::from_millis(3);

pub(super) enum Tree {
    Group(Group),
    Subreaper(Subreaper),
}

/// An exec's own control group of version 2.
pub(super) struct Group {
    name: String,
    directory: OwnedFd,
    events: OwnedFd,
}

/// A process that waits for the program and everything that becomes an orphan below it.
pub(super) struct Subreaper {
    reading: OwnedFd,
    writing: Option<OwnedFd>,
    pid: Option<Pid>,
    ended: bool,
    /// It ended without having said how the program ended: something inside killed it.
    murdered: bool,
    told: bool,
    /// The last walk found nothing to kill.
    clear: bool,
    killed_at: Option<Instant>,
}

impl Group {
    pub(super) fn make(parent: &OwnedFd, name: String) -> io::Result<Self> {
        mkdirat(parent, name.as_str(), Mode::from_raw_mode(0o755))?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = openat(parent, name.as_str(), flags, Mode::empty())?;
        let events = openat(&directory, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { name, directory, events })
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    fn kill(&self) {
        if let Ok(kill) =
            openat(&self.directory, "cgroup.kill", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        {
            let _ = rustix::io::write(&kill, b"1");
        }
    }

    fn is_empty(&self) -> bool {
        let mut content = [0; 64];
        let read = rustix::io::pread(&self.events, &mut content, 0).unwrap_or(0);
        content[..read].starts_with(b"populated 0")
    }
}

impl Tree {
    pub(super) fn subreaper() -> io::Result<Self> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC;
        let (reading, writing) = rustix::pipe::pipe_with(flags)?;
        rustix::io::ioctl_fionbio(&reading, true)?;
        Ok(Self::Subreaper(Subreaper {
            reading,
            writing: Some(writing),
            pid: None,
            ended: false,
            murdered: false,
            told: false,
            clear: false,
            killed_at: None,
        }))
    }

    /// In the parent: the child runs.
    pub(super) fn started(mut self, pid: Pid) -> Self {
        if let Self::Subreaper(subreaper) = &mut self {
            subreaper.pid = Some(pid);
            subreaper.writing = None;
        }
        self
    }

    /// What to wait for beside signals.
    pub(super) fn watch(&self, ending: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match self {
            Self::Group(group) => ending.then(|| (group.events.as_fd(), PollFlags::PRI)),
            Self::Subreaper(subreaper) => {
                (!subreaper.told).then(|| (subreaper.reading.as_fd(), PollFlags::IN))
            }
        }
    }

    /// Returns how the program ended, when that is not what the reaped child says.
    pub(super) fn take_status(&mut self, ready: bool) -> Option<ExecEvent> {
        match self {
            Self::Subreaper(subreaper) if ready && !subreaper.told => subreaper.take_status(),
            Self::Subreaper(_) | Self::Group(_) => None,
        }
    }

    /// Learns that a child of the guest has ended; returns how the program ended, when that says so.
    pub(super) fn reaped(&mut self, pid: Pid, program: Option<Pid>, status: WaitStatus) -> Option<ExecEvent> {
        match self {
            Self::Group(_) => (program == Some(pid)).then(|| event(status.as_raw())),
            Self::Subreaper(subreaper) => {
                if subreaper.pid != Some(pid) {
                    return None;
                }
                subreaper.ended = true;
                let status = subreaper.take_status();
                subreaper.murdered = !subreaper.told;
                if subreaper.murdered { Some(ExecEvent::Signaled { signal: libc::SIGKILL }) } else { status }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Group(group) => group.is_empty(),
            Self::Subreaper(subreaper) => subreaper.ended && (!subreaper.murdered || subreaper.clear),
        }
    }

    /// Returns true when something inside killed what keeps this tree together.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Subreaper(Subreaper { murdered: true, .. }))
    }

    /// Returns the child of the guest that stands for this tree.
    pub(super) fn root(&self) -> Option<Pid> {
        match self {
            Self::Group(_) => None,
            Self::Subreaper(subreaper) => subreaper.pid,
        }
    }

    pub(super) fn next_kill(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Group(_) => None,
            Self::Subreaper(subreaper) => Some(subreaper.killed_at.unwrap_or(now) + KILL_AGAIN),
        }
    }

    /// Kills all of it. `keep` are the children of the guest that stand for execs.
    pub(super) fn kill(&mut self, keep: &[Pid], now: Instant) {
        match self {
            Self::Group(group) => group.kill(),
            Self::Subreaper(subreaper) => subreaper.kill(keep, now),
        }
    }

    pub(super) fn kill_again(&mut self, keep: &[Pid], now: Instant) {
        if let Self::Subreaper(subreaper) = self
            && subreaper.killed_at.is_none_or(|at| now >= at + KILL_AGAIN)
        {
            subreaper.kill(keep, now);
        }
    }

    /// Removes what stands for it in the kernel; false while something of it runs.
    pub(super) fn remove(&self, parent: Option<&OwnedFd>) -> bool {
        match (self, parent) {
            (Self::Group(group), Some(parent)) => !matches!(
                unlinkat(parent, group.name.as_str(), AtFlags::REMOVEDIR),
                Err(rustix::io::Errno::BUSY)
            ),
            (Self::Group(_), None) => true,
            (Self::Subreaper(subreaper), _) => subreaper.ended || subreaper.pid.is_none(),
        }
    }
}

/// In the child: becomes the program, or says why it could not.
pub(super) fn run(program: impl FnOnce() -> (Step, io::Error), failure: &OwnedFd) -> Infallible {
    fail(failure, program())
}

impl Subreaper {
    /// In the child: runs the program below itself and waits.
    pub(super) fn run(&self, program: impl FnOnce() -> (Step, io::Error), failure: &OwnedFd) -> ! {
        // Any process id says yes.
        if let Err(error) = rustix::process::set_child_subreaper(Some(Pid::INIT)) {
            fail(failure, (Step::Process, error.into()));
        }
        let child = match sys::clone3(libc::CLONE_VFORK as u64, None) {
            Ok(Cloned::Child) => fail(failure, program()),
            Ok(Cloned::Parent { pid, .. }) => pid,
            Err(error) => fail(failure, (Step::Process, error)),
        };
        // Nothing but the pipe stays open: who reads the program's output waits for its end.
        let Some(writing) = &self.writing else { sys::exit_now(1) };
        if sys::place_descriptor(writing.as_fd(), 3).is_err() || sys::close_from(4).is_err() {
            sys::exit_now(1);
        }
        // SAFETY: it was placed a moment ago, and whatever owned the number before is never used or dropped: this
        // process does nothing but wait, and ends without running destructors.
        let Some(writing) = (unsafe { sys::inherited(3) }) else { sys::exit_now(1) };
        // Until the last of them has ended: then there is nothing left to wait for.
        while let Ok(Some((pid, status))) = wait(WaitOptions::empty()) {
            if pid == child {
                let _ = rustix::io::write(&writing, &status.as_raw().to_ne_bytes());
            }
        }
        sys::exit_now(0)
    }

    fn take_status(&mut self) -> Option<ExecEvent> {
        let mut raw = [0; 4];
        match rustix::io::read(&self.reading, &mut raw) {
            Ok(4) if !self.told => {
                self.told = true;
                Some(event(i32::from_ne_bytes(raw)))
            }
            _ => None,
        }
    }

    fn kill(&mut self, keep: &[Pid], now: Instant) {
        self.killed_at = Some(now);
        let parents = parents();
        let below = |mut pid: i32, root: i32| loop {
            match parents.get(&pid) {
                Some(&parent) if parent == root => return true,
                Some(&parent) if parent > 1 => pid = parent,
                _ => return false,
            }
        };
        let root = self.pid.map_or(0, |pid| pid.as_raw_nonzero().get());
        self.clear = true;
        for &pid in parents.keys() {
            let known = keep.iter().any(|keep| {
                let keep = keep.as_raw_nonzero().get();
                keep == pid || below(pid, keep)
            });
            let orphan = self.murdered && pid != 1 && !known;
            if (root > 0 && below(pid, root)) || orphan {
                self.clear = false;
                let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
            }
        }
    }
}

/// Returns each process's parent, as this process namespace sees them.
fn parents() -> HashMap<i32, i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // "pid (name, which may hold anything) state parent …"
        let after_name = stat.iter().rposition(|&byte| byte == b')')?;
        let fields = std::str::from_utf8(&stat[after_name + 1..]).ok()?;
        Some((pid, fields.split_whitespace().nth(1)?.parse().ok()?))
    })
    .collect()
}

fn event(raw: i32) -> ExecEvent {
    if libc::WIFSIGNALED(raw) {
        ExecEvent::Signaled { signal: libc::WTERMSIG(raw) }
    } else {
        ExecEvent::Exited { code: libc::WEXITSTATUS(raw) }
    }
}
