//! What the commands take from the host: folders, clock, randomness, signals, the real key.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use wardian_protocol::RequestId;

use crate::failure::{Failure, setup, usage};

/// Where the models are, unless something else is said.
pub const DEFAULT_UPSTREAM: &str = "https://api.anthropic.com";

/// Descriptors that a server should be able to have: 64 runs with 128 connections each, twice over.
const DESCRIPTORS: u64 = 32_768;

/// The name of the static binary that must be there for sandboxes.
const GUEST: &str = "wardian-guest";
/// The one that must be there besides for agents.
const AGENT: &str = "wardian-agent";

/// A crash must not write the real key to a disk, nor may another process of the same user read it out of this one.
pub fn forbid_core_dumps() {
    // Lowering a limit is always allowed; should it fail all the same, there is nothing better to do.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // The limit does not hold where the kernel pipes cores to a program (apport, systemd-coredump); this does.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Raises the limit of open files as far as this process may.
pub fn raise_descriptor_limit() {
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if now.current.is_some_and(|current| current < wanted)
        && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum }).is_err()
    {
        tracing::warn!(wanted, "could not raise the limit of open files");
    }
}

/// The wall clock: the one place of this program that reads it.
#[expect(clippy::disallowed_methods, reason = "the clock that everything below is given")]
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Random bits for an id.
pub fn random_bits() -> [u8; 16] {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("the operating system has random bytes once it has booted");
    bits
}

/// A name that no other process has, before or after.
pub fn owner() -> String {
    RequestId::from_random(random_bits()).as_str().replacen("req_", "own_", 1)
}

/// The folder with the static binaries: what was asked for, else beside this program, else where a build puts them.
pub fn libexec_dir(asked: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(asked) = asked {
        return Ok(asked);
    }
    let program = env::current_exe().context("find this program's own folder").map_err(setup)?;
    let beside = program.parent().unwrap_or(Path::new("/"));
    // A build's own folder comes first: cargo leaves dynamic ones, or the guest alone, beside this program.
    let places = [beside.join("../guest"), beside.join("../libexec/wardian"), beside.to_owned()];
    choose(&places).ok_or_else(|| {
        setup(anyhow!("find {GUEST} in {}", places.map(|place| place.display().to_string()).join(", ")))
            .hint("`make guest` builds it; --libexec-dir or WARDIAN_LIBEXEC_DIR says where it is")
    })
}

/// The first folder with both binaries; where there is none, the first with the guest, which is enough for a command.
fn choose(places: &[PathBuf]) -> Option<PathBuf> {
    let has = |place: &&PathBuf, name: &str| place.join(name).is_file();
    let whole = places.iter().find(|place| has(place, GUEST) && has(place, AGENT));
    whole.or_else(|| places.iter().find(|place| has(place, GUEST))).cloned()
}

/// Where local runs keep sessions and usage: `$XDG_DATA_HOME/wardian`.
pub fn local_data_dir() -> Result<PathBuf, Failure> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|folder| folder.join("wardian"))
        .ok_or_else(|| {
            usage(anyhow!("find a folder for data: neither XDG_DATA_HOME nor HOME is set"))
                .hint("name one with --data-dir")
        })
}

/// The real key, for the gateway alone.
pub fn api_key() -> Result<SecretString, Failure> {
    match env::var("ANTHROPIC_API_KEY") {
        Ok(key) if !key.trim().is_empty() => Ok(key.trim().to_owned().into()),
        _ => Err(usage(anyhow!("read the model provider's key: ANTHROPIC_API_KEY is not set"))
            .hint("export ANTHROPIC_API_KEY=sk-ant-…; the scripted model of `wardian model` takes any key")),
    }
}

/// A folder for the sandboxes of one short-lived process, removed when it is dropped.
pub struct ScratchDir(PathBuf);

impl ScratchDir {
    /// Makes it, for this user alone, and removes the empty ones that killed processes left.
    pub fn new() -> Result<Self, Failure> {
        let base = env::temp_dir().join(format!("wardian-{}", getuid().as_raw()));
        make_private(&base).map_err(setup)?;
        for left in fs::read_dir(&base).into_iter().flatten().flatten() {
            let owner =
                left.file_name().to_string_lossy().split('-').next().and_then(|pid| pid.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                remove_all(&left.path());
            }
        }
        let path = base.join(format!("{}-{}", std::process::id(), &owner()[4..12]));
        make_private(&path).map_err(setup)?;
        Ok(Self(path))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        remove_all(&self.0);
    }
}

/// Removes a folder of ours as far as it can be: what is left is empty or busy, and the next start tries again.
fn remove_all(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(path = %path.display(), %error, "a scratch folder stays for now");
    }
}

/// Makes a folder that only this user can enter; one that is there must belong to this user.
pub fn make_private(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("make the folder {}", path.display()))?;
    let found = fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?;
    if !found.is_dir() || found.uid() != getuid().as_raw() {
        return Err(anyhow!("use {}: it is not a folder of this user", path.display()));
    }
    Ok(())
}

/// Ends when the process is asked to: Ctrl-C, or SIGTERM of a service manager.
///
/// Listens from the call on, not from the first poll: what is shown to a user after the call, the user can end.
pub fn asked_to_stop() -> impl Future<Output = ()> {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async move {
        match signals {
            (Ok(mut interrupt), Ok(mut terminate)) => {
                tokio::select! {
                    _ = interrupt.recv() => (),
                    _ = terminate.recv() => (),
                }
            }
            // Without handlers the signals end the process themselves.
            _ => std::future::pending().await,
        }
    }
}

/// Sets up logs: JSON lines on the standard error, `WARDIAN_LOG` says which (`info` by default).
pub fn log_json(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WARDIAN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let logs = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(io::stderr);
    // A second call finds a subscriber in place, which is the one to keep.
    let _ = logs.try_init();
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    #[test]
    fn a_folder_with_both_binaries_goes_before_one_with_the_guest_alone() {
        let temp = tempfile::tempdir().unwrap();
        let places = ["a", "b"].map(|name| temp.path().join(name));
        assert_eq!(super::choose(&places), None);
        for (place, file) in [(0, super::GUEST), (1, super::GUEST), (1, super::AGENT)] {
            std::fs::create_dir_all(&places[place]).unwrap();
            std::fs::write(places[place].join(file), "").unwrap();
            let chosen = usize::from(file == super::AGENT);
            assert_eq!(super::choose(&places).as_ref(), Some(&places[chosen]));
        }
    }

    #[test]
    fn no_core_by_any_way() {
        super::forbid_core_dumps();
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
