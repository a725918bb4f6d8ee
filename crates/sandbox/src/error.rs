//! Why a sandbox could not be had, and what to do about it.

use std::io;
use std::path::PathBuf;

/// A failure of the launcher, of a sandbox or of an exec in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This operating system has no sandbox backend yet.
    #[error("make a sandbox on {os}: only Linux has a backend; run without a sandbox or on a Linux host")]
    UnsupportedOs {
        /// The system's name.
        os: &'static str,
    },
    /// A program that belongs beside `wardian` is not there.
    #[error("find {}: {hint}", path.display())]
    MissingProgram {
        /// Where it should be.
        path: PathBuf,
        /// What makes it.
        hint: &'static str,
    },
    /// Another launcher uses this state folder.
    #[error("use the state folder {}: another server holds it; give this one its own", path.display())]
    StateDirBusy {
        /// The folder.
        path: PathBuf,
    },
    /// Server and launcher, or server and guest, are not from the same build.
    #[error("talk to {peer}: it is version {theirs}, this is {ours}; install both from one build")]
    Version {
        /// `wardian-guest` in its role.
        peer: &'static str,
        /// Our version and protocol.
        ours: String,
        /// Its version and protocol.
        theirs: String,
    },
    /// The host refuses a wall that every sandbox must have.
    #[error("isolate: {what}: {cause}; {mend}")]
    Isolation {
        /// The step that failed.
        what: String,
        /// What the kernel said.
        cause: String,
        /// What to do about it.
        mend: String,
    },
    /// The spec or the exec asks for something that cannot be.
    #[error("accept {field}: {why}")]
    Invalid {
        /// Which part.
        field: String,
        /// Why not.
        why: String,
    },
    /// A sandbox of this name exists already.
    #[error("create sandbox {name}: it exists")]
    Exists {
        /// The name.
        name: String,
    },
    /// A limit of the launcher's is reached.
    #[error("create more: {what} is limited to {limit}")]
    Capacity {
        /// What is full.
        what: &'static str,
        /// How many there can be.
        limit: u64,
    },
    /// The program of an exec could not be started.
    #[error("start {program}: {cause}")]
    Exec {
        /// The program.
        program: String,
        /// The operating system's reason; its kind says whether it was not found or not allowed.
        cause: io::Error,
    },
    /// The launcher is gone, and with it all sandboxes.
    #[error("reach the launcher: it has ended; start a new one")]
    LauncherGone,
    /// The sandbox has ended: destroyed, out of memory, or its launcher died.
    #[error("reach the sandbox: it has ended")]
    SandboxGone,
    /// The peer did not answer in time.
    #[error("hear from {peer} within {seconds} s")]
    Unresponsive {
        /// Who did not answer.
        peer: &'static str,
        /// How long we waited.
        seconds: u64,
    },
    /// The peer sent what the protocol does not have.
    #[error("understand {peer}: {why}")]
    Protocol {
        /// Who sent it.
        peer: &'static str,
        /// What was wrong.
        why: String,
    },
    /// The operating system refused something else.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    #[cfg(target_os = "linux")]
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), why: why.into() }
    }
}
