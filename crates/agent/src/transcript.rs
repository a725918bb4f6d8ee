//! Conversations on disk: a file each, a line a message, appended before anything is shown or done.
//!
//! source: the agent protocol reference, section 2.9. Lines of the types `user` and `assistant` are those of the
//! official CLI, so that the SDKs' own helpers read them; what only we need is in `system` lines without an id, which
//! they skip:
//!
//! | subtype | when |
//! |---|---|
//! | `wardian_reply_ended` | a reply is over: whether it stays in the conversation (`kept`), why it stopped, the totals |
//! | `wardian_tool_started` | before a call is executed, after it was permitted: `toolUseId` |
//! | `wardian_turn_ended` | before the `result` of a turn is given; holds it |
//! | `wardian_rewound` | before the first message of a host that took the conversation up at an earlier one: `to` |
//! | `wardian_tool_state` | after calls: where Bash is now, which files were read |
//! | `wardian_system_prompt` | where the host wants the system prompt to stay: `system` |
//!
//! A `compact_boundary` and the summary after it, as the official CLI writes them, take the place of all before.
//!
//! A call with `wardian_tool_started` and without a result was under way when the process died. Calls that the host runs
//! itself have no such line. What was written last may be cut anywhere; lines that are none are skipped. Costs go on from
//! the totals, and a budget is for one process alone. One process at a time has a conversation, by a file lock. What
//! cannot be written is not done: the turn ends with `error_during_execution`.

mod branch;
mod file;
mod fork;
mod journal;
mod known;
mod line;
mod mirror;
mod read;
mod repair;
mod resume;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use wardian_protocol::{ContentBlock, MessageParam};

pub(crate) use self::branch::branch;
pub(crate) use self::journal::{Journal, Unkept};
pub(crate) use self::known::ToolState;
use self::read::Dropped;
pub(crate) use self::read::calls;
pub use self::resume::Resume;

use crate::meter::Meter;
use crate::{Error, Message, random};

/// The longest folder name that is not shortened. source: the SDKs' session helpers.
const MAX_FOLDER_NAME: usize = 200;
/// The folder that holds the conversations of one working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcripts {
    folder: PathBuf,
}

impl Transcripts {
    /// Those of an absolute `cwd`, under `config`: `$CLAUDE_CONFIG_DIR` or `~/.claude`.
    #[must_use]
    pub fn of(config: &Path, cwd: &Path) -> Self {
        Self { folder: config.join("projects").join(folder_name(&cwd.to_string_lossy())) }
    }

    /// Where a conversation lies.
    #[must_use]
    pub fn path(&self, session_id: &str) -> PathBuf {
        self.folder.join(file_name(session_id))
    }

    /// Prepares a new conversation; its file is made with its first line. `None`: a fresh id.
    ///
    /// # Errors
    /// [`Error::SessionExists`], [`Error::SessionId`], and [`Error::Transcript`] where the folder cannot be written.
    pub async fn begin(&self, session_id: Option<String>) -> Result<Conversation, Error> {
        let session_id = session_id.unwrap_or_else(random::uuid);
        if !is_uuid(&session_id) {
            return Err(Error::SessionId(session_id));
        }
        let (folder, name) = (self.folder.clone(), file_name(&session_id));
        let folder = self.blocking(move || file::prepare(&folder)).await?;
        if folder.has(&name) {
            return Err(Error::SessionExists(session_id));
        }
        let journal = Journal::new(folder, self.path(&session_id), None);
        Ok(Conversation::new(session_id, journal))
    }

    /// The id of the conversation that was written to last.
    pub async fn newest(&self) -> Option<String> {
        let folder = self.folder.clone();
        self.blocking(move || Ok(file::newest(&folder))).await.ok().flatten()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let broken = |message: String| Error::Transcript { path: self.folder.clone(), message };
        let done = tokio::task::spawn_blocking(work).await.map_err(|error| broken(error.to_string()))?;
        done.map_err(|error| broken(error.to_string()))
    }
}

/// Reads what was said in a transcript, as a model would be told it: lines that are none are skipped, calls have their
/// results. Without the last reply, where something of it is left to do. Blocks.
///
/// # Errors
/// When `source` cannot be read, or holds more than a conversation can.
pub fn read_messages(source: impl std::io::BufRead + std::io::Seek) -> std::io::Result<Vec<MessageParam>> {
    match read::parse(source, &read::Wanted::default()) {
        Ok(found) => Ok(found.history),
        Err(read::Unreadable::Io(error)) => Err(error),
        // Nothing was wanted that may be missing.
        Err(read::Unreadable::NoMessage | read::Unreadable::DropsMore(_)) => Ok(Vec::new()),
    }
}

/// A conversation that is kept: a new one, or one taken up again.
#[derive(Clone, Debug)]
pub struct Conversation {
    session_id: String,
    pub(crate) journal: Option<Arc<Journal>>,
    pub(crate) found: Found,
    /// The conversation that it goes on from, where that is another.
    forked_from: Option<String>,
}

