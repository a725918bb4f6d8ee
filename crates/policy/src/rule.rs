//! Permission rules: `Tool` or `Tool(specifier)`.
//!
//! source: the agent protocol reference, section 1.5.

mod path;
mod wildcard;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) use path::{PathPattern, inside, normal};
pub(crate) use wildcard::Wildcard;

/// The longest rule, in bytes.
pub const MAX_RULE_BYTES: usize = 4_096;

/// A permission rule such as `Bash(git *)`, `Read(./src/**)`, `mcp__server__tool` or `WebSearch`.
///
/// What it applies to and how it is read is in the crate's README.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    text: String,
    pub(crate) tool: ToolName,
    pub(crate) specifier: Specifier,
}

/// The tools that a rule names.
#[derive(Clone, Debug)]
pub(crate) enum ToolName {
    One(String),
    /// All whose name begins so: `mcp__server__`.
    BeginsWith(String),
}

/// Which calls of the tool.
#[derive(Clone, Debug)]
pub(crate) enum Specifier {
    /// All.
    Any,
    /// Those that run such a command.
    Command(Wildcard),
    /// Those that touch such a file.
    Path(Box<PathPattern>),
    /// Those whose URL has this host.
    Host(Wildcard),
    /// Those with such an input field.
    Field { name: String, value: Wildcard },
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the rule {rule:?}: {problem} at character {position}; {hint}")]
pub struct RuleError {
    /// The text, shortened.
    pub rule: String,
    /// What is wrong.
    pub problem: &'static str,
    /// Where, in characters from 1.
    pub position: usize,
    /// What to do about it.
    pub hint: &'static str,
}

/// What is wrong with a part of a rule, and at which byte of that part.
pub(crate) struct Flaw {
    pub(crate) at: usize,
    pub(crate) problem: &'static str,
    pub(crate) hint: &'static str,
}

impl Rule {
    /// The rule as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the rule is a tool's name alone (or `Bash(*)`, which says the same), whatever the call's input.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        match &self.specifier {
            Specifier::Any => true,
            Specifier::Command(pattern) => pattern.matches_all(),
            Specifier::Path(_) | Specifier::Host(_) | Specifier::Field { .. } => false,
        }
    }

    /// Whether the rule's tool is this one. `Task` is an older name of `Agent`.
    pub(crate) fn names(&self, tool: &str) -> bool {
        match &self.tool {
            ToolName::One(name) => {
                name == tool || (is_agent(name) && is_agent(tool)) || is_server_of(name, tool)
            }
            ToolName::BeginsWith(prefix) => tool.starts_with(prefix.as_str()),
        }
    }

    /// What stands between the brackets.
    pub(crate) fn specifier_text(&self) -> &str {
        self.text.split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'))
    }

    pub(crate) fn tool_text(&self) -> &str {
        self.text.split('(').next().unwrap_or(&self.text)
    }
}

fn is_agent(name: &str) -> bool {
    matches!(name, "Agent" | "Task")
}

/// `mcp__server` names all tools of that server.
fn is_server_of(name: &str, tool: &str) -> bool {
    name.strip_prefix("mcp__").is_some_and(|server| !server.contains("__"))
        && tool.strip_prefix(name).is_some_and(|rest| rest.starts_with("__"))
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.text
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let text = text.trim();
        read(text).map_err(|flaw| {
            let before = text.get(..flaw.at).unwrap_or(text);
            RuleError {
                rule: text.chars().take(80).collect(),
                problem: flaw.problem,
                position: before.chars().count() + 1,
                hint: flaw.hint,
            }
        })
    }
}

