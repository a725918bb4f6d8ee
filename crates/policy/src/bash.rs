//! Bash calls: every command of the script, and the files that it redirects to.

use std::path::PathBuf;

use crate::decide::Applies;
use crate::rule::{PathPattern, Specifier, Wildcard};
use crate::shell::{Redirect, Script, Simple};
use crate::{Call, Decision, Facts, PermissionMode, Policy, ReasonKind, Rule, files};

/// How deep scripts within arguments (`sh -c "…"`) are read.
const MAX_DEPTH: usize = 4;

/// Targets of redirects that are no files.
const NO_FILES: &[&str] = &["/dev/null", "/dev/stderr", "/dev/stdout", "/dev/tty"];

/// What would have to be allowed for a command to go through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The specifiers of rules that would allow its parts, as far as it can be understood.
    pub to_allow: Vec<String>,
    /// Files outside the roots that it reads.
    pub reads: Vec<PathBuf>,
    /// Files that it changes.
    pub writes: Vec<PathBuf>,
    /// Whether the mode `acceptEdits` would let it through.
    pub is_edit: bool,
}

/// Says what would have to be allowed for a Bash call to go through.
#[must_use]
pub fn plan_of(policy: &Policy, call: &Call<'_>, _facts: &Facts) -> Plan {
    let mut plan = Plan::default();
    let script = command(call).map(Script::read).unwrap_or_default();
    if script.hazard.is_some() {
        return plan;
    }
    for simple in &script.commands {
        let raw = simple.raw();
        if simple.hazard().is_none() && !raw.is_empty() && matching(policy, &raw).next().is_none() {
            plan.to_allow.push(raw);
        }
    }
    plan
}

fn command<'a>(call: &Call<'a>) -> Option<&'a str> {
    call.input.get("command")?.as_str()
}

/// The files that the command redirects from and to, where they stand in it literally.
pub(crate) fn paths(call: &Call<'_>) -> Vec<String> {
    let Some(command) = command(call) else { return Vec::new() };
    let script = Script::read(command);
    let mut paths: Vec<String> = Vec::new();
    for redirect in script.redirects().filter(|redirect| is_file(redirect) && !redirect.target.expands) {
        if !paths.contains(&redirect.target.text) {
            paths.push(redirect.target.text.clone());
        }
    }
    paths
}

fn is_file(redirect: &Redirect) -> bool {
    !NO_FILES.contains(&redirect.target.text.as_str())
}

/// Whether a rule that refuses a command applies to any part of the script.
pub(crate) fn refused(pattern: &Wildcard, call: &Call<'_>) -> Applies {
    let Some(command) = command(call) else { return Applies::Maybe };
    if pattern.matches(command.trim()) {
        return Applies::Yes;
    }
    refuses_script(pattern, &Script::read(command), 0)
}

fn refuses_script(pattern: &Wildcard, script: &Script, depth: usize) -> Applies {
    let mut applies = if script.hazard.is_some() { Applies::Maybe } else { Applies::No };
    for simple in &script.commands {
        match refuses_command(pattern, simple, depth) {
            Applies::Yes => return Applies::Yes,
            Applies::Maybe => applies = Applies::Maybe,
            Applies::No => (),
        }
    }
    applies
}

fn refuses_command(pattern: &Wildcard, simple: &Simple, depth: usize) -> Applies {
    if simple.readings().iter().any(|reading| pattern.matches(reading)) {
        return Applies::Yes;
    }
    if depth < MAX_DEPTH {
        let inner = simple.inner_scripts();
        let mut scripts = inner.iter().map(|text| Script::read(text));
        if scripts.any(|script| refuses_script(pattern, &script, depth + 1) == Applies::Yes) {
            return Applies::Yes;
        }
    }
    let could = simple.known_beginnings().iter().any(|known| pattern.could_match(known));
    if could || simple.hazard().is_some() { Applies::Maybe } else { Applies::No }
}

