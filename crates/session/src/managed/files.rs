//! The files that a managed session is given, brought to where its agent sees them.
//!
//! The session holds each file under a name of its own, `given/<resource>`: a hard link to the uploaded bytes, or a copy
//! where there can be no link. What is held stays though the uploaded file is deleted. From there files below `/mnt`
//! are linked into `mnt`, which the sandbox shows read-only, and links and folders that nobody asked for are removed.
//! Files below `/workspace` are copied there once, for the agent to change; then what is held is an empty file, which
//! says so. All this is out of the sandbox's reach, and made to agree with the definition at each start: it does not
//! matter where it was cut off before.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;
use wardian_protocol::{FileId, OrgId, ResourceId, SessionId};
use wardian_sandbox::{Error as SandboxError, volume};

use super::Definition;
use crate::engine::{Inner, describe};
use crate::folder::{SessionFolders, blob_path};
use crate::launch::{GIVEN, WORKSPACE};

/// The largest file that is copied into a workspace, in bytes: a copy is there once a session, and is not shared.
pub const MAX_COPY_BYTES: u64 = 64 * 1024 * 1024;
/// A file that is being made to be held; no resource's id.
const PARTIAL: &str = ".partial";
/// Everybody may read: as root, who is inside is not who owns the file.
const READABLE: u32 = 0o444;
const ENTERABLE: u32 = 0o755;

/// Why a session's files are not where they should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They cannot be as the definition says; trying again is no use.
    #[error("give the session its files: {0}")]
    Refused(String),
    /// The disk did not do as it was told.
    #[error("give the session its files: {cause}")]
    Failed {
        /// Which file or folder of the host's: not for clients.
        what: String,
        /// Why.
        cause: io::Error,
    },
}

/// Brings the files of a session to what its definition says.
///
/// # Errors
/// See [`Error`].
pub async fn bring(
    engine: &Inner,
    org_id: &OrgId,
    session_id: &SessionId,
    definition: &Definition,
) -> Result<(), Error> {
    let wanted = wanted(&definition.resources)?;
    let (folders, blobs, org_id) = (engine.folder.session(session_id), engine.folder.files(), org_id.clone());
    let brought = tokio::task::spawn_blocking(move || agree(&folders, &blobs, &org_id, &wanted)).await;
    let brought =
        brought.map_err(|error| Error::Failed { what: "all".to_owned(), cause: io::Error::other(error) })?;
    if let Err(Error::Failed { what, cause }) = &brought {
        tracing::error!(session_id = %session_id, path = what, error = %cause, "a session's files are not in place");
    }
    brought
}

/// A file of a definition.
struct Wanted {
    id: ResourceId,
    file: FileId,
    place: Place,
}

/// Where a file goes, relative to the folder.
enum Place {
    Shown(PathBuf),
    Workspace(PathBuf),
}

fn wanted(resources: &[Value]) -> Result<Vec<Wanted>, Error> {
    let mut wanted = Vec::with_capacity(resources.len());
    let mut paths = BTreeMap::new();
    for resource in resources {
        let text = |name: &str| resource[name].as_str().unwrap_or_default();
        let refuse = |why: &str| Error::Refused(format!("resource {:?}: {why}", text("id")));
        if text("type") != "file" {
            return Err(refuse("not a file"));
        }
        let id: ResourceId = text("id").parse().map_err(|_| refuse("not a resource's id"))?;
        let file = text("file_id").parse().map_err(|_| refuse("not a file's id"))?;
        let path = text("mount_path");
        let place = place(path).ok_or_else(|| refuse("no plain path below /mnt or /workspace"))?;
        if paths.insert(Path::new(path), ()).is_some() {
            return Err(refuse("another file is at this path"));
        }
        wanted.push(Wanted { id, file, place });
    }
    let in_the_way = |path: &&&Path| path.ancestors().skip(1).any(|above| paths.contains_key(above));
    match paths.keys().find(in_the_way) {
        Some(path) => Err(Error::Refused(format!("{}: another file is above this path", path.display()))),
        None => Ok(wanted),
    }
}

fn place(path: &str) -> Option<Place> {
    let below = |folder: &str| path.strip_prefix(folder)?.strip_prefix('/').map(PathBuf::from);
    let plain = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255 && !part.contains('\0');
    if path.len() > volume::MAX_PATH_BYTES || !path.split('/').skip(1).all(plain) {
        return None;
    }
    below(GIVEN).map(Place::Shown).or_else(|| below(WORKSPACE).map(Place::Workspace))
}

/// What tells one file from all others.
type Identity = (u64, u64);

