//! The agent's tools: their names and inputs on both sides, and who decides about a call. No I/O.
//!
//! source: `session-events`: the model sees the names that the runtime uses; clients see those of the toolset.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wardian_policy::{Call, Decision, Facts, PathFact, PermissionMode, Policy, decide, paths_of};
use wardian_protocol::JsonMap;

use crate::launch::WORKSPACE;

/// The longest id of a call that is taken: the API's have 30 bytes.
pub const MAX_CALL_ID_BYTES: usize = 256;
/// The name under which the host offers custom tools to the agent, as a server of tools in its own process.
pub const CUSTOM_SERVER: &str = "custom";
/// Names of tools, the agent's and the toolset's.
const NAMES: &[(&str, &str)] = &[
    ("Bash", "bash"),
    ("Read", "read"),
    ("Write", "write"),
    ("Edit", "edit"),
    ("Glob", "glob"),
    ("Grep", "grep"),
    ("WebFetch", "web_fetch"),
    ("WebSearch", "web_search"),
];
/// What the agent has and a sandbox does not offer yet: there is no way to the web, and the gateway reserves nothing for searches.
const NOT_BUILT: &[&str] = &["WebFetch", "WebSearch"];

/// Who decides about calls of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermissionPolicy {
    /// Nobody: it runs.
    AlwaysAllow,
    /// The client.
    AlwaysAsk,
    /// The host's policy, and where that cannot, the client.
    Auto,
}

/// The tools of one agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tools {
    /// Enabled tools of the toolset, by the agent's name.
    builtin: BTreeMap<&'static str, PermissionPolicy>,
    /// Custom tools as the API has them, by name.
    custom: BTreeMap<String, Value>,
}

/// What a call is, to its client.
#[derive(Clone, Debug, PartialEq)]
pub enum ToolKind {
    /// A tool that the client runs.
    Custom {
        /// Its name.
        name: String,
    },
    /// A tool of the agent.
    Toolset {
        /// Its name in the toolset; a tool that is not in it keeps its own.
        name: String,
        /// Its input, spelt as the toolset does.
        input: Value,
        /// Whether it may run.
        judgement: Judgement,
    },
}

/// Whether a call may run, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Yes, always.
    AlwaysAllow,
    /// The client decides, always.
    AlwaysAsk,
    /// The policy found it harmless.
    AutoAllow,
    /// The policy could not tell.
    AutoAsk,
    /// The policy found it dangerous.
    AutoDeny,
    /// There is no such tool in this session.
    NotEnabled,
}

impl Judgement {
    /// `evaluated_permission`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlwaysAllow | Self::AutoAllow => "allow",
            Self::AlwaysAsk | Self::AutoAsk => "ask",
            Self::AutoDeny | Self::NotEnabled => "deny",
        }
    }

    /// `evaluation`; absent when no policy applied.
    #[must_use]
    pub fn evaluation(self) -> Option<Value> {
        let auto = |permission: Value| json!({"type": "auto", "evaluated_permission": permission});
        match self {
            Self::AlwaysAllow => Some(json!({"type": "always_allow"})),
            Self::AlwaysAsk => Some(json!({"type": "always_ask"})),
            Self::AutoAllow => Some(auto(json!({"type": "allow"}))),
            Self::AutoAsk => Some(auto(json!({"type": "ask", "reason_code": "indeterminate"}))),
            Self::AutoDeny => Some(auto(json!({"type": "deny", "reason_code": "high_risk"}))),
            Self::NotEnabled => None,
        }
    }
}

impl Tools {
    /// Reads the resolved `tools` of an agent. What is not known enables nothing.
    #[must_use]
    pub fn read(tools: &Value) -> Self {
        let mut read = Self::default();
        for tool in tools.as_array().into_iter().flatten() {
            match tool["type"].as_str() {
                Some("agent_toolset_20260401") => read.read_toolset(tool),
                Some("custom") => {
                    if let Some(name) = tool["name"].as_str() {
                        read.custom.insert(name.to_owned(), tool.clone());
                    }
                }
                Some(_) | None => (),
            }
        }
        read
    }

    fn read_toolset(&mut self, toolset: &Value) {
        let default = &toolset["default_config"];
        for (name, wire) in NAMES.iter().filter(|(name, _)| !NOT_BUILT.contains(name)) {
            let configs = toolset["configs"].as_array().into_iter().flatten();
            let config = configs.into_iter().find(|config| config["name"] == **wire);
            let field = |field: &str| {
                config
                    .map(|config| &config[field])
                    .filter(|value| !value.is_null())
                    .unwrap_or(&default[field])
            };
            if field("enabled").as_bool().unwrap_or(true) {
                self.builtin.insert(name, policy(field("permission_policy")));
            }
        }
    }

