//! The data folder: who owns it, and where things lie in it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use wardian_protocol::{FileId, OrgId, RequestId, SessionId};

use crate::config::Ownership;
use crate::error::StartError;

/// The longest path of a unix socket, without its closing NUL.
const MAX_SOCKET_PATH: usize = 107;
/// How much of a run's id names its door: 80 random bits, since a socket's path must be short.
const DOOR_NAME_BYTES: usize = 16;
/// The longest path that a data folder may have, so that `/doors/` and a name fit behind it.
pub const MAX_DATA_DIR_BYTES: usize = MAX_SOCKET_PATH - "/doors/".len() - DOOR_NAME_BYTES;

/// The data folder, owned.
#[derive(Debug)]
pub struct DataFolder {
    root: PathBuf,
    /// Holds the lock as long as it is open.
    lock: File,
}

/// Whether what a crash left may be put right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Nobody else works in the folder.
    None,
    /// Others do.
    Some,
}

/// A session's folders on the host.
#[derive(Clone, Debug)]
pub struct SessionFolders {
    /// What the agent works on.
    pub workspace: PathBuf,
    /// The agent's home.
    pub home: PathBuf,
    /// The files that it is given, as a managed session's sandbox shows them.
    pub shown: PathBuf,
    /// The same files under the ids of their resources, out of the sandbox's reach.
    pub given: PathBuf,
}

/// Where the bytes of an uploaded file lie below the folder of all.
#[must_use]
pub fn blob_path(files: &Path, org_id: &OrgId, id: &FileId) -> PathBuf {
    files.join(org_id.as_str()).join(id.as_str())
}

impl DataFolder {
    /// Makes the folder where it is missing, and takes it. `first` is done while nobody else can be there: by the first
    /// owner, before others may share.
    ///
    /// # Errors
    /// When somebody else owns the folder, or it cannot be made.
    pub fn take(root: &Path, ownership: Ownership) -> Result<(Self, Others), StartError> {
        let broken = |path: &Path| {
            let path = path.to_owned();
            move |source| StartError::Folder { path, source }
        };
        make_private(root).map_err(broken(root))?;
        let root = fs::canonicalize(root).map_err(broken(root))?;
        if root.as_os_str().len() > MAX_DATA_DIR_BYTES {
            return Err(StartError::PathTooLong { path: root, max: MAX_DATA_DIR_BYTES });
        }
        for folder in ["sessions", "doors", "files"] {
            make_private(&root.join(folder)).map_err(broken(&root.join(folder)))?;
        }
        let path = root.join("lock");
        let lock =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(broken(&path))?;
        let others = lock_file(&lock, ownership).map_err(|error| match error {
            TryLockError::WouldBlock => StartError::Owned(root.clone()),
            TryLockError::Error(source) => StartError::Folder { path, source },
        })?;
        Ok((Self { root, lock }, others))
    }

    /// After what was left is put right: lets others in, where they may be. The kernel gives the lock up for a moment in
    /// between, so somebody else may have it now.
    ///
    /// # Errors
    /// [`StartError::Owned`] when somebody else was quicker.
    pub fn share(&self, ownership: Ownership) -> Result<(), StartError> {
        if ownership == Ownership::Sole {
            return Ok(());
        }
        self.lock.try_lock_shared().map_err(|error| match error {
            TryLockError::WouldBlock => StartError::Owned(self.root.clone()),
            TryLockError::Error(source) => StartError::Folder { path: self.root.clone(), source },
        })
    }

    /// Lets go of the folder: nothing in it is used any more.
    pub fn release(&self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the lock of the data folder was not given back; the end of the process does");
        }
    }

    /// The socket of a run's door.
    #[must_use]
    pub fn door(&self, run: &RequestId) -> PathBuf {
        let id = run.as_str();
        let name = &id[id.len().saturating_sub(DOOR_NAME_BYTES)..];
        self.root.join("doors").join(name)
    }

    /// Removes the sockets of doors that a crash left open.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn sweep_doors(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join("doors"))? {
            let path = entry?.path();
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a door that was left open could not be removed");
            }
        }
        Ok(())
    }

    /// The folder of all that lies on the disk for a session.
    #[must_use]
    pub fn session_root(&self, id: &SessionId) -> PathBuf {
        self.root.join("sessions").join(id.as_str())
    }

    /// Where a session's folders lie.
    #[must_use]
    pub fn session(&self, id: &SessionId) -> SessionFolders {
        let session = self.session_root(id);
        SessionFolders {
            workspace: session.join("workspace"),
            home: session.join("home"),
            shown: session.join("mnt"),
            given: session.join("given"),
        }
    }

    /// Where the bytes of uploaded files lie, as `<org>/<file>`. The store says which are there.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.root.join("files")
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn lock_file(lock: &File, ownership: Ownership) -> Result<Others, TryLockError> {
    match (lock.try_lock(), ownership) {
        (Ok(()), _) => Ok(Others::None),
        (Err(TryLockError::WouldBlock), Ownership::Shared) => lock.try_lock_shared().map(|()| Others::Some),
        (Err(error), _) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_owns_its_folder_alone_and_local_runs_share() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("data");
        let (server, others) = DataFolder::take(&root, Ownership::Sole).unwrap();
        assert_eq!(others, Others::None);
        for second in [Ownership::Sole, Ownership::Shared] {
            assert!(matches!(DataFolder::take(&root, second), Err(StartError::Owned(_))));
        }
        drop(server);
        let (first, others) = DataFolder::take(&root, Ownership::Shared).unwrap();
        assert_eq!(others, Others::None);
        first.share(Ownership::Shared).unwrap();
        let (_second, others) = DataFolder::take(&root, Ownership::Shared).unwrap();
        assert_eq!(others, Others::Some);
        assert!(matches!(DataFolder::take(&root, Ownership::Sole), Err(StartError::Owned(_))));
    }

    #[test]
    fn a_folder_too_deep_for_sockets_is_refused_at_the_start() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("x".repeat(100));
        assert!(matches!(DataFolder::take(&root, Ownership::Sole), Err(StartError::PathTooLong { .. })));
    }
}
