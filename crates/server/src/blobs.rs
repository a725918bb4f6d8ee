//! The bytes of uploaded files, below the data folder: `files/<org>/<file>`. The store's rows are the truth.
//!
//! Bytes come into a temporary file; when all are durable it gets the file's name, then the row is made. A crash in between
//! leaves a temporary file or bytes without a row, and the next start removes both.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;

use tokio::fs::File;
use tokio::sync::{Mutex, MutexGuard};
use wardian_protocol::{FileId, OrgId};
use wardian_store::Store;

/// What the names of temporary files begin with; no id does.
const TEMPORARY: &str = ".upload-";

/// Where bytes lie.
#[derive(Debug)]
pub struct Blobs {
    root: PathBuf,
    /// Held while bytes get their name and their row, so that nobody takes them for bytes without one.
    naming: Mutex<()>,
}

impl Blobs {
    /// The bytes below this folder, which exists.
    pub fn new(root: PathBuf) -> Self {
        Self { root, naming: Mutex::new(()) }
    }

    /// Makes a temporary file.
    pub async fn temporary(&self, org_id: &OrgId) -> io::Result<(Temporary, File)> {
        let folder = self.root.join(org_id.as_str());
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&folder)?;
        let name: String = crate::random_bits::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(format!("{TEMPORARY}{name}"));
        let file = File::options().create_new(true).write(true).mode(0o600).open(&path).await?;
        Ok((Temporary { path }, file))
    }

    /// Waits for the right to name bytes.
    pub async fn naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().await
    }

    /// Gives bytes their name, durably. They have been synchronised.
    pub async fn name(&self, temporary: Temporary, org_id: &OrgId, id: &FileId) -> io::Result<()> {
        let path = self.path(org_id, id);
        // Sandboxes see it as another user; on the host the data folder lets nobody in.
        tokio::fs::set_permissions(&temporary.path, Permissions::from_mode(0o444)).await?;
        tokio::fs::rename(&temporary.path, &path).await?;
        // Its name is gone, so there is nothing to remove.
        drop(temporary);
        let folder = File::open(self.root.join(org_id.as_str())).await?;
        folder.sync_all().await
    }

    /// Opens the bytes of a file; `None` if there are none.
    pub async fn open(&self, org_id: &OrgId, id: &FileId) -> io::Result<Option<File>> {
        match File::open(self.path(org_id, id)).await {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the bytes of a file, if there are any.
    pub async fn remove(&self, org_id: &OrgId, id: &FileId) {
        let path = self.path(org_id, id);
        if let Err(error) = tokio::fs::remove_file(&path).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(path = %path.display(), %error, "the bytes of a deleted file could not be removed");
        }
    }

    /// Removes temporary files of processes that are gone, and says which named ones there are. Before the first upload.
    pub fn sweep(&self) -> io::Result<Vec<(OrgId, FileId)>> {
        let mut named = Vec::new();
        for folder in std::fs::read_dir(&self.root)? {
            let folder = folder?;
            let org: Option<OrgId> = folder.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(org) = org else { continue };
            for entry in std::fs::read_dir(folder.path())? {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.starts_with(TEMPORARY) {
                    std::fs::remove_file(entry.path())?;
                } else if let Ok(id) = name.parse() {
                    named.push((org.clone(), id));
                }
            }
        }
        Ok(named)
    }

    /// The bytes of one organisation that have a name. Uploads under way are not among them.
    pub async fn named(&self, org_id: &OrgId) -> io::Result<Vec<(OrgId, FileId)>> {
        let mut folder = match tokio::fs::read_dir(self.root.join(org_id.as_str())).await {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut named = Vec::new();
        while let Some(entry) = folder.next_entry().await? {
            if let Ok(id) = entry.file_name().to_string_lossy().parse() {
                named.push((org_id.clone(), id));
            }
        }
        Ok(named)
    }

    /// Removes bytes that have no row.
    pub async fn remove_unknown(&self, store: &dyn Store, named: Vec<(OrgId, FileId)>) {
        for (org_id, id) in named {
            let _naming = self.naming.lock().await;
            match store.file(&org_id, &id).await {
                Ok(Some(_)) => {}
                Ok(None) => self.remove(&org_id, &id).await,
                Err(error) => {
                    tracing::warn!(%error, "bytes without a file could not be looked for; the next start tries again");
                    return;
                }
            }
        }
    }

    fn path(&self, org_id: &OrgId, id: &FileId) -> PathBuf {
        wardian_session::blob_path(&self.root, org_id, id)
    }
}

/// A temporary file, removed when it is dropped.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a temporary file could not be removed");
        }
    }
}