/// Brings what is there to what is wanted. Each step may be the last; the next call goes on.
fn agree(folders: &SessionFolders, blobs: &Path, org_id: &OrgId, wanted: &[Wanted]) -> Result<(), Error> {
    make_folder(&folders.given, 0o700)?;
    make_folder(&folders.shown, ENTERABLE)?;
    let_go(&folders.given, wanted)?;
    let mut shown: BTreeMap<&Path, Identity> = BTreeMap::new();
    for file in wanted {
        let held = folders.given.join(file.id.as_str());
        let blob = || find(blob_path(blobs, org_id, &file.file), &file.file);
        let is_held = fs::symlink_metadata(&held).is_ok();
        match &file.place {
            Place::Shown(path) => {
                if !is_held {
                    hold(&blob()?, &folders.given, &held).map_err(failed(&held))?;
                }
                shown.insert(path, identity(&fs::symlink_metadata(&held).map_err(failed(&held))?));
            }
            Place::Workspace(path) if !is_held => {
                let blob = blob()?;
                let bytes = File::open(&blob).map_err(failed(&blob))?;
                let size = bytes.metadata().map_err(failed(&blob))?.len();
                if size > MAX_COPY_BYTES {
                    let why = format!("{size} bytes are more than a workspace is given: {MAX_COPY_BYTES}");
                    return Err(Error::Refused(format!("{}: {why}", file.file)));
                }
                volume::place_file(&folders.workspace, path, &bytes).map_err(in_workspace)?;
                // Durably, or an agent's changes would be lost when this is done again.
                let marked = File::create(&held).and_then(|_| File::open(&folders.given)?.sync_all());
                marked.map_err(failed(&held))?;
            }
            Place::Workspace(_) => (),
        }
    }
    remove_others(&folders.shown, Path::new(""), &shown)?;
    for file in wanted {
        if let Place::Shown(path) = &file.place {
            show(&folders.shown, path, &folders.given.join(file.id.as_str()))?;
        }
    }
    Ok(())
}

/// Removes what is held of resources that are gone, and what was never held wholly.
fn let_go(folder: &Path, wanted: &[Wanted]) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        if !wanted.iter().any(|file| entry.file_name() == file.id.as_str()) {
            fs::remove_file(entry.path()).map_err(failed(folder))?;
        }
    }
    Ok(())
}

/// Gives the bytes a name of the session's, wholly or not at all.
fn hold(blob: &Path, folder: &Path, held: &Path) -> io::Result<()> {
    let partial = folder.join(PARTIAL);
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    // No link: on another file system, or the bytes have as many names as they can.
    if fs::hard_link(blob, &partial).is_err() {
        let mut copy = File::options().create_new(true).write(true).open(&partial)?;
        io::copy(&mut File::open(blob)?, &mut copy)?;
        copy.sync_all()?;
    }
    fs::set_permissions(&partial, Permissions::from_mode(READABLE))?;
    fs::rename(&partial, held)
}

fn find(blob: PathBuf, id: &FileId) -> Result<PathBuf, Error> {
    match fs::symlink_metadata(&blob) {
        Ok(found) if found.is_file() => Ok(blob),
        Ok(_) => Err(Error::Refused(format!("{id} is not a file"))),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::Refused(format!(
            "{id} is not there any more; remove the resource, or upload it again"
        ))),
        Err(error) => Err(failed(&blob)(error)),
    }
}

/// Removes what is shown and not wanted, or is not the file that is wanted there.
fn remove_others(root: &Path, below: &Path, wanted: &BTreeMap<&Path, Identity>) -> Result<(), Error> {
    let folder = root.join(below);
    for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
        let entry = entry.map_err(failed(&folder))?;
        let (path, host) = (below.join(entry.file_name()), entry.path());
        // Of the entry itself, also when it is a link.
        let found = entry.metadata().map_err(failed(&host))?;
        let leads_on = || wanted.keys().any(|wanted| *wanted != path && wanted.starts_with(&path));
        if found.is_dir() && leads_on() {
            remove_others(root, &path, wanted)?;
        } else if found.is_dir() {
            fs::remove_dir_all(&host).map_err(failed(&host))?;
        } else if wanted.get(path.as_path()) != Some(&identity(&found)) {
            fs::remove_file(&host).map_err(failed(&host))?;
        }
    }
    Ok(())
}

/// Shows a held file at its path. What is at the path already is this file: [`remove_others`] has looked.
fn show(root: &Path, path: &Path, held: &Path) -> Result<(), Error> {
    let mut folder = root.to_owned();
    for part in path.parent().into_iter().flat_map(Path::iter) {
        folder.push(part);
        make_folder(&folder, ENTERABLE)?;
    }
    let point = root.join(path);
    match fs::hard_link(held, &point) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed(&point)(error)),
        _ => Ok(()),
    }
}

/// Makes a folder if it is missing, and gives it this mode whatever the process's mask is.
fn make_folder(path: &Path, mode: u32) -> Result<(), Error> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(path)(error)),
        _ => (),
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed(path))
}

fn identity(found: &fs::Metadata) -> Identity {
    (found.dev(), found.ino())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let what = path.display().to_string();
    move |cause| Error::Failed { what, cause }
}

fn in_workspace(error: SandboxError) -> Error {
    match error {
        SandboxError::Invalid { why, .. } => Error::Refused(format!("in the workspace: {why}")),
        error => Error::Failed { what: WORKSPACE.to_owned(), cause: io::Error::other(describe(&error)) },
    }
}
