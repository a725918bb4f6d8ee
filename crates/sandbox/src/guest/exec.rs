//! Programs started, watched and ended.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::process::{Pid, Resource, Rlimit, WaitStatus};

use super::tree::{self, Tree};
use super::{Interest, Ready, Slot};
use crate::spec::{Limits, PATH};
use crate::sys::{self, Cloned};
use crate::wire::{self, ExecEvent, ExecRequest};

/// More programs at a time than a session asks for; each costs two descriptors.
const MAX_EXECS: usize = 256;
/// Groups of ended execs are tried to be removed this many at a time: those with children left stay.
const MAX_LEFTOVERS_TRIED: usize = 32;

/// All programs that the server asked for.
pub(super) struct Execs {
    group: Option<OwnedFd>,
    limits: Limits,
    next: u64,
    running: Vec<Running>,
    /// Trees of ended execs that left children behind.
    leftovers: Vec<Tree>,
    /// Each child's in turn, until it has become its program.
    stack: sys::ChildStack,
}

struct Running {
    pid: Pid,
    channel: OwnedFd,
    tree: Tree,
    deadline: Option<Instant>,
    status: Option<ExecEvent>,
    ending: Option<Ending>,
    slots: (Slot, Slot),
}

/// Why everything that an exec started is being killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    TimedOut,
    Asked,
}

impl Execs {
    pub(super) fn new(group: Option<OwnedFd>, limits: Limits) -> Self {
        Self {
            group,
            limits,
            next: 0,
            running: Vec::new(),
            leftovers: Vec::new(),
            stack: sys::ChildStack::new(),
        }
    }

