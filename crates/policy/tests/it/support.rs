//! Short ways to say a policy and a call.

use serde_json::{Value, json};
use wardian_policy::{
    Call, Decision, Facts, PathFact, PermissionMode, Policy, ReasonKind, Rule, decide, paths_of,
};

pub const CWD: &str = "/work/app";

pub fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{error}"))).collect()
}

pub fn policy(allow: &[&str], ask: &[&str], deny: &[&str]) -> Policy {
    Policy {
        mode: PermissionMode::Default,
        allow: rules(allow),
        ask: rules(ask),
        deny: rules(deny),
        roots: vec![CWD.into(), "/work/shared".into()],
    }
}

pub fn in_mode(mode: PermissionMode, policy: Policy) -> Policy {
    Policy { mode, ..policy }
}

/// Facts as a caller finds them in a world where `link` in the working directory leads to `/etc`.
pub fn facts(call: &Call<'_>) -> Facts {
    let paths = paths_of(call);
    let resolve = |given: &String| {
        let absolute = std::path::Path::new(CWD).join(given);
        let mut resolved = std::path::PathBuf::new();
        for part in absolute.components() {
            match part {
                std::path::Component::ParentDir => {
                    resolved.pop();
                }
                std::path::Component::CurDir => (),
                part => resolved.push(part),
            }
            if resolved == std::path::Path::new("/work/app/link") {
                resolved = "/etc".into();
            }
        }
        PathFact { given: given.clone(), resolved }
    };
    Facts {
        cwd: CWD.into(),
        call_cwd: CWD.into(),
        home: Some("/home/user".into()),
        paths: paths.iter().map(resolve).collect(),
        links: Vec::new(),
    }
}

pub fn decided(policy: &Policy, tool: &str, input: Value) -> Decision {
    let call = Call { tool, input: &input };
    decide(policy, &call, &facts(&call))
}

/// `allow`, `ask` or `deny`, and why.
pub fn said(decision: &Decision) -> (&'static str, ReasonKind) {
    let word = match decision {
        Decision::Allow { .. } => "allow",
        Decision::Ask { .. } => "ask",
        Decision::Deny { .. } => "deny",
    };
    (word, decision.reason().kind)
}

pub fn bash(policy: &Policy, command: &str) -> &'static str {
    said(&decided(policy, "Bash", json!({ "command": command }))).0
}

pub fn file(policy: &Policy, tool: &str, path: &str) -> &'static str {
    let field = match tool {
        "NotebookEdit" => "notebook_path",
        "Glob" | "Grep" => "path",
        _ => "file_path",
    };
    said(&decided(policy, tool, json!({ field: path, "pattern": "x" }))).0
}