fn read(text: &str) -> Result<Rule, Flaw> {
    let flaw = |at, problem, hint| Err(Flaw { at, problem, hint });
    if text.is_empty() {
        return flaw(0, "no tool", "write a tool's name, such as Bash or Bash(git *)");
    }
    if text.len() > MAX_RULE_BYTES {
        return flaw(MAX_RULE_BYTES, "too long", "a rule has at most 4096 bytes");
    }
    let Some((tool, rest)) = text.split_once('(') else {
        if let Some(at) = text.find(')') {
            return flaw(at, "a ) without its (", "write Tool or Tool(specifier)");
        }
        return Ok(Rule { text: text.to_owned(), tool: read_tool(text)?, specifier: Specifier::Any });
    };
    let name = read_tool(tool)?;
    let Some(specifier) = rest.strip_suffix(')') else {
        return flaw(text.len(), "no ) at the end", "write Tool(specifier)");
    };
    let begin = tool.len() + 1;
    if specifier.trim().is_empty() {
        return flaw(begin, "an empty specifier", "leave the brackets out to name every call of the tool");
    }
    if let Some(at) = specifier.find(char::is_control) {
        return flaw(begin + at, "a control character", "write one rule a line, in plain text");
    }
    let specifier = read_specifier(tool, specifier).map_err(|flaw| Flaw { at: begin + flaw.at, ..flaw })?;
    Ok(Rule { text: text.to_owned(), tool: name, specifier })
}

fn read_tool(name: &str) -> Result<ToolName, Flaw> {
    let stem = name.strip_suffix('*').unwrap_or(name);
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    if stem.is_empty() && name.is_empty() {
        return Err(Flaw { at: 0, problem: "no tool", hint: "write a tool's name before the (" });
    }
    if let Some(at) = stem.find(|letter| !plain(letter)) {
        return Err(Flaw {
            at,
            problem: "a character that no tool's name has",
            hint: "names have letters, digits, _, - and .",
        });
    }
    if stem == name {
        return Ok(ToolName::One(name.to_owned()));
    }
    let server = stem.strip_prefix("mcp__").and_then(|rest| rest.split_once("__"));
    if server.is_none_or(|(server, _)| server.is_empty()) {
        return Err(Flaw {
            at: stem.len(),
            problem: "a * in a tool's name",
            hint: "only the tools of an MCP server can be named so: mcp__server__*",
        });
    }
    Ok(ToolName::BeginsWith(stem.to_owned()))
}

/// Fields of these tools' inputs; what else stands before a colon is a plugin's name.
const AGENT_FIELDS: &[&str] =
    &["description", "effort", "isolation", "model", "prompt", "run_in_background", "subagent_type"];
const SKILL_FIELDS: &[&str] = &["args", "skill"];

fn begins_with_field(specifier: &str, fields: &[&str]) -> bool {
    specifier.split_once(':').is_some_and(|(name, _)| fields.contains(&name))
}

/// `name:*` is the name with any arguments.
pub(crate) fn without_arguments(specifier: &str) -> &str {
    specifier.strip_suffix(":*").unwrap_or(specifier)
}

fn read_specifier(tool: &str, specifier: &str) -> Result<Specifier, Flaw> {
    let field = |name: &str, value: &str| {
        Ok(Specifier::Field { name: name.to_owned(), value: Wildcard::glob(value) })
    };
    match tool {
        "Bash" => Wildcard::command(specifier).map(Specifier::Command),
        "Read" | "Edit" | "Write" | "NotebookEdit" | "Glob" | "Grep" => {
            PathPattern::read(specifier).map(Box::new).map(Specifier::Path)
        }
        "WebFetch" if specifier.starts_with("domain:") => {
            let host = specifier["domain:".len()..].trim().to_ascii_lowercase();
            if host.is_empty() || host.contains(['/', '@', ':']) {
                return Err(Flaw {
                    at: "domain:".len(),
                    problem: "no host",
                    hint: "write WebFetch(domain:example.com)",
                });
            }
            Ok(Specifier::Host(Wildcard::glob(&host)))
        }
        "Agent" | "Task" if !begins_with_field(specifier, AGENT_FIELDS) => {
            field("subagent_type", without_arguments(specifier))
        }
        "Skill" if !begins_with_field(specifier, SKILL_FIELDS) => {
            field("skill", without_arguments(specifier))
        }
        _ => match specifier.split_once(':') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => field(name, value),
            Some(_) | None => Err(Flaw {
                at: 0,
                problem: "a specifier that this tool does not have",
                hint: "write Tool, or Tool(field:value) for a field of its input",
            }),
        },
    }
}