/// Whether a rule that refuses files applies to what the script redirects from or to, or names to a command about
/// files. What a command does with its files is for the sandbox to wall in: this only helps the model along.
pub(crate) fn refused_file(rule: &Rule, pattern: &PathPattern, call: &Call<'_>, facts: &Facts) -> Applies {
    let Some(command) = command(call) else { return Applies::Maybe };
    let script = Script::read(command);
    let covers = |text: &str| {
        let readings = files::readings(text, facts);
        readings.iter().any(|path| pattern.covers(path, &facts.cwd, facts.home.as_deref(), true))
    };
    let about = |writes: bool| {
        if writes {
            files::is_about(rule, "Edit") || files::is_about(rule, "Write")
        } else {
            files::is_about(rule, "Read")
        }
    };
    let mut applies = Applies::No;
    for redirect in script.redirects().filter(|redirect| is_file(redirect) && about(redirect.writes)) {
        let target = &redirect.target;
        if covers(&target.text) {
            return Applies::Yes;
        }
        let unknown =
            target.expands || script.changes_directory() || files::resolved(&target.text, facts).is_none();
        if unknown {
            applies = Applies::Maybe;
        }
    }
    let mut named = script.commands.iter().flat_map(Simple::file_arguments);
    if named.any(|word| covers(&word.text)) { Applies::Yes } else { applies }
}

/// Whether allow rules let the command through: a bare rule, or one for each part.
pub(crate) fn allowed(policy: &Policy, call: &Call<'_>, facts: &Facts) -> Decision {
    if let Some(rule) = policy.allow.iter().find(|rule| rule.names("Bash") && rule.is_bare()) {
        return Decision::allow(ReasonKind::Rule, format!("the rule {rule} allows it"));
    }
    let not_evaluated = |why: &str| {
        Decision::ask(ReasonKind::NotEvaluated, format!("the command cannot be evaluated: {why}"))
    };
    let Some(command) = command(call) else { return not_evaluated("it is missing") };
    let script = Script::read(command);
    if let Some(hazard) = script.hazard {
        return not_evaluated(hazard);
    }
    if script.commands.is_empty() {
        return not_evaluated("it is empty");
    }
    for simple in &script.commands {
        let raw = simple.raw();
        let exactly = matching(policy, &raw).any(Wildcard::is_exact);
        match simple.hazard() {
            // A rule that spells the whole command out leaves nothing open.
            Some(hazard) if !exactly => return not_evaluated(hazard),
            Some(_) | None => (),
        }
        if simple.words.is_empty() || matching(policy, &raw).next().is_none() {
            let shown: String = raw.chars().take(100).collect();
            return Decision::ask(ReasonKind::Unapproved, format!("no rule allows the command {shown:?}"));
        }
    }
    let mut writes = script.redirects().filter(|redirect| redirect.writes && is_file(redirect));
    match writes.find(|redirect| !write_is_allowed(policy, &script, redirect, facts)) {
        Some(redirect) => {
            let shown: String = redirect.target.raw.chars().take(100).collect();
            Decision::ask(ReasonKind::Touched, format!("no rule allows writing to {shown:?}"))
        }
        None => Decision::allow(ReasonKind::Parts, "rules allow each part of the command"),
    }
}

fn matching<'a>(policy: &'a Policy, raw: &str) -> impl Iterator<Item = &'a Wildcard> {
    let patterns = policy.allow.iter().filter_map(|rule| match &rule.specifier {
        Specifier::Command(pattern) => Some(pattern),
        Specifier::Any | Specifier::Path(_) | Specifier::Host(_) | Specifier::Field { .. } => None,
    });
    patterns.filter(move |pattern| pattern.matches(raw))
}

/// A redirect writes a file, so it needs what an edit of that file needs.
fn write_is_allowed(policy: &Policy, script: &Script, redirect: &Redirect, facts: &Facts) -> bool {
    if redirect.target.expands || script.changes_directory() {
        return false;
    }
    let Some(path) = files::resolved(&redirect.target.text, facts) else { return false };
    let edits_here = policy.mode == PermissionMode::AcceptEdits
        || policy.allow.iter().any(|rule| rule.is_bare() && (rule.names("Edit") || rule.names("Write")));
    (edits_here && files::is_inside(policy, path))
        || files::path_is_allowed(policy, "Edit", path, facts)
        || files::path_is_allowed(policy, "Write", path, facts)
}
