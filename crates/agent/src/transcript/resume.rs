//! Taking a conversation up again: all of it or a part, the same one or a copy.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::fork::{Fork, rewound};
use super::journal::{First, Journal};
use super::read::{self, Unreadable, Wanted};
use super::{Conversation, Transcripts, file, file_name, is_uuid};
use crate::{Error, random};

/// How long another process may take to let go of a conversation: a little longer than the SDKs wait before they kill.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// How a conversation is taken up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The last message that was seen before; see [`Conversation::take_replay`].
    pub replay_after: Option<String>,
    /// The last message that is taken up, by its uuid; what came after it stays on disk and is left out.
    pub at: Option<String>,
    /// With `at`: the prompt whose turn is left out. If anything else would be, nothing is taken up.
    pub drops_turn: Option<String>,
    /// Whether a new conversation goes on from it, and the old one stays as it is.
    pub fork: bool,
    /// The new conversation's id; default: a fresh one.
    pub fork_id: Option<String>,
}

impl Transcripts {
    /// Takes up a conversation where its last whole line left it, or where `how` says. `None`: there is none of this id.
    ///
    /// # Errors
    /// [`Error::Transcript`]: it is no plain file, too large, or cannot be read; [`Error::SessionInUse`];
    /// [`Error::NoMessage`], [`Error::DropsMore`] by `how`; [`Error::SessionId`], [`Error::SessionExists`] for the fork.
    pub async fn resume(&self, session_id: &str, how: &Resume) -> Result<Option<Conversation>, Error> {
        if !is_uuid(session_id) {
            return Ok(None);
        }
        let (folder, name) = (self.folder.clone(), file_name(session_id));
        let Some((folder, opened)) = self.blocking(move || file::open(&folder, &name)).await? else {
            return Ok(None);
        };
        let opened = Arc::new(opened);
        if !how.fork {
            wait_for(&opened, session_id).await?;
        }
        let Resume { replay_after, at, drops_turn, .. } = how.clone();
        let (source, wanted) = (Arc::clone(&opened), Wanted { replay_after, at, drops: drops_turn });
        let found = self.blocking(move || Ok(read::read(&source, &wanted))).await?;
        let found = found.map_err(|error| self.refused(error, how))?;
        let last_uuid = found.last_uuid.clone();
        let note = how.at.as_deref().map(|at| format!("{}\n", rewound(session_id, at)));
        let forked_from = how.fork.then(|| session_id.to_owned());
        let (session_id, journal) = if how.fork {
            let id = how.fork_id.clone().unwrap_or_else(random::uuid);
            if !is_uuid(&id) {
                return Err(Error::SessionId(id));
            }
            if folder.has(&file_name(&id)) {
                return Err(Error::SessionExists(id));
            }
            let fork = Fork {
                source: opened,
                dropped: found.dropped.clone(),
                session_id: id.clone(),
                at: how.at.clone(),
                meter: found.meter.clone(),
            };
            let journal = Journal::new(folder, self.path(&id), None).after(last_uuid, First::Copy(fork));
            (id, journal)
        } else {
            // A line that was cut must not take the next one with it.
            let first = format!("{}{}", if found.cut { "\n" } else { "" }, note.unwrap_or_default());
            let journal = Journal::new(folder, self.path(session_id), Some(opened));
            (session_id.to_owned(), journal.after(last_uuid, First::Text(first)))
        };
        let mut conversation = Conversation { forked_from, ..Conversation::new(session_id, journal) };
        conversation.found = found;
        Ok(Some(conversation))
    }

    fn refused(&self, error: Unreadable, how: &Resume) -> Error {
        let at = how.at.clone().unwrap_or_default();
        match error {
            Unreadable::NoMessage => Error::NoMessage(at),
            Unreadable::DropsMore(message) => {
                Error::DropsMore { at, turn: how.drops_turn.clone().unwrap_or_default(), message }
            }
            Unreadable::Io(error) => {
                Error::Transcript { path: self.folder.clone(), message: error.to_string() }
            }
        }
    }
}

async fn wait_for(opened: &std::fs::File, session_id: &str) -> Result<(), Error> {
    let patience = Instant::now() + LOCK_PATIENCE;
    while !file::lock(opened) {
        if Instant::now() >= patience {
            return Err(Error::SessionInUse(session_id.to_owned()));
        }
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
    Ok(())
}
