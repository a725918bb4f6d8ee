//! The decision about one tool call.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::rule::{Specifier, without_arguments};
use crate::{PermissionMode, Rule, bash, files};

/// Tools that touch nothing but the session itself.
const HARMLESS: &[&str] = &[
    "Agent",
    "ListMcpResourcesTool",
    "ReadMcpResourceTool",
    "StructuredOutput",
    "Task",
    "TaskCreate",
    "TaskGet",
    "TaskList",
    "TaskStop",
    "TaskUpdate",
    "TodoWrite",
    "ToolSearch",
];

/// The agent of a call that names none.
const DEFAULT_AGENT: &str = "general-purpose";

/// Tools that are a question to the user: no mode and no rule answers it.
const QUESTIONS: &[&str] = &["AskUserQuestion", "ExitPlanMode"];

/// What decides: the mode, the rules, and where files may be touched.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What happens to calls that no rule decides.
    pub mode: PermissionMode,
    /// Calls that go through unasked.
    pub allow: Vec<Rule>,
    /// Calls that are always asked about.
    pub ask: Vec<Rule>,
    /// Calls that are refused in every mode.
    pub deny: Vec<Rule>,
    /// The working directory and the additional directories, resolved.
    pub roots: Vec<PathBuf>,
}

/// One tool call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The tool.
    pub tool: &'a str,
    /// Its input.
    pub input: &'a Value,
}

/// What the caller found out about a call. The crate does no I/O itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The session's working directory, absolute and resolved: where the relative paths of rules begin.
    pub cwd: PathBuf,
    /// Where the relative paths of the call begin: for Bash the shell's own directory, which a `cd` moves, otherwise
    /// `cwd` again.
    pub call_cwd: PathBuf,
    /// The user's home, for rules with `~/`.
    pub home: Option<PathBuf>,
    /// One for each path of [`paths_of`].
    pub paths: Vec<PathFact>,
    /// Of the places of [`Policy::refused_places`] those that are, or lie behind, symbolic links.
    pub links: Vec<Link>,
}

/// A place that a rule names, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// As the rule has it, absolute.
    pub named: PathBuf,
    /// Without symbolic links.
    pub leads_to: PathBuf,
}

/// A path of a call, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathFact {
    /// As the call has it.
    pub given: String,
    /// Absolute, without symbolic links and `..`; for a file that is not there yet, its directory resolved.
    pub resolved: PathBuf,
}

/// What is to happen with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It runs.
    Allow {
        /// Why.
        reason: Reason,
    },
    /// The host is asked; where there is none, and in mode `dontAsk`, the caller denies it.
    Ask {
        /// Why.
        reason: Reason,
    },
    /// It does not run.
    Deny {
        /// Why.
        reason: Reason,
    },
}

/// Why a call was decided so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What decided.
    pub kind: ReasonKind,
    /// For people.
    pub text: String,
}

/// What decided about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReasonKind {
    /// A rule.
    Rule,
    /// The permission mode.
    Mode,
    /// A path outside the roots.
    Boundary,
    /// The tool changes nothing.
    ReadOnly,
    /// Nothing allowed it, so it is asked about.
    NotAllowed,
    /// The input could not be evaluated: a shell command that is not understood, a path that is missing.
    NotEvaluated,
    /// No rule allows a command.
    Unapproved,
    /// The parts of a command, each by itself.
    Parts,
    /// A file that a command touches.
    Touched,
    /// A file that says what agents may do, or runs by itself.
    Safety,
    /// A hook of the caller's.
    Hook,
}

impl ReasonKind {
    /// The kind as it stands on the wire, in `decision_reason_type`; `None` where the wire says nothing.
    #[must_use]
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Rule => Some("rule"),
            Self::Mode | Self::ReadOnly => Some("mode"),
            Self::Boundary => Some("workingDir"),
            Self::Parts => Some("subcommandResults"),
            Self::Safety => Some("safetyCheck"),
            Self::Hook => Some("hook"),
            Self::Unapproved | Self::NotEvaluated => Some("other"),
            Self::NotAllowed | Self::Touched => None,
        }
    }
}

impl ReasonKind {
    /// Whether the reason's text says more than its kind.
    #[must_use]
    pub const fn needs_words(self) -> bool {
        !matches!(self, Self::Rule | Self::Mode | Self::Parts | Self::NotAllowed | Self::Touched)
    }
}

impl Decision {
    /// Why.
    #[must_use]
    pub const fn reason(&self) -> &Reason {
        match self {
            Self::Allow { reason } | Self::Ask { reason } | Self::Deny { reason } => reason,
        }
    }

    pub(crate) fn allow(kind: ReasonKind, text: impl Into<String>) -> Self {
        Self::Allow { reason: Reason { kind, text: text.into() } }
    }

    pub(crate) fn ask(kind: ReasonKind, text: impl Into<String>) -> Self {
        Self::Ask { reason: Reason { kind, text: text.into() } }
    }

    pub(crate) fn deny(kind: ReasonKind, text: impl Into<String>) -> Self {
        Self::Deny { reason: Reason { kind, text: text.into() } }
    }
}

