//! The table of flags: one row a flag, with what it takes and what it sets.
//!
//! source: the agent protocol reference, section 1.1.

use crate::settings::Sources;
use std::str::FromStr;

use serde_json::Value;
use wardian_agent::{NanoUsd, SetupTrigger, Thinking, ToolSet};

use super::{Args, Complaint, OutputFormat, split_rules};
use crate::asktool::AskTool;

/// A flag that is known.
pub(super) struct Flag {
    name: &'static str,
    pub(super) takes: Takes,
    set: Set,
}

/// What follows a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Value,
    /// Only as `--flag=value`.
    MaybeValue,
}

/// What a flag does to the arguments.
enum Set {
    Nothing,
    Switch(fn(&mut Args)),
    /// A text of any kind.
    Text(fn(&mut Args, &str)),
    /// Something that a text may not be.
    Value(fn(&mut Args, &Given<'_>) -> Result<(), Complaint>),
}

impl Flag {
    /// Puts what was given into the arguments.
    pub(super) fn set(&self, args: &mut Args, value: &str) -> Result<(), Complaint> {
        let given = Given { name: self.name, value };
        args.given.push(self.name);
        match self.set {
            Set::Nothing => (),
            Set::Switch(set) => set(args),
            Set::Text(set) => set(args, value),
            Set::Value(set) => set(args, &given)?,
        }
        Ok(())
    }
}

/// Finds a flag by its name with the dashes, in any of its spellings.
pub(super) fn known(name: &str) -> Option<&'static Flag> {
    let long = match name {
        "-c" => "continue",
        "-p" => "print",
        "-r" => "resume",
        "--allowedTools" => "allowed-tools",
        "--disallowedTools" => "disallowed-tools",
        _ => name.strip_prefix("--")?,
    };
    FLAGS.iter().find(|flag| flag.name == long)
}

/// What is said of a flag that nobody knows. source: the reference; the words are compared by programs.
pub(super) fn unknown(flag: &str) -> Complaint {
    format!("unknown option '{flag}'")
}

const fn switch(name: &'static str, set: fn(&mut Args)) -> Flag {
    Flag { name, takes: Takes::Nothing, set: Set::Switch(set) }
}

const fn text(name: &'static str, set: fn(&mut Args, &str)) -> Flag {
    Flag { name, takes: Takes::Value, set: Set::Text(set) }
}

const fn value(name: &'static str, set: fn(&mut Args, &Given<'_>) -> Result<(), Complaint>) -> Flag {
    Flag { name, takes: Takes::Value, set: Set::Value(set) }
}

/// A flag that only says more, or less, of what is done anyway, or prepares for what is not there.
const fn harmless(name: &'static str, takes: Takes) -> Flag {
    Flag { name, takes, set: Set::Nothing }
}

/// The flags that are known, by name.
#[rustfmt::skip]
const FLAGS: &[Flag] = &[
    text("add-dir", |args, value| args.additional_directories.push(value.into())),
    text("agent", |args, value| args.agent = not_empty(value)),
    value("agents", |args, given| args.agents.add_flag(given.value)),
    switch("allow-dangerously-skip-permissions", |args| args.allow_skip_permissions = true),
    text("allowed-tools", |args, value| args.allowed_tools.extend(split_rules(value))),
    text("append-system-prompt", |args, value| args.append_system_prompt = not_empty(value)),
    text("append-system-prompt-file", |args, value| args.append_system_prompt_file = Some(value.into())),
    switch("await-initialize", |args| args.servers.await_initialize = true),
    switch("bare", |args| args.setting_sources = Sources::NONE),
    text("betas", |args, value| args.betas.extend(split_rules(value))),
    switch("continue", |args| args.resume_newest = true),
    switch("dangerously-skip-permissions", |args| args.skip_permissions = true),
    Flag { name: "debug", takes: Takes::MaybeValue, set: Set::Switch(|args| args.debug.on = true) },
    text("debug-file", |args, value| args.debug.file = not_empty(value).map(Into::into)),
    text("disallowed-tools", |args, value| args.disallowed_tools.extend(split_rules(value))),
    value("effort", |args, given| given.choice(&EFFORTS).map(|effort| args.effort = Some(effort.to_owned()))),
    text("fallback-model", |args, value| args.fallback_models.extend(split_rules(value))),
    switch("fork-session", |args| args.fork = true),
    switch("include-hook-events", |args| args.include_hook_events = true),
    switch("include-partial-messages", |args| args.include_partial_messages = true),
    switch("init", |args| args.set_up = Some(SetupTrigger::Init)),
    switch("init-only", |args| (args.set_up, args.init_only) = (Some(SetupTrigger::Init), true)),
    value("input-format", |args, given| given.choice(&INPUTS).map(|stream| args.stream_input = stream)),
    value("json-schema", |args, given| given.json().map(|schema| args.output_schema = Some(schema))),
    text("managed-settings", |args, value| args.managed_settings = not_empty(value)),
    switch("maintenance", |args| args.set_up = args.set_up.or(Some(SetupTrigger::Maintenance))),
    value("max-budget-usd", |args, given| given.dollars().map(|amount| args.max_budget = Some(amount))),
    value("max-thinking-tokens", |args, given| given.parsed().map(|tokens| args.thinking = budget(tokens))),
    value("max-turns", |args, given| given.at_least_one().map(|turns| args.max_turns = Some(turns))),
    value("mcp-config", |args, given| args.servers.add_config(given.value)),
    text("model", |args, value| args.model = not_empty(value)),
    switch("no-session-persistence", |args| args.keep_nothing = true),
    value("output-format", |args, given| given.choice(&OUTPUTS).map(|format| args.output = format)),
    value("permission-mode", |args, given| given.parsed().map(|mode| args.permission_mode = Some(mode))),
    value("permission-prompt-tool", |args, given| match given.value {
        tool if AskTool::is_name(tool) => {
            args.ask_tool = Some(tool.to_owned());
            Ok(())
        }
        _ => given.choice(&[("stdio", true), ("mcp__server__tool", true)]).map(|host| args.ask_host = host),
    }),
    value("permission-prompts", |args, given| given.choice(&ASKING).map(|never| args.never_ask = never)),
    text("plugin-dir", |args, value| args.plugins.extend(not_empty(value).map(Into::into))),
    harmless("print", Takes::Nothing),
    text("project-config-root", |args, value| args.project_root = not_empty(value).map(Into::into)),
    switch("replay-user-messages", |args| args.replay_user_messages = true),
    text("resume", |args, value| args.resume = Some(value.to_owned())),
    text("resume-drops-turn", |args, value| args.resume_drops_turn = not_empty(value)),
    text("resume-session-at", |args, value| args.resume_at = not_empty(value)),
    value("session-id", |args, given| given.uuid().map(|id| args.session_id = Some(id))),
    switch("session-mirror", |args| args.mirror = true),
    value("setting-sources", |args, given| {
        Sources::read(given.value).map(|sources| args.setting_sources = sources)
    }),
    text("settings", |args, value| args.settings = not_empty(value)),
    switch("strict-mcp-config", |args| args.servers.strict = true),
    text("system-prompt", |args, value| args.system_prompt = Some(value.to_owned())),
    text("system-prompt-file", |args, value| args.system_prompt_file = Some(value.into())),
    value("task-budget", |args, given| given.at_least_one().map(|tokens| args.task_budget = Some(tokens))),
    value("thinking", |args, given| given.choice(&THINKING).map(|thinking| args.thinking = thinking)),
    value("thinking-display", |args, given| given.choice(&DISPLAYS).map(|shown| args.thinking_display = Some(shown.to_owned()))),
    text("tools", |args, value| args.tools = tools(value)),
    harmless("verbose", Takes::Nothing),
];

