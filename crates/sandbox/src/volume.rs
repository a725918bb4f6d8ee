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

/// Writes files below `root`, making folders as needed; what is there is replaced, never followed. A path that is
/// absolute, empty, too long, has `..` or goes through a link is refused, and names are checked before anything is
/// written. As root, what is made belongs to the owner of `root`.
pub fn write_files(root: &Path, files: &[(PathBuf, Vec<u8>)]) -> Result<(), Error> {
    if files.len() > MAX_FILES {
        return Err(Error::invalid("files", format!("{} files; the limit is {MAX_FILES}", files.len())));
    }
    for (path, _) in files {
        check_path(path)?;
    }
    imp::write_files(root, files)
}

/// Writes one file below `root` as [`write_files`] does, from another file however large; when this returns, it is on
/// the disk.
pub fn place_file(root: &Path, path: &Path, content: &std::fs::File) -> Result<(), Error> {
    check_path(path)?;
    imp::place_file(root, path, content)
}

fn check_path(path: &Path) -> Result<(), Error> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let refuse = |why: &str| Err(Error::invalid("files", format!("{:?}: {why}", path.to_string_lossy())));
    if bytes.is_empty() {
        return refuse("an empty path");
    }
    if bytes.len() > MAX_PATH_BYTES {
        return Err(Error::invalid(
            "files",
            format!("a path of {} bytes; the limit is {MAX_PATH_BYTES}", bytes.len()),
        ));
    }
    if bytes.contains(&0) {
        return refuse("a NUL byte");
    }
    if bytes.ends_with(b"/") {
        return refuse("a folder, not a file");
    }
    // `components` normalises `.` away, so the bytes are looked at.
    for part in bytes.split(|&byte| byte == b'/') {
        match part {
            b"" => return refuse("an absolute path or an empty part"),
            b"." | b".." => return refuse("`.` or `..`"),
            part if part.len() > 255 => return refuse("a name of more than 255 bytes"),
            _ => (),
        }
    }
    Ok(())
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

