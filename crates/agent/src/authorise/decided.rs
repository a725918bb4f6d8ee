//! Who decided about a call: what `tool_result_meta` tells of it.
//!
//! source: the agent protocol reference, section 1.3, and the official CLI, observed.

use serde_json::{Value, json};
use wardian_policy::ReasonKind;

/// Who let a call run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// Rules and the mode, and why.
    Config(ReasonKind),
    Hook,
    /// Who was asked.
    Host,
}

/// Who refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// Rules and the mode, and why.
    Config(ReasonKind),
    Hook,
    /// Who was asked.
    Host,
    /// Whoever was asked, and the turn ends too.
    AndStopped,
    /// There was nobody to ask.
    Nobody,
}

impl Accepted {
    pub(crate) fn meta(self, id: &str) -> Value {
        let (source, reason) = match self {
            Self::Config(kind) => ("config", kind.as_str()),
            Self::Hook => ("hook", Some("hook")),
            Self::Host => ("user_temporary", None),
        };
        json!({"id": id, "permission_decision": decision("accept", source, reason)})
    }
}

impl Rejected {
    pub(crate) fn meta(self, id: &str) -> Value {
        let (kind, source, reason) = match self {
            Self::AndStopped => return json!({"id": id, "non_execution_kind": "user-rejected"}),
            Self::Config(kind) => ("permission-rule", "config", kind.as_str()),
            Self::Hook => ("permission-rule", "hook", Some("hook")),
            Self::Host => ("permission-rule", "user_reject", None),
            Self::Nobody => ("user-rejected", "config", None),
        };
        json!({"id": id, "non_execution_kind": kind, "permission_decision": decision("reject", source, reason)})
    }

    /// Whether the turn ends too.
    pub(crate) fn stops(self) -> bool {
        self == Self::AndStopped
    }
}

fn decision(decision: &str, source: &str, reason: Option<&str>) -> Value {
    let mut value = json!({"decision": decision, "source": source});
    if let Some(reason) = reason {
        value["reason_type"] = reason.into();
    }
    value
}
