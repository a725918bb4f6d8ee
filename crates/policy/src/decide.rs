//! The decision about one tool call.

use std::path::PathBuf;

use serde_json::Value;

use crate::{PermissionMode, Rule};

/// What decides: the mode, the rules, and where files may be touched.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What happens to calls that no rule decides.
    pub mode: PermissionMode,
    /// Calls that go through unasked.
    pub allow: Vec<Rule>,
    /// Calls that are always asked about.
    pub ask: Vec<Rule>,
    /// Calls that are refused in every mode.
    pub deny: Vec<Rule>,
    /// The working directory and the additional directories, resolved.
    pub roots: Vec<PathBuf>,
}

/// One tool call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The tool.
    pub tool: &'a str,
    /// Its input.
    pub input: &'a Value,
}

/// What the caller found out about a call. The crate does no I/O itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The directory that relative paths of the call start at (for Bash, the shell's own), absolute and resolved.
    pub cwd: PathBuf,
    /// The user's home, for rules with `~/`.
    pub home: Option<PathBuf>,
    /// One for each path of [`paths_of`].
    pub paths: Vec<PathFact>,
}

/// A path of a call, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathFact {
    /// As the call has it.
    pub given: String,
    /// Absolute, without symbolic links and `..`; for a file that is not there yet, its directory resolved.
    pub resolved: PathBuf,
}

/// What is to happen with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It runs.
    Allow {
        /// Why.
        reason: Reason,
    },
    /// The host is asked; where there is none, and in mode `dontAsk`, the caller denies it.
    Ask {
        /// Why.
        reason: Reason,
    },
    /// It does not run.
    Deny {
        /// Why.
        reason: Reason,
    },
}

/// Why a call was decided so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What decided.
    pub kind: ReasonKind,
    /// For people.
    pub text: String,
}

/// What decided about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReasonKind {
    /// A rule.
    Rule,
    /// The permission mode.
    Mode,
    /// A path outside the roots.
    Boundary,
    /// The tool changes nothing.
    ReadOnly,
    /// Nothing allowed it, so it is asked about.
    NotAllowed,
    /// The input could not be evaluated: a shell command that is not understood, a path that is missing.
    NotEvaluated,
}

impl ReasonKind {
    /// The kind as it stands on the wire, in `decision_reason_type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Mode => "mode",
            Self::Boundary => "workingDir",
            Self::ReadOnly | Self::NotAllowed | Self::NotEvaluated => "other",
        }
    }
}

impl Policy {
    /// The tools that a bare-name deny rule takes away from the model altogether. A name may end in `*`
    /// (`mcp__server__*`).
    #[must_use]
    pub fn removed_tools(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Whether a bare-name deny rule takes this tool away.
    #[must_use]
    pub fn removes(&self, _tool: &str) -> bool {
        false
    }
}

/// The paths in a call's input that the caller must resolve into [`Facts::paths`]: those of the file tools, and for
/// Bash the targets of redirects that can be read off.
#[must_use]
pub fn paths_of(_call: &Call<'_>) -> Vec<String> {
    Vec::new()
}

/// Decides about a call. source: the agent protocol reference, section 1.5: deny rules, ask rules, mode, allow rules,
/// and then the host. (Hooks come before, with the caller.)
#[must_use]
pub fn decide(_policy: &Policy, _call: &Call<'_>, _facts: &Facts) -> Decision {
    Decision::Ask { reason: Reason { kind: ReasonKind::NotAllowed, text: "no rule allows it".to_owned() } }
}