    /// Returns true when nothing that was started is left.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.leftovers.is_empty()
    }

    /// Starts one program; the four descriptors are its streams and its channel.
    pub(super) fn start(&mut self, request: ExecRequest, descriptors: Vec<OwnedFd>, now: Instant) {
        let Ok([stdin, stdout, stderr, channel]) = <[OwnedFd; 4]>::try_from(descriptors) else { return };
        if self.running.len() >= MAX_EXECS {
            tell(&channel, &ExecEvent::Full);
            return;
        }
        self.sweep_leftovers();
        let deadline = request.timeout_ms.map(|timeout| now + Duration::from_millis(timeout));
        match self.spawn(&request, [stdin, stdout, stderr]) {
            Ok((pid, tree)) => {
                tell(&channel, &ExecEvent::Started);
                let slots = (Slot::NONE, Slot::NONE);
                self.running.push(Running {
                    pid,
                    channel,
                    tree,
                    deadline,
                    status: None,
                    ending: None,
                    slots,
                });
            }
            Err((step, error)) => {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                tell(&channel, &ExecEvent::Failed { step: step.to_owned(), errno });
            }
        }
    }

    fn spawn(
        &mut self,
        request: &ExecRequest,
        streams: [OwnedFd; 3],
    ) -> Result<(Pid, Tree), (&'static str, io::Error)> {
        let at = |step: &'static str| move |error: io::Error| (step, error);
        let program = Program::new(request).ok_or(("argv", io::Error::from_raw_os_error(libc::EINVAL)))?;
        let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(io::Error::from)
            .map_err(at("pipe"))?;
        let limits = self.limits.clone();
        let tree = match &self.group {
            Some(group) => {
                self.next += 1;
                tree::Group::make(group, format!("e{}", self.next))
                    .map(Tree::Group)
                    .map_err(at("control group"))?
            }
            None => Tree::subreaper().map_err(at("pipe"))?,
        };
        let program = || become_program(&program, &streams, &limits);
        let child = match &tree {
            // Asleep until the child has become the program, or has failed to: then it is known which.
            Tree::Group(group) => {
                sys::spawn(|| tree::run(program, &writing), Some(group.directory()), &mut self.stack)
            }
            // This child does not become the program but waits for it.
            Tree::Subreaper(subreaper) => sys::clone3(0, None).map(|cloned| match cloned {
                Cloned::Child => subreaper.run(program, &writing),
                Cloned::Parent { pid, .. } => pid,
            }),
        };
        drop(writing);
        let failure = match child {
            Ok(pid) => match read_failure(&reading) {
                None => return Ok((pid, tree.started(pid))),
                // The child ends by itself; the loop reaps it like any orphan.
                Some(failure) => failure,
            },
            Err(error) => ("new process", error),
        };
        self.leftovers.push(tree);
        Err(failure)
    }

    pub(super) fn watch<'a>(&'a mut self, interest: &mut Interest<'a>, now: Instant) {
        for one in &mut self.running {
            one.slots.0 = interest.add(one.channel.as_fd(), PollFlags::IN);
            one.slots.1 = Slot::NONE;
            if let Some((descriptor, flags)) = one.tree.watch(one.ending.is_some()) {
                one.slots.1 = interest.add(descriptor, flags);
            }
            match one.ending {
                None => one.deadline.into_iter().for_each(|deadline| interest.wake_at(deadline)),
                Some(_) => one.tree.next_kill(now).into_iter().for_each(|time| interest.wake_at(time)),
            }
        }
    }

    /// Learns that a process of ours has ended.
    pub(super) fn reaped(&mut self, pid: Pid, status: WaitStatus) {
        for tree in &mut self.leftovers {
            tree.reaped(pid, None, status);
        }
        for one in &mut self.running {
            if let Some(status) = one.tree.reaped(pid, Some(one.pid), status) {
                one.status.get_or_insert(status);
            }
        }
    }

    /// Ends what is due, reports what has ended.
    pub(super) fn advance(&mut self, ready: &Ready, now: Instant) {
        let left = self.leftovers.iter().filter_map(Tree::root);
        let keep: Vec<Pid> = self.running.iter().map(|one| one.pid).chain(left).collect();
        let mut ended = Vec::new();
        for one in &mut self.running {
            if let Some(status) = one.tree.take_status(ready.is(one.slots.1)) {
                one.status.get_or_insert(status);
            }
            let asked = ready.is(one.slots.0);
            let late = one.deadline.is_some_and(|deadline| now >= deadline);
            let due = one.status.is_none() && (asked || late);
            if one.ending.is_none() && (due || one.tree.is_broken()) {
                one.ending = Some(if late { Ending::TimedOut } else { Ending::Asked });
                one.tree.kill(&keep, now);
            } else if one.ending.is_some() {
                one.tree.kill_again(&keep, now);
            }
        }
        let mut index = 0;
        while index < self.running.len() {
            if self.running[index].has_ended() {
                ended.push(self.running.swap_remove(index));
            } else {
                index += 1;
            }
        }
        for one in ended {
            one.report();
            self.leftovers.push(one.tree);
        }
        if !self.leftovers.is_empty() {
            self.sweep_leftovers();
        }
    }

    fn sweep_leftovers(&mut self) {
        let mut tries = MAX_LEFTOVERS_TRIED;
        let group = self.group.as_ref();
        self.leftovers.retain(|tree| {
            let gone = tries > 0 && tree.remove(group);
            tries = tries.saturating_sub(1);
            !gone
        });
    }
}

impl Running {
    fn has_ended(&self) -> bool {
        self.status.is_some() && (self.ending.is_none() || self.tree.is_empty())
    }

    fn report(&self) {
        let event = match (self.ending, &self.status) {
            (Some(Ending::TimedOut), _) => ExecEvent::TimedOut,
            (_, Some(status)) => status.clone(),
            (_, None) => ExecEvent::Signaled { signal: libc::SIGKILL },
        };
        tell(&self.channel, &event);
    }
}

fn tell(channel: &OwnedFd, event: &ExecEvent) {
    // The server may have stopped listening; then there is nobody to tell.
    if let Ok(packet) = wire::Packet::new(event) {
        let _ = packet.send(channel, &[], rustix::net::SendFlags::DONTWAIT);
    }
}

/// A program ready to be executed: everything is allocated before the fork.
struct Program {
    candidates: Vec<CString>,
    argv: sys::CStrings,
    env: sys::CStrings,
    cwd: CString,
}

