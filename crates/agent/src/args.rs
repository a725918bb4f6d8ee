//! The command line of `wardian-agent`: the official CLI's flags, in both styles, `--flag=value` and `--flag value`.
//!
//! source: the agent protocol reference, section 1.1. A flag that is not known is refused by name rather than taken and
//! ignored.

use std::ffi::OsString;
use std::path::PathBuf;

use wardian_agent::{NanoUsd, PermissionMode, SetupTrigger, Thinking, ToolSet};

use crate::agents::Agents;
use crate::debug::Wanted;
use crate::servers::Servers;
use crate::settings::Sources;

mod flags;

use flags::{Takes, known, unknown};

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// Everything else.
    Run(Box<Args>),
}

/// The flags, read. A field more is a line here, a row in [`flags::FLAGS`], and a line in `Setup::new`.
#[derive(Debug, Default)]
pub struct Args {
    pub stream_input: bool,
    pub output: OutputFormat,
    pub prompt: Option<String>,
    pub model: Option<String>,
    pub fallback_models: Vec<String>,
    pub system_prompt: Option<String>,
    pub system_prompt_file: Option<PathBuf>,
    pub append_system_prompt: Option<String>,
    pub append_system_prompt_file: Option<PathBuf>,
    pub tools: ToolSet,
    pub allowed_tools: Vec<String>,
    pub ask_tools: Vec<String>,
    pub disallowed_tools: Vec<String>,
    pub permission_mode: Option<PermissionMode>,
    pub output_schema: Option<serde_json::Value>,
    pub skip_permissions: bool,
    pub allow_skip_permissions: bool,
    pub ask_host: bool,
    /// The MCP tool that is asked about permissions.
    pub ask_tool: Option<String>,
    pub never_ask: bool,
    pub max_turns: Option<u64>,
    pub max_budget: Option<NanoUsd>,
    pub additional_directories: Vec<PathBuf>,
    pub betas: Vec<String>,
    pub effort: Option<String>,
    pub thinking: Thinking,
    pub thinking_display: Option<String>,
    pub task_budget: Option<u64>,
    pub include_partial_messages: bool,
    pub replay_user_messages: bool,
    pub session_id: Option<String>,
    /// `--resume`: the id as it was given, whatever it is.
    pub resume: Option<String>,
    pub resume_newest: bool,
    pub fork: bool,
    pub resume_at: Option<String>,
    pub resume_drops_turn: Option<String>,
    pub keep_nothing: bool,
    /// `--session-mirror`.
    pub mirror: bool,
    /// `--settings`: JSON, or a file of it.
    pub settings: Option<String>,
    /// `--managed-settings`: JSON.
    pub managed_settings: Option<String>,
    /// `--setting-sources`.
    pub setting_sources: Sources,
    /// `--project-config-root`.
    pub project_root: Option<PathBuf>,
    pub include_hook_events: bool,
    /// `--init`, `--maintenance`.
    pub set_up: Option<SetupTrigger>,
    /// `--plugin-dir`.
    pub plugins: Vec<PathBuf>,
    /// `--init-only`: nothing but the hooks on the beginning.
    pub init_only: bool,
    /// `--agent`: the main thread's.
    pub agent: Option<String>,
    /// `--agents`.
    pub agents: Agents,
    /// `--mcp-config`.
    pub servers: Servers,
    /// `--debug`, `--debug-file`.
    pub debug: Wanted,
    /// The flags that were given, by name.
    pub given: Vec<&'static str>,
}

/// What is written to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// The result's text.
    #[default]
    Text,
    /// The result.
    Json,
    /// Every message, a line each.
    StreamJson,
}

/// Why the command line cannot be followed; the text is for standard error.
pub type Complaint = String;

/// The help text.
pub const HELP: &str = "\
Usage: wardian-agent [options] [prompt]

