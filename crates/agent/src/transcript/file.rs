//! The files themselves. All of this blocks.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, RenameFlags, flock, openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::random;

/// Where conversations lie, held open: what is put in its place later changes nothing.
#[derive(Clone, Debug)]
pub(super) struct Folder(Arc<OwnedFd>);

impl Folder {
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(told)?;
        Ok(Self(Arc::new(folder)))
    }

    /// Whether there is anything of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Makes a file that nobody else has made.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR).map_err(told)?))
    }
}

impl Folder {
    /// Makes a file that nobody else has made, with what `fill` writes in it: all of it, or no file.
    pub(super) fn create_filled(
        &self,
        name: &str,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<File> {
        let temporary = format!(".{name}.{}", random::uuid());
        let mut file = self.create(&temporary)?;
        let filled = fill(&mut file).and_then(|()| {
            match renameat_with(&self.0, &temporary, &self.0, name, RenameFlags::NOREPLACE) {
                // Some file systems cannot refuse to replace.
                Err(Errno::INVAL | Errno::NOSYS) if !self.has(name) => {
                    Ok(rustix::fs::renameat(&self.0, &temporary, &self.0, name)?)
                }
                other => Ok(other?),
            }
        });
        if let Err(error) = filled {
            let _ = unlinkat(&self.0, &temporary, AtFlags::empty());
            return Err(error);
        }
        Ok(file)
    }
}

/// The folder, made where it is missing, and found to be writable.
pub(super) fn prepare(path: &Path) -> io::Result<Folder> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let folder = Folder::open(path)?;
    rustix::fs::accessat(&folder.0, ".", rustix::fs::Access::WRITE_OK, AtFlags::empty())?;
    Ok(folder)
}

/// An existing conversation, to be read and added to. `None`: there is none. A link in its place is not followed.
pub(super) fn open(path: &Path, name: &str) -> io::Result<Option<(Folder, File)>> {
    let folder = match Folder::open(path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A pipe in its place must not be waited for.
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(&folder.0, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(told(errno)),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("the transcript is no plain file"));
    }
    Ok(Some((folder, file)))
}

/// Takes the conversation for this process. False: another has it.
pub(super) fn lock(file: &File) -> bool {
    // A file system without locks is no reason to do without the conversation.
    flock(file, FlockOperation::NonBlockingLockExclusive) != Err(Errno::WOULDBLOCK)
}

/// The id of the conversation that was written to last.
pub(super) fn newest(path: &Path) -> Option<String> {
    let entries = std::fs::read_dir(path).ok()?.filter_map(Result::ok);
    let dated = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let id = name.strip_suffix(".jsonl").filter(|id| super::is_uuid(id))?;
        // Not through links.
        let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some((metadata.modified().ok()?, id.to_owned()))
    });
    dated.max().map(|(_, id)| id)
}

fn told(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP => io::Error::other("the transcript is a link, which is not followed"),
        Errno::NOTDIR => io::Error::other("the folder of the transcripts is a link or no folder"),
        errno => errno.into(),
    }
}