    /// The agent's arguments that make its tools and rules these.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let with = |wanted: PermissionPolicy| {
            let found = self.builtin.iter().filter(move |(_, policy)| **policy == wanted);
            found.map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>()
        };
        let mut allow = with(PermissionPolicy::AlwaysAllow);
        if !self.custom.is_empty() {
            allow.push(format!("mcp__{CUSTOM_SERVER}"));
        }
        let ask = with(PermissionPolicy::AlwaysAsk);
        let deny: Vec<&str> =
            NAMES.iter().map(|(name, _)| *name).filter(|name| !self.builtin.contains_key(name)).collect();
        let permissions = json!({"permissions": {"allow": allow, "ask": ask, "deny": deny}});
        let tools: Vec<&str> = self.builtin.keys().copied().collect();
        vec![
            format!("--tools={}", tools.join(",")),
            "--permission-mode=acceptEdits".to_owned(),
            "--permission-prompt-tool=stdio".to_owned(),
            format!("--settings={permissions}"),
        ]
    }

    /// Whether there are custom tools.
    #[must_use]
    pub fn has_custom(&self) -> bool {
        !self.custom.is_empty()
    }

    /// The custom tools as a server of tools lists them.
    #[must_use]
    pub fn listed(&self) -> Vec<Value> {
        let listed = |tool: &Value| json!({"name": tool["name"], "description": tool["description"], "inputSchema": tool["input_schema"]});
        self.custom.values().map(listed).collect()
    }

    /// What a call is, and whether it may run.
    #[must_use]
    pub fn judge(&self, name: &str, input: &Value) -> ToolKind {
        if let Some(custom) = custom_name(name).filter(|custom| self.custom.contains_key(*custom)) {
            return ToolKind::Custom { name: custom.to_owned() };
        }
        let known = NAMES.iter().find(|(agent, _)| *agent == name);
        let judgement = match known.and_then(|(agent, _)| self.builtin.get(agent)) {
            None => Judgement::NotEnabled,
            Some(PermissionPolicy::AlwaysAllow) => Judgement::AlwaysAllow,
            Some(PermissionPolicy::AlwaysAsk) => Judgement::AlwaysAsk,
            Some(PermissionPolicy::Auto) => judge_auto(name, input),
        };
        let wire = known.map_or(name, |(_, wire)| wire);
        ToolKind::Toolset { name: wire.chars().take(128).collect(), input: to_wire(name, input), judgement }
    }
}

/// The name of a custom tool in what the agent calls it.
#[must_use]
pub fn custom_name(name: &str) -> Option<&str> {
    name.strip_prefix("mcp__")?.strip_prefix(CUSTOM_SERVER)?.strip_prefix("__")
}