impl Policy {
    /// The tools that a bare-name deny rule takes away from the model altogether. A name may end in `*`
    /// (`mcp__server__*`), and `mcp__server` takes away all tools of the server: [`Policy::removes`] knows.
    #[must_use]
    pub fn removed_tools(&self) -> Vec<&str> {
        self.deny.iter().filter(|rule| rule.is_bare()).map(Rule::tool_text).collect()
    }

    /// The places that rules which refuse files name, as far as nothing in them varies: where one is a link, what it
    /// leads to is refused too, by [`Facts::links`].
    #[must_use]
    pub fn refused_places(&self, cwd: &Path, home: Option<&Path>) -> Vec<PathBuf> {
        let mut places = Vec::new();
        for rule in self.deny.iter().chain(&self.ask) {
            let Specifier::Path(pattern) = &rule.specifier else { continue };
            places.extend(pattern.begin(cwd, home).filter(|place| place != cwd && !places.contains(place)));
        }
        places
    }

    /// Whether a bare-name deny rule takes this tool away.
    #[must_use]
    pub fn removes(&self, tool: &str) -> bool {
        self.deny.iter().any(|rule| rule.is_bare() && rule.names(tool))
    }
}

/// Whether a rule that refuses or asks applies to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applies {
    Yes,
    /// The call cannot be understood well enough to say that it does not.
    Maybe,
    No,
}

/// The paths in a call's input that the caller must resolve into [`Facts::paths`]: those of the file tools, and for
/// Bash the targets of redirects that can be read off.
#[must_use]
pub fn paths_of(call: &Call<'_>) -> Vec<String> {
    if call.tool == "Bash" { bash::paths(call) } else { files::paths(call) }
}

/// Decides about a call. source: the agent protocol reference, section 1.5: deny rules, ask rules, mode, allow rules,
/// and then the host. (Hooks come before, with the caller.)
#[must_use]
pub fn decide(policy: &Policy, call: &Call<'_>, facts: &Facts) -> Decision {
    let refuses = Refusals { call, facts, command: (call.tool == "Bash").then(|| bash::Seen::of(call)) };
    let denied = refuses.first(&policy.deny);
    let asked = refuses.first(&policy.ask);
    match (denied, asked) {
        (Some((rule, Applies::Yes)), _) => {
            Decision::deny(ReasonKind::Rule, format!("the rule {rule} denies it"))
        }
        (_, Some((rule, Applies::Yes))) => {
            Decision::ask(ReasonKind::Rule, format!("the rule {rule} asks about it"))
        }
        (Some((rule, _)), _) | (None, Some((rule, _))) => {
            let text = format!("it cannot be told that the rule {rule} does not refuse it");
            Decision::ask(ReasonKind::NotEvaluated, text)
        }
        (None, None) => by_mode(policy, call, facts).unwrap_or_else(|| by_allow_rules(policy, call, facts)),
    }
}

/// A call as rules that refuse see it.
struct Refusals<'a> {
    call: &'a Call<'a>,
    facts: &'a Facts,
    command: Option<bash::Seen>,
}

impl Refusals<'_> {
    /// The first rule that applies for certain, else the first that may.
    fn first<'r>(&self, rules: &'r [Rule]) -> Option<(&'r Rule, Applies)> {
        let mut may = None;
        for rule in rules {
            match self.by(rule) {
                Applies::Yes => return Some((rule, Applies::Yes)),
                Applies::Maybe => {
                    may.get_or_insert((rule, Applies::Maybe));
                }
                Applies::No => (),
            }
        }
        may
    }

    fn by(&self, rule: &Rule) -> Applies {
        let Self { call, facts, command } = self;
        if rule.names(call.tool) && rule.is_bare() {
            return Applies::Yes;
        }
        match (&rule.specifier, command) {
            (Specifier::Any, _) | (Specifier::Command(_), None) => Applies::No,
            (Specifier::Command(pattern), Some(command)) => command.refused(pattern),
            (Specifier::Path(pattern), Some(command)) => command.refused_file(rule, pattern, facts),
            (Specifier::Path(pattern), None) => files::refused(rule, pattern, call, facts),
            (Specifier::Host(_) | Specifier::Field { .. }, _) if !rule.names(call.tool) => Applies::No,
            (Specifier::Host(pattern), _) => match host_of(call) {
                Some(host) if pattern.matches(&host) => Applies::Yes,
                Some(_) => Applies::No,
                None => Applies::Maybe,
            },
            (Specifier::Field { name, value }, _) => {
                let texts = spellings(rule, call, name);
                if texts.iter().any(|text| value.matches(text)) { Applies::Yes } else { Applies::No }
            }
        }
    }
}

