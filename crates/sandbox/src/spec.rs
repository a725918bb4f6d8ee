//! What a caller asks for: where the launcher finds its files, what a sandbox holds, what runs in it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `PATH` inside every sandbox unless the spec or the exec names another one.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where the session's home is mounted when nothing else is asked for.
pub const HOME: &str = "/home/agent";

/// Where Wardian's own binaries and the way out are, inside.
pub const RUN_DIR: &str = "/run/wardian";

/// Where a [`crate::Launcher`] finds its programs and keeps its state.
#[derive(Debug, Clone)]
pub struct LauncherConfig {
    /// Holds `wardian-guest` and, if agents are to run, `wardian-agent`; both static.
    pub libexec_dir: PathBuf,
    /// One folder a server. Two launchers never share one; it is swept when a launcher starts.
    pub state_dir: PathBuf,
}

impl LauncherConfig {
    /// Returns a config for these two folders.
    pub fn new(libexec_dir: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        Self { libexec_dir: libexec_dir.into(), state_dir: state_dir.into() }
    }
}

/// What a sandbox is made of.
#[derive(Clone, Serialize, Deserialize)]
pub struct Spec {
    /// The writable folder that work happens in; also the current directory of an exec that names none.
    pub workspace: Volume,
    /// A writable home that outlives the sandbox; without one, `/home/agent` is private and forgotten.
    pub home: Option<Volume>,
    /// Host folders (or files) shown read-only at their own path.
    pub read_only: Vec<PathBuf>,
    /// Host folders shown read-only at another path.
    pub shown: Vec<Shown>,
    /// The environment of every exec, beside `PATH` and `HOME`. Nothing is inherited.
    pub env: Vec<(String, String)>,
    /// What the sandbox may use at most.
    pub limits: Limits,
    /// The one way out, if any.
    pub way_out: Option<WayOut>,
    /// Whose sandbox it is: as root, one host user id for each tenant. Not used without root.
    pub tenant: Option<String>,
    /// The host name inside.
    pub hostname: String,
}

impl Spec {
    /// Returns a spec with this workspace and nothing else: no way out, default limits.
    pub fn new(workspace: Volume) -> Self {
        Self {
            workspace,
            home: None,
            read_only: Vec::new(),
            shown: Vec::new(),
            env: Vec::new(),
            limits: Limits::default(),
            way_out: None,
            tenant: None,
            hostname: "sandbox".to_owned(),
        }
    }
}

impl fmt::Debug for Spec {
    /// Shows everything but the values of the environment: they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec")
            .field("workspace", &self.workspace)
            .field("home", &self.home)
            .field("read_only", &self.read_only)
            .field("shown", &self.shown)
            .field("env", &Names(&self.env))
            .field("limits", &self.limits)
            .field("way_out", &self.way_out)
            .field("tenant", &self.tenant)
            .field("hostname", &self.hostname)
            .finish()
    }
}

/// Shows the names of variables without their values.
pub(crate) struct Names<'a>(pub(crate) &'a [(String, String)]);

impl fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// A host folder that is writable inside.
///
/// As root, a folder that belongs to the tenant's user id (see [`crate::Launcher::make_volume`]) is bound as it is;
/// any other is bound through an id map, so that its files keep their owner on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The folder on the host.
    pub host: PathBuf,
    /// Where it is inside: absolute, and not among the system's own folders.
    pub inside: PathBuf,
}

impl Volume {
    /// Returns a volume that shows `host` at `inside`.
    pub fn new(host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        Self { host: host.into(), inside: inside.into() }
    }

    /// Returns a volume that shows `path` at its own path.
    pub fn same(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { host: path.clone(), inside: path }
    }
}

/// A host folder that can be read inside and nothing else: neither written, nor are programs in it run. What is added
/// to it on the host while the sandbox is up is seen inside at once.
///
/// Files keep their owner, who is a stranger inside when the launcher is root: what is to be read must be readable by
/// everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The folder on the host.
    pub host: PathBuf,
    /// Where it is inside: absolute, and not among the system's own folders.
    pub inside: PathBuf,
}

