//! Hooks: the caller's code around tool calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use regex::Regex;
use tokio::time::timeout;
use wardian_protocol::hook::{HookOutput, PermissionDecision, PreToolUseInput};

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

/// What the hooks said of a call, together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) decision: HookDecision,
    /// The input that a hook put in the place of the model's.
    pub(crate) input: Option<serde_json::Value>,
    /// Told to the model besides.
    pub(crate) context: Vec<String>,
    /// What went wrong with hooks, for the host.
    pub(crate) failures: Vec<String>,
}

/// What hooks decided about a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum HookDecision {
    /// Nothing.
    #[default]
    None,
    /// It need not be asked about.
    Allow,
    /// It must be asked about.
    Ask(String),
    /// It is refused.
    Deny(String),
    /// The turn ends with the call not run.
    Defer,
    /// The turn ends.
    Stop,
}

impl HookDecision {
    /// The stricter a decision, the higher: of several hooks the strictest wins.
    const fn strictness(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::Allow => 1,
            Self::Ask(_) => 2,
            Self::Defer => 3,
            Self::Deny(_) => 4,
            Self::Stop => 5,
        }
    }
}

/// Runs the hooks that match a call, one after the other: each sees the input as those before it left it. A refusal ends
/// the row.
pub(crate) async fn run(hooks: &[PreToolUseHook], mut input: PreToolUseInput) -> Verdict {
    let mut verdict = Verdict::default();
    let tool = input.tool_name.clone();
    for hook in hooks.iter().filter(|hook| hook.matches(&tool)) {
        let answer = match timeout(hook.timeout, (hook.callback)(input.clone())).await {
            Ok(answer) => answer.map_err(|failure| failure.0),
            Err(_) => Err(format!("no answer within {} s", hook.timeout.as_secs_f64())),
        };
        match answer {
            Ok(output) => take_in(&mut verdict, &mut input, output),
            Err(failure) => {
                if hook.on_failure == OnFailure::Block {
                    verdict.decision = HookDecision::Deny(format!("the hook failed: {failure}"));
                }
                verdict.failures.push(format!("a hook on {tool} failed: {failure}"));
            }
        }
        if matches!(verdict.decision, HookDecision::Deny(_) | HookDecision::Stop) {
            break;
        }
    }
    verdict
}

fn take_in(verdict: &mut Verdict, input: &mut PreToolUseInput, output: HookOutput) {
    // `async`: the hook goes on by itself, what it says holds nothing up.
    if output.extra.get("async") == Some(&serde_json::Value::Bool(true)) {
        return;
    }
    let specific = output.hook_specific_output.unwrap_or_default();
    let reason = specific.permission_decision_reason.or(output.reason).unwrap_or_default();
    let decision = match (output.go_on, specific.permission_decision, output.decision.as_deref()) {
        (Some(false), _, _) => HookDecision::Stop,
        (_, Some(PermissionDecision::Deny), _) | (_, None, Some("block")) => HookDecision::Deny(reason),
        (_, Some(PermissionDecision::Ask), _) => HookDecision::Ask(reason),
        (_, Some(PermissionDecision::Defer), _) => HookDecision::Defer,
        (_, Some(PermissionDecision::Allow), _) | (_, None, Some("approve")) => HookDecision::Allow,
        (_, None, _) => HookDecision::None,
    };
    if decision.strictness() > verdict.decision.strictness() {
        verdict.decision = decision;
    }
    if let Some(updated) = specific.updated_input {
        input.tool_input = updated.clone();
        verdict.input = Some(updated);
    }
    verdict.context.extend(specific.additional_context);
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
