//! Everything starts at a descriptor of the volume's folder, and the kernel itself keeps each step below it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, fchown, fstat, mkdirat, open,
    openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::{Entry, MAX_ENTRIES, MAX_PATH_BYTES, Snapshot};
use crate::error::Error;

/// Deeper than any real tree; each level holds one descriptor while it is walked.
const MAX_DEPTH: usize = 64;

/// A file is copied in pieces of this size: large enough that calls cost nothing beside the disk.
const COPY_BYTES: usize = 256 << 10;

const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

pub(super) fn write_files(root: &Path, files: &[(PathBuf, Vec<u8>)]) -> Result<(), Error> {
    let root_fd = open_root(root)?;
    let owner = fstat(&root_fd)
        .map(|status| Owner::of(&status))
        .map_err(|error| Error::io(format!("look at {}", root.display()))(error.into()))?;
    for (path, content) in files {
        write_file(root_fd.as_fd(), path, owner, |file| write_all(file, content))
            .map_err(|error| refused(path, error))?;
    }
    Ok(())
}

pub(super) fn place_file(root: &Path, path: &Path, content: &std::fs::File) -> Result<(), Error> {
    let root_fd = open_root(root)?;
    let failed = |error| refused(path, error);
    let owner = Owner::of(&fstat(&root_fd).map_err(failed)?);
    let fill = |file: &OwnedFd| copy_all(content, file).and_then(|()| rustix::fs::fsync(file));
    write_file(root_fd.as_fd(), path, owner, fill).map_err(failed)?;
    // The name, too; and the names of folders that were made on the way.
    for folder in path.ancestors().skip(1) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat2(&root_fd, folder, flags, Mode::empty(), BENEATH).map_err(failed)?;
        rustix::fs::fsync(folder).map_err(failed)?;
    }
    Ok(())
}

fn refused(path: &Path, error: Errno) -> Error {
    match error {
        Errno::LOOP => Error::invalid("files", format!("{}: goes through a link", path.display())),
        Errno::XDEV => Error::invalid("files", format!("{}: leaves the folder", path.display())),
        Errno::NOTDIR => Error::invalid("files", format!("{}: a file lies in the way", path.display())),
        Errno::ISDIR => Error::invalid("files", format!("{}: a folder lies there", path.display())),
        other => Error::io(format!("write {}", path.display()))(other.into()),
    }
}

fn open_root(root: &Path) -> Result<OwnedFd, Error> {
    open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::io(format!("open the folder {}", root.display()))(error.into()))
}

/// Whom new files are given to: only root can, and only root must.
#[derive(Clone, Copy)]
struct Owner(Option<(Uid, Gid)>);

impl Owner {
    fn of(status: &Stat) -> Self {
        let root = rustix::process::geteuid().is_root();
        Self(root.then(|| (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid))))
    }

    fn give(self, file: impl AsFd) -> rustix::io::Result<()> {
        match self.0 {
            None => Ok(()),
            Some((uid, gid)) => fchown(file, Some(uid), Some(gid)),
        }
    }
}

fn write_file(
    root: BorrowedFd<'_>,
    path: &Path,
    owner: Owner,
    fill: impl FnOnce(&OwnedFd) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let folder = match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => Some(open_folders(root, parent, owner)?),
        None => None,
    };
    let folder = folder.as_ref().map_or(root, AsFd::as_fd);
    let name = path.file_name().unwrap_or_default();
    // A new file under a name of its own, then renamed: whatever lies at the path (a link, a pipe, a device that
    // blocks) is replaced and never opened. The number tells apart what two writers of one process make.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let temporary = format!(".wardian-{}-{number}.tmp", std::process::id());
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat2(folder, temporary.as_str(), flags, Mode::from_raw_mode(0o644), BENEATH)?;
    let written = fill(&file)
        .and_then(|()| owner.give(&file))
        .and_then(|()| renameat(folder, temporary.as_str(), folder, name));
    if written.is_err() {
        let _ = unlinkat(folder, temporary.as_str(), AtFlags::empty());
    }
    written
}

fn write_all(file: &OwnedFd, mut content: &[u8]) -> rustix::io::Result<()> {
    while !content.is_empty() {
        match rustix::io::write(file, content) {
            Ok(written) => content = &content[written..],
            Err(Errno::INTR) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn copy_all(mut from: &std::fs::File, to: &OwnedFd) -> rustix::io::Result<()> {
    let mut chunk = vec![0; COPY_BYTES];
    loop {
        match io::Read::read(&mut from, &mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => write_all(to, &chunk[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
}

/// Opens a folder below `root`, making what is missing.
fn open_folders(root: BorrowedFd<'_>, path: &Path, owner: Owner) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(root, path, flags, Mode::empty(), BENEATH) {
        Err(Errno::NOENT) => (),
        other => return other,
    }
    let mut folder: Option<OwnedFd> = None;
    for part in path.iter() {
        let at = folder.as_ref().map_or(root, AsFd::as_fd);
        let made = match mkdirat(at, part, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error),
        };
        let next = openat2(at, part, flags, Mode::empty(), BENEATH)?;
        if made {
            let readable = openat2(
                at,
                part,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                BENEATH,
            )?;
            owner.give(&readable)?;
        }
        folder = Some(next);
    }
    folder.ok_or(Errno::INVAL)
}

pub(super) fn snapshot(root: &Path) -> Result<Snapshot, Error> {
    let root_fd = open_root(root)?;
    let mut walk = Walk { snapshot: Snapshot::default(), seen: 0 };
    walk.folder(root_fd.as_fd(), OsStr::new("."), &PathBuf::new(), 0)
        .map_err(|error| Error::io(format!("walk {}", root.display()))(error))?;
    Ok(walk.snapshot)
}

struct Walk {
    snapshot: Snapshot,
    seen: usize,
}

impl Walk {
    fn folder(&mut self, at: BorrowedFd<'_>, name: &OsStr, path: &Path, depth: usize) -> io::Result<()> {
        let flags =
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let folder = openat2(at, name, flags, Mode::empty(), BENEATH)?;
        let mut entries = Dir::read_from(&folder)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if self.seen >= MAX_ENTRIES {
                self.snapshot.truncated = true;
                return Ok(());
            }
            self.seen += 1;
            let path = path.join(name);
            if path.as_os_str().len() > MAX_PATH_BYTES {
                self.snapshot.truncated = true;
                continue;
            }
            // What vanishes while we look was not there.
            let Ok(status) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if !FileType::from_raw_mode(status.st_mode).is_dir() {
                self.snapshot.entries.insert(path, entry_of(&status));
            } else if depth + 1 >= MAX_DEPTH || self.folder(folder.as_fd(), name, &path, depth + 1).is_err() {
                self.snapshot.truncated = true;
            }
        }
        Ok(())
    }
}

fn entry_of(status: &Stat) -> Entry {
    let nanoseconds =
        |seconds: i64, nanoseconds: u64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    Entry {
        inode: status.st_ino,
        size: u64::try_from(status.st_size).unwrap_or(0),
        mode: status.st_mode,
        modified_ns: nanoseconds(status.st_mtime, status.st_mtime_nsec),
        changed_ns: nanoseconds(status.st_ctime, status.st_ctime_nsec),
    }
}