impl Program {
    fn new(request: &ExecRequest) -> Option<Self> {
        let program = request.argv.first().filter(|program| !program.is_empty())?;
        let candidates = if program.contains('/') {
            vec![CString::new(program.as_bytes()).ok()?]
        } else {
            let path =
                request.env.iter().rev().find(|(name, _)| name == "PATH").map_or(PATH, |(_, path)| path);
            let folders = path.split(':').filter(|folder| folder.starts_with('/'));
            folders.filter_map(|folder| CString::new(format!("{folder}/{program}")).ok()).collect()
        };
        let entry = |(name, value): &(String, String)| [name.as_bytes(), b"=", value.as_bytes()].concat();
        Some(Self {
            candidates,
            argv: sys::CStrings::new(request.argv.iter().map(|one| one.clone().into_bytes()))?,
            env: sys::CStrings::new(request.env.iter().map(entry))?,
            cwd: CString::new(request.cwd.as_os_str().as_bytes()).ok()?,
        })
    }

    /// Becomes the first candidate that can be executed; returns the most telling reason why none can.
    fn execute(&self) -> io::Error {
        let mut reason = io::Error::from_raw_os_error(libc::ENOENT);
        for candidate in &self.candidates {
            let error = sys::execve(candidate, &self.argv, &self.env);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => (),
                Some(libc::EACCES) => reason = error,
                _ => return error,
            }
        }
        reason
    }
}

/// In the child: becomes the program, or says at which step it could not.
fn become_program(program: &Program, streams: &[OwnedFd; 3], limits: &Limits) -> (Step, io::Error) {
    let prepare = || -> Result<(), (Step, io::Error)> {
        let at = |step: Step| move |error: rustix::io::Errno| (step, io::Error::from(error));
        rustix::process::setsid().map_err(at(Step::Process))?;
        sys::reset_signals();
        for (stream, number) in streams.iter().zip(0..) {
            sys::place_descriptor(stream.as_fd(), number).map_err(|error| (Step::Process, error))?;
        }
        sys::close_on_exec_from(3).map_err(|error| (Step::Process, error))?;
        limit(Resource::Nofile, limits.open_files).map_err(at(Step::Process))?;
        rustix::process::chdir(&program.cwd).map_err(at(Step::Cwd))?;
        sys::install_filter(&crate::seccomp::exec_filter()).map_err(|error| (Step::Process, error))
    };
    match prepare() {
        Ok(()) => (Step::Exec, program.execute()),
        Err(failed) => failed,
    }
}

fn limit(resource: Resource, value: u64) -> rustix::io::Result<()> {
    let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = Some(value.min(hard));
    rustix::process::setrlimit(resource, Rlimit { current: value, maximum: value })
}

/// How far a child came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Process,
    Cwd,
    Exec,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Process => "new process",
            Self::Cwd => "cwd",
            Self::Exec => "exec",
        }
    }
}

/// In the child: tells the parent and ends.
pub(super) fn fail(writing: &OwnedFd, (step, error): (Step, io::Error)) -> ! {
    let mut message = [step as u8, 0, 0, 0, 0];
    message[1..].copy_from_slice(&error.raw_os_error().unwrap_or(libc::EINVAL).to_ne_bytes());
    let _ = rustix::io::write(writing, &message);
    sys::exit_now(127)
}

/// Returns what a child said before it ended; nothing when it became the program.
fn read_failure(reading: &OwnedFd) -> Option<(&'static str, io::Error)> {
    let mut message = [0; 5];
    let read = loop {
        match rustix::io::read(reading, &mut message) {
            Err(rustix::io::Errno::INTR) => (),
            other => break other.ok()?,
        }
    };
    if read < message.len() {
        return None;
    }
    let step = [Step::Process, Step::Cwd, Step::Exec].into_iter().find(|step| *step as u8 == message[0])?;
    let errno = i32::from_ne_bytes([message[1], message[2], message[3], message[4]]);
    Some((step.name(), io::Error::from_raw_os_error(errno)))
}
