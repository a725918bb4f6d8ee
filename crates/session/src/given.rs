//! The files that a session is given, where its sandbox sees them: below `/mnt` as links to the uploaded bytes, which the
//! sandbox cannot write, and in the workspace as copies that are made once and are the agent's from then on.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;
use wardian_protocol::{OrgId, SessionId};
use wardian_sandbox::volume;

use crate::folder::DataFolder;
use crate::launch::WORKSPACE;

/// Where given files are, inside.
pub const GIVEN: &str = "/mnt";
/// The largest file that is copied into a workspace, in bytes; it passes through memory.
pub const MAX_COPY_BYTES: u64 = 64 * 1024 * 1024;

/// Where the parts of it lie on the host.
#[derive(Clone, Debug)]
pub struct Place {
    /// The session's folder.
    root: PathBuf,
    /// The session's workspace.
    workspace: PathBuf,
    /// The bytes of its organisation's files.
    bytes: PathBuf,
}

impl Place {
    /// Those of a session.
    pub fn of(folder: &DataFolder, org: &OrgId, session: &SessionId) -> Self {
        let workspace = folder.session(session).workspace;
        Self { root: folder.session_root(session), workspace, bytes: folder.files().join(org.as_str()) }
    }
}

/// Makes what lies on the disk for a session agree with its resources; says which host folder is to be seen at [`GIVEN`].
/// A file whose bytes are gone is left out. Blocks.
///
/// # Errors
/// When the disk does not do it.
pub fn lay_out(place: &Place, resources: &[Value]) -> io::Result<PathBuf> {
    let mount = place.root.join("mnt");
    make(&mount)?;
    let mut linked = BTreeMap::new();
    for resource in resources {
        let text = |name: &str| resource[name].as_str().map(Path::new);
        let (Some(file), Some(path)) = (text("file_id"), text("mount_path")) else { continue };
        let from = place.bytes.join(file);
        if let Ok(below) = path.strip_prefix(GIVEN) {
            linked.insert(mount.join(below), from);
        } else if let (Ok(below), Some(id)) = (path.strip_prefix(WORKSPACE), resource["id"].as_str()) {
            copy_once(&from, &place.workspace, below, &place.root.join("given").join(id))?;
        }
    }
    remove_others(&mount, &linked)?;
    for (path, from) in linked {
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        match fs::hard_link(&from, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing(&from),
            done => done?,
        }
    }
    Ok(mount)
}

/// Makes a folder that everybody inside may look into. Outside, the data folder lets nobody in.
fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Removes what is not given any more, and folders that are empty then. Nobody but this process writes here.
fn remove_others(folder: &Path, given: &BTreeMap<PathBuf, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(&path, given)?;
            // It stays if something is left in it.
            fs::remove_dir(&path).ok();
        } else if !given.contains_key(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Copies a file into the workspace, following nothing that the agent made there. `mark` says that it was done.
fn copy_once(from: &Path, workspace: &Path, below: &Path, mark: &Path) -> io::Result<()> {
    if mark.exists() {
        return Ok(());
    }
    let size = match fs::metadata(from) {
        Ok(status) => status.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            missing(from);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if size > MAX_COPY_BYTES {
        return Err(io::Error::other("a file is too large for a workspace"));
    }
    let content = fs::read(from)?;
    volume::write_files(workspace, &[(below.to_owned(), content)]).map_err(io::Error::other)?;
    if let Some(parent) = mark.parent() {
        make(parent)?;
    }
    fs::File::create(mark).map(drop)
}

fn missing(path: &Path) {
    tracing::warn!(path = %path.display(), "the bytes of a file that a session was given are gone");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Ownership;

    #[test]
    fn what_is_given_is_there_and_what_is_taken_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, _) = DataFolder::take(&temp.path().join("data"), Ownership::Sole).unwrap();
        let (org, session): (OrgId, SessionId) = ("org_1".parse().unwrap(), "sesn_1".parse().unwrap());
        let place = Place::of(&folder, &org, &session);
        let bytes = &place.bytes;
        fs::create_dir_all(bytes).unwrap();
        fs::create_dir_all(folder.session(&session).workspace).unwrap();
        for name in ["file_a", "file_b"] {
            fs::write(bytes.join(name), name).unwrap();
        }
        let given = |id: &str, file: &str, path: &str| json!({"id": id, "type": "file", "file_id": file, "mount_path": path});
        let deep = given("sesrsc_1", "file_a", "/mnt/session/uploads/file_a");
        let copied = given("sesrsc_2", "file_b", "/workspace/data/b");
        let gone = given("sesrsc_3", "file_gone", "/mnt/gone");
        let mount = lay_out(&place, &[deep.clone(), copied.clone(), gone]).unwrap();
        let workspace = folder.session(&session).workspace.join("data/b");
        assert_eq!(fs::read_to_string(mount.join("session/uploads/file_a")).unwrap(), "file_a");
        assert_eq!(fs::read_to_string(&workspace).unwrap(), "file_b");
        assert!(!mount.join("gone").exists());
        // The agent's own from then on, whatever it makes of it.
        fs::remove_file(&workspace).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &workspace).unwrap();
        // A file in the place of a folder.
        let flat = given("sesrsc_4", "file_b", "/mnt/session");
        lay_out(&place, &[flat, copied]).unwrap();
        assert_eq!(fs::read_to_string(mount.join("session")).unwrap(), "file_b");
        assert!(workspace.is_symlink());
        lay_out(&place, &[deep]).unwrap();
        assert_eq!(fs::read_to_string(mount.join("session/uploads/file_a")).unwrap(), "file_a");
        lay_out(&place, &[]).unwrap();
        assert_eq!(fs::read_dir(&mount).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(bytes.join("file_a")).unwrap(), "file_a");
    }
}
