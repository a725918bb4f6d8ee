//! The command line of `wardian-agent`: the official CLI's flags, in both styles, `--flag=value` and `--flag value`.
//!
//! source: the agent protocol reference, section 1.1. A flag that would change money, security or what the program
//! relies on, and is not built yet, is refused by name rather than taken and ignored.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use crate::servers::Servers;
use serde_json::Value;
use wardian_agent::{NanoUsd, PermissionMode, Thinking, ToolSet};

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

/// The flags, read.
#[derive(Debug, Default)]
pub struct Args {
    pub stream_input: bool,
    pub output: OutputFormat,
    pub prompt: Option<String>,
    pub model: Option<String>,
    pub system_prompt: Option<String>,
    pub system_prompt_file: Option<PathBuf>,
    pub append_system_prompt: Option<String>,
    pub append_system_prompt_file: Option<PathBuf>,
    pub tools: ToolSet,
    pub allowed_tools: Vec<String>,
    pub ask_tools: Vec<String>,
    pub disallowed_tools: Vec<String>,
    pub permission_mode: Option<PermissionMode>,
    pub skip_permissions: bool,
    pub allow_skip_permissions: bool,
    pub ask_host: bool,
    pub never_ask: bool,
    pub max_turns: Option<u64>,
    pub max_budget: Option<NanoUsd>,
    pub additional_directories: Vec<PathBuf>,
    pub betas: Vec<String>,
    pub effort: Option<String>,
    pub thinking: Thinking,
    pub include_partial_messages: bool,
    pub session_id: Option<String>,
    /// `--resume`: the id as it was given, whatever it is.
    pub resume: Option<String>,
    pub resume_newest: bool,
    pub keep_nothing: bool,
    /// `--settings`: JSON, or a file of it.
    pub settings: Option<String>,
    /// `--mcp-config`.
    pub servers: Servers,
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// Only as `--flag=value`.
    MaybeValue,
}

/// The flags that are known, with what they take. What they do is in `set`.
const FLAGS: &[(&str, Takes)] = &[
    ("add-dir", Takes::Value),
    ("agent", Takes::Value),
    ("agents", Takes::Value),
    ("allow-dangerously-skip-permissions", Takes::Nothing),
    ("allowed-tools", Takes::Value),
    ("append-system-prompt", Takes::Value),
    ("append-system-prompt-file", Takes::Value),
    ("await-initialize", Takes::Nothing),
    ("bare", Takes::Nothing),
    ("betas", Takes::Value),
    ("continue", Takes::Nothing),
    ("dangerously-skip-permissions", Takes::Nothing),
    ("debug", Takes::MaybeValue),
    ("debug-file", Takes::Value),
    ("disallowed-tools", Takes::Value),
    ("effort", Takes::Value),
    ("fallback-model", Takes::Value),
    ("fork-session", Takes::Nothing),
    ("include-hook-events", Takes::Nothing),
    ("include-partial-messages", Takes::Nothing),
    ("input-format", Takes::Value),
    ("json-schema", Takes::Value),
    ("managed-settings", Takes::Value),
    ("max-budget-usd", Takes::Value),
    ("max-thinking-tokens", Takes::Value),
    ("max-turns", Takes::Value),
    ("mcp-config", Takes::Value),
    ("model", Takes::Value),
    ("no-session-persistence", Takes::Nothing),
    ("output-format", Takes::Value),
    ("permission-mode", Takes::Value),
    ("permission-prompt-tool", Takes::Value),
    ("permission-prompts", Takes::Value),
    ("plugin-dir", Takes::Value),
    ("print", Takes::Nothing),
    ("project-config-root", Takes::Value),
    ("replay-user-messages", Takes::Nothing),
    ("resume", Takes::Value),
    ("resume-drops-turn", Takes::Value),
    ("resume-session-at", Takes::Value),
    ("session-id", Takes::Value),
    ("session-mirror", Takes::Nothing),
    ("setting-sources", Takes::Value),
    ("settings", Takes::Value),
    ("strict-mcp-config", Takes::Nothing),
    ("system-prompt", Takes::Value),
    ("system-prompt-file", Takes::Value),
    ("task-budget", Takes::Value),
    ("thinking", Takes::Value),
    ("thinking-display", Takes::Value),
    ("tools", Takes::Value),
    ("verbose", Takes::Nothing),
];

/// The help text.
pub const HELP: &str = "\
Usage: wardian-agent [options] [prompt]

