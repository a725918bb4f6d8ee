//! Programs in a sandbox, seen from the server.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::SocketFlags;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use super::{answer, next, send, watched};
use crate::error::Error;
use crate::spec::{Exec, Exit, HOME, Names, PATH, Spec, Stdio};
use crate::wire::{self, ExecEvent, ExecRequest, Packet};

/// The kernel's own limit on one argument or variable.
const MAX_STRING_BYTES: usize = 128 << 10;
/// The kernel's limit on all together, with a stack of 8 MiB.
const MAX_STRINGS_BYTES: usize = 2 << 20;
/// More variables than any program reads.
const MAX_VARIABLES: usize = 4096;
/// After its timeout an exec is ended by the guest; a guest that does not say so within this time is broken.
const GRACE: Duration = Duration::from_secs(10);

/// What all execs of a sandbox begin with.
pub(super) struct Base {
    env: Vec<(String, String)>,
    cwd: PathBuf,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base").field("env", &Names(&self.env)).field("cwd", &self.cwd).finish()
    }
}

impl Base {
    pub(super) fn new(spec: &Spec) -> Self {
        let home = spec.home.as_ref().map_or(HOME.into(), |home| home.inside.to_string_lossy().into_owned());
        let floor = vec![("PATH".to_owned(), PATH.to_owned()), ("HOME".to_owned(), home)];
        Self { env: merged(floor, &spec.env), cwd: spec.workspace.inside.clone() }
    }
}

/// A program that runs in a sandbox. Dropping it ends everything that it started.
#[derive(Debug)]
pub struct Process {
    /// The writing end of its input, when piped.
    pub stdin: Option<pipe::Sender>,
    /// The reading end of its output, when piped.
    pub stdout: Option<pipe::Receiver>,
    /// The reading end of its error output, when piped.
    pub stderr: Option<pipe::Receiver>,
    channel: AsyncFd<OwnedFd>,
    deadline: Option<tokio::time::Instant>,
    exit: Option<Exit>,
}

impl Process {
    /// Waits for its end. Can be dropped and called again.
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let event: Option<ExecEvent> = match self.deadline {
            None => next(&self.channel, "the guest").await?,
            Some(deadline) => tokio::time::timeout_at(deadline, next(&self.channel, "the guest"))
                .await
                .map_err(|_| Error::Unresponsive { peer: "the guest", seconds: GRACE.as_secs() })??,
        };
        let exit = event.ok_or(Error::SandboxGone)?.exit().ok_or(Error::Protocol {
            peer: "the guest",
            why: "an exec that ended twice or started late".to_owned(),
        })?;
        self.exit = Some(exit);
        Ok(exit)
    }

    /// Ends it and everything that it started; [`Process::wait`] then says how.
    pub async fn kill(&mut self) -> Result<(), Error> {
        match rustix::net::send(self.channel.get_ref(), b"k", rustix::net::SendFlags::NOSIGNAL) {
            // One request waiting is as good as two; and what has ended needs none.
            Ok(_)
            | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {
                Ok(())
            }
            Err(error) => Err(Error::io("reach the guest")(error.into())),
        }
    }
}

pub(super) async fn start(control: BorrowedFd<'_>, base: &Base, exec: Exec) -> Result<Process, Error> {
    let program = exec.argv.first().cloned().unwrap_or_default();
    let timeout = exec.timeout;
    let request = request(base, &exec)?;
    let packet = Packet::new(&request).map_err(Error::io("ask the guest"))?;
    let (stdin, our_stdin) = input(exec.stdin)?;
    let (stdout, our_stdout) = output(exec.stdout)?;
    let (stderr, our_stderr) = output(exec.stderr)?;
    let (channel, theirs) = wire::pair(SocketFlags::NONBLOCK).map_err(Error::io("make a socket pair"))?;
    let channel = watched(channel)?;
    let descriptors = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), theirs.as_fd()];
    send(&packet, control, &descriptors).await.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            Error::Unresponsive { peer: "the guest", seconds: super::PATIENCE.as_secs() }
        }
        _ => Error::SandboxGone,
    })?;
    // Only the guest holds these now, so that their ends are seen.
    drop((stdin, stdout, stderr, theirs));
    match answer(&channel, "the guest").await? {
        Some(ExecEvent::Started) => Ok(Process {
            stdin: our_stdin,
            stdout: our_stdout,
            stderr: our_stderr,
            channel,
            deadline: timeout.map(|timeout| tokio::time::Instant::now() + timeout + GRACE),
            exit: None,
        }),
        Some(ExecEvent::Failed { step, errno }) => Err(failed(&step, errno, program, &request)),
        Some(ExecEvent::Full) => {
            Err(Error::Capacity { what: "the number of programs at a time", limit: 256 })
        }
        Some(ExecEvent::Exited { .. } | ExecEvent::Signaled { .. } | ExecEvent::TimedOut) => {
            Err(Error::Protocol { peer: "the guest", why: "an exec that ended before it started".to_owned() })
        }
        None => Err(Error::SandboxGone),
    }
}

