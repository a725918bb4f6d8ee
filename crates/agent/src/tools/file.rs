//! Opening, reading and replacing files, with the same care in every tool.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Access, AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::tool::{Known, ToolContext};

/// Read at a time; the stop token is looked at in between.
const CHUNK_BYTES: usize = 256 * 1024;

/// Siblings looked at for a name that was perhaps meant.
const SIBLINGS: usize = 1_000;

/// Why a file could not be opened for reading.
#[derive(Debug)]
pub enum OpenError {
    Missing,
    Folder,
    /// What it is, with its article.
    Special(&'static str),
    /// A file of `/proc` about a process: the agent's own memory and environment are among them.
    Process,
    Io(io::Error),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::IsADirectory => Self::Folder,
            _ => Self::Io(error),
        }
    }
}

impl OpenError {
    /// Tells the model, with a way out.
    pub fn told(&self, given: &str, context: &ToolContext) -> Failure {
        Failure::new(match self {
            Self::Missing => missing(given, context),
            Self::Folder => format!("{given} is a folder, not a file; list it with Glob, or with ls in Bash"),
            Self::Special(kind) => {
                format!("{given} is {kind}, not a regular file; only regular files are read")
            }
            Self::Process => {
                format!("{given} is about a process; these files are not read here, but Bash can show them")
            }
            Self::Io(error) => format!("failed to open {given}: {error}"),
        })
    }
}

fn missing(given: &str, context: &ToolContext) -> String {
    let mut text = format!("{given} does not exist. The working directory is {}.", context.cwd.display());
    if let Some(name) = perhaps_meant(&context.absolute(given)) {
        text.push_str(&format!(" Did you mean {}?", name.display()));
    }
    text
}

/// Returns a sibling whose name differs only by case or ending.
fn perhaps_meant(path: &Path) -> Option<PathBuf> {
    let stem = path.file_stem()?.to_ascii_lowercase();
    let siblings = std::fs::read_dir(path.parent()?).ok()?.take(SIBLINGS).flatten();
    siblings.map(|sibling| sibling.path()).find(|sibling| {
        sibling.file_stem().map(OsStr::to_ascii_lowercase).as_ref() == Some(&stem) && sibling.is_file()
    })
}

/// Makes a path from the model absolute.
pub fn absolute(given: &str, context: &ToolContext) -> Result<PathBuf, Failure> {
    if given.is_empty() {
        return Err(Failure::new("the path is empty"));
    }
    if given.contains('\0') {
        return Err(Failure::new("the path holds a NUL byte, which no path can"));
    }
    Ok(context.absolute(given))
}

/// Makes a folder that only this user can look into. One that is there stays as it is.
pub fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Keeps an output in a file that only this user can read; a link in its place is not followed.
pub async fn keep(path: &Path, bytes: Vec<u8>) -> io::Result<()> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || keep_blocking(&path, &bytes)).await.map_err(io::Error::other)?
}

fn keep_blocking(path: &Path, bytes: &[u8]) -> io::Result<()> {
    private_folder(path.parent().unwrap_or(path))?;
    let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(nofollow)
        .open(path)?;
    (&file).write_all(bytes)
}

/// Opens a regular file for reading. Never blocks on a pipe, never touches a device, never follows the links of
/// `/proc` that lead to open files, and refuses what `/proc` tells about processes.
pub fn open_regular(path: &Path) -> Result<(File, Metadata), OpenError> {
    check_kind(&std::fs::metadata(path)?)?;
    open_listed(path)
}

/// The same for a path that its folder just listed as a regular file: what it has become since is looked at only once
/// it is open, without waiting for anything.
pub fn open_listed(path: &Path) -> Result<(File, Metadata), OpenError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        // gVisor and old kernels have no openat2. What is written out is still refused.
        Err(Errno::NOSYS) if path.starts_with("/proc") || path.starts_with("/dev") => Err(Errno::LOOP),
        Err(Errno::NOSYS) => rustix::fs::open(path, flags, Mode::empty()),
        other => other,
    };
    let file = match opened {
        Ok(opened) => File::from(opened),
        Err(Errno::LOOP) if std::fs::metadata(path).is_ok() => return Err(OpenError::Process),
        Err(error) => return Err(io::Error::from(error).into()),
    };
    // Again on what was opened: the name may have changed hands in between.
    let metadata = file.metadata()?;
    check_kind(&metadata)?;
    if is_about_a_process(&file)? {
        return Err(OpenError::Process);
    }
    Ok((file, metadata))
}

/// Where an open file lies, all links resolved.
pub fn real_path(file: &File) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn check_kind(metadata: &Metadata) -> Result<(), OpenError> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    Err(if kind.is_dir() {
        OpenError::Folder
    } else if kind.is_fifo() {
        OpenError::Special("a pipe")
    } else if kind.is_socket() {
        OpenError::Special("a socket")
    } else if kind.is_char_device() || kind.is_block_device() {
        OpenError::Special("a device")
    } else {
        OpenError::Special("a special file")
    })
}

/// Says whether an open file lies in some mount of `/proc`, in the part about processes. It is asked of the open file,
/// so links, bind mounts and races cannot hide it.
fn is_about_a_process(file: &File) -> io::Result<bool> {
    if rustix::fs::fstatfs(file)?.f_type != rustix::fs::PROC_SUPER_MAGIC {
        return Ok(false);
    }
    Ok(real_path(file)?.components().any(|component| match component {
        Component::Normal(name) => name.as_encoded_bytes().iter().all(u8::is_ascii_digit),
        _ => false,
    }))
}

