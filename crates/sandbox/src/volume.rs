//! The host's access to folders that a sandbox writes: never through a link, never out of the folder, always bounded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The longest path that is written or walked, relative to the volume.
pub const MAX_PATH_BYTES: usize = 1024;
/// The most files written at once.
pub const MAX_FILES: usize = 4096;
/// The most entries that a snapshot holds; a larger folder is cut off, and the snapshot says so.
pub const MAX_ENTRIES: usize = 200_000;

/// Writes files below `root`, making folders as needed. A path that is absolute, empty, too long, has `..` or goes
/// through a link is refused, and then nothing has been written for it or after it. As root, what is made belongs to
/// the owner of `root`.
pub fn write_files(_root: &Path, _files: &[(PathBuf, Vec<u8>)]) -> Result<(), Error> {
    Err(Error::UnsupportedOs { os: std::env::consts::OS })
}

/// What a folder held at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Files and links by their path in the folder; folders are not listed.
    pub entries: BTreeMap<PathBuf, Entry>,
    /// True when there was more than [`MAX_ENTRIES`], or a folder that could not be read.
    pub truncated: bool,
}

/// What is compared of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Last change of the content, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// Last change of anything, in nanoseconds since 1970; a program cannot set it.
    pub changed_ns: i128,
}

/// Returns what the folder holds now, following no link.
pub fn snapshot(_root: &Path) -> Result<Snapshot, Error> {
    Err(Error::UnsupportedOs { os: std::env::consts::OS })
}

/// One file that differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its path in the folder.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It was there and is another one now.
    Modified,
    /// It is not there any more.
    Deleted,
}

/// Returns the differences, ordered by path.
pub fn changed(before: &Snapshot, after: &Snapshot) -> Vec<Change> {
    let mut changes = BTreeMap::new();
    for (path, entry) in &after.entries {
        match before.entries.get(path) {
            None => changes.insert(path, ChangeKind::Added),
            Some(old) if old != entry => changes.insert(path, ChangeKind::Modified),
            Some(_) => None,
        };
    }
    for path in before.entries.keys() {
        if !after.entries.contains_key(path) {
            changes.insert(path, ChangeKind::Deleted);
        }
    }
    changes.into_iter().map(|(path, kind)| Change { path: path.clone(), kind }).collect()
}

/// Makes a folder for a sandbox to write in; as root it belongs to `owner`.
pub(crate) fn make(path: &Path, owner: Option<u32>) -> Result<(), Error> {
    let failed = |error| Error::io(format!("make the folder {}", path.display()))(error);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        other => other.map_err(failed)?,
    }
    match owner {
        None => Ok(()),
        Some(owner) => std::os::unix::fs::chown(path, Some(owner), Some(owner)).map_err(failed),
    }
}
