//! `initialize`: how the host wants the query set up, and what it is told of the agent.
//!
//! source: the agent protocol reference, section 2.3.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wardian_agent::{HookEvent, Hooks, PROTOCOL_VERSION, SystemPrompt};
use wardian_protocol::control::Initialize;
use wardian_protocol::hook::HookMatcher;

use super::Front;
use super::request::{Answer, Asked, Done};
use crate::host::Host;
use crate::servers;
use crate::settings::nothing;
use crate::setup::Setup;

impl Front {
    /// Takes the host's set-up in. Once the query has begun it is read and answered: what it began with stays.
    pub(super) fn initialize(&mut self, asked: Asked) -> Done {
        let initialize: Initialize = asked.read()?;
        let parked = self.setup.servers.add_initialize(&initialize.extra)?;
        set_up(&mut self.setup, &self.host, initialize)?;
        self.initialized = true;
        let mut description = self.description();
        if !parked.is_null() {
            description["sdk_mcp_manifests_parked"] = parked;
        }
        Ok(Answer::Now(description))
    }

    fn description(&self) -> Value {
        let options = &self.setup.options;
        let model = |alias: &str| {
            let resolved = wardian_ledger::PriceTable::embedded().resolve_alias(alias);
            json!({"value": alias, "resolvedModel": resolved, "displayName": resolved, "description": resolved})
        };
        let models = ["opus", "sonnet", "haiku"].map(model);
        let resumed = options.conversation.as_ref().map(|conversation| {
            json!({"interrupted": conversation.is_interrupted(), "last_prompt_uuid": conversation.last_prompt()})
        });
        json!({
            "commands": [],
            "agents": [],
            "output_style": "default",
            "available_output_styles": ["default"],
            "models": models,
            "account": {
                "tokenSource": options.api_key_source,
                "apiKeySource": options.api_key_source,
                "apiProvider": "firstParty",
            },
            "pid": std::process::id(),
            "claude_code_version": PROTOCOL_VERSION,
            "wardian_version": env!("CARGO_PKG_VERSION"),
            "current_permission_mode": options.permission_mode.as_str(),
            "hook_on_failure_supported": true,
            "session_state": if self.running || self.setup.resumes() { "running" } else { "idle" },
            "wardian_resumed": resumed,
            "capabilities": [],
        })
    }
}

fn set_up(setup: &mut Setup, host: &Host, initialize: Initialize) -> Result<(), String> {
    let Initialize { hooks, system_prompt, append_system_prompt, extra } = initialize;
    for (name, value) in extra {
        set_field(setup, &name, value)?;
    }
    set_hooks(setup, host, hooks.unwrap_or_default())?;
    let options = &mut setup.options;
    if let Some(blocks) = system_prompt {
        options.system_prompt = SystemPrompt::Text(blocks);
    } else if !setup.system_prompt_given {
        options.system_prompt = SystemPrompt::Preset;
    }
    if append_system_prompt.is_some() {
        options.append_system_prompt = append_system_prompt;
    }
    Ok(())
}

/// Sets what one more field asks for: a line for each.
fn set_field(setup: &mut Setup, name: &str, value: Value) -> Result<(), String> {
    match name {
        // They change nothing here: they ask for things that are only more to see.
        "agentProgressSummaries"
        | "forwardSubagentText"
        | "perTaskStopAffordance"
        | "promptSuggestions"
        | "supportedDialogKinds" => (),
        "excludeDynamicSections" => setup.options.exclude_dynamic_sections = value == true,
        "systemPromptSnapshot" => setup.options.system_prompt_snapshot = value == true,
        "title" => {
            setup.options.title = value.as_str().filter(|title| !title.trim().is_empty()).map(str::to_owned)
        }
        // These are read together.
        name if servers::FIELDS.contains(&name) => (),
        _ if nothing(&value) => (),
        _ => return Err(format!("the initialize field '{name}' is not supported by wardian-agent yet")),
    }
    Ok(())
}

fn set_hooks(
    setup: &mut Setup,
    host: &Host,
    hooks: BTreeMap<String, Vec<HookMatcher>>,
) -> Result<(), String> {
    let mut asked = Hooks::default();
    for (event, matchers) in hooks {
        let event: HookEvent = event.parse().map_err(|error| format!("failed to {error}"))?;
        host.hooks(&matchers).for_each(|hook| asked.add(event, hook));
    }
    setup.options.hooks = asked;
    Ok(())
}
