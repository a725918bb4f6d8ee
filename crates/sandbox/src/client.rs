//! The server's side: the launcher's handle, the sandbox's, the process's.
//!
//! Each question to the launcher brings a socket of its own to be answered on, and each exec a channel of its own: no
//! task reads on behalf of others, and dropping a future or a handle is always safe.

mod process;
mod tenants;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::{SendFlags, SocketFlags};
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use process::Process;

use crate::error::Error;
use crate::spec::{Capabilities, Exec, LauncherConfig, Spec, Tier};
use crate::wire::{self, BUILD_HINT, Create, Greeting, GuestConfig, Packet, Reply, Request, Version};

/// The launcher answers in milliseconds; this long only on a host that is about to fall over.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a full socket is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// The resident process that makes sandboxes, one a server.
///
/// When the last handle (a sandbox is one, too) is dropped, or the server dies, the launcher ends all sandboxes.
#[derive(Debug)]
pub struct Launcher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: OwnedFd,
    child: Mutex<Option<Child>>,
    config: LauncherConfig,
    capabilities: Capabilities,
    tenants: tenants::Tenants,
}

impl Launcher {
    /// Starts the launcher, sweeps what an earlier one left in the same state folder, and probes the host.
    /// Blocks for some milliseconds; needs no runtime.
    pub fn start(config: LauncherConfig) -> Result<Self, Error> {
        let program = config.libexec_dir.join("wardian-guest");
        if !program.is_file() {
            return Err(Error::MissingProgram { path: program, hint: BUILD_HINT });
        }
        let (socket, theirs) = wire::pair(SocketFlags::empty()).map_err(Error::io("make a socket pair"))?;
        let child = Command::new(&program)
            .arg("launcher")
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(std::process::Stdio::null())
            .spawn()
            .map_err(Error::io(format!("start {}", program.display())))?;
        // From here on, dropping ends the child.
        let mut inner = Inner {
            socket,
            child: Mutex::new(Some(child)),
            tenants: tenants::Tenants::new(&config.state_dir),
            config,
            capabilities: Capabilities {
                tier: Tier::NoCgroup,
                uid_per_tenant: false,
                idmapped_mounts: false,
                exec_groups: false,
                agent: false,
                missing: Vec::new(),
            },
        };
        inner.capabilities = inner.greet()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns what this host can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    /// Makes a sandbox and waits until its guest answers.
    pub async fn create(&self, name: &str, spec: &Spec) -> Result<Sandbox, Error> {
        let uid = self.tenant_uid(spec.tenant.as_deref())?;
        let create = checked(name, spec, uid)?;
        let (control, theirs) = wire::pair(SocketFlags::NONBLOCK).map_err(Error::io("make a socket pair"))?;
        blocking(&theirs).map_err(Error::io("make a socket pair"))?;
        let config = GuestConfig {
            version: Version::ours(),
            port: spec.way_out.as_ref().map(|way_out| way_out.port),
            limits: spec.limits.clone(),
            tier: self.inner.capabilities.tier,
        };
        wire::send(&control, &config).map_err(Error::io("greet the guest"))?;
        let control = watched(control)?;
        let mut sandbox = Sandbox {
            name: name.to_owned(),
            control,
            base: process::Base::new(spec),
            tier: self.inner.capabilities.tier,
            launcher: Arc::clone(&self.inner),
            made: false,
        };
        self.inner.ask(&Request::Create(Box::new(create)), theirs).await?;
        // If this future is dropped now, the sandbox is destroyed by its handle's end.
        sandbox.made = true;
        let greeting = answer(&sandbox.control, "the guest").await;
        match greeting {
            Ok(Some(Greeting::Hello { version })) => version.check("the guest")?,
            Ok(Some(Greeting::Failed(failure))) => {
                // Only what this call made is ever destroyed: another sandbox may have the name. And it is waited for,
                // so that the name is free when the error is seen.
                if matches!(failure, wire::Failure::Exists { .. }) {
                    sandbox.made = false;
                } else {
                    sandbox.destroy().await?;
                }
                return Err(failure.into_error());
            }
            Ok(None) => return Err(Error::SandboxGone),
            Err(error) => return Err(error),
        }
        Ok(sandbox)
    }

    /// Ends a sandbox: when it returns, no process, mount, cgroup or folder of it is left. One that does not exist is
    /// fine.
    pub async fn destroy(&self, name: &str) -> Result<(), Error> {
        self.inner.destroy(name).await
    }

    /// Returns the names of the sandboxes that exist.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        match self.inner.question(&Request::List).await? {
            Reply::Names { names } => Ok(names),
            other => Err(unexpected(&other)),
        }
    }

    /// Proves that the launcher answers.
    pub async fn health(&self) -> Result<(), Error> {
        self.inner.done(&Request::Ping).await
    }

    /// Returns the host user id of a tenant's sandboxes; `None` without root, where it is the caller's own.
    pub fn tenant_uid(&self, tenant: Option<&str>) -> Result<Option<u32>, Error> {
        if !self.inner.capabilities.uid_per_tenant {
            return Ok(None);
        }
        self.inner.tenants.uid(tenant.unwrap_or_default()).map(Some)
    }

    /// Makes a folder (and its parents) that belongs to the tenant, if it is not there yet: a session's own volume.
    pub fn make_volume(&self, path: &Path, tenant: Option<&str>) -> Result<(), Error> {
        crate::volume::make(path, self.tenant_uid(tenant)?)
    }

    /// Ends all sandboxes and the launcher, and waits until nothing is left of them. Handles that are still there then
    /// fail with [`Error::LauncherGone`].
    pub async fn shut_down(self) {
        let _ = rustix::net::shutdown(&self.inner.socket, rustix::net::Shutdown::Both);
        let child = self.inner.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(mut child) = child {
            let _ = tokio::task::spawn_blocking(move || child.wait()).await;
        }
    }

    /// Returns where this launcher's programs and state are.
    pub fn config(&self) -> &LauncherConfig {
        &self.inner.config
    }
}