Runs one agent. With --input-format stream-json it speaks the Agent SDK's stream protocol on standard input and
output, as the official SDKs start it; with a prompt (or -p and the prompt on standard input) it answers that and ends.

  -p, --print                       answer one prompt and end
  --output-format text|json|stream-json
  --input-format text|stream-json
  --model MODEL                     an id, or opus, sonnet, haiku
  --system-prompt TEXT              instead of the built-in prompt   (--system-prompt-file FILE)
  --append-system-prompt TEXT       after it                         (--append-system-prompt-file FILE)
  --tools A,B                       the built-in tools that there are ('' for none, 'default' for all)
  --allowedTools RULES              calls that go through unasked, e.g. 'Read,Bash(git *)'
  --disallowedTools RULES           calls that are refused
  --permission-mode MODE            default, acceptEdits, plan, dontAsk, bypassPermissions
  --permission-prompt-tool stdio    ask the host (stream-json only)
  --add-dir DIR                     one more directory to work in
  --max-turns N, --max-budget-usd N limits
  --include-partial-messages        the raw stream, too
  --resume UUID, -c, --continue     go on with a conversation; -c with the newest of this directory
  --no-session-persistence          keep no transcript
  --session-id UUID, --effort LEVEL, --thinking adaptive|disabled, --max-thinking-tokens N, --betas A,B
  --settings JSON|FILE              only its permissions and model
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
            "-p" => (),
            "-c" => args.resume_newest = true,
            "-r" => {
                let next = arguments.next();
                args.resume = Some(next.ok_or_else(|| "option '-r' needs a value".to_owned())??);
            }
            "--" => {
                for rest in arguments.by_ref() {
                    positional(&mut args, rest?)?;
                }
            }
            flag if flag.starts_with("--") => {
                let (name, value) = match flag[2..].split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (&flag[2..], None),
                };
                let (name, takes) = known(name)?;
                let value = match (takes, value) {
                    (Takes::Value, None) => {
                        let next = arguments.next();
                        Some(next.ok_or_else(|| format!("option '--{name}' needs a value"))??)
                    }
                    (Takes::Nothing, Some(_)) => return Err(format!("option '--{name}' takes no value")),
                    (_, value) => value,
                };
                set(&mut args, name, &value.unwrap_or_default())?;
            }
            flag if flag.starts_with('-') && flag.len() > 1 => return Err(unknown(flag)),
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

fn known(name: &str) -> Result<(&'static str, Takes), Complaint> {
    let spelt = match name {
        "allowedTools" => "allowed-tools",
        "disallowedTools" => "disallowed-tools",
        "allowed-tools" | "disallowed-tools" => name,
        _ => name,
    };
    FLAGS.iter().find(|(known, _)| *known == spelt).copied().ok_or_else(|| unknown(&format!("--{name}")))
}

fn unknown(flag: &str) -> Complaint {
    format!("unknown option '{flag}'")
}

fn not_built(name: &str) -> Complaint {
    format!("option '--{name}' is not supported by wardian-agent yet")
}

