//! The processes that a command started, as far as they can be found.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, child_subreaper, getpid, kill_process_group, pidfd_open,
    pidfd_send_signal, set_child_subreaper, waitpid,
};
use tokio::time::{Instant, sleep};

/// How long processes may take to end by themselves once asked.
const TERM_GRACE: Duration = Duration::from_millis(400);

/// How long a tree that goes on forking is killed after. What is left then, is left to the sandbox.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// Between two looks.
const POLL: Duration = Duration::from_millis(5);

/// Lets processes that lose their parent become children of this one, so that a call of Bash that is ended finds them,
/// and none stays as a zombie. For the `main` of a program that runs an agent; a library leaves it alone, and then
/// only what is still in the tree or the group of a command is ended with it.
pub fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Collects adopted processes that have ended. Bash does it after each call; a program that goes on for long without
/// one may do it now and then. Does nothing in a program that is no subreaper.
pub fn reap_orphans() {
    if has_children()
        && let Some(own) = Own::adopting()
    {
        reap(&own, &Process::all());
    }
}

/// Ends every process that this one has started or adopted, and all that they started: asked first, then killed. For
/// the end of a program that is a [child subreaper](become_subreaper), which leaves no process behind. Blocks.
#[expect(clippy::disallowed_methods, reason = "the program is at its end: no runtime is left to wait in")]
pub fn end_descendants() {
    if !has_children() {
        return;
    }
    for (signal, grace) in [(Signal::TERM, TERM_GRACE), (Signal::KILL, KILL_GRACE)] {
        let end = std::time::Instant::now() + grace;
        loop {
            let living = descendants();
            if living.is_empty() {
                return;
            }
            living.iter().for_each(|process| process.signal(signal));
            if std::time::Instant::now() >= end {
                break;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Whether there are any; much quicker than to look at all processes. Where it cannot be told, there may be.
fn has_children() -> bool {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return true };
    threads.flatten().any(|thread| {
        std::fs::read_to_string(thread.path().join("children"))
            .map_or(true, |children| !children.trim().is_empty())
    })
}

/// All that have not ended; those that have are collected.
fn descendants() -> Vec<Process> {
    let mut all = Process::all();
    let own = getpid().as_raw_pid();
    for process in all.iter().filter(|process| process.is_dead && process.parent == own) {
        let _ = waitpid(Pid::from_raw(process.id), WaitOptions::NOHANG);
    }
    let mut members = HashSet::from([own]);
    loop {
        let before = members.len();
        let children = all.iter().filter(|process| members.contains(&process.parent));
        members.extend(children.map(|process| process.id).collect::<Vec<_>>());
        if members.len() == before {
            break;
        }
    }
    all.retain(|process| process.id != own && !process.is_dead && members.contains(&process.id));
    all
}

/// The processes of one command: dropped, it kills them, unless it was let go.
#[derive(Debug)]
pub struct Tree {
    members: Members,
    held: bool,
}

impl Tree {
    pub fn of(shell: u32) -> Self {
        Self { members: Members::of(shell), held: true }
    }

    /// The command ended well: what it left behind may go on.
    pub fn let_go(&mut self) {
        self.held = false;
    }

    /// Ends all of it: asks first, then kills.
    pub async fn end(&mut self) {
        self.members.look(Some(Signal::TERM)).await;
        if !self.members.are_gone_within(TERM_GRACE, None).await {
            self.members.are_gone_within(KILL_GRACE, Some(Signal::KILL)).await;
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.held {
            // The call was dropped: there is no time to ask. A second look finds what was forked during the first.
            self.members.look_blocking(Some(Signal::KILL));
            self.members.look_blocking(Some(Signal::KILL));
        }
    }
}

/// What tells the processes of one command from others.
#[derive(Clone, Debug)]
struct Members {
    group: Pid,
    /// When the shell started, in ticks since the boot: what is older does not belong.
    since: u64,
    own: Option<Own>,
    /// Those found before, by id and start: one whose parent has ended since still belongs.
    found: HashSet<(i32, u64)>,
}

impl Members {
    fn of(shell: u32) -> Self {
        let id = i32::try_from(shell).expect("process ids are far below 2^31");
        let group = Pid::from_raw(id).expect("a child's process id is positive");
        let since = Process::read(id).map_or(u64::MAX, |process| process.started);
        Self { group, since, own: Own::adopting(), found: HashSet::new() }
    }

    /// Waits for all to be gone, with a signal to what is left at each look.
    async fn are_gone_within(&mut self, grace: Duration, signal: Option<Signal>) -> bool {
        let end = Instant::now() + grace;
        while self.look(signal).await {
            if Instant::now() >= end {
                return false;
            }
            sleep(POLL).await;
        }
        true
    }

    /// Says whether any are left, and sends them a signal.
    async fn look(&mut self, signal: Option<Signal>) -> bool {
        let mut members = self.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let are_left = members.look_blocking(signal);
            (members.found, are_left)
        });
        // It can only fail with the runtime, and then the tree is dropped.
        let Ok((found, are_left)) = looked.await else { return false };
        self.found = found;
        are_left
    }

    fn look_blocking(&mut self, signal: Option<Signal>) -> bool {
        let living = self.living();
        if let Some(signal) = signal.filter(|_| !living.is_empty()) {
            let _ = kill_process_group(self.group, signal);
            for process in living.iter().filter(|process| process.group != self.group.as_raw_pid()) {
                process.signal(signal);
            }
        }
        !living.is_empty()
    }

    /// Returns all that have not ended, and collects the adopted ones that have.
    fn living(&mut self) -> Vec<Process> {
        let mut all = Process::all();
        if let Some(own) = &self.own {
            reap(own, &all);
        }
        let mut members: HashSet<i32> = all.iter().filter(|p| self.is_root(p)).map(|p| p.id).collect();
        // A child may come before its parent in the list: until nothing is added.
        loop {
            let before = members.len();
            let children = all.iter().filter(|process| members.contains(&process.parent));
            members.extend(children.map(|process| process.id).collect::<Vec<_>>());
            if members.len() == before {
                break;
            }
        }
        all.retain(|process| !process.is_dead && members.contains(&process.id));
        self.found.extend(all.iter().map(|process| (process.id, process.started)));
        all
    }

    fn is_root(&self, process: &Process) -> bool {
        let shell = self.group.as_raw_pid();
        process.id == shell
            || process.group == shell
            || self.found.contains(&(process.id, process.started))
            || self.own.as_ref().is_some_and(|own| own.has_adopted(process) && process.started >= self.since)
    }
}

/// This process, if it adopts.
#[derive(Clone, Copy, Debug)]
struct Own {
    id: i32,
    group: i32,
    session: i32,
}

impl Own {
    fn adopting() -> Option<Self> {
        let adopts = getpid() == Pid::INIT || child_subreaper().is_ok_and(|set| set.is_some());
        if !adopts {
            return None;
        }
        // Not asked of `getsid` and `getpgrp`: whose leader is outside this pid namespace has the number 0, which
        // rustix takes for impossible.
        let own = Process::read(getpid().as_raw_pid())?;
        Some(Self { id: own.id, group: own.group, session: own.session })
    }

    /// Tells an adopted child from one that this process started: that one is in this session, and in this group or
    /// at the head of its own. A program of ours that makes itself a session looks adopted; collecting it early costs
    /// its exit status, no more.
    fn has_adopted(&self, process: &Process) -> bool {
        process.parent == self.id
            && (process.session != self.session
                || (process.group != process.id && process.group != self.group))
    }
}

fn reap(own: &Own, all: &[Process]) {
    for process in all.iter().filter(|process| process.is_dead && own.has_adopted(process)) {
        let _ = waitpid(Pid::from_raw(process.id), WaitOptions::NOHANG);
    }
}

/// A line of `/proc/<id>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    id: i32,
    parent: i32,
    group: i32,
    session: i32,
    started: u64,
    is_dead: bool,
}

impl Process {
    fn all() -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(Self::read).collect()
    }

    fn read(id: i32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{id}/stat")).ok()?;
        Self::parse(id, &stat)
    }

    /// The name of a process may hold anything, also spaces and parentheses; the last one closes it.
    fn parse(id: i32, stat: &[u8]) -> Option<Self> {
        let after = memchr::memrchr(b')', stat)? + 1;
        let fields: Vec<&str> = std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse().ok();
        Some(Self {
            id,
            is_dead: matches!(*fields.first()?, "Z" | "X"),
            parent: number(1)?,
            group: number(2)?,
            session: number(3)?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Sends a signal to this very process, not to one that has its number now.
    fn signal(&self, signal: Signal) {
        let Some(id) = Pid::from_raw(self.id) else { return };
        let Ok(handle) = pidfd_open(id, PidfdFlags::empty()) else { return };
        if Self::read(self.id).is_some_and(|now| now.started == self.started) {
            let _ = pidfd_send_signal(&handle, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processes_do_not_confuse() {
        let stat = b"42 (a) R 1 2 3) Z 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0\n";
        assert_eq!(
            Process::parse(42, stat),
            Some(Process { id: 42, parent: 7, group: 8, session: 9, started: 12345, is_dead: true })
        );
        for broken in [b"".as_slice(), b"42 (x", b"42 (x) S 1", b"42 (x) \xff 1 2 3"] {
            assert_eq!(Process::parse(42, broken), None);
        }
        let own = Process::read(getpid().as_raw_pid()).unwrap();
        assert!(!own.is_dead && Process::all().contains(&own));
    }
}