impl Inner {
    /// Exchanges versions and waits until the launcher is ready.
    fn greet(&self) -> Result<Capabilities, Error> {
        let hello = Request::Hello {
            version: Version::ours(),
            libexec_dir: self.config.libexec_dir.clone(),
            state_dir: self.config.state_dir.clone(),
        };
        wire::send(&self.socket, &hello).map_err(gone)?;
        match self.next_reply()? {
            Reply::Hello { version } => version.check("wardian-guest")?,
            other => return Err(unexpected(&other)),
        }
        match self.next_reply()? {
            Reply::Ready { capabilities } => Ok(capabilities),
            Reply::Failed(failure) => Err(failure.into_error()),
            other => Err(unexpected(&other)),
        }
    }

    fn next_reply(&self) -> Result<Reply, Error> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut events = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut events, Some(&patience)) {
            Ok(0) => return Err(Error::Unresponsive { peer: "the launcher", seconds: PATIENCE.as_secs() }),
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(error) => return Err(Error::io("wait for the launcher")(error.into())),
        }
        wire::receive_untrusted(&self.socket).map_err(malformed("the launcher"))?.ok_or(Error::LauncherGone)
    }

    /// Sends a request with the descriptor that it is answered on.
    async fn ask(&self, request: &Request, answer_on: OwnedFd) -> Result<(), Error> {
        let packet = Packet::new(request).map_err(Error::io("ask the launcher"))?;
        send(&packet, self.socket.as_fd(), &[answer_on.as_fd()]).await.map_err(gone)
    }

    async fn question(&self, request: &Request) -> Result<Reply, Error> {
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| Error::io("make a socket pair")(error.into()))?;
        self.ask(request, theirs).await?;
        let mut ours = tokio::net::UnixStream::from_std({
            let ours = std::os::unix::net::UnixStream::from(ours);
            ours.set_nonblocking(true).map_err(Error::io("watch a socket"))?;
            ours
        })
        .map_err(Error::io("watch a socket"))?;
        let mut answer = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut ours, &mut answer);
        match tokio::time::timeout(PATIENCE, reading).await {
            Err(_) => Err(Error::Unresponsive { peer: "the launcher", seconds: PATIENCE.as_secs() }),
            Ok(Err(_)) => Err(Error::LauncherGone),
            Ok(Ok(_)) if answer.is_empty() => Err(Error::LauncherGone),
            Ok(Ok(_)) => serde_json::from_slice(&answer)
                .map_err(|error| Error::Protocol { peer: "the launcher", why: error.to_string() }),
        }
    }

    async fn done(&self, request: &Request) -> Result<(), Error> {
        match self.question(request).await? {
            Reply::Done => Ok(()),
            Reply::Failed(failure) => Err(failure.into_error()),
            other => Err(unexpected(&other)),
        }
    }

    async fn destroy(&self, name: &str) -> Result<(), Error> {
        self.done(&Request::Destroy { name: name.to_owned() }).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The socket closes after this; the launcher then ends everything and itself. Somebody must take leave of it,
        // and a drop must not wait.
        if let Some(mut child) =
            self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take()
        {
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
            let _ = std::thread::Builder::new()
                .name("wardian-launcher-end".to_owned())
                .spawn(move || child.wait());
        }
    }
}

