//! The launcher: one resident single-threaded process that makes sandboxes and, when the server is gone, unmakes them.
//!
//! It is asked over a packet socket (its standard input). The end of that socket is the end of the server, however it
//! came, and then everything goes.

mod idmap;
mod make;
mod view;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::process::{Signal, WaitIdOptions, pidfd_send_signal, waitid};

use crate::cgroup::Groups;
use crate::spec::{Capabilities, Missing};
use crate::sys;
use crate::wire::{self, Failure, Greeting, Reply, Request, Version};

/// More sandboxes than one host should hold; a leak in the server stops here.
const MAX_SANDBOXES: usize = 1024;
/// A launcher of a server that has just been killed needs this long at most to clean up and let go.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// How soon a group that could not be removed is tried again.
const RETRY: Duration = Duration::from_millis(2);
/// How long the end may take; what is left then is the next launcher's to sweep.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// Runs the launcher until its server is gone.
pub(crate) fn main() -> io::Result<()> {
    // SAFETY: the server made its end of the socket our standard input, and nothing else here uses it.
    let socket =
        unsafe { sys::inherited(0) }.ok_or_else(|| io::Error::other("no socket as standard input"))?;
    // A terminal's Ctrl-C is for the server, which then closes its end.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::chdir("/")?;
    let signals = sys::signal_descriptor(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;

    let Some((Request::Hello { version, libexec_dir, state_dir }, _)) = wire::receive(&socket)? else {
        return Err(io::Error::other("the server did not begin with its version"));
    };
    wire::send(&socket, &Reply::Hello { version: Version::ours() })?;
    if version != Version::ours() {
        return Ok(());
    }
    match Launcher::open(&libexec_dir, &state_dir) {
        Ok(mut launcher) => {
            wire::send(&socket, &Reply::Ready { capabilities: launcher.capabilities.clone() })?;
            let result = launcher.serve(&socket, &signals);
            drop(socket);
            launcher.shut_down();
            result
        }
        Err(failure) => wire::send(&socket, &Reply::Failed(failure)),
    }
}

/// Waits without another thread or a timer to wait for: for the few places that retry what the kernel finishes by itself.
pub(crate) fn pause(time: Duration) {
    let _ = poll(&mut [], Some(&timespec(time)));
}

pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}

struct Launcher {
    capabilities: Capabilities,
    groups: Groups,
    view: view::View,
    id_maps: idmap::Cache,
    masked: Vec<String>,
    sandboxes: Vec<Sandbox>,
    /// Held until the process ends: no other launcher uses the folder.
    _lock: File,
}

struct Sandbox {
    name: String,
    pidfd: OwnedFd,
    /// Our end of the pair whose other end the guest watches: it goes when we go.
    _life: OwnedFd,
    /// Who waits for it to be gone.
    waiting: Vec<OwnedFd>,
    /// Its first process has been reaped, and so all others; groups may remain.
    dead: bool,
}

impl Launcher {
    fn open(libexec_dir: &Path, state_dir: &Path) -> Result<Self, Failure> {
        let guest = libexec_dir.join("wardian-guest");
        if !guest.is_file() {
            return Err(Failure::MissingProgram { path: guest });
        }
        let (lock, state_dir) = lock(state_dir)?;
        let mut missing = Vec::new();
        // Sweeps: when the lock is ours, nobody owns what is in the groups of this folder.
        let groups = Groups::open(&group_name(&state_dir), &state_dir.join("groups"), &mut missing);
        let privileged = make::enter_own_namespaces()?;
        let view = view::View::prepare(&state_dir, libexec_dir)?;
        let mut id_maps = idmap::Cache::default();
        let idmapped_mounts = privileged && id_maps.works(&state_dir, &mut missing);
        let agent = view.has_agent();
        if !agent {
            missing.push(Missing {
                what: format!("{}", libexec_dir.join("wardian-agent").display()),
                mend: wire::BUILD_HINT.to_owned(),
            });
        }
        let capabilities = Capabilities {
            tier: wire::tier(groups.limit()),
            uid_per_tenant: privileged,
            idmapped_mounts,
            exec_groups: groups.unified(),
            agent,
            missing,
        };
        let masked = crate::namespace::masked();
        Ok(Self { capabilities, groups, view, id_maps, masked, sandboxes: Vec::new(), _lock: lock })
    }