fn set(args: &mut Args, name: &'static str, value: &str) -> Result<(), Complaint> {
    match name {
        "input-format" => args.stream_input = choice(name, value, &[("text", false), ("stream-json", true)])?,
        "output-format" => {
            let formats = [
                ("text", OutputFormat::Text),
                ("json", OutputFormat::Json),
                ("stream-json", OutputFormat::StreamJson),
            ];
            args.output = choice(name, value, &formats)?;
        }
        "model" => args.model = not_empty(value),
        "system-prompt" => args.system_prompt = Some(value.to_owned()),
        "system-prompt-file" => args.system_prompt_file = Some(value.into()),
        "append-system-prompt" => args.append_system_prompt = not_empty(value),
        "append-system-prompt-file" => args.append_system_prompt_file = Some(value.into()),
        "tools" => {
            args.tools = match value {
                "default" => ToolSet::All,
                list => ToolSet::Only(split_rules(list)),
            };
        }
        "allowed-tools" => args.allowed_tools.extend(split_rules(value)),
        "disallowed-tools" => args.disallowed_tools.extend(split_rules(value)),
        "permission-mode" => args.permission_mode = Some(parsed(name, value)?),
        "dangerously-skip-permissions" => args.skip_permissions = true,
        "allow-dangerously-skip-permissions" => args.allow_skip_permissions = true,
        "permission-prompt-tool" => args.ask_host = choice(name, value, &[("stdio", true)])?,
        "permission-prompts" => args.never_ask = choice(name, value, &[("host", false), ("none", true)])?,
        "max-turns" => args.max_turns = Some(at_least_one(name, value)?),
        "max-budget-usd" => args.max_budget = Some(dollars(name, value)?),
        "add-dir" => args.additional_directories.push(value.into()),
        "betas" => args.betas.extend(split_rules(value)),
        "effort" => {
            let efforts = ["low", "medium", "high", "xhigh", "max"].map(|effort| (effort, effort));
            args.effort = Some(choice(name, value, &efforts)?.to_owned());
        }
        "thinking" => {
            let kinds = [("adaptive", Thinking::Adaptive), ("disabled", Thinking::Disabled)];
            args.thinking = choice(name, value, &kinds)?;
        }
        "max-thinking-tokens" => {
            args.thinking = match parsed::<u64>(name, value)? {
                0 => Thinking::Disabled,
                tokens => Thinking::Budget(tokens),
            };
        }
        "include-partial-messages" => args.include_partial_messages = true,
        "session-id" => args.session_id = Some(uuid(name, value)?),
        "resume" => args.resume = Some(value.to_owned()),
        "continue" => args.resume_newest = true,
        "no-session-persistence" => args.keep_nothing = true,
        "settings" => args.settings = not_empty(value),
        // Nothing is loaded from settings files, so an empty list changes nothing.
        "setting-sources" if value.is_empty() => (),
        "mcp-config" => args.servers.add_config(value)?,
        "managed-settings" if empty_object(value) => (),
        // These only say more, or less, of what is done anyway, or prepare for what is not there.
        "bare"
        | "debug"
        | "debug-file"
        | "fallback-model"
        | "include-hook-events"
        | "print"
        | "project-config-root"
        | "replay-user-messages"
        | "strict-mcp-config"
        | "thinking-display"
        | "verbose" => (),
        // These change money, security, or what the program relies on.
        _ => return Err(not_built(name)),
    }
    Ok(())
}

fn not_empty(value: &str) -> Option<String> {
    Some(value).filter(|value| !value.is_empty()).map(str::to_owned)
}

fn choice<T: Copy>(name: &str, value: &str, choices: &[(&str, T)]) -> Result<T, Complaint> {
    choices.iter().find(|(text, _)| *text == value).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
        format!("option '--{name}' cannot be '{}': it is one of {}", shortened(value), names.join(", "))
    })
}

fn parsed<T: FromStr>(name: &str, value: &str) -> Result<T, Complaint>
where
    T::Err: std::fmt::Display,
{
    value.parse().map_err(|error| {
        format!("option '--{name}' cannot be '{}': failed to read it: {error}", shortened(value))
    })
}

fn at_least_one(name: &str, value: &str) -> Result<u64, Complaint> {
    match parsed(name, value)? {
        0 => Err(format!("option '--{name}' must be at least 1")),
        number => Ok(number),
    }
}

/// JavaScript writes small numbers as `1e-7`; those are read too.
fn dollars(name: &str, value: &str) -> Result<NanoUsd, Complaint> {
    let exact = value.parse::<NanoUsd>();
    let rounded = || value.parse::<f64>().ok().and_then(NanoUsd::from_claimed_usd);
    match exact.ok().or_else(rounded) {
        Some(amount) if amount > NanoUsd::ZERO => Ok(amount),
        Some(_) | None => Err(format!("option '--{name}' must be an amount of dollars above 0")),
    }
}

fn uuid(name: &str, value: &str) -> Result<String, Complaint> {
    if wardian_agent::transcript::is_uuid(value) {
        return Ok(value.to_owned());
    }
    Err(format!("option '--{name}' must be a UUID"))
}

