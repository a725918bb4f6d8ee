//! Permission modes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What happens to calls that no rule decides. source: the agent protocol reference, section 1.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PermissionMode {
    /// Asks where needed; reading within the roots is free.
    #[default]
    Default,
    /// Besides, edits within the roots are free.
    AcceptEdits,
    /// Nothing is changed: tools that write are refused.
    Plan,
    /// What is not allowed beforehand is denied.
    DontAsk,
    /// Everything but what deny and ask rules name.
    BypassPermissions,
    /// A model decides in the official CLI; here it asks, as the default mode does.
    Auto,
}

/// A text that names no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "read the permission mode {0:?}: expected default, acceptEdits, plan, dontAsk, bypassPermissions or auto"
)]
pub struct ModeError(String);

impl PermissionMode {
    /// The mode as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::AcceptEdits => "acceptEdits",
            Self::Plan => "plan",
            Self::DontAsk => "dontAsk",
            Self::BypassPermissions => "bypassPermissions",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for PermissionMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for PermissionMode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        [Self::Default, Self::AcceptEdits, Self::Plan, Self::DontAsk, Self::BypassPermissions, Self::Auto]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| ModeError(text.chars().take(40).collect()))
    }
}