/// A sandbox that exists. Dropping it destroys it, without waiting.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    tier: Tier,
    base: process::Base,
    control: AsyncFd<OwnedFd>,
    launcher: Arc<Inner>,
    made: bool,
}

impl Sandbox {
    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns how much of the isolation it has.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Starts a program inside.
    pub async fn exec(&self, exec: Exec) -> Result<Process, Error> {
        process::start(self.control.get_ref().as_fd(), &self.base, exec).await
    }

    /// Ends it: when this returns, nothing of it is left.
    pub async fn destroy(mut self) -> Result<(), Error> {
        let result = self.launcher.destroy(&self.name).await;
        self.made = result.is_err();
        result
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The control socket closes after this, and the guest ends by it; this also says so to the launcher.
        if self.made
            && let Ok(packet) = Packet::new(&Request::Destroy { name: self.name.clone() })
            && let Ok((_, theirs)) = wire::pair(SocketFlags::empty())
        {
            let _ = packet.send(&self.launcher.socket, &[theirs.as_fd()], SendFlags::DONTWAIT);
        }
    }
}

fn checked(name: &str, spec: &Spec, uid: Option<u32>) -> Result<Create, Error> {
    if !wire::name_is_valid(name) {
        return Err(Error::invalid("name", "1 to 64 letters, digits, - and _"));
    }
    if spec.hostname.is_empty()
        || spec.hostname.len() > 63
        || spec.hostname.contains(|c: char| c.is_control())
    {
        return Err(Error::invalid("hostname", "1 to 63 plain characters"));
    }
    process::check_environment(&spec.env)?;
    if spec.way_out.as_ref().is_some_and(|way_out| way_out.port < 1024) {
        return Err(Error::invalid(
            "way_out",
            "the port must be 1024 or higher: nobody inside may bind a lower one",
        ));
    }
    Ok(Create {
        name: name.to_owned(),
        workspace: spec.workspace.clone(),
        home: spec.home.clone(),
        read_only: spec.read_only.clone(),
        shown: spec.shown.clone(),
        limits: spec.limits.clone(),
        way_out: spec.way_out.clone(),
        hostname: spec.hostname.clone(),
        uid,
    })
}

/// Sends without blocking the thread. The peer always reads; a full socket is a matter of microseconds.
async fn send(
    packet: &Packet,
    socket: std::os::fd::BorrowedFd<'_>,
    descriptors: &[std::os::fd::BorrowedFd<'_>],
) -> io::Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match packet.send(socket, descriptors, SendFlags::DONTWAIT) {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(RETRY).await;
            }
            other => return other,
        }
    }
}

/// Waits for one small packet from a peer that may be hostile.
async fn answer<T: DeserializeOwned>(
    socket: &AsyncFd<OwnedFd>,
    peer: &'static str,
) -> Result<Option<T>, Error> {
    match tokio::time::timeout(PATIENCE, next(socket, peer)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Unresponsive { peer, seconds: PATIENCE.as_secs() }),
    }
}

async fn next<T: DeserializeOwned>(
    socket: &AsyncFd<OwnedFd>,
    peer: &'static str,
) -> Result<Option<T>, Error> {
    let received = socket.async_io(Interest::READABLE, |socket| wire::receive_untrusted(socket)).await;
    received.map_err(malformed(peer))
}

fn watched(socket: OwnedFd) -> Result<AsyncFd<OwnedFd>, Error> {
    // SAFETY: an `OwnedFd` stays the same open descriptor until it is dropped, and the `AsyncFd` owns it.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    watched.map_err(|error| Error::io("watch a socket")(error.into()))
}

fn blocking(socket: &OwnedFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(socket, false)?)
}

fn gone(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => {
            Error::LauncherGone
        }
        io::ErrorKind::WouldBlock => {
            Error::Unresponsive { peer: "the launcher", seconds: PATIENCE.as_secs() }
        }
        _ => Error::io("ask the launcher")(error),
    }
}

fn malformed(peer: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Protocol { peer, why: error.to_string() }
}

fn unexpected(reply: &Reply) -> Error {
    let kind = match reply {
        Reply::Hello { .. } => "hello",
        Reply::Ready { .. } => "ready",
        Reply::Done => "done",
        Reply::Names { .. } => "names",
        Reply::Failed(failure) => return failure.clone().into_error(),
    };
    Error::Protocol { peer: "the launcher", why: format!("unexpected answer {kind}") }
}
