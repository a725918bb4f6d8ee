//! The conversation that the program is to have, by its flags: a new one, one taken up again, or one that is not kept.

use wardian_agent::{Conversation, Error, Resume, Transcripts, new_session_id};
use wardian_protocol::frame::{ResultMessage, SdkMessage};

use crate::args::{Args, Complaint};
use crate::env::Environment;

/// What the flags and the environment say of it.
#[derive(Debug, Default)]
pub struct Wish {
    transcripts: Option<Transcripts>,
    session_id: Option<String>,
    resume: Option<String>,
    newest: bool,
    how: Resume,
    keep_nothing: bool,
}

/// The conversation asked for is not there, or not so.
#[derive(Debug)]
pub struct Missing {
    session_id: Option<String>,
    complaint: String,
}

impl Wish {
    /// Reads the flags.
    pub fn new(args: &Args, environment: &Environment, cwd: &std::path::Path) -> Result<Self, Complaint> {
        let resumes = args.resume.is_some() || args.resume_newest;
        // The official CLI's words: programs may look for them.
        if resumes && args.session_id.is_some() && !args.fork {
            return Err("--session-id with --continue or --resume also needs --fork-session.".to_owned());
        }
        if args.resume_at.is_some() && !resumes {
            return Err("--resume-session-at requires --resume".to_owned());
        }
        if args.resume_drops_turn.is_some() && args.resume_at.is_none() {
            return Err("--resume-drops-turn requires --resume-session-at".to_owned());
        }
        let fork_id = args.session_id.clone().filter(|_| resumes);
        Ok(Self {
            transcripts: environment.config_dir.as_deref().map(|config| Transcripts::of(config, cwd)),
            session_id: args.session_id.clone(),
            resume: args.resume.clone(),
            newest: args.resume_newest,
            how: Resume {
                replay_after: environment.replay_after.clone(),
                at: args.resume_at.clone(),
                drops_turn: args.resume_drops_turn.clone(),
                fork: resumes && args.fork,
                fork_id,
            },
            keep_nothing: args.keep_nothing,
        })
    }

    /// Finds or begins it. `None`: it is not kept.
    pub async fn fulfil(self) -> Result<Result<Option<Conversation>, Missing>, Complaint> {
        let told = |error: Error| format!("failed to {error}");
        let wanted = match (&self.resume, self.newest, &self.transcripts) {
            (Some(id), _, _) => Some(id.clone()),
            (None, true, Some(transcripts)) => match transcripts.newest().await {
                Some(id) => Some(id),
                None => return Ok(Err(Missing::newest())),
            },
            (None, true, None) => return Ok(Err(Missing::newest())),
            (None, false, _) => None,
        };
        if let Some(id) = wanted {
            let found = match &self.transcripts {
                Some(transcripts) => match transcripts.resume(&id, &self.how).await {
                    Err(Error::NoMessage(at)) => return Ok(Err(Missing::message(self.id_of(id), &at))),
                    Err(Error::DropsMore { at, turn, message }) => {
                        return Ok(Err(Missing::drops_more(self.id_of(id), &at, &turn, &message)));
                    }
                    found => found.map_err(told)?,
                },
                None => None,
            };
            let found = found.map(|found| if self.keep_nothing { found.unkept() } else { found });
            return Ok(found.map(Some).ok_or_else(|| Missing::id(id)));
        }
        let Some(transcripts) = self.transcripts.filter(|_| !self.keep_nothing) else { return Ok(Ok(None)) };
        match transcripts.begin(self.session_id.clone()).await {
            Ok(conversation) => Ok(Ok(Some(conversation))),
            // Who names a session means to find it again; the others lose nothing that they asked for.
            Err(error) if self.session_id.is_some() => Err(told(error)),
            Err(error) => {
                eprintln!("warning: no transcript is kept: failed to {error}");
                Ok(Ok(None))
            }
        }
    }
}

impl Wish {
    /// The session that the host hears of.
    fn id_of(&self, resumed: String) -> String {
        if self.how.fork { self.how.fork_id.clone().unwrap_or_else(new_session_id) } else { resumed }
    }
}

/// What is not there. Programs compare these texts.
impl Missing {
    /// The session that was asked for, where one was.
    pub fn session_id(&self) -> &str {
        self.session_id.as_deref().unwrap_or("none")
    }

    fn message(session_id: String, at: &str) -> Self {
        Self {
            session_id: Some(session_id),
            complaint: format!("No message found with message.uuid of: {at}"),
        }
    }

    fn drops_more(session_id: String, at: &str, turn: &str, message: &str) -> Self {
        let complaint = format!(
            "Resume rejected by --resume-drops-turn: resuming at {at} would discard entries not attributable to turn \
             {turn}: {message}"
        );
        Self { session_id: Some(session_id), complaint }
    }

    fn id(id: String) -> Self {
        let complaint = format!("No conversation found with session ID: {id}");
        Self { session_id: Some(id), complaint }
    }

    fn newest() -> Self {
        Self { session_id: None, complaint: "No conversation found to continue".to_owned() }
    }

    /// What hosts are told: a result, as of a turn that could not begin. Programs compare its text.
    pub fn into_result(self) -> SdkMessage {
        eprintln!("{}", self.complaint);
        SdkMessage::Result(Box::new(ResultMessage {
            subtype: "error_during_execution".to_owned(),
            is_error: true,
            session_id: self.session_id.unwrap_or_else(new_session_id),
            errors: vec![self.complaint],
            uuid: Some(new_session_id()),
            usage: wardian_agent::empty_usage(),
            extra: wardian_protocol::JsonMap::from_iter([("result_index".to_owned(), 0.into())]),
            ..ResultMessage::default()
        }))
    }
}
