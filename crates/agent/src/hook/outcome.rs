//! What hooks said, together.

use serde_json::Value;
use wardian_protocol::hook::{HookOutput, HookSpecificOutput, PermissionDecision};

use super::HookEvent;

/// What the hooks on one event said, together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct HookOutcome {
    /// The turn ends; why.
    pub(crate) stop: Option<String>,
    /// What the event is about does not happen; why. Calls are refused by `decision` instead.
    pub(crate) block: Option<String>,
    /// `PreToolUse`: what becomes of the call.
    pub(crate) decision: HookDecision,
    /// `PreToolUse`: the input in the place of the model's.
    pub(crate) input: Option<Value>,
    /// Told to the model besides.
    pub(crate) context: Vec<String>,
    /// What each hook said that only its event has, in the order of the hooks.
    pub(crate) specific: Vec<HookSpecificOutput>,
    /// A hook gave no answer in time.
    pub(crate) timed_out: bool,
    /// `block` comes of a hook that failed.
    pub(crate) failed: bool,
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
    /// The turn ends with the call not run.
    Defer,
    /// It is refused.
    Deny(String),
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
        }
    }
}

impl HookOutcome {
    /// The last of what the hooks said of one thing.
    pub(crate) fn last<T>(&self, field: impl Fn(&HookSpecificOutput) -> Option<T>) -> Option<T> {
        self.specific.iter().rev().find_map(field)
    }

    pub(super) fn take_in(&mut self, event: HookEvent, output: HookOutput) {
        // The hook goes on by itself; what it says holds nothing up.
        if output.is_async == Some(true) {
            return;
        }
        if output.go_on == Some(false) {
            self.stop.get_or_insert(output.stop_reason.unwrap_or_default());
        }
        let specific = output.hook_specific_output.unwrap_or_default();
        let blocks = output.decision.as_deref() == Some("block");
        let reason = output.reason.unwrap_or_default();
        if event == HookEvent::PreToolUse {
            let said = specific.permission_decision_reason.clone().unwrap_or_else(|| reason.clone());
            self.decide(match (specific.permission_decision, output.decision.as_deref()) {
                (Some(PermissionDecision::Deny), _) | (None, Some("block")) => HookDecision::Deny(said),
                (Some(PermissionDecision::Ask), _) => HookDecision::Ask(said),
                (Some(PermissionDecision::Defer), _) => HookDecision::Defer,
                (Some(PermissionDecision::Allow), _) | (None, Some("approve")) => HookDecision::Allow,
                (None, _) => HookDecision::None,
            });
        } else if blocks {
            self.block.get_or_insert(reason);
        }
        if specific.updated_input.is_some() {
            self.input.clone_from(&specific.updated_input);
        }
        self.context.extend(specific.additional_context.clone().filter(|text| !text.is_empty()));
        self.specific.push(specific);
    }

    /// Notes that a program objects.
    pub(super) fn object(&mut self, event: HookEvent, reason: String) {
        if event == HookEvent::PreToolUse {
            self.decide(HookDecision::Deny(reason));
        } else {
            self.block.get_or_insert(reason);
        }
    }

    /// Notes that a hook failed that must not.
    pub(super) fn refuse(&mut self, event: HookEvent, reason: String) {
        if event == HookEvent::PreToolUse {
            self.decide(HookDecision::Deny(reason));
        } else if event.is_guarded() {
            self.block.get_or_insert(reason);
            self.failed = true;
        }
    }

    fn decide(&mut self, decision: HookDecision) {
        if decision.strictness() > self.decision.strictness() {
            self.decision = decision;
        }
    }
}