/// What [`read_whole`] gave up for.
#[derive(Debug)]
pub enum ReadError {
    TooLarge,
    Stopped,
    Io(io::Error),
}

/// Reads a whole file of at most `limit` bytes. Its length is what comes, not what its metadata say.
pub fn read_whole(file: &mut File, limit: u64, stop: &CancellationToken) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    loop {
        if stop.is_cancelled() {
            return Err(ReadError::Stopped);
        }
        let read =
            Read::by_ref(file).take(CHUNK_BYTES as u64).read_to_end(&mut bytes).map_err(ReadError::Io)?;
        if bytes.len() as u64 > limit {
            return Err(ReadError::TooLarge);
        }
        if read < CHUNK_BYTES {
            return Ok(bytes);
        }
    }
}

/// A file as it was at one moment.
#[derive(Debug)]
pub struct Loaded {
    /// Its path with all links resolved: the name by which it is known.
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    /// From before the bytes were read, so that a change during the reading shows later.
    pub metadata: Metadata,
}

impl Loaded {
    /// Loads an existing file that Edit or Write is about to change, and refuses one that the model does not know as
    /// it is now.
    pub fn known(
        given: &str,
        path: &Path,
        context: &ToolContext,
        stop: &CancellationToken,
    ) -> Result<Self, Failure> {
        let (mut file, metadata) = open_regular(path).map_err(|error| error.told(given, context))?;
        let path = std::fs::canonicalize(path)
            .map_err(|error| Failure::new(format!("failed to resolve {given}: {error}")))?;
        let Some(known) = context.reads.known(&path) else {
            return Err(Failure::new(format!(
                "{given} has not been read yet; read it first, then change it"
            )));
        };
        let bytes = read_whole(&mut file, context.limits.file_bytes, stop)
            .map_err(|error| error.told(given, context))?;
        let unchanged = match known.digest {
            Some(seen) => seen == digest(&bytes),
            None => Some(known.modified) == metadata.modified().ok(),
        };
        if !unchanged {
            return Err(Failure::new(format!(
                "{given} has changed since it was read, by the user or another program; read it again, then change it"
            )));
        }
        Ok(Self { path, bytes, metadata })
    }
}

impl ReadError {
    /// Tells the model.
    pub fn told(&self, given: &str, context: &ToolContext) -> Failure {
        match self {
            Self::Stopped => super::work::stopped(),
            Self::TooLarge => Failure::new(format!(
                "{given} is larger than {} MiB; work on it in parts with Bash",
                context.limits.file_bytes / (1024 * 1024)
            )),
            Self::Io(error) => Failure::new(format!("failed to read {given}: {error}")),
        }
    }
}

/// Returns what the model knows of a file once it has seen or written these bytes.
pub fn known(metadata: &Metadata, bytes: Option<&[u8]>) -> Known {
    Known { modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), digest: bytes.map(digest) }
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Puts a file with this content in place in one step: written beside it under another name, flushed, then renamed. A
/// crash leaves the old file or the new one, at worst with a `.wardian-…` file beside it.
///
/// `old` is what is to be replaced, which keeps its mode and, where permitted, its owner; `None` makes a new file.
/// Other hard links of the old file keep the old content. Its extended attributes are lost.
pub fn replace(target: &Path, content: &[u8], old: Option<&Metadata>) -> io::Result<Metadata> {
    if old.is_some() {
        // The folder decides about renaming; a file made read-only is meant to stay.
        rustix::fs::accessat(CWD, target, Access::WRITE_OK, AtFlags::EACCESS)?;
    }
    let folder = target.parent().unwrap_or(Path::new("/"));
    let temporary = Temporary(folder.join(random_name(".wardian-", "")?));
    let mode = if old.is_some() { 0o600 } else { 0o666 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary.0)?;
    file.write_all(content)?;
    if let Some(old) = old {
        keep_owner_and_mode(&file, old)?;
    }
    file.sync_all()?;
    match old {
        Some(old) if !is_still(target, old) => {
            return Err(io::Error::other("it was changed by another program at this moment"));
        }
        Some(_) => std::fs::rename(&temporary.0, target)?,
        None => rename_to_new(&temporary.0, target)?,
    }
    file.metadata()
}

fn keep_owner_and_mode(file: &File, old: &Metadata) -> io::Result<()> {
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
        let (owner, group) = (Uid::from_raw(old.uid()), Gid::from_raw(old.gid()));
        // Only root may; for anybody else the file becomes their own.
        let _ = rustix::fs::fchown(file, Some(owner), Some(group));
    }
    // Without setuid and setgid, which a changed program must not inherit.
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(old.mode() & 0o777))?)
}

fn is_still(target: &Path, old: &Metadata) -> bool {
    let stamp = |at: &Metadata| (at.dev(), at.ino(), at.len(), at.mtime(), at.mtime_nsec());
    std::fs::symlink_metadata(target).is_ok_and(|now| stamp(&now) == stamp(old))
}

fn rename_to_new(temporary: &Path, target: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, temporary, CWD, target, RenameFlags::NOREPLACE) {
        // Some file systems cannot refuse to replace.
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(temporary, target),
        other => Ok(other?),
    }
}

/// Returns a file name that is not taken.
pub fn random_name(start: &str, end: &str) -> io::Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(format!("{start}{:016x}{end}", u64::from_ne_bytes(random)))
}

/// Removes its file, if it is still there under this name.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