const ASKING: [(&str, bool); 2] = [("host", false), ("none", true)];
const EFFORTS: [(&str, &str); 5] =
    [("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "xhigh"), ("max", "max")];
const INPUTS: [(&str, bool); 2] = [("text", false), ("stream-json", true)];
const OUTPUTS: [(&str, OutputFormat); 3] =
    [("text", OutputFormat::Text), ("json", OutputFormat::Json), ("stream-json", OutputFormat::StreamJson)];
const DISPLAYS: [(&str, &str); 2] = [("summarized", "summarized"), ("omitted", "omitted")];
const THINKING: [(&str, Thinking); 2] = [("adaptive", Thinking::Adaptive), ("disabled", Thinking::Disabled)];

fn budget(tokens: u64) -> Thinking {
    if tokens == 0 { Thinking::Disabled } else { Thinking::Budget(tokens) }
}

fn tools(list: &str) -> ToolSet {
    if list == "default" { ToolSet::Standard } else { ToolSet::Only(split_rules(list)) }
}

/// What was given to a flag, and the ways to read it.
struct Given<'a> {
    name: &'static str,
    value: &'a str,
}

impl Given<'_> {
    fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Complaint> {
        choices.iter().find(|(text, _)| *text == self.value).map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
            format!(
                "option '--{}' cannot be '{}': it is one of {}",
                self.name,
                shortened(self.value),
                names.join(", ")
            )
        })
    }

    fn parsed<T: FromStr>(&self) -> Result<T, Complaint>
    where
        T::Err: std::fmt::Display,
    {
        let Self { name, value } = self;
        value.parse().map_err(|error| {
            format!("option '--{name}' cannot be '{}': failed to read it: {error}", shortened(value))
        })
    }

    fn at_least_one(&self) -> Result<u64, Complaint> {
        match self.parsed()? {
            0 => Err(format!("option '--{}' must be at least 1", self.name)),
            number => Ok(number),
        }
    }

    /// JavaScript writes small numbers as `1e-7`; those are read too.
    fn dollars(&self) -> Result<NanoUsd, Complaint> {
        let exact = self.value.parse::<NanoUsd>();
        let rounded = || self.value.parse::<f64>().ok().and_then(NanoUsd::from_claimed_usd);
        match exact.ok().or_else(rounded) {
            Some(amount) if amount > NanoUsd::ZERO => Ok(amount),
            Some(_) | None => Err(format!("option '--{}' must be an amount of dollars above 0", self.name)),
        }
    }

    fn uuid(&self) -> Result<String, Complaint> {
        if wardian_agent::transcript::is_uuid(self.value) {
            return Ok(self.value.to_owned());
        }
        Err(format!("option '--{}' must be a UUID", self.name))
    }

    fn json(&self) -> Result<Value, Complaint> {
        serde_json::from_str(self.value)
            .map_err(|error| format!("option '--{}' takes JSON: {error}", self.name))
    }
}

fn not_empty(value: &str) -> Option<String> {
    Some(value).filter(|value| !value.is_empty()).map(str::to_owned)
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}
