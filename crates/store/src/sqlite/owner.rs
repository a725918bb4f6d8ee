//! Which owners of runs and open usage still live.
//!
//! Several processes may have one store open: a server, and `wardian run` in two terminals. None may end the runs or charge
//! the requests of another that is alive. An owner holds a lock on a file beside the database; the kernel lets go of it
//! when the process ends, however it ends, so no clock and no heartbeat is needed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;

/// The longest owner: its hexadecimal form is a file name.
const MAX_OWNER_BYTES: usize = 96;

#[derive(Debug)]
pub(super) struct Owners {
    /// Where the database is; `None` in memory, where nobody else can be.
    database: Option<PathBuf>,
    held: Mutex<HashMap<String, Option<File>>>,
}

impl Owners {
    pub(super) fn new(database: Option<PathBuf>) -> Self {
        let owners = Self { database, held: Mutex::default() };
        owners.sweep();
        owners
    }

    /// Shows everyone that this owner lives, from now until the store is closed.
    pub(super) fn hold(&self, owner: &str) -> Result<(), Error> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains_key(owner) {
            return Ok(());
        }
        super::row::name("owner", owner, MAX_OWNER_BYTES)?;
        let file = self.file(owner).map(|path| lock(&path)).transpose()?;
        held.insert(owner.to_owned(), file);
        Ok(())
    }

    /// Whether an owner, another than who asks, is gone. One that this very store held is: who asks has taken its place.
    pub(super) fn is_gone(&self, owner: &str) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = self.file(owner) else { return true };
        held.contains_key(owner) || is_unlocked(&path)
    }

    /// Whether an owner lives, be it this very store that holds it.
    pub(super) fn lives(&self, owner: &str) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.contains_key(owner) || self.file(owner).is_some_and(|path| !is_unlocked(&path))
    }

    fn file(&self, owner: &str) -> Option<PathBuf> {
        let database = self.database.as_deref()?;
        let owner: String = owner.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut name = prefix(database);
        name.push(owner);
        Some(database.with_file_name(name))
    }

    /// Removes what dead owners left.
    fn sweep(&self) {
        let Some(database) = self.database.as_deref() else { return };
        let prefix = prefix(database);
        let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty());
        let Ok(entries) = std::fs::read_dir(folder.unwrap_or(Path::new("."))) else { return };
        for entry in entries.flatten() {
            let ours = entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
            if ours && is_unlocked(&entry.path()) {
                remove(&entry.path());
            }
        }
    }
}

impl Drop for Owners {
    fn drop(&mut self) {
        let held = std::mem::take(self.held.get_mut().unwrap_or_else(PoisonError::into_inner));
        held.keys().filter_map(|owner| self.file(owner)).for_each(|path| remove(&path));
    }
}

fn prefix(database: &Path) -> OsString {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push("-owner-");
    name
}

/// Makes the file and locks it, and only then gives it the name that others look at.
fn lock(path: &Path) -> Result<File, Error> {
    let failed = |source: io::Error| Error::Open { path: path.to_owned(), source: Arc::new(source) };
    if !is_unlocked(path) {
        return Err(Error::Invalid { what: "owner", why: "another process has this name" });
    }
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    let hidden = path.with_file_name(hidden);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&hidden)
        .map_err(failed)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::Error(source) => failed(source),
        TryLockError::WouldBlock => Error::Invalid { what: "owner", why: "another process has this name" },
    })?;
    std::fs::rename(&hidden, path).map_err(failed)?;
    Ok(file)
}

/// Whether nobody holds the lock. Asks for a shared one, so that those who ask do not take each other for the owner. In
/// doubt it says no: a charge that comes late can be mended, a wrong one not.
fn is_unlocked(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => file.try_lock_shared().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not remove the lock file of an owner that is gone");
    }
}
