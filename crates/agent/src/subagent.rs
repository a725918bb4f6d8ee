//! Subagents: sessions within a session, each with its own conversation, prompt, tools and model.
//!
//! source: the agent protocol reference, sections 1.1 and 1.6.

mod builtin;
mod read;
mod run;
mod summary;
mod within;

use std::collections::BTreeMap;

use wardian_policy::PermissionMode;

pub use self::read::{definitions, files};
pub(crate) use self::run::{Asked, run};
pub(crate) use self::summary::Seen;

/// How deep subagents may begin others. source: the reference CLI's limit.
pub(crate) const MAX_DEPTH: usize = 3;
/// Definitions that a session takes: all of them are told to the model.
const MAX_DEFINITIONS: usize = 256;
/// The most bytes of a definition's description that the model is told.
const MAX_DESCRIPTION_BYTES: usize = 4 * 1024;

/// A kind of subagent. The names are the Agent SDK's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentDefinition {
    /// When the model is to call on it.
    pub description: String,
    /// Its system prompt.
    pub prompt: String,
    /// The tools it has, of those that the session has; `None`: all.
    pub tools: Option<Vec<String>>,
    /// Tools that it does not have.
    pub disallowed_tools: Vec<String>,
    /// An alias, an id, or `inherit`; `None`: the main thread's.
    pub model: Option<String>,
    /// `low`, `medium`, `high`, `xhigh` or `max`; `None`: the session's.
    pub effort: Option<String>,
    /// What happens to its calls that no rule decides; `None`: what the session does.
    pub permission_mode: Option<PermissionMode>,
    /// How many replies of the model it may take.
    pub max_turns: Option<u64>,
    /// The tool servers that it has, by name; `None`: all of the session.
    pub mcp_servers: Option<Vec<String>>,
    /// Skills whose text it begins with.
    pub skills: Vec<String>,
    /// Whether it runs beside the turn unless its caller says otherwise.
    pub background: Option<bool>,
    /// The first prompt, where it is the main thread's agent.
    pub initial_prompt: Option<String>,
    /// Whether it does without the memory files.
    pub omit_claude_md: bool,
    /// Where it comes from, for those who list agents.
    pub source: AgentSource,
}

/// Where an agent's definition comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentSource {
    /// The host, or the flag.
    #[default]
    Options,
    /// It is part of this program.
    BuiltIn,
    /// A file of the user's.
    User,
    /// A file of the project's.
    Project,
    /// A file of a plugin's.
    Plugin,
}

impl AgentSource {
    /// As hosts know it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Options => "flagSettings",
            Self::BuiltIn => "built-in",
            Self::User => "userSettings",
            Self::Project => "projectSettings",
            Self::Plugin => "plugin",
        }
    }

    /// Whether it is part of this program.
    pub(crate) const fn is_built_in(self) -> bool {
        matches!(self, Self::BuiltIn)
    }
}

/// All that the model can call on: the built-in ones, and those given, which may stand in a built-in one's place.
#[must_use]
pub fn all(given: BTreeMap<String, AgentDefinition>) -> BTreeMap<String, AgentDefinition> {
    let mut all = builtin::definitions();
    all.extend(given.into_iter().take(MAX_DEFINITIONS));
    all
}

/// What the model is told of an agent.
pub(crate) fn shown_description(agent: &AgentDefinition) -> &str {
    let text = agent.description.trim();
    &text[..text.floor_char_boundary(MAX_DESCRIPTION_BYTES)]
}
