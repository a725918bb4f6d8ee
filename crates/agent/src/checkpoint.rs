//! File checkpoints: copies of files from before tools change them, and the way back.
//!
//! source: the agent protocol reference, section 1.2 (`rewind_files`), and the official CLI's behaviour. A checkpoint is
//! taken at each prompt, of the files that tools have changed so far; a file that is changed for the first time joins
//! the checkpoint of the prompt under way. What Bash does is not seen. Copies lie in a folder of the session, named
//! `<hash>@v<n>`, and `index.jsonl` beside them says which belongs to what; it may be cut anywhere.

mod index;
mod restore;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;

use crate::session::Session;

/// The most files of which copies are kept; each is looked at with every prompt.
const MAX_FILES: usize = 1_000;
/// The largest file that is copied, in bytes: more than tools write.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// The most that the copies of a session take, in bytes.
const MAX_TOTAL_BYTES: u64 = 1024 * 1024 * 1024;
/// The most checkpoints of a session; those of the first prompts go.
const MAX_CHECKPOINTS: usize = 1_000;

/// The checkpoints of a session. Clones share them.
#[derive(Clone, Debug)]
pub struct Checkpoints(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    folder: PathBuf,
    /// Those of earlier prompts first.
    checkpoints: Vec<Checkpoint>,
    /// The newest copy of each file.
    newest: HashMap<PathBuf, Backup>,
    bytes: u64,
}

/// What files were at a prompt: those that are not what they were at the one before, and those that were changed for the
/// first time since.
#[derive(Clone, Debug, Default)]
struct Checkpoint {
    prompt: String,
    files: BTreeMap<PathBuf, Backup>,
}

/// What a file was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Backup {
    version: u64,
    content: Content,
    /// The resolved folder that the file lay in: a link put in its place later is not followed.
    folder: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// There was none.
    Missing,
    /// The name of the copy, and the file's permissions.
    Copy { name: String, mode: u32 },
    /// It was something else than a plain file, or too large.
    Unknown,
}

/// What a rewind did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewound {
    /// The files that differ from the checkpoint, absolute.
    pub files_changed: Vec<PathBuf>,
    /// Lines that come back.
    pub insertions: usize,
    /// Lines that go.
    pub deletions: usize,
    /// Files that were left as they are, because a link or something else than a plain file is in their place.
    pub skipped_links: usize,
}

/// Why files were not rewound. Programs compare the words of the first two.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewindError {
    /// The query keeps no checkpoints.
    #[error("File rewinding is not enabled.")]
    NotEnabled,
    /// No checkpoint was taken at this prompt.
    #[error("No file checkpoint found for this message.")]
    Unknown,
    /// Files could not be put back: how many of how many, and why the first could not. The others are as they were.
    #[error("put the files back: {0}")]
    Failed(String),
}

impl Checkpoints {
    /// Those kept in `folder`, which is made with the first copy. Blocks.
    #[must_use]
    pub fn open(folder: PathBuf) -> Self {
        let (checkpoints, bytes) = index::read(&folder);
        let mut newest: HashMap<PathBuf, Backup> = HashMap::new();
        for (path, backup) in checkpoints.iter().flat_map(|checkpoint| &checkpoint.files) {
            newest.insert(path.clone(), backup.clone());
        }
        Self(Arc::new(Mutex::new(State { folder, checkpoints, newest, bytes })))
    }

    /// Those kept in `folder` that begin as the ones in `source`: of a conversation that goes on from another. What cannot
    /// be taken over is missing. Blocks.
    #[must_use]
    pub fn open_fork(folder: PathBuf, source: &Path) -> Self {
        if !folder.exists()
            && let Err(error) = index::copy(source, &folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the file checkpoints of the other conversation were not taken over");
        }
        Self::open(folder)
    }

    /// Begins anew for another conversation, in the folder beside this one that has its name.
    pub(crate) fn begin_anew(&self, session_id: &str) {
        let mut state = self.lock();
        let folder = state.folder.with_file_name(session_id);
        *state = State { folder, checkpoints: Vec::new(), newest: HashMap::new(), bytes: 0 };
    }

    /// Takes the checkpoint of a prompt. Blocks.
    pub(crate) fn begin(&self, prompt: &str) {
        let mut state = self.lock();
        if state.checkpoints.iter().any(|checkpoint| checkpoint.prompt == prompt) {
            return;
        }
        let mut known: Vec<PathBuf> = state.newest.keys().cloned().collect();
        known.sort();
        let mut checkpoint = Checkpoint { prompt: prompt.to_owned(), files: BTreeMap::new() };
        for path in known {
            let before = state.newest.get(&path).cloned();
            let backup = state.copy(&path);
            if before.as_ref() != Some(&backup) {
                checkpoint.files.insert(path, backup);
            }
        }
        index::append(&state.folder, &index::checkpoint(&checkpoint));
        state.checkpoints.push(checkpoint);
        forget_first(&mut state.checkpoints);
    }

    /// Keeps what a file is now, if the prompt's checkpoint does not hold it yet. Blocks.
    pub fn before_change(&self, path: &Path) {
        let path = resolved(path);
        let mut state = self.lock();
        // What is known already was looked at when the prompt came.
        if state.checkpoints.is_empty() || state.newest.contains_key(&path) {
            return;
        }
        if state.newest.len() >= MAX_FILES {
            tracing::warn!(path = %path.display(), "a file is not copied before a change: there are too many");
            return;
        }
        let backup = state.copy(&path);
        index::append(&state.folder, &index::file(&path, &backup));
        if let Some(last) = state.checkpoints.last_mut() {
            last.files.insert(path, backup);
        }
    }

