//! Hooks: the caller's code around tool calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use regex::Regex;
use wardian_protocol::hook::{HookOutput, PreToolUseInput};

/// What a hook runs. When the turn is interrupted, its future is dropped.
pub type HookCallback =
    Arc<dyn Fn(PreToolUseInput) -> BoxFuture<'static, Result<HookOutput, HookFailure>> + Send + Sync>;

/// Why a hook gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("run the hook: {0}")]
pub struct HookFailure(pub String);

/// What happens to the call when a hook fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// As if it had said nothing.
    #[default]
    Continue,
    /// The call is refused.
    Block,
}

/// A hook that runs before tool calls, as soon as the model has written the call.
#[derive(Clone)]
pub struct PreToolUseHook {
    matcher: Matcher,
    /// How long it may take.
    pub timeout: Duration,
    /// What happens when it fails or takes longer.
    pub on_failure: OnFailure,
    /// What it runs.
    pub callback: HookCallback,
}

/// How long a hook may take that does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

impl PreToolUseHook {
    /// A hook for the tools that `matcher` names: a tool, `A|B`, a regular expression over the whole name, or nothing
    /// for every tool. A matcher that cannot be read matches every tool, so that a hook never fails to see a call.
    #[must_use]
    pub fn new(matcher: Option<&str>, callback: HookCallback) -> Self {
        Self {
            matcher: Matcher::read(matcher),
            timeout: DEFAULT_TIMEOUT,
            on_failure: OnFailure::Continue,
            callback,
        }
    }

    /// Whether it runs for this tool.
    #[must_use]
    pub fn matches(&self, tool: &str) -> bool {
        match &self.matcher {
            Matcher::All => true,
            Matcher::Names(names) => names.iter().any(|name| name == tool),
            Matcher::Pattern(pattern) => pattern.is_match(tool),
        }
    }
}

impl fmt::Debug for PreToolUseHook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PreToolUseHook").field("matcher", &self.matcher).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
enum Matcher {
    All,
    Names(Vec<String>),
    Pattern(Regex),
}

impl Matcher {
    fn read(text: Option<&str>) -> Self {
        let text = text.unwrap_or_default();
        if text.is_empty() || text == "*" {
            return Self::All;
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '|');
        if text.chars().all(plain) {
            return Self::Names(text.split('|').map(str::to_owned).collect());
        }
        Regex::new(&format!("^(?:{text})$")).map_or(Self::All, Self::Pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_read_names_lists_and_patterns() {
        let hook = |matcher| {
            PreToolUseHook::new(matcher, Arc::new(|_| Box::pin(async { Ok(HookOutput::default()) })))
        };
        for (matcher, tool, expected) in [
            (None, "Bash", true),
            (Some(""), "Bash", true),
            (Some("*"), "Bash", true),
            (Some("Bash"), "Bash", true),
            (Some("Bash"), "BashX", false),
            (Some("Read|Write"), "Write", true),
            (Some("Read|Write"), "Edit", false),
            (Some("mcp__.*"), "mcp__lab__add", true),
            (Some("mcp__.*"), "Bash", false),
            (Some("(broken"), "Bash", true),
        ] {
            assert_eq!(hook(matcher).matches(tool), expected, "{matcher:?} {tool}");
        }
    }
}