impl Shown {
    /// Returns what shows `host` at `inside`.
    pub fn new(host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        Self { host: host.into(), inside: inside.into() }
    }
}

/// The way out of a sandbox: TCP connections to `127.0.0.1:port` inside end at `socket` outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayOut {
    /// A listening unix socket on the host, made before the sandbox.
    pub socket: PathBuf,
    /// The port that the guest listens on inside.
    pub port: u16,
}

/// What a sandbox may use at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of everything inside together, private `/tmp` included.
    pub memory_bytes: u64,
    /// Processes and threads together.
    pub pids: u64,
    /// Size of the private `/tmp` with `/dev/shm`, at most half of the memory; and the same again for the home when that
    /// is private too, at most a quarter.
    pub tmp_bytes: u64,
    /// Open descriptors of one process.
    pub open_files: u64,
    /// Size of one file written.
    pub file_bytes: u64,
}

impl Default for Limits {
    /// A build with a language server fits; a runaway does not take the host with it.
    fn default() -> Self {
        Self { memory_bytes: 2 << 30, pids: 512, tmp_bytes: 512 << 20, open_files: 4096, file_bytes: 4 << 30 }
    }
}

/// One program to run inside.
pub struct Exec {
    /// The program (looked up in `PATH` when it has no slash) and its arguments.
    pub argv: Vec<String>,
    /// Added to the sandbox's environment; the same name replaces.
    pub env: Vec<(String, String)>,
    /// The current directory; the workspace when there is none.
    pub cwd: Option<PathBuf>,
    /// After this long everything that the exec started is ended.
    pub timeout: Option<Duration>,
    /// Where its input comes from.
    pub stdin: Stdio,
    /// Where its output goes.
    pub stdout: Stdio,
    /// Where its error output goes.
    pub stderr: Stdio,
}

impl Exec {
    /// Returns an exec of `argv` without input, with both outputs piped.
    pub fn new<I, S>(argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: None,
            timeout: None,
            stdin: Stdio::Null,
            stdout: Stdio::Piped,
            stderr: Stdio::Piped,
        }
    }
}

impl fmt::Debug for Exec {
    /// Shows neither arguments nor values of the environment: prompts and secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec")
            .field("program", &self.argv.first())
            .field("arguments", &self.argv.len().saturating_sub(1))
            .field("env", &Names(&self.env))
            .field("cwd", &self.cwd)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Where one of the three standard streams of an exec leads.
#[derive(Debug)]
pub enum Stdio {
    /// `/dev/null`.
    Null,
    /// A pipe, found in [`crate::Process`].
    Piped,
    /// This descriptor of the caller's.
    Fd(OwnedFd),
}

/// How an exec ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Its timeout came; everything that it started has been ended.
    TimedOut,
}

impl Exit {
    /// Returns true for exit code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// Returns the code as a shell gives it: 128 + signal, 124 for a timeout.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
            Self::TimedOut => 124,
        }
    }
}

/// How much of the isolation this host can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// All walls, and limits on memory and processes by control groups.
    Full,
    /// All walls, but limits only by rlimits and tmpfs sizes: not for tenants that distrust each other.
    NoCgroup,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::NoCgroup => "no-cgroup",
        })
    }
}

/// What the launcher found that this host can do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Capabilities {
    /// The tier that every sandbox of this launcher has.
    pub tier: Tier,
    /// True when started as root: one host user id for each tenant.
    pub uid_per_tenant: bool,
    /// True when folders of other owners can be bound through an id map (root only).
    pub idmapped_mounts: bool,
    /// True when each exec has its own control group, so that a timeout ends it at once.
    pub exec_groups: bool,
    /// True when `wardian-agent` lies in the libexec folder.
    pub agent: bool,
    /// What is missing, and the one line that mends it.
    pub missing: Vec<Missing>,
}

/// Something that this host does not give, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What is missing.
    pub what: String,
    /// The one line that mends it.
    pub mend: String,
}

#[cfg(target_os = "linux")]
/// A hash that is the same in every build (FNV-1a): for names and ids that outlive the process, not against attackers.
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