fn empty_object(value: &str) -> bool {
    serde_json::from_str::<Value>(value)
        .is_ok_and(|value| value.as_object().is_some_and(|map| map.is_empty()))
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
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
mod tests {
    use super::*;

    fn args(arguments: &[&str]) -> Result<Args, Complaint> {
        match parse(arguments.iter().map(OsString::from))? {
            Invocation::Run(args) => Ok(*args),
            Invocation::Help | Invocation::Version => Err("help or version".to_owned()),
        }
    }

    #[test]
    fn both_styles_and_both_spellings_are_read() {
        for arguments in [
            &[
                "--output-format",
                "stream-json",
                "--verbose",
                "--input-format",
                "stream-json",
                "--model=m",
                "--allowedTools=Read,Bash(git log, *)",
                "--max-turns=3",
                "--max-budget-usd=0.5",
                "--system-prompt=",
            ][..],
            &[
                "--output-format=stream-json",
                "--verbose",
                "--input-format=stream-json",
                "--model",
                "m",
                "--allowed-tools",
                "Read Bash(git log, *)",
                "--max-turns",
                "3",
                "--max-budget-usd",
                "0.5",
                "--system-prompt",
                "",
            ],
        ] {
            let args = args(arguments).unwrap();
            assert!(args.stream_input);
            assert_eq!(args.output, OutputFormat::StreamJson);
            assert_eq!(args.model.as_deref(), Some("m"));
            assert_eq!(args.allowed_tools, ["Read", "Bash(git log, *)"]);
            assert_eq!(args.max_turns, Some(3));
            assert_eq!(args.max_budget, Some(NanoUsd(500_000_000)));
            assert_eq!(args.system_prompt.as_deref(), Some(""));
        }
    }

    #[test]
    fn tools_may_be_none_some_or_all() {
        assert_eq!(args(&["--tools="]).unwrap().tools, ToolSet::Only(Vec::new()));
        assert_eq!(args(&["--tools", ""]).unwrap().tools, ToolSet::Only(Vec::new()));
        assert_eq!(args(&["--tools=default"]).unwrap().tools, ToolSet::All);
        let some = ToolSet::Only(vec!["Read".to_owned(), "Bash".to_owned()]);
        assert_eq!(args(&["--tools=Read,Bash"]).unwrap().tools, some);
    }

    #[test]
    fn prompts_stand_alone() {
        assert_eq!(args(&["-p", "do it"]).unwrap().prompt.as_deref(), Some("do it"));
        assert_eq!(args(&["-p", "--", "--odd"]).unwrap().prompt.as_deref(), Some("--odd"));
        assert!(args(&["do", "it"]).unwrap_err().contains("more than one prompt"));
    }

    #[test]
    fn what_changes_nothing_is_taken() {
        for flag in [
            "--setting-sources=",
            "--no-session-persistence",
            "--debug",
            "--debug=api",
            "--bare",
            "--mcp-config={\"mcpServers\":{}}",
            "--strict-mcp-config",
            "--managed-settings={}",
        ] {
            args(&[flag]).unwrap_or_else(|complaint| panic!("{flag}: {complaint}"));
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (flag, expected) in [
            ("--x", "unknown option '--x'"),
            ("--x=1", "unknown option '--x'"),
            ("-z", "unknown option '-z'"),
            ("--verbose=1", "takes no value"),
            ("--model", "needs a value"),
            ("--fork-session", "'--fork-session' is not supported"),
            ("--resume", "needs a value"),
            ("-r", "needs a value"),
            ("--setting-sources=project", "'--setting-sources' is not supported"),
            ("--mcp-config={\"mcpServers\":{\"x\":{}}}", "'stdio', which is not supported"),
            ("--mcp-config=file.json", "'--mcp-config' is not supported"),
            ("--managed-settings={\"a\":1}", "'--managed-settings' is not supported"),
            ("--json-schema={}", "'--json-schema' is not supported"),
            ("--task-budget=5", "'--task-budget' is not supported"),
            ("--agent=x", "'--agent' is not supported"),
            ("--plugin-dir=x", "'--plugin-dir' is not supported"),
            ("--permission-prompt-tool=mcp__x", "one of stdio"),
            ("--permission-mode=yolo", "permission mode"),
            ("--max-turns=0", "at least 1"),
            ("--max-turns=-1", "failed to read it"),
            ("--max-budget-usd=0", "above 0"),
            ("--max-budget-usd=NaN", "above 0"),
            ("--session-id=../../etc", "must be a UUID"),
            ("--effort=extreme", "one of low"),
        ] {
            let complaint = args(&[flag]).unwrap_err();
            assert!(complaint.contains(expected), "{flag}: {complaint}");
        }
    }

    #[test]
    fn amounts_as_javascript_writes_them() {
        assert_eq!(args(&["--max-budget-usd=1e-7"]).unwrap().max_budget, Some(NanoUsd(100)));
        assert_eq!(
            args(&["--max-budget-usd=0.30000000000000004"]).unwrap().max_budget,
            Some(NanoUsd(300_000_000))
        );
    }
}
