//! The same handles where there is no backend: every attempt says so by name.

use std::convert::Infallible;
use std::path::Path;

use tokio::net::unix::pipe;

use crate::error::Error;
use crate::spec::{Capabilities, Exec, Exit, LauncherConfig, Spec, Tier};

const REFUSED: Error = Error::UnsupportedOs { os: std::env::consts::OS };

/// The resident process that makes sandboxes; there is none on this system.
#[derive(Debug)]
pub struct Launcher(Infallible);

impl Launcher {
    /// Refuses: only Linux has a backend.
    pub fn start(_config: LauncherConfig) -> Result<Self, Error> {
        Err(REFUSED)
    }

    /// Returns what this host can do.
    pub fn capabilities(&self) -> &Capabilities {
        match self.0 {}
    }

    /// Makes a sandbox.
    pub async fn create(&self, _name: &str, _spec: &Spec) -> Result<Sandbox, Error> {
        match self.0 {}
    }

    /// Ends a sandbox.
    pub async fn destroy(&self, _name: &str) -> Result<(), Error> {
        match self.0 {}
    }

    /// Returns the names of the sandboxes that exist.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        match self.0 {}
    }

    /// Proves that the launcher answers.
    pub async fn health(&self) -> Result<(), Error> {
        match self.0 {}
    }

    /// Returns the host user id of a tenant's sandboxes.
    pub fn tenant_uid(&self, _tenant: Option<&str>) -> Result<Option<u32>, Error> {
        match self.0 {}
    }

    /// Makes a folder that belongs to the tenant.
    pub fn make_volume(&self, _path: &Path, _tenant: Option<&str>) -> Result<(), Error> {
        match self.0 {}
    }

    /// Ends all sandboxes and the launcher.
    pub async fn shut_down(self) {
        match self.0 {}
    }

    /// Returns where this launcher's programs and state are.
    pub fn config(&self) -> &LauncherConfig {
        match self.0 {}
    }
}

/// A sandbox that exists; there can be none on this system.
#[derive(Debug)]
pub struct Sandbox(Infallible);

impl Sandbox {
    /// Returns its name.
    pub fn name(&self) -> &str {
        match self.0 {}
    }

    /// Returns how much of the isolation it has.
    pub fn tier(&self) -> Tier {
        match self.0 {}
    }

    /// Starts a program inside.
    pub async fn exec(&self, _exec: Exec) -> Result<Process, Error> {
        match self.0 {}
    }

    /// Ends it.
    pub async fn destroy(self) -> Result<(), Error> {
        match self.0 {}
    }
}

/// A program that runs in a sandbox; there can be none on this system.
#[derive(Debug)]
pub struct Process {
    /// The writing end of its input, when piped.
    pub stdin: Option<pipe::Sender>,
    /// The reading end of its output, when piped.
    pub stdout: Option<pipe::Receiver>,
    /// The reading end of its error output, when piped.
    pub stderr: Option<pipe::Receiver>,
    never: Infallible,
}

impl Process {
    /// Waits for its end.
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        match self.never {}
    }

    /// Ends it and everything that it started.
    pub async fn kill(&mut self) -> Result<(), Error> {
        match self.never {}
    }
}
