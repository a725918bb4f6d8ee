//! The events that hooks are for.

use std::fmt;
use std::str::FromStr;

/// What a hook is for. source: the agent protocol reference, section 1.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HookEvent {
    /// The model has written a call; nothing is decided yet.
    PreToolUse,
    /// A call was run.
    PostToolUse,
    /// A call was run and failed.
    PostToolUseFailure,
    /// All calls of a reply have their results.
    PostToolBatch,
    /// The host's user should be told something.
    Notification,
    /// A prompt is about to be taken.
    UserPromptSubmit,
    /// A prompt is a command that stands for another prompt.
    UserPromptExpansion,
    /// The session begins.
    SessionStart,
    /// The session is over.
    SessionEnd,
    /// The model is done.
    Stop,
    /// The turn ends because the model could not be reached, or failed.
    StopFailure,
    /// A subagent begins.
    SubagentStart,
    /// A subagent is done.
    SubagentStop,
    /// The conversation is about to be summed up.
    PreCompact,
    /// The conversation was summed up.
    PostCompact,
    /// Another model is about to be used.
    PreModelSwitch,
    /// Another model is used.
    PostModelSwitch,
    /// Somebody is about to be asked about a call.
    PermissionRequest,
    /// A call was refused.
    PermissionDenied,
    /// The session is being set up.
    Setup,
    /// Another agent has nothing to do. Does not happen here.
    TeammateIdle,
    /// A task was put on the list.
    TaskCreated,
    /// A task of the list is done.
    TaskCompleted,
    /// A tool server asks the user something.
    Elicitation,
    /// The user has answered a tool server.
    ElicitationResult,
    /// A settings file changed.
    ConfigChange,
    /// A worktree is to be made. Does not happen here.
    WorktreeCreate,
    /// A worktree is to go. Does not happen here.
    WorktreeRemove,
    /// A file of instructions was read.
    InstructionsLoaded,
    /// The shell's working directory changed.
    CwdChanged,
    /// A watched file changed. Does not happen here.
    FileChanged,
    /// There is one more directory to work in.
    DirectoryAdded,
    /// A text of a reply is about to be shown.
    MessageDisplay,
}

/// A text that names no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the hook event {0:?}: there is none of that name")]
pub struct EventError(String);

impl HookEvent {
    /// All events.
    pub const ALL: &[Self] = &[
        Self::PreToolUse,
        Self::PostToolUse,
        Self::PostToolUseFailure,
        Self::PostToolBatch,
        Self::Notification,
        Self::UserPromptSubmit,
        Self::UserPromptExpansion,
        Self::SessionStart,
        Self::SessionEnd,
        Self::Stop,
        Self::StopFailure,
        Self::SubagentStart,
        Self::SubagentStop,
        Self::PreCompact,
        Self::PostCompact,
        Self::PreModelSwitch,
        Self::PostModelSwitch,
        Self::PermissionRequest,
        Self::PermissionDenied,
        Self::Setup,
        Self::TeammateIdle,
        Self::TaskCreated,
        Self::TaskCompleted,
        Self::Elicitation,
        Self::ElicitationResult,
        Self::ConfigChange,
        Self::WorktreeCreate,
        Self::WorktreeRemove,
        Self::InstructionsLoaded,
        Self::CwdChanged,
        Self::FileChanged,
        Self::DirectoryAdded,
        Self::MessageDisplay,
    ];

    /// The event as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreToolUse => "PreToolUse",
            Self::PostToolUse => "PostToolUse",
            Self::PostToolUseFailure => "PostToolUseFailure",
            Self::PostToolBatch => "PostToolBatch",
            Self::Notification => "Notification",
            Self::UserPromptSubmit => "UserPromptSubmit",
            Self::UserPromptExpansion => "UserPromptExpansion",
            Self::SessionStart => "SessionStart",
            Self::SessionEnd => "SessionEnd",
            Self::Stop => "Stop",
            Self::StopFailure => "StopFailure",
            Self::SubagentStart => "SubagentStart",
            Self::SubagentStop => "SubagentStop",
            Self::PreCompact => "PreCompact",
            Self::PostCompact => "PostCompact",
            Self::PreModelSwitch => "PreModelSwitch",
            Self::PostModelSwitch => "PostModelSwitch",
            Self::PermissionRequest => "PermissionRequest",
            Self::PermissionDenied => "PermissionDenied",
            Self::Setup => "Setup",
            Self::TeammateIdle => "TeammateIdle",
            Self::TaskCreated => "TaskCreated",
            Self::TaskCompleted => "TaskCompleted",
            Self::Elicitation => "Elicitation",
            Self::ElicitationResult => "ElicitationResult",
            Self::ConfigChange => "ConfigChange",
            Self::WorktreeCreate => "WorktreeCreate",
            Self::WorktreeRemove => "WorktreeRemove",
            Self::InstructionsLoaded => "InstructionsLoaded",
            Self::CwdChanged => "CwdChanged",
            Self::FileChanged => "FileChanged",
            Self::DirectoryAdded => "DirectoryAdded",
            Self::MessageDisplay => "MessageDisplay",
        }
    }

    /// Whether it happens while the model is at work, so that its effort is told.
    pub(super) const fn is_within_work(self) -> bool {
        matches!(
            self,
            Self::PreToolUse
                | Self::PostToolUse
                | Self::PostToolUseFailure
                | Self::PostToolBatch
                | Self::PermissionRequest
                | Self::PermissionDenied
                | Self::Stop
                | Self::SubagentStop
        )
    }

    /// Whether the permission mode is told with it. source: the official CLI, observed.
    pub(super) const fn tells_mode(self) -> bool {
        !matches!(
            self,
            Self::SessionStart
                | Self::SessionEnd
                | Self::Setup
                | Self::InstructionsLoaded
                | Self::MessageDisplay
                | Self::PreModelSwitch
                | Self::PostModelSwitch
                | Self::DirectoryAdded
                | Self::ConfigChange
        )
    }

    /// Whether hosts hear of it through the control channel with this cause. source: the official CLI, observed: what
    /// happens before the host has said how the session is set up, or after it has left, it never hears of.
    #[must_use]
    pub fn reaches_hosts(self, cause: Option<&str>) -> bool {
        match self {
            Self::Setup => false,
            Self::SessionStart => matches!(cause, Some("compact" | "clear")),
            Self::SessionEnd => cause == Some("clear"),
            Self::InstructionsLoaded => matches!(cause, Some("compact" | "nested_traversal")),
            _ => true,
        }
    }

    /// Whether a hook that fails can block what the event is about.
    pub(super) const fn is_guarded(self) -> bool {
        !matches!(self, Self::Stop | Self::SubagentStop | Self::TaskCompleted | Self::TeammateIdle)
    }
}

impl fmt::Display for HookEvent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for HookEvent {
    type Err = EventError;

    fn from_str(text: &str) -> Result<Self, EventError> {
        let found = Self::ALL.iter().copied().find(|event| event.as_str() == text);
        found.ok_or_else(|| EventError(text.chars().take(40).collect()))
    }
}