/// Returns what the folder holds now, following no link. Bounded: see [`Snapshot::truncated`].
pub fn snapshot(root: &Path) -> Result<Snapshot, Error> {
    imp::snapshot(root)
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

#[cfg(target_os = "linux")]
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

#[cfg(not(target_os = "linux"))]
mod imp {
    use super::{Error, Path, PathBuf, Snapshot};

    pub(super) fn write_files(_root: &Path, _files: &[(PathBuf, Vec<u8>)]) -> Result<(), Error> {
        Err(Error::UnsupportedOs { os: std::env::consts::OS })
    }

    pub(super) fn place_file(_root: &Path, _path: &Path, _content: &std::fs::File) -> Result<(), Error> {
        Err(Error::UnsupportedOs { os: std::env::consts::OS })
    }

    pub(super) fn snapshot(_root: &Path) -> Result<Snapshot, Error> {
        Err(Error::UnsupportedOs { os: std::env::consts::OS })
    }
}

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as imp;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn file(path: &str) -> (PathBuf, Vec<u8>) {
        (PathBuf::from(path), b"content".to_vec())
    }

    #[test]
    fn files_are_written_with_their_folders() {
        let root = tempfile::tempdir().unwrap();
        write_files(root.path(), &[file("a"), file("b/c/d.txt"), file("b/c/e")]).unwrap();
        write_files(root.path(), &[("a".into(), b"second".to_vec())]).unwrap();
        assert_eq!(std::fs::read(root.path().join("a")).unwrap(), b"second");
        assert_eq!(std::fs::read(root.path().join("b/c/d.txt")).unwrap(), b"content");
        let names: Vec<_> = snapshot(root.path()).unwrap().entries.into_keys().collect();
        assert_eq!(names, ["a", "b/c/d.txt", "b/c/e"].map(PathBuf::from), "no temporary file is left");
    }

    #[test]
    fn hostile_paths_are_refused_before_anything_is_written() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let long = "x".repeat(MAX_PATH_BYTES + 1);
        let long_name = "y".repeat(256);
        for path in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../out",
            "a/../../out",
            "a/..",
            "./a",
            "a/./b",
            "a//b",
            "a/",
            "nul\0byte",
            long.as_str(),
            long_name.as_str(),
        ] {
            let error = write_files(&root, &[file("first"), file(path)]).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{path:?}: {error}");
            assert!(!root.join("first").exists(), "{path:?}");
        }
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
        let many = vec![file("x"); MAX_FILES + 1];
        assert!(matches!(write_files(&root, &many), Err(Error::Invalid { .. })));
        write_files(&root, &[file("good")]).unwrap();
    }

    #[test]
    fn links_are_neither_followed_nor_written_through() {
        let outer = tempfile::tempdir().unwrap();
        let (root, secret) = (outer.path().join("root"), outer.path().join("secret"));
        std::fs::create_dir_all(root.join("real")).unwrap();
        std::fs::create_dir(&secret).unwrap();
        std::fs::write(secret.join("key"), "host").unwrap();
        symlink(&secret, root.join("folder")).unwrap();
        symlink("real", root.join("inner")).unwrap();
        symlink(secret.join("key"), root.join("file")).unwrap();
        symlink("/proc/self/root/tmp", root.join("magic")).unwrap();
        for path in ["folder/key", "folder/new", "inner/new", "magic/new", "real/../folder/key"] {
            assert!(matches!(write_files(&root, &[file(path)]), Err(Error::Invalid { .. })), "{path}");
        }
        // A link in the file's own place is replaced.
        write_files(&root, &[file("file")]).unwrap();
        assert_eq!(std::fs::read_to_string(secret.join("key")).unwrap(), "host");
        assert_eq!(std::fs::read_to_string(root.join("file")).unwrap(), "content");
        assert_eq!(std::fs::read_dir(&secret).unwrap().count(), 1);
        // A walk shows the links themselves.
        let entries = snapshot(&root).unwrap().entries;
        assert_eq!(
            entries.keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(),
            ["file", "folder", "inner", "magic"]
        );
    }

    #[test]
    fn a_pipe_or_a_folder_in_the_way_blocks_nothing() {
        let root = tempfile::tempdir().unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        std::fs::create_dir(root.path().join("folder")).unwrap();
        write_files(root.path(), &[file("pipe")]).unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join("pipe")).unwrap(), "content");
        assert!(matches!(write_files(root.path(), &[file("folder")]), Err(Error::Invalid { .. })));
        assert!(matches!(write_files(root.path(), &[file("pipe/below")]), Err(Error::Invalid { .. })));
        assert_eq!(snapshot(root.path()).unwrap().entries.len(), 1, "no temporary file is left");
    }

    #[test]
    fn what_is_made_belongs_to_the_owner_of_the_folder() {
        let root = tempfile::tempdir().unwrap();
        // Without root there is only one possible owner, and the test shows just that.
        let _ = std::os::unix::fs::chown(root.path(), Some(1_888_888), Some(1_888_889));
        let owner = std::fs::metadata(root.path()).unwrap();
        write_files(root.path(), &[file("a/b")]).unwrap();
        for path in ["a", "a/b"] {
            let made = std::fs::symlink_metadata(root.path().join(path)).unwrap();
            assert_eq!((made.uid(), made.gid()), (owner.uid(), owner.gid()), "{path}");
        }
    }

    #[test]
    fn changes_are_found_also_when_size_and_time_are_put_back() {
        let root = tempfile::tempdir().unwrap();
        write_files(root.path(), &[file("same"), file("forged"), file("gone"), file("grown")]).unwrap();
        let before = snapshot(root.path()).unwrap();
        let forged = root.path().join("forged");
        let time = std::fs::metadata(&forged).unwrap().modified().unwrap();
        std::fs::write(&forged, "CONTENT").unwrap();
        std::fs::File::options().write(true).open(&forged).unwrap().set_modified(time).unwrap();
        std::fs::remove_file(root.path().join("gone")).unwrap();
        std::fs::write(root.path().join("grown"), "longer content").unwrap();
        std::fs::write(root.path().join("new"), "").unwrap();
        let after = snapshot(root.path()).unwrap();
        let change = |path: &str, kind| Change { path: path.into(), kind };
        assert_eq!(
            changed(&before, &after),
            [
                change("forged", ChangeKind::Modified),
                change("gone", ChangeKind::Deleted),
                change("grown", ChangeKind::Modified),
                change("new", ChangeKind::Added),
            ]
        );
        assert_eq!(changed(&after, &after), []);
    }

    #[test]
    fn a_bottomless_folder_is_cut_off_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", 100).collect();
        std::fs::create_dir_all(root.path().join(&deep)).unwrap();
        std::fs::write(root.path().join("top"), "").unwrap();
        let snapshot = snapshot(root.path()).unwrap();
        assert!(snapshot.truncated);
        assert!(snapshot.entries.contains_key(Path::new("top")));
    }

    #[test]
    fn a_file_is_placed_from_another_and_never_through_a_link() {
        let outer = tempfile::tempdir().unwrap();
        let (root, secret) = (outer.path().join("root"), outer.path().join("secret"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&secret).unwrap();
        std::fs::write(secret.join("key"), "host").unwrap();
        std::fs::write(outer.path().join("source"), vec![7; 3 << 20]).unwrap();
        let place = |path: &str| {
            let source = std::fs::File::open(outer.path().join("source")).unwrap();
            place_file(&root, Path::new(path), &source)
        };
        place("a/b/data").unwrap();
        assert_eq!(std::fs::read(root.join("a/b/data")).unwrap(), vec![7; 3 << 20]);
        symlink(&secret, root.join("folder")).unwrap();
        symlink(secret.join("key"), root.join("file")).unwrap();
        for path in ["folder/key", "folder/new", "../secret/key", "/etc/x", "a/b/data/below", "", "a/b"] {
            assert!(matches!(place(path), Err(Error::Invalid { .. })), "{path}");
        }
        place("file").unwrap();
        assert_eq!(std::fs::read_to_string(secret.join("key")).unwrap(), "host");
        assert_eq!(std::fs::read_dir(&secret).unwrap().count(), 1);
        assert_eq!(snapshot(&root).unwrap().entries.len(), 3, "no temporary file is left");
    }

    proptest::proptest! {
        #[test]
        fn no_path_gets_out(path in "[a./\\\\0-]{0,12}") {
            let outer = tempfile::tempdir().unwrap();
            let root = outer.path().join("root");
            std::fs::create_dir(&root).unwrap();
            let _ = write_files(&root, &[file(&path)]);
            assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
        }
    }
}
