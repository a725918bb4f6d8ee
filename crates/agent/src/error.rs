//! Why a query could not go on. What goes wrong within a turn is a [`crate::ResultMessage`], not an error.

/// Why a query could not begin, or could not be steered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The main thread's agent is none of those that there are.
    #[error("find the agent {0:?}")]
    UnknownAgent(String),
    /// A rule in the options, or from the host, is none.
    #[error(transparent)]
    Rule(#[from] wardian_policy::RuleError),
    /// The working directory, or an additional one, cannot be used.
    #[error("use the directory {path:?}: {message}")]
    Directory {
        /// As it was given.
        path: std::path::PathBuf,
        /// What the system said.
        message: String,
    },
    /// The API's address cannot be used.
    #[error("use the API address {address:?}: {message}")]
    Endpoint {
        /// As it was given, without user and password.
        address: String,
        /// What is wrong with it.
        message: String,
    },
    /// A header, or the key in it, cannot be sent.
    #[error("send the header {0:?}: it has characters that no header may have")]
    Header(String),
    /// A tool was named that does not exist.
    #[error("offer the tool {0:?}: there is no such tool")]
    UnknownTool(String),
    /// The schema of the output cannot be used.
    #[error("use the output schema: {message}")]
    OutputSchema {
        /// What is wrong with it.
        message: String,
    },
    /// Two tools have one name.
    #[error("offer the tool {0:?}: two tools have this name")]
    DuplicateTool(String),
    /// `bypassPermissions` was asked for where the options do not permit it.
    #[error("set the permission mode: bypassPermissions was not permitted when the query began")]
    BypassNotPermitted,
    /// The API says that there is no such model for this key.
    #[error("use the model {model:?}: {message}")]
    Model {
        /// Its id.
        model: String,
        /// What the API said.
        message: String,
    },
    /// A hook does not let another model be used.
    #[error("switch the model: a PreModelSwitch hook blocked it: {reason}")]
    SwitchBlocked {
        /// What the hook said.
        reason: String,
    },
    /// More prompts are waiting than a query keeps.
    #[error("queue the prompt: {limit} prompts are waiting already")]
    QueueFull {
        /// How many it keeps.
        limit: usize,
    },
    /// A session's id is no UUID.
    #[error("use the session id {0:?}: it must be a UUID")]
    SessionId(String),
    /// A conversation of this id is kept already.
    #[error("begin the session {0}: this id is already in use")]
    SessionExists(String),
    /// The conversation has no message of this id.
    #[error("resume at the message {0}: the conversation has none of this id")]
    NoMessage(String),
    /// More would be left out than the turn that was named.
    #[error("resume at the message {at} without the turn {turn} alone: {message}")]
    DropsMore {
        /// The last message that was to stay.
        at: String,
        /// The prompt of the turn.
        turn: String,
        /// What else would be left out.
        message: String,
    },
    /// Another process has taken the conversation up and not let go of it.
    #[error("resume the session {0}: another process is working on it")]
    SessionInUse(String),
    /// The folder or the file of a conversation cannot be used.
    #[error("use the transcripts in {path:?}: {message}")]
    Transcript {
        /// The folder.
        path: std::path::PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The query has ended.
    #[error("reach the query: it has ended")]
    Ended,
}
