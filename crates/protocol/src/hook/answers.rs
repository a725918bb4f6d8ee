//! What hooks most often answer, said shortly.

use serde_json::Value;

use super::{HookOutput, HookSpecificOutput, PermissionDecision};

impl HookOutput {
    /// What the event is about does not happen: the call is refused, the prompt is not taken, the agent does not stop yet.
    /// The model, or for a prompt the user, is told why.
    #[must_use]
    pub fn block(reason: impl Into<String>) -> Self {
        Self { decision: Some("block".to_owned()), reason: Some(reason.into()), ..Self::default() }
    }

    /// The turn ends.
    #[must_use]
    pub fn stop(reason: impl Into<String>) -> Self {
        Self { go_on: Some(false), stop_reason: Some(reason.into()), ..Self::default() }
    }

    /// Tells the model something besides.
    #[must_use]
    pub fn context(text: impl Into<String>) -> Self {
        let text = Some(text.into());
        Self::specific(HookSpecificOutput { additional_context: text, ..HookSpecificOutput::default() })
    }

    /// `PreToolUse`: the call need not be asked about. Deny and ask rules still hold.
    #[must_use]
    pub fn allow() -> Self {
        Self::decided(PermissionDecision::Allow, None)
    }

    /// `PreToolUse`: the call is refused.
    #[must_use]
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::decided(PermissionDecision::Deny, Some(reason.into()))
    }

    /// `PreToolUse`: the host is asked, whatever the rules allow.
    #[must_use]
    pub fn ask(reason: impl Into<String>) -> Self {
        Self::decided(PermissionDecision::Ask, Some(reason.into()))
    }

    /// `PreToolUse`: the tool does this instead. Whether it may is decided as for any call.
    #[must_use]
    pub fn rewrite(input: Value) -> Self {
        Self::specific(HookSpecificOutput {
            hook_event_name: "PreToolUse".to_owned(),
            updated_input: Some(input),
            ..HookSpecificOutput::default()
        })
    }

    /// `PostToolUse`: the model gets this in the place of what the tool gave: an output in the tool's own shape, or a text.
    #[must_use]
    pub fn replace(output: Value) -> Self {
        Self::specific(HookSpecificOutput {
            hook_event_name: "PostToolUse".to_owned(),
            updated_tool_output: Some(output),
            ..HookSpecificOutput::default()
        })
    }

    fn decided(decision: PermissionDecision, reason: Option<String>) -> Self {
        Self::specific(HookSpecificOutput {
            hook_event_name: "PreToolUse".to_owned(),
            permission_decision: Some(decision),
            permission_decision_reason: reason,
            ..HookSpecificOutput::default()
        })
    }

    fn specific(output: HookSpecificOutput) -> Self {
        Self { hook_specific_output: Some(output), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_those_of_the_protocol() {
        for (output, expected) in [
            (HookOutput::block("no"), json!({"decision": "block", "reason": "no"})),
            (HookOutput::stop("done"), json!({"continue": false, "stopReason": "done"})),
            (
                HookOutput::deny("no"),
                json!({"hookSpecificOutput": {"hookEventName": "PreToolUse",
                    "permissionDecision": "deny", "permissionDecisionReason": "no"}}),
            ),
            (
                HookOutput::allow(),
                json!({"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "allow"}}),
            ),
            (
                HookOutput::rewrite(json!({"a": 1})),
                json!({"hookSpecificOutput": {"hookEventName": "PreToolUse", "updatedInput": {"a": 1}}}),
            ),
        ] {
            assert_eq!(serde_json::to_value(&output).unwrap(), expected);
        }
    }
}
