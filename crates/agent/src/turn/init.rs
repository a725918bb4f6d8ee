//! `system/init`: what a turn begins with.
//!
//! source: the agent protocol reference, section 1.3.

use serde_json::{Value, json};

use super::Turn;
use crate::authorise::lock;
use crate::frames::PROTOCOL_VERSION;
use crate::mcp::McpConfigError;
use crate::plugin::{PluginError, PluginInfo};
use crate::session::Session;

/// What of the protocol's additions holds here; hosts look for the names.
const CAPABILITIES: &[&str] = &[
    "interrupt_receipt_v1",
    "interrupt_cancel_queued_v1",
    "msg_lifecycle_v1",
    "request_marker_lists_v1",
    "sdk_mcp_manifests",
    "sdk_mcp_tools_list_changed",
    "mcp_read_resource_v1",
];

impl Session {
    pub(super) fn init_fields(&self, turn: &Turn) -> Value {
        let setup = &self.setup;
        let (mode, model, directories) = {
            let live = lock(&setup.live);
            let more = live.policy.roots.iter().filter(|root| **root != setup.context.cwd);
            (live.policy.mode, live.model.clone(), more.cloned().collect::<Vec<_>>())
        };
        // The old name of one tool is the one that programs know.
        let wire_name = |name| if name == "Agent" { "Task" } else { name };
        let tools: Vec<&str> = setup.tools.iter().map(|offered| wire_name(offered.tool.name())).collect();
        let agents: Vec<&String> = setup.agents.keys().collect();
        let mut fields = json!({
            "cwd": setup.context.cwd,
            "tools": tools,
            "mcp_servers": setup.servers.mcp.init_rows(),
            "model": model,
            "permissionMode": mode.as_str(),
            "slash_commands": self.command_names(),
            "apiKeySource": setup.api_key_source,
            "claude_code_version": PROTOCOL_VERSION,
            "wardian_version": env!("CARGO_PKG_VERSION"),
            "output_style": "default",
            "agents": agents,
            "skills": setup.skills.names(),
            "plugins": setup.plugins.iter().map(PluginInfo::row).collect::<Vec<_>>(),
            "capabilities": CAPABILITIES,
            "terminal_slash_commands": [],
            "original_cwd": setup.context.cwd,
            "additional_directories": directories,
            "memory_paths": {},
            "analytics_disabled": true,
            "product_feedback_disabled": true,
            "served_by_anthropic": false,
            "fast_mode_state": "off",
            "fast_mode_disabled_reason": "unknown",
            "per_turn_effort_active": false,
            "ultrathink_available": false,
            "ultrathink_typed_raises": false,
            "view_mode": "default",
        });
        if !setup.servers.skipped.is_empty() {
            fields["mcp_server_errors"] = setup.servers.skipped.iter().map(McpConfigError::row).collect();
        }
        if !setup.plugin_errors.is_empty() {
            fields["plugin_errors"] = setup.plugin_errors.iter().map(PluginError::row).collect();
        }
        if !turn.spending.prompts.is_empty() {
            fields["user_message_uuids"] = turn.spending.prompts.clone().into();
        }
        fields
    }
}