    /// Puts the files back to what they were at a prompt; `dry_run`: only says what that would change. Blocks.
    ///
    /// # Errors
    /// [`RewindError::Unknown`], [`RewindError::Failed`].
    pub fn rewind(&self, prompt: &str, dry_run: bool) -> Result<Rewound, RewindError> {
        let state = self.lock();
        let at = state.checkpoints.iter().position(|checkpoint| checkpoint.prompt == prompt);
        let at = at.ok_or(RewindError::Unknown)?;
        let (until, later) = state.checkpoints.split_at(at + 1);
        // What was noted last holds.
        let mut wanted: BTreeMap<&PathBuf, &Backup> =
            until.iter().flat_map(|checkpoint| &checkpoint.files).collect();
        // A file that was changed later for the first time was then what it had been all along.
        for (path, backup) in later.iter().flat_map(|checkpoint| &checkpoint.files) {
            wanted.entry(path).or_insert(backup);
        }
        restore::restore(&state.folder, &wanted, dry_run)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Takes the checkpoint of a prompt.
    pub(crate) async fn take_checkpoint(&self, prompt: &str) {
        // What a subagent does belongs to the prompt that it works for.
        let checkpoints = self.setup.context.checkpoints.clone().filter(|_| self.setup.out.agent.is_none());
        let Some(checkpoints) = checkpoints else { return };
        let prompt = prompt.to_owned();
        // A panic in it is no reason to stop the turn.
        let _ = tokio::task::spawn_blocking(move || checkpoints.begin(&prompt)).await;
    }
}

impl State {
    /// Copies a file, unless its newest copy is the same.
    fn copy(&mut self, path: &Path) -> Backup {
        let before = self.newest.get(path).cloned();
        let version = before.as_ref().map_or(1, |before| before.version + 1);
        let folder = path.parent().map(resolved).unwrap_or_default();
        let content = match look(path) {
            Ok(None) => Content::Missing,
            Ok(Some((bytes, mode))) => {
                if let Some(before) = before.as_ref().filter(|before| self.holds(before, &bytes, mode)) {
                    return before.clone();
                }
                self.keep(path, version, &bytes, mode).unwrap_or_else(|error| {
                    tracing::warn!(%error, path = %path.display(), "a file could not be copied before a change");
                    Content::Unknown
                })
            }
            Err(_) => Content::Unknown,
        };
        if let Some(before) = before.filter(|before| before.content == content) {
            return before;
        }
        let backup = Backup { version, content, folder };
        self.newest.insert(path.to_owned(), backup.clone());
        backup
    }

    fn holds(&self, backup: &Backup, bytes: &[u8], mode: u32) -> bool {
        let Content::Copy { name, mode: kept } = &backup.content else { return false };
        *kept == mode && read_copy(&self.folder.join(name)).is_ok_and(|kept| kept == bytes)
    }

    fn keep(&mut self, path: &Path, version: u64, bytes: &[u8], mode: u32) -> io::Result<Content> {
        let more = bytes.len() as u64;
        if self.bytes + more > MAX_TOTAL_BYTES {
            return Err(io::Error::other("the copies of this session take too much room"));
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let name = format!("{:016x}@v{version}", hash(path));
        let target = self.folder.join(&name);
        // One that an index of before a crash does not name; a fork may share it.
        let _ = std::fs::remove_file(&target);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
        io::Write::write_all(&mut file, bytes)?;
        self.bytes += more;
        Ok(Content::Copy { name, mode })
    }
}

/// A plain file's bytes and permissions; `None`: there is nothing. An error: it is something else.
fn look(path: &Path) -> io::Result<Option<(Vec<u8>, u32)>> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_file() || metadata.nlink() > 1 => {
            return Err(io::Error::other("not a plain file"));
        }
        Ok(_) => (),
    }
    let file = open_plain(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > MAX_FILE_BYTES {
        return Err(io::Error::other("the file is too large"));
    }
    Ok(Some((bytes(file)?, metadata.permissions().mode() & 0o777)))
}

/// A copy's bytes. What lies in its place may be anything by now.
fn read_copy(path: &Path) -> io::Result<Vec<u8>> {
    bytes(open_plain(path)?)
}

/// Opens a plain file: no link is followed, and no pipe waited for.
fn open_plain(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a plain file")) }
}

/// Keeps the newest checkpoints. What the first noted is what the next begin with.
fn forget_first(checkpoints: &mut Vec<Checkpoint>) {
    while checkpoints.len() > MAX_CHECKPOINTS {
        let first = checkpoints.remove(0);
        for (path, backup) in first.files {
            checkpoints[0].files.entry(path).or_insert(backup);
        }
    }
}

fn bytes(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("the file is too large"));
    }
    Ok(bytes)
}

/// The path by which a file is known: links are followed where there is something.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(found) = std::fs::canonicalize(path) {
        return found;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent != path => resolved(parent).join(name),
        _ => path.to_owned(),
    }
}

/// FNV-1a: names must be the same from run to run.
fn hash(path: &Path) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests;