/// The texts under which a rule that refuses may find a field: a skill may be called with a slash before it and without
/// its plugin's name, an agent without any name.
fn spellings(rule: &Rule, call: &Call<'_>, field: &str) -> Vec<String> {
    let given = call.input.get(field).filter(|given| !given.is_null()).map(text_of);
    match field {
        "skill" | "subagent_type" => {
            let given = given.filter(|text| !text.trim().is_empty());
            let default = (field == "subagent_type").then(|| DEFAULT_AGENT.to_owned());
            let Some(given) = given.or(default) else { return Vec::new() };
            let name = given.trim().trim_start_matches('/').to_owned();
            let short = name.rsplit(':').next().unwrap_or_default().to_owned();
            let rule = without_arguments(rule.specifier_text());
            // The rule has the whole name, the call its end.
            let whole = rule.rsplit_once(':').filter(|(_, end)| *end == name).map(|_| rule.to_owned());
            [given, name, short].into_iter().chain(whole).collect()
        }
        _ => given.into_iter().collect(),
    }
}

fn by_mode(policy: &Policy, call: &Call<'_>, facts: &Facts) -> Option<Decision> {
    let mode = policy.mode;
    if QUESTIONS.contains(&call.tool) {
        return Some(Decision::ask(ReasonKind::NotAllowed, "it is for the user to answer"));
    }
    let writes = files::is_writing(call.tool);
    match mode {
        PermissionMode::BypassPermissions => {
            return Some(Decision::allow(ReasonKind::Mode, "the mode bypassPermissions allows it"));
        }
        PermissionMode::Plan if writes => {
            return Some(Decision::ask(ReasonKind::Mode, "the mode plan changes nothing"));
        }
        PermissionMode::AcceptEdits
            if writes && facts.paths.iter().any(|path| files::is_guarded_below(policy, &path.resolved)) =>
        {
            let by_rules = by_allow_rules(policy, call, facts);
            let text = "the file says what agents may do, or is run by itself";
            let is_allowed = matches!(by_rules, Decision::Allow { .. });
            return Some(if is_allowed { by_rules } else { Decision::ask(ReasonKind::Safety, text) });
        }
        PermissionMode::AcceptEdits if writes && files::all_inside(policy, call, facts) => {
            return Some(Decision::allow(ReasonKind::Mode, "the mode acceptEdits allows edits here"));
        }
        PermissionMode::Plan
        | PermissionMode::AcceptEdits
        | PermissionMode::Default
        | PermissionMode::DontAsk
        | PermissionMode::Auto => (),
    }
    if HARMLESS.contains(&call.tool) {
        return Some(Decision::allow(ReasonKind::ReadOnly, "it touches no file"));
    }
    if files::is_reading(call.tool) {
        let inside = files::all_inside(policy, call, facts);
        return inside.then(|| Decision::allow(ReasonKind::ReadOnly, "reading here is free"));
    }
    if mode == PermissionMode::Plan && call.tool == "Bash" {
        let without_rules = Policy { allow: Vec::new(), ..policy.clone() };
        let looked = bash::allowed(&without_rules, call, facts);
        if matches!(looked, Decision::Allow { .. }) {
            return Some(looked);
        }
    }
    let may_write = !matches!(call.tool, "WebFetch" | "WebSearch");
    (mode == PermissionMode::Plan && may_write)
        .then(|| Decision::ask(ReasonKind::Mode, "the mode plan changes nothing, and this may"))
}

fn by_allow_rules(policy: &Policy, call: &Call<'_>, facts: &Facts) -> Decision {
    if call.tool == "Bash" {
        return bash::allowed(policy, call, facts);
    }
    if files::is_reading(call.tool) || files::is_writing(call.tool) {
        return files::allowed(policy, call, facts);
    }
    match policy.allow.iter().find(|rule| rule.names(call.tool) && allows_other(rule, call)) {
        Some(rule) => Decision::allow(ReasonKind::Rule, format!("the rule {rule} allows it")),
        None => not_allowed(call.tool),
    }
}

fn allows_other(rule: &Rule, call: &Call<'_>) -> bool {
    match &rule.specifier {
        Specifier::Any => true,
        Specifier::Command(_) | Specifier::Path(_) => false,
        Specifier::Host(pattern) => host_of(call).is_some_and(|host| pattern.matches(&host)),
        Specifier::Field { name, value } => {
            call.input.get(name).is_some_and(|field| value.matches(&text_of(field)))
        }
    }
}

pub(crate) fn not_allowed(tool: &str) -> Decision {
    let tool: String = tool.chars().take(100).collect();
    Decision::ask(ReasonKind::NotAllowed, format!("no rule allows {tool} to do this"))
}

fn text_of(field: &Value) -> String {
    field.as_str().map_or_else(|| field.to_string(), str::to_owned)
}

/// The host of the call's `url`, in lower case; `None` for what is no plain http(s) URL.
#[must_use]
pub fn host_of(call: &Call<'_>) -> Option<String> {
    let url = call.input.get("url")?.as_str()?;
    let (scheme, rest) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let authority = rest.split(['/', '\\', '?', '#']).next()?;
    let host = authority.split(':').next()?.trim_end_matches('.');
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-');
    (!host.is_empty() && !authority.contains('@') && host.chars().all(plain))
        .then(|| host.to_ascii_lowercase())
}
