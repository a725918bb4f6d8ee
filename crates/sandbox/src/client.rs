//! The server's side: the launcher's handle, the sandbox's, the process's.

use std::path::Path;

use tokio::net::unix::pipe;

use crate::error::Error;
use crate::spec::{Capabilities, Exec, Exit, LauncherConfig, Spec, Tier};

/// The resident process that makes sandboxes, one a server.
#[derive(Debug)]
pub struct Launcher {
    capabilities: Capabilities,
}

impl Launcher {
    /// Starts the launcher, sweeps what an earlier one left in the same state folder, and probes the host.
    /// Blocks for some milliseconds; needs no runtime.
    pub fn start(_config: LauncherConfig) -> Result<Self, Error> {
        Err(Error::UnsupportedOs { os: std::env::consts::OS })
    }

    /// Returns what this host can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Makes a sandbox and waits until its guest answers.
    pub async fn create(&self, _name: &str, _spec: &Spec) -> Result<Sandbox, Error> {
        Err(Error::LauncherGone)
    }

    /// Ends a sandbox: when it returns, no process, mount, cgroup or folder of it is left. One that does not exist is fine.
    pub async fn destroy(&self, _name: &str) -> Result<(), Error> {
        Err(Error::LauncherGone)
    }

    /// Returns the names of the sandboxes that exist.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        Err(Error::LauncherGone)
    }

    /// Proves that the launcher answers.
    pub async fn health(&self) -> Result<(), Error> {
        Err(Error::LauncherGone)
    }

    /// Returns the host user id of a tenant's sandboxes; `None` without root, where it is the caller's own.
    pub fn tenant_uid(&self, _tenant: Option<&str>) -> Result<Option<u32>, Error> {
        Ok(None)
    }

    /// Makes a folder (and its parents) that belongs to the tenant, if it is not there yet: a session's own volume.
    pub fn make_volume(&self, _path: &Path, _tenant: Option<&str>) -> Result<(), Error> {
        Ok(())
    }
}

/// A sandbox that exists. Dropping it destroys it, without waiting.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    tier: Tier,
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
    pub async fn exec(&self, _exec: Exec) -> Result<Process, Error> {
        Err(Error::SandboxGone)
    }

    /// Ends it: when this returns, nothing of it is left.
    pub async fn destroy(self) -> Result<(), Error> {
        Err(Error::LauncherGone)
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
}

impl Process {
    /// Waits for its end. Can be dropped and called again.
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        Err(Error::SandboxGone)
    }

    /// Ends it and everything that it started; [`Process::wait`] then says how.
    pub async fn kill(&mut self) -> Result<(), Error> {
        Err(Error::SandboxGone)
    }
}