    /// Answers until the server is gone or a signal asks to end.
    fn serve(&mut self, socket: &OwnedFd, signals: &OwnedFd) -> io::Result<()> {
        loop {
            let unfinished = self.sandboxes.iter().any(|sandbox| sandbox.dead);
            let mut events = vec![PollFd::new(socket, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            let alive = self.sandboxes.iter().filter(|sandbox| !sandbox.dead);
            events.extend(alive.map(|sandbox| PollFd::new(&sandbox.pidfd, PollFlags::IN)));
            match poll(&mut events, unfinished.then(|| timespec(RETRY)).as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => (),
                Err(error) => return Err(error.into()),
            }
            let ended = events[2..].iter().any(|event| !event.revents().is_empty());
            let (asked, signalled) = (!events[0].revents().is_empty(), !events[1].revents().is_empty());
            drop(events);
            if ended || unfinished {
                self.reap();
            }
            if signalled {
                return Ok(());
            }
            if asked {
                match wire::receive(socket)? {
                    Some((request, descriptors)) => self.answer(request, descriptors),
                    None => return Ok(()),
                }
            }
        }
    }

    fn answer(&mut self, request: Request, mut descriptors: Vec<OwnedFd>) {
        // Each request brings one descriptor; without it there is nobody to answer.
        let Some(peer) = descriptors.pop() else { return };
        match request {
            Request::Hello { .. } => {
                reply(&peer, &Reply::Failed(Failure::invalid("message", "hello comes first and once")))
            }
            Request::Ping => reply(&peer, &Reply::Done),
            Request::List => {
                let names = self.sandboxes.iter().map(|sandbox| sandbox.name.clone()).collect();
                reply(&peer, &Reply::Names { names });
            }
            Request::Create(create) => {
                if let Err(failure) = self.create(*create, &peer) {
                    let _ = wire::send(&peer, &Greeting::Failed(failure));
                }
            }
            Request::Destroy { name } => self.destroy(&name, peer),
        }
    }

    fn destroy(&mut self, name: &str, peer: OwnedFd) {
        match self.sandboxes.iter_mut().find(|sandbox| sandbox.name == name) {
            None => reply(&peer, &Reply::Done),
            Some(sandbox) => {
                let _ = pidfd_send_signal(&sandbox.pidfd, Signal::KILL);
                sandbox.waiting.push(peer);
            }
        }
    }

    /// Takes leave of the sandboxes whose first process has ended.
    fn reap(&mut self) {
        let groups = &self.groups;
        self.sandboxes.retain_mut(|sandbox| {
            sandbox.dead = sandbox.dead || has_ended(&sandbox.pidfd);
            let gone = sandbox.dead && groups.remove(&sandbox.name);
            if gone {
                sandbox.waiting.drain(..).for_each(|peer| reply(&peer, &Reply::Done));
            }
            !gone
        });
    }

    fn shut_down(mut self) {
        self.groups.kill_all();
        for sandbox in &self.sandboxes {
            let _ = pidfd_send_signal(&sandbox.pidfd, Signal::KILL);
        }
        let deadline = Instant::now() + SHUTDOWN_PATIENCE;
        self.reap();
        while !self.sandboxes.is_empty() && Instant::now() < deadline {
            pause(RETRY);
            self.reap();
        }
        self.groups.close();
        self.view.remove();
    }
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), options) {
        Ok(status) => status.is_some(),
        Err(rustix::io::Errno::CHILD) => true,
        Err(_) => false,
    }
}

fn reply(peer: &OwnedFd, value: &Reply) {
    // The server may have stopped waiting; then there is nobody to tell.
    if let Ok(json) = serde_json::to_vec(value) {
        let _ = rustix::net::send(
            peer,
            &json,
            rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT,
        );
    }
}

fn lock(state_dir: &Path) -> Result<(File, PathBuf), Failure> {
    let failed = |error: io::Error| {
        Failure::isolation(
            format!("state folder {}", state_dir.display()),
            error,
            "give the server a data folder that it can write",
        )
    };
    fs::create_dir_all(state_dir).map_err(failed)?;
    let state_dir = state_dir.canonicalize().map_err(failed)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(state_dir.join("lock"))
        .map_err(failed)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok((file, state_dir)),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => pause(RETRY),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Failure::StateDirBusy { path: state_dir }),
            Err(error) => return Err(failed(error.into())),
        }
    }
}

/// The name of a launcher's groups: the same for the same folder, so that the next one finds them.
fn group_name(state_dir: &Path) -> String {
    format!("wardian-{:016x}", crate::spec::stable_hash(state_dir.as_os_str().as_encoded_bytes()))
}