Runs one agent. With --input-format stream-json it speaks the Agent SDK's stream protocol on standard input and
output, as the official SDKs start it; with a prompt (or -p and the prompt on standard input) it answers that and ends.

  -p, --print                       answer one prompt and end
  --output-format text|json|stream-json
  --input-format text|stream-json
  --model MODEL                     an id, or opus, sonnet, haiku; with [1m] behind it: a million tokens of context
  --fallback-model A,B              models that take its place when it cannot be had
  --system-prompt TEXT              instead of the built-in prompt   (--system-prompt-file FILE)
  --append-system-prompt TEXT       after it                         (--append-system-prompt-file FILE)
  --tools A,B                       the built-in tools that there are ('' for none, 'default' for all)
  --allowedTools RULES              calls that go through unasked, e.g. 'Read,Bash(git *)'
  --disallowedTools RULES           calls that are refused
  --permission-mode MODE            default, acceptEdits, plan, dontAsk, bypassPermissions
  --permission-prompt-tool WHO      stdio: ask the host (stream-json only); mcp__server__tool: ask this tool
  --add-dir DIR                     one more directory to work in
  --init, --maintenance             run the hooks on Setup first; --init-only: and nothing else
  --plugin-dir DIR                  a plugin: its commands, skills, agents, hooks and servers
  --agent NAME                      work as this agent
  --agents JSON                     agents that can be called on, or worked as, by name
  --max-turns N, --max-budget-usd N limits
  --json-schema SCHEMA              end with structured output of this schema
  --mcp-config JSON|FILE            servers of tools; with --strict-mcp-config no others
  --include-partial-messages, --include-hook-events, --replay-user-messages
                                    the raw stream, what hooks do, and the prompts, too
  --resume UUID, -c, --continue     go on with a conversation; -c with the newest of this directory
  --fork-session                    as a new one; --resume-session-at UUID from that message on
  --no-session-persistence          keep no transcript; --session-mirror: give its lines to the host too
  --session-id UUID, --effort LEVEL, --thinking adaptive|disabled, --max-thinking-tokens N, --betas A,B
  --setting-sources A,B             of user, project, local: which settings files, agents, skills and commands count
  --settings JSON|FILE              settings above those of files
  --debug-file FILE                 what is done, a line each, without texts; --debug: below the configuration folder
  -h, --help, -v, --version

The key is taken from ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN, the address from ANTHROPIC_BASE_URL or
ANTHROPIC_UNIX_SOCKET. Transcripts are kept under CLAUDE_CONFIG_DIR or ~/.claude.";

/// Reads the arguments, without the program's name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Complaint> {
    let mut args = Args::default();
    let mut arguments = arguments.into_iter().map(text);
    while let Some(argument) = arguments.next() {
        let argument = argument?;
        match argument.as_str() {
            "-h" | "--help" => return Ok(Invocation::Help),
            "-v" | "--version" => return Ok(Invocation::Version),
            "--" => {
                for rest in arguments.by_ref() {
                    positional(&mut args, rest?)?;
                }
            }
            flag if flag.starts_with('-') && flag.len() > 1 => {
                let (name, value) = match flag.split_once('=') {
                    Some((name, value)) if flag.starts_with("--") => (name, Some(value.to_owned())),
                    Some(_) | None => (flag, None),
                };
                let known = known(name).ok_or_else(|| unknown(name))?;
                let value = match (known.takes, value) {
                    (Takes::Value, None) => {
                        let next = arguments.next();
                        Some(next.ok_or_else(|| format!("option '{name}' needs a value"))??)
                    }
                    (Takes::Nothing, Some(_)) => return Err(format!("option '{name}' takes no value")),
                    (Takes::Nothing | Takes::MaybeValue | Takes::Value, value) => value,
                };
                known.set(&mut args, &value.unwrap_or_default())?;
            }
            _ => positional(&mut args, argument)?,
        }
    }
    Ok(Invocation::Run(Box::new(args)))
}

fn text(argument: OsString) -> Result<String, Complaint> {
    argument.into_string().map_err(|_| "an argument is not UTF-8".to_owned())
}

fn positional(args: &mut Args, argument: String) -> Result<(), Complaint> {
    if args.prompt.is_some() {
        return Err("more than one prompt was given; quote it".to_owned());
    }
    args.prompt = Some(argument);
    Ok(())
}

/// Splits `Read,Bash(git log, *) Edit` at the commas and spaces outside of parentheses.
pub fn split_rules(text: &str) -> Vec<String> {
    let mut rules = vec![String::new()];
    let mut depth = 0_u32;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' | ' ' | '\n' | '\t' if depth == 0 => {
                rules.push(String::new());
                continue;
            }
            _ => (),
        }
        rules.last_mut().expect("it began with one").push(c);
    }
    rules.retain(|rule| !rule.is_empty());
    rules
}

#[cfg(test)]
mod tests;