/// A digest of a call's input, by which an approval knows it.
#[must_use]
pub fn digest(input: &Value) -> String {
    // The order of fields is kept both ways, so the text is the same whenever the input is.
    let digest = Sha256::digest(input.to_string().as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn policy(value: &Value) -> PermissionPolicy {
    match value["type"].as_str() {
        None | Some("always_allow") => PermissionPolicy::AlwaysAllow,
        Some("auto") => PermissionPolicy::Auto,
        // What is not known is asked.
        Some(_) => PermissionPolicy::AlwaysAsk,
    }
}

/// By the policy that also stands inside, with paths as they are written: links are resolved inside, where they are, and
/// a call that leads elsewhere by one is asked about there and refused here.
fn judge_auto(tool: &str, input: &Value) -> Judgement {
    let root = PathBuf::from(WORKSPACE);
    let policy = Policy { mode: PermissionMode::AcceptEdits, roots: vec![root.clone()], ..Policy::default() };
    let call = Call { tool, input };
    let paths = paths_of(&call)
        .into_iter()
        .map(|given| PathFact { resolved: lexical(&root, Path::new(&given)), given })
        .collect();
    let facts = Facts { cwd: root.clone(), call_cwd: root, paths, ..Facts::default() };
    match decide(&policy, &call, &facts) {
        Decision::Allow { .. } => Judgement::AutoAllow,
        Decision::Ask { .. } => Judgement::AutoAsk,
        Decision::Deny { .. } => Judgement::AutoDeny,
    }
}

fn lexical(root: &Path, path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for part in root.join(path).components() {
        match part {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::CurDir => (),
            part => resolved.push(part),
        }
    }
    resolved
}

/// An input spelt as the toolset does.
fn to_wire(tool: &str, input: &Value) -> Value {
    let Value::Object(fields) = input else { return json!({}) };
    let mut wire: JsonMap = fields.clone();
    match tool {
        "Bash" => rename(&mut wire, "timeout", "timeout_ms"),
        "Read" => {
            let first = fields.get("offset").and_then(Value::as_i64);
            let limit = fields.get("limit").and_then(Value::as_i64);
            if first.is_some() || limit.is_some() {
                let first = first.unwrap_or(1);
                let last = limit.map_or(0, |limit| first.saturating_add(limit).saturating_sub(1));
                wire.shift_remove("offset");
                wire.shift_remove("limit");
                wire.insert("view_range".to_owned(), json!([first, last]));
            }
        }
        _ => (),
    }
    Value::Object(wire)
}

fn rename(fields: &mut JsonMap, from: &str, to: &str) {
    if let Some(value) = fields.shift_remove(from) {
        fields.insert(to.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolset(default: &str, configs: Value) -> Value {
        json!([{
            "type": "agent_toolset_20260401", "configs": configs,
            "default_config": {"enabled": true, "permission_policy": {"type": default}},
        }])
    }

    fn judged(tools: &Tools, name: &str, input: Value) -> Judgement {
        match tools.judge(name, &input) {
            ToolKind::Toolset { judgement, .. } => judgement,
            ToolKind::Custom { name } => panic!("{name} is custom"),
        }
    }

    #[test]
    fn policies_are_by_tool_and_then_by_default() {
        let configs = json!([
            {"name": "bash", "type": "bash", "enabled": true, "permission_policy": {"type": "always_ask"}},
            {"name": "write", "type": "write", "enabled": false, "permission_policy": {"type": "always_allow"}},
            {"name": "edit", "type": "edit", "enabled": true, "permission_policy": {"type": "of_tomorrow"}},
        ]);
        let tools = Tools::read(&toolset("always_allow", configs));
        assert_eq!(judged(&tools, "Bash", json!({"command": "ls"})), Judgement::AlwaysAsk);
        assert_eq!(judged(&tools, "Read", json!({"file_path": "/etc/passwd"})), Judgement::AlwaysAllow);
        assert_eq!(judged(&tools, "Write", json!({})), Judgement::NotEnabled);
        assert_eq!(judged(&tools, "Edit", json!({})), Judgement::AlwaysAsk);
        assert_eq!(judged(&tools, "WebFetch", json!({})), Judgement::NotEnabled);
        assert_eq!(
            tools.arguments(),
            [
                "--tools=Bash,Edit,Glob,Grep,Read",
                "--permission-mode=acceptEdits",
                "--permission-prompt-tool=stdio",
                "--settings={\"permissions\":{\"allow\":[\"Glob\",\"Grep\",\"Read\"],\"ask\":[\"Bash\",\"Edit\"],\
                 \"deny\":[\"Write\",\"WebFetch\",\"WebSearch\"]}}",
            ]
        );
        assert_eq!(
            Tools::read(&json!([])).judge("Bash", &json!({})),
            ToolKind::Toolset { name: "bash".to_owned(), input: json!({}), judgement: Judgement::NotEnabled }
        );
    }

    #[test]
    fn auto_lets_through_what_stays_in_the_workspace_and_asks_about_the_rest() {
        let tools = Tools::read(&toolset("auto", json!([])));
        for (tool, input, expected) in [
            ("Write", json!({"file_path": "/workspace/a/b", "content": ""}), Judgement::AutoAllow),
            ("Write", json!({"file_path": "a/../b", "content": ""}), Judgement::AutoAllow),
            ("Write", json!({"file_path": "/workspace/../etc/x", "content": ""}), Judgement::AutoAsk),
            ("Read", json!({"file_path": "/workspace/x"}), Judgement::AutoAllow),
            ("Read", json!({"file_path": "/home/agent/.ssh/id"}), Judgement::AutoAsk),
            ("Bash", json!({"command": "rm -rf /"}), Judgement::AutoAsk),
            ("Bash", json!({"command": 7}), Judgement::AutoAsk),
        ] {
            assert_eq!(judged(&tools, tool, input.clone()), expected, "{tool} {input}");
        }
    }

    #[test]
    fn custom_tools_are_the_clients() {
        let tools = Tools::read(&json!([
            {"type": "custom", "name": "weather", "description": "d", "input_schema": {"type": "object"}},
        ]));
        let custom = ToolKind::Custom { name: "weather".to_owned() };
        assert_eq!(tools.judge("mcp__custom__weather", &json!({})), custom);
        assert_eq!(judged(&tools, "mcp__custom__other", json!({})), Judgement::NotEnabled);
        assert_eq!(judged(&tools, "weather", json!({})), Judgement::NotEnabled);
        assert_eq!(
            tools.listed(),
            [json!({"name": "weather", "description": "d", "inputSchema": {"type": "object"}})]
        );
    }

    #[test]
    fn inputs_are_spelt_as_the_toolset_does() {
        for (tool, input, expected) in [
            ("Bash", json!({"command": "ls", "timeout": 5}), json!({"command": "ls", "timeout_ms": 5})),
            ("Read", json!({"file_path": "a"}), json!({"file_path": "a"})),
            (
                "Read",
                json!({"file_path": "a", "offset": 3, "limit": 2}),
                json!({"file_path": "a", "view_range": [3, 4]}),
            ),
            ("Read", json!({"file_path": "a", "offset": 3}), json!({"file_path": "a", "view_range": [3, 0]})),
            ("Grep", json!({"pattern": "x"}), json!({"pattern": "x"})),
            ("Bash", json!("no object"), json!({})),
        ] {
            assert_eq!(to_wire(tool, &input), expected);
        }
    }
}