/// What a file held.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// What was said, up to the reply that is open.
    pub(crate) history: Vec<MessageParam>,
    /// The last reply, where something of it is left to do.
    pub(crate) open: Option<OpenReply>,
    /// Whether the last turn did not come to its end.
    pub(crate) interrupted: bool,
    pub(crate) meter: Meter,
    /// The ids of the prompts, in their order.
    pub(crate) prompts: Vec<String>,
    /// The result of the last turn, if it ended.
    pub(crate) result: Option<Message>,
    /// The id of the last message.
    pub(crate) last_uuid: Option<String>,
    /// Messages after the one that was asked for, as they were given.
    pub(crate) replay: Vec<Value>,
    /// Whether the file ends in the middle of a line.
    pub(crate) cut: bool,
    /// Where Bash was, and what was read.
    pub(crate) tool_state: ToolState,
    /// The system prompt that is to stay.
    pub(crate) system_prompt: Option<Vec<String>>,
    /// The lines that are no part of the conversation any more.
    dropped: Dropped,
}

/// A reply whose turn did not get past it.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenReply {
    pub(crate) content: Vec<ContentBlock>,
    pub(crate) stop_reason: Option<String>,
    /// The results that its calls have, by the call.
    pub(crate) answered: HashMap<String, ContentBlock>,
    /// The calls that were begun.
    pub(crate) started: HashSet<String>,
}

impl Conversation {
    fn new(session_id: String, journal: Journal) -> Self {
        Self { session_id, journal: Some(Arc::new(journal)), found: Found::default(), forked_from: None }
    }

    /// The same conversation, to which nothing is added on disk.
    #[must_use]
    pub fn unkept(self) -> Self {
        Self { journal: None, ..self }
    }

    pub(crate) fn into_found(self) -> Found {
        self.found
    }

    /// The session's id.
    #[must_use]
    pub fn session_id(&self) -> &str {
        &self.session_id
    }

    /// The id of the conversation that it goes on from, where that is another one.
    #[must_use]
    pub fn forked_from(&self) -> Option<&str> {
        self.forked_from.as_deref()
    }

    /// Whether its last turn did not come to its end.
    #[must_use]
    pub const fn is_interrupted(&self) -> bool {
        self.found.interrupted
    }

    /// Takes the messages out that were given after the one that `resume` was told: a host that saw that one last may
    /// have missed these. They are marked with `isReplay`.
    #[must_use]
    pub fn take_replay(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.found.replay)
    }

    /// The id of the last prompt that it took.
    #[must_use]
    pub fn last_prompt(&self) -> Option<&str> {
        self.found.prompts.last().map(String::as_str)
    }
}

fn file_name(session_id: &str) -> String {
    format!("{session_id}.jsonl")
}

/// Whether this is a UUID: hex digits in groups of 8, 4, 4, 4 and 12.
#[must_use]
pub fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// A directory as the name of a folder: all but letters and digits become `-`, as JavaScript counts characters.
fn folder_name(path: &str) -> String {
    let plain = |unit: u16| match char::from_u32(u32::from(unit)) {
        Some(c) if c.is_ascii_alphanumeric() => c,
        Some(_) | None => '-',
    };
    let name: String = path.encode_utf16().map(plain).collect();
    if name.len() <= MAX_FOLDER_NAME {
        return name;
    }
    format!("{}-{}", &name[..MAX_FOLDER_NAME], base_36(hash(path)))
}

/// The hash that the SDKs tell long names apart by.
fn hash(text: &str) -> u32 {
    let step = |hash: i32, unit: u16| hash.wrapping_shl(5).wrapping_sub(hash).wrapping_add(i32::from(unit));
    text.encode_utf16().fold(0, step).unsigned_abs()
}

fn base_36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit(number % 36, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod names {
    use super::*;

    #[test]
    fn folders_are_named_as_the_sdks_name_them() {
        assert_eq!(folder_name("/home/me/my_project.x"), "-home-me-my-project-x");
        assert_eq!(folder_name("/é\u{1f980}"), "----");
        // The hashes are those that the Python SDK's function gives.
        assert_eq!(base_36(hash("/a")), "176");
        let long = format!("/{}", "x".repeat(300));
        assert_eq!(folder_name(&long), format!("-{}-x8zr69", "x".repeat(199)));
        assert_eq!(base_36(0), "0");
    }

    #[test]
    fn ids_are_uuids_and_nothing_else() {
        assert!(is_uuid("11111111-2222-3333-4444-5555555555aF"));
        for text in ["", "../../etc/passwd", "11111111-2222-3333-4444-55555555555/", "1-2-3-4-5", "é"] {
            assert!(!is_uuid(text), "{text}");
        }
    }
}
