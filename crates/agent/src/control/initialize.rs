//! `initialize`: how the host wants the query set up, and what it is told of the agent.
//!
//! source: the agent protocol reference, section 2.3.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use wardian_agent::{HookEvent, Hooks, PROTOCOL_VERSION, Query, SystemPrompt};
use wardian_protocol::control::Initialize;
use wardian_protocol::hook::HookMatcher;

use super::request::{Answer, Asked, Done};
use super::{Front, models};
use crate::host::Host;
use crate::servers;
use crate::settings::nothing;
use crate::setup::Setup;

/// Between two summaries of what a subagent does. source: the types of the SDKs.
const SUMMARY_EVERY: Duration = Duration::from_secs(30);
/// The most names of tools that lead to others: many times what there are.
const MAX_ALIASES: usize = 1_000;

impl Front {
    /// Takes the host's set-up in. Once the query has begun it is read and answered: what it began with stays.
    pub(super) async fn initialize(&mut self, asked: Asked) -> Done {
        let hooks = asked.field("hooks");
        let initialize: Initialize = asked.read()?;
        let begun = self.query.as_ref().filter(|_| !self.initialized).map(Query::handle);
        if begun.is_some() {
            too_late(&initialize)?;
        }
        let is_new = self.query.is_none();
        let servers = self.setup.servers.add_initialize(&initialize.extra, is_new)?;
        let plugins = initialize.extra.get("plugins").filter(|list| !nothing(list)).cloned();
        let has_plugins = plugins.map(|list| self.setup.take_plugins(&list, is_new)).transpose()?;
        let guards = self.setup.parts.host_hooks.clone();
        let set_up = set_up(&mut self.setup, &self.host, initialize);
        if self.query.is_some() && self.initialized {
            // The hooks that the query has stay the host's, whatever else changes of them later.
            self.setup.parts.host_hooks = guards;
            self.setup.options.hooks = self.setup.parts.hooks();
        }
        set_up?;
        if let Some(begun) = begun {
            // The host spoke first of something else: what guards its calls holds from now on.
            let hooks = self.setup.options.hooks.clone();
            begun.set_hooks(hooks).await.map_err(|error| format!("failed to {error}"))?;
        }
        self.initialized = true;
        let mut description = self.description();
        match &self.hooks_sent {
            // The same hooks go by the same ids: they still apply.
            Some(sent) if self.query.is_some() => description["hooks_applied"] = (*sent == hooks).into(),
            Some(_) | None => self.hooks_sent = Some(hooks),
        }
        if !servers.parked.is_null() {
            description["sdk_mcp_manifests_parked"] = servers.parked;
        }
        if let Some(applied) = servers.applied {
            description["mcp_servers_applied"] = applied.into();
        }
        if let Some(applied) = has_plugins {
            description["plugins_applied"] = applied.into();
        }
        let waiting = ["pending_permission_requests", "pending_user_dialog_requests"];
        let more = waiting.map(|name| (name.to_owned(), json!([])));
        Ok(Answer::With(Ok(description), more.into_iter().collect()))
    }

    pub(super) fn description(&self) -> Value {
        let options = &self.setup.options;
        let resumed = options.conversation.as_ref().map(|conversation| {
            json!({"interrupted": conversation.is_interrupted(), "last_prompt_uuid": conversation.last_prompt()})
        });
        json!({
            "commands": wardian_agent::command::listing(&options.commands, &options.skills),
            "agents": self.setup.agents.listing(),
            "output_style": "default",
            "available_output_styles": ["default"],
            "models": models::list(),
            "account": {
                "tokenSource": if options.api_key_source == "ANTHROPIC_AUTH_TOKEN" { "ANTHROPIC_AUTH_TOKEN" } else { "none" },
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
            "hooks_when_unanswered_kept": 0,
            "other_hook_ask_outranks_host": true,
            "feedback_mode": {"kind": "disabled"},
            "analytics_disabled": true,
            "remote_control_available": false,
            "remote_control_auto_enable": false,
            "remote_control_auto_connect_default": false,
            "remote_control_auto_on_by_default": false,
            "ide_rc_auto_enable_gate": false,
            "fast_mode_state": "off",
            "fast_mode_disabled_reason": "unknown",
        })
    }
}

/// Refuses what can only be said before the session begins: a host must not take it to hold.
fn too_late(initialize: &Initialize) -> Result<(), String> {
    let Initialize { hooks: _, system_prompt, append_system_prompt, extra } = initialize;
    let prompts =
        [("systemPrompt", system_prompt.is_some()), ("appendSystemPrompt", append_system_prompt.is_some())];
    let rest = extra.iter().filter(|(name, _)| *name != "supportedDialogKinds");
    let given = rest.map(|(name, value)| (name.as_str(), !nothing(value)));
    match prompts.into_iter().chain(given).find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((name, _)) => {
            Err(format!("the session has begun: the initialize field '{name}' comes too late"))
        }
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
        "supportedDialogKinds" => (),
        "agentProgressSummaries" => {
            let wanted = value == true && setup.sums_agents_up;
            setup.options.agent_progress_summaries = wanted.then_some(SUMMARY_EVERY);
        }
        "promptSuggestions" => {
            setup.options.prompt_suggestions = value == true && setup.suggests;
        }
        "planModeInstructions" if value.is_string() => {
            let text = value.as_str().filter(|text| !text.trim().is_empty());
            setup.options.plan_mode_instructions = text.map(str::to_owned);
        }
        "excludeDynamicSections" => setup.options.exclude_dynamic_sections = value == true,
        "jsonSchema" if value.is_object() => setup.options.output_schema = Some(value),
        "systemPromptSnapshot" => setup.options.system_prompt_snapshot = value == true,
        "skills" => setup.options.enabled_skills = strings(&value),
        "toolAliases" => {
            let target =
                |(name, target): (&String, &Value)| Some((name.clone(), target.as_str()?.to_owned()));
            let aliases = value.as_object().into_iter().flatten();
            setup.options.tool_aliases = aliases.take(MAX_ALIASES).filter_map(target).collect();
        }
        "title" => {
            setup.options.title = value.as_str().filter(|title| !title.trim().is_empty()).map(str::to_owned)
        }
        "agents" => setup.agents.add_initialize(&value)?,
        "forwardSubagentText" => setup.options.forward_subagent_text = value == true,
        "perTaskStopAffordance" => setup.options.interrupt_spares_tasks = value == true,
        // These are read elsewhere.
        "plugins" => (),
        name if servers::FIELDS.contains(&name) => (),
        _ if nothing(&value) => (),
        _ => return Err(format!("the initialize field '{name}' is not supported by wardian-agent yet")),
    }
    Ok(())
}

/// A list of texts; `None`: it is none.
fn strings(value: &Value) -> Option<Vec<String>> {
    let texts = value.as_array()?.iter();
    Some(texts.filter_map(|text| text.as_str().map(str::to_owned)).collect())
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
    setup.parts.host_hooks = asked;
    setup.options.hooks = setup.parts.hooks();
    Ok(())
}