fn failed(step: &str, errno: i32, program: String, request: &ExecRequest) -> Error {
    let cause = io::Error::from_raw_os_error(errno);
    match step {
        "exec" => Error::Exec { program, cause },
        "cwd" => Error::invalid("cwd", format!("{}: {cause}", request.cwd.display())),
        "new process" | "control group" | "pipe" | "argv" => {
            Error::Exec { program, cause: io::Error::new(cause.kind(), format!("{step}: {cause}")) }
        }
        _ => Error::Protocol { peer: "the guest", why: "an unknown step".to_owned() },
    }
}

fn request(base: &Base, exec: &Exec) -> Result<ExecRequest, Error> {
    if exec.argv.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("argv", "no program"));
    }
    check_environment(&exec.env)?;
    let env = merged(base.env.clone(), &exec.env);
    let lengths =
        exec.argv.iter().map(String::len).chain(env.iter().map(|(name, value)| name.len() + value.len() + 1));
    let mut all = 0;
    for length in lengths {
        if length >= MAX_STRING_BYTES {
            return Err(Error::invalid(
                "argv",
                format!(
                    "an argument or variable of {length} bytes; the kernel takes {}",
                    MAX_STRING_BYTES - 1
                ),
            ));
        }
        all += length + 9;
    }
    if all > MAX_STRINGS_BYTES {
        return Err(Error::invalid(
            "argv",
            format!("{all} bytes with the environment; the kernel takes {MAX_STRINGS_BYTES}"),
        ));
    }
    if exec.argv.iter().any(|argument| argument.contains('\0')) {
        return Err(Error::invalid("argv", "a NUL byte"));
    }
    let cwd = exec.cwd.clone().unwrap_or_else(|| base.cwd.clone());
    if !cwd.is_absolute() || cwd.as_os_str().as_encoded_bytes().contains(&0) || cwd.to_str().is_none() {
        return Err(Error::invalid("cwd", "not an absolute path in UTF-8"));
    }
    let timeout_ms = exec.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    Ok(ExecRequest { argv: exec.argv.clone(), env, cwd, timeout_ms })
}

pub(super) fn check_environment(env: &[(String, String)]) -> Result<(), Error> {
    if env.len() > MAX_VARIABLES {
        return Err(Error::invalid("env", format!("more than {MAX_VARIABLES} variables")));
    }
    // A value may be a secret: only the name is shown.
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Error::invalid("env", format!("a variable's name: {name:?}")));
        }
        if value.contains('\0') {
            return Err(Error::invalid("env", format!("a NUL byte in {name}")));
        }
    }
    Ok(())
}

fn merged(mut base: Vec<(String, String)>, added: &[(String, String)]) -> Vec<(String, String)> {
    for (name, value) in added {
        match base.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.clone_from(value),
            None => base.push((name.clone(), value.clone())),
        }
    }
    base
}

fn null(flags: rustix::fs::OFlags) -> Result<OwnedFd, Error> {
    rustix::fs::open("/dev/null", flags | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .map_err(|error| Error::io("open /dev/null")(error.into()))
}

fn new_pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Error::io("make a pipe")(error.into()))
}

fn input(stdio: Stdio) -> Result<(OwnedFd, Option<pipe::Sender>), Error> {
    match stdio {
        Stdio::Null => Ok((null(rustix::fs::OFlags::RDONLY)?, None)),
        Stdio::Fd(descriptor) => Ok((descriptor, None)),
        Stdio::Piped => {
            let (reading, writing) = new_pipe()?;
            Ok((reading, Some(pipe::Sender::from_owned_fd(writing).map_err(Error::io("watch a pipe"))?)))
        }
    }
}

fn output(stdio: Stdio) -> Result<(OwnedFd, Option<pipe::Receiver>), Error> {
    match stdio {
        Stdio::Null => Ok((null(rustix::fs::OFlags::WRONLY)?, None)),
        Stdio::Fd(descriptor) => Ok((descriptor, None)),
        Stdio::Piped => {
            let (reading, writing) = new_pipe()?;
            Ok((writing, Some(pipe::Receiver::from_owned_fd(reading).map_err(Error::io("watch a pipe"))?)))
        }
    }
}
