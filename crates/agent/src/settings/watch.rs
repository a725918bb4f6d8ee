//! Settings files that are looked at again while the session runs. A look is a `stat` of at most three files when tools have
//! run, when a turn ends and when a prompt comes: there settings matter, and an agent that waits wakes for nobody.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::layer::Layer;
use crate::args::Complaint;

/// A settings file, and what it was when it was looked at last.
#[derive(Clone, Debug)]
pub struct WatchedFile {
    /// The layer of settings that it is.
    pub layer: &'static str,
    pub path: PathBuf,
    /// What `/` at the beginning of a path in its rules means.
    root: Option<PathBuf>,
    stamp: Option<Stamp>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    length: u64,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
            inode: metadata.ino(),
        }
    }
}

impl WatchedFile {
    /// Notes how a file is now; to be called before it is read.
    pub fn new(layer: &'static str, path: &Path, root: Option<&Path>) -> Self {
        let stamp = stamp(path);
        Self { layer, path: path.to_owned(), root: root.map(Path::to_owned), stamp }
    }

    /// Whether it is another than at the last look.
    pub fn has_changed(&mut self) -> bool {
        let now = stamp(&self.path);
        std::mem::replace(&mut self.stamp, now) != now
    }

    /// What hooks are told of it. source: the types of the TypeScript SDK.
    pub fn source(&self) -> &'static str {
        match self.layer {
            "userSettings" => "user_settings",
            "projectSettings" => "project_settings",
            _ => "local_settings",
        }
    }

    /// Its settings; none where it is not there. Blocks.
    pub fn read(&self) -> Result<Map<String, Value>, Complaint> {
        let layer = Layer::file(self.layer, &self.path, true)?;
        Ok(layer.map(|layer| layer.below(self.root.as_deref()).settings).unwrap_or_default())
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    std::fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_a_file_is_seen_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        let mut file = WatchedFile::new("userSettings", &path, None);
        assert!(!file.has_changed());
        std::fs::write(&path, "{}").unwrap();
        assert_eq!((file.has_changed(), file.has_changed()), (true, false));
        std::fs::write(&path, r#"{"env": {"A": "b"}}"#).unwrap();
        assert_eq!((file.has_changed(), file.has_changed()), (true, false));
        assert_eq!(file.read().unwrap()["env"]["A"], "b");
        // In the place of the old one, as editors write.
        std::fs::write(folder.path().join("new"), r#"{"env": {"A": "c"}}"#).unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(file.has_changed());
        std::fs::write(&path, "{nope").unwrap();
        assert!(file.has_changed() && file.read().is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(file.has_changed() && file.read().unwrap().is_empty());
    }
}
