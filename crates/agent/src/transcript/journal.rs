//! Appends lines to a conversation's file. A line is one write; what cannot be written whole ends the writing.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::file::{self, Folder};
use super::fork::Fork;
use super::mirror::Mirror;
use crate::{Error, Message};

/// Lines up to this length are written in place. They go into the system's cache in microseconds, where a hop to another
/// thread and back takes ten times as long, and there are four of them to a tool call.
const SHORT_BYTES: usize = 64 * 1024;

/// The folder of subagents' transcripts. source: the agent protocol reference, section 2.9.
const SUBAGENTS: &str = "subagents";

/// The file of one conversation.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: Folder,
    path: PathBuf,
    file: tokio::sync::Mutex<Option<Arc<File>>>,
    last_uuid: Mutex<Option<String>>,
    /// What comes before the first line that is written.
    first: Mutex<First>,
    /// The branch that the working directory is on; on every line, as the official CLI has it.
    branch: OnceLock<String>,
    /// Why nothing is written any more.
    failure: OnceLock<String>,
    /// Fires when the process is to end: what happens then is for whoever resumes.
    sealed: OnceLock<CancellationToken>,
    /// Where its lines are given besides.
    mirror: OnceLock<Mirror>,
}

/// A line was not written, so what it tells must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unkept;

/// What is written before the first line.
#[derive(Debug, Default)]
pub(super) enum First {
    #[default]
    Nothing,
    /// This; the end of a line that was cut, or a note.
    Text(String),
    /// The conversation that this one goes on from.
    Copy(Fork),
}

impl Journal {
    pub(super) fn new(folder: Folder, path: PathBuf, file: Option<Arc<File>>) -> Self {
        Self {
            folder,
            path,
            file: tokio::sync::Mutex::new(file),
            last_uuid: Mutex::default(),
            first: Mutex::default(),
            branch: OnceLock::new(),
            failure: OnceLock::new(),
            sealed: OnceLock::new(),
            mirror: OnceLock::new(),
        }
    }

    /// Goes on after this message, with `first` before all else.
    pub(super) fn after(mut self, last_uuid: Option<String>, first: First) -> Self {
        self.last_uuid = Mutex::new(last_uuid);
        self.first = Mutex::new(first);
        self
    }

    /// One for a new conversation beside this one.
    pub(crate) fn beside(&self, session_id: &str) -> Self {
        let journal =
            Self::new(self.folder.clone(), self.path.with_file_name(super::file_name(session_id)), None);
        self.share_with(&journal);
        journal
    }

    fn share_with(&self, journal: &Self) {
        if let Some(end) = self.sealed.get() {
            journal.seal_with(end.clone());
        }
        if let Some(branch) = self.branch.get() {
            journal.set_branch(branch.clone());
        }
        if let Some(mirror) = self.mirror.get() {
            let _ = journal.mirror.set(mirror.clone());
        }
    }

    pub(crate) fn set_branch(&self, branch: String) {
        let _ = self.branch.set(branch);
    }

    pub(super) fn branch(&self) -> Option<&str> {
        self.branch.get().map(String::as_str)
    }

    /// The journal of a subagent, in a folder beside the session's; that of one within a subagent lies beside its own.
    /// Blocks, for a moment.
    pub(crate) fn of_agent(&self, id: &str) -> io::Result<Self> {
        let beside = self.path.parent().filter(|folder| folder.ends_with(SUBAGENTS));
        let path = beside.map_or_else(|| self.path.with_extension("").join(SUBAGENTS), Path::to_owned);
        let folder = file::prepare(&path)?;
        let journal = Self::new(folder, path.join(format!("agent-{id}.jsonl")), None);
        self.share_with(&journal);
        Ok(journal)
    }

    /// Writes nothing any more once this fires.
    pub(crate) fn seal_with(&self, end: CancellationToken) {
        // A conversation has one query.
        let _ = self.sealed.set(end);
    }

    /// Gives each line that is written from now on to the host too.
    pub(crate) fn mirror_to(&self, host: mpsc::Sender<Result<Message, Error>>) {
        let _ = self.mirror.set(Mirror::to(host));
    }

    /// Gives the host what belongs to the conversation and lies beside its file.
    pub(crate) async fn mirror_only(&self, entry: Value) {
        if let Some(mirror) = self.mirror.get() {
            mirror.give(&self.path, vec![entry]).await;
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Why nothing can be kept any more.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// The id that the next message follows; it is followed by `uuid` next.
    pub(super) fn follow(&self, uuid: &str) -> Option<String> {
        self.last_uuid.lock().unwrap_or_else(PoisonError::into_inner).replace(uuid.to_owned())
    }

    /// Appends a line and waits until the system has it.
    pub(crate) async fn append(&self, line: &Value) -> Result<(), Unkept> {
        let mut slot = self.file.lock().await;
        if self.failure.get().is_some() || self.sealed.get().is_some_and(CancellationToken::is_cancelled) {
            return Err(Unkept);
        }
        let first = std::mem::take(&mut *self.first.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut text, fork) = match first {
            First::Nothing => (String::new(), None),
            First::Text(text) => (text, None),
            First::Copy(fork) => (String::new(), Some(fork)),
        };
        let note = text.trim().to_owned();
        let is_copy = fork.is_some();
        text.push_str(&line.to_string());
        text.push('\n');
        let is_short = text.len() <= SHORT_BYTES && fork.is_none();
        let (file, folder, name) = (slot.clone(), self.folder.clone(), self.path.file_name());
        let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let write = move || -> io::Result<Arc<File>> {
            let file = match file {
                Some(file) => file,
                None => begin(&folder, &name, fork)?,
            };
            write_whole(&file, text.as_bytes())?;
            Ok(file)
        };
        let written = if is_short {
            write()
        } else {
            tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        match written {
            Ok(file) => {
                *slot = Some(Arc::clone(&file));
                // The file stays locked meanwhile: what is written next is given next.
                if let Some(mirror) = self.mirror.get() {
                    // Few have one, and the futures of all are smaller without it.
                    Box::pin(self.give(mirror, file, &note, is_copy, line)).await;
                }
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "the transcript cannot be written");
                let _ = self.failure.set(error.to_string());
                Err(Unkept)
            }
        }
    }

    /// Gives the host what was just written: a whole file where it began as a copy.
    async fn give(&self, mirror: &Mirror, file: Arc<File>, note: &str, is_copy: bool, line: &Value) {
        if is_copy {
            let (mirror, path) = (mirror.clone(), self.path.clone());
            let given = tokio::task::spawn_blocking(move || mirror.give_file(&path, &file)).await;
            if let Ok(Err(error)) = given {
                tracing::error!(%error, "a copied transcript could not be mirrored");
            }
            return;
        }
        let note = serde_json::from_str(note).ok();
        mirror.give(&self.path, note.into_iter().chain([line.clone()]).collect()).await;
    }
}

fn begin(folder: &Folder, name: &str, fork: Option<Fork>) -> io::Result<Arc<File>> {
    let file = match fork {
        Some(fork) => folder.create_filled(name, |file| fork.copy_to(file))?,
        None => folder.create(name)?,
    };
    if !file::lock(&file) {
        return Err(io::Error::other("another process has taken the transcript"));
    }
    Ok(Arc::new(file))
}

/// A line in one write, so that no other line can come into its middle.
fn write_whole(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    loop {
        match file.write(bytes) {
            Ok(written) if written == bytes.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::StorageFull.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
}
