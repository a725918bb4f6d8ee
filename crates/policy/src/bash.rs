//! Bash calls: every command of the script, and the files that it redirects to.

use std::path::{Path, PathBuf};

use crate::decide::Applies;
use crate::everyday::{self, Everyday};
use crate::rule::{PathPattern, Specifier, Wildcard};
use crate::shell::{Redirect, Script, Simple, Word};
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
pub fn plan_of(policy: &Policy, call: &Call<'_>, facts: &Facts) -> Plan {
    let mut plan = Plan::default();
    let script = command(call).map(Script::read).unwrap_or_default();
    if script.hazard.is_some() || script.commands.iter().any(|simple| simple.hazard().is_some()) {
        return plan;
    }
    let mut moved = false;
    for simple in &script.commands {
        let raw = simple.raw();
        if raw.is_empty() || matching(policy, &raw).next().is_some() {
            moved |= simple.changes_directory();
            continue;
        }
        let writes: Vec<PathBuf> = (simple.redirects.iter())
            .filter(|redirect| redirect.writes && is_file(redirect))
            .filter_map(|redirect| files::resolved(&redirect.target.text, facts).cloned())
            .collect();
        let reads = simple.redirects.iter().filter(|redirect| !redirect.writes && is_file(redirect));
        let reads = reads.filter_map(|redirect| files::resolved(&redirect.target.text, facts).cloned());
        plan.reads.extend(reads.filter(|path| !files::is_inside(policy, path)));
        let everyday = everyday::read(simple);
        let free = everyday.as_ref().is_some_and(|everyday| is_free(policy, everyday, facts, moved));
        moved |= simple.changes_directory();
        if free && writes.is_empty() {
            continue;
        }
        plan.writes.extend(writes);
        let resolved = |paths: &[String]| {
            paths.iter().filter_map(|path| files::resolved(path, facts).cloned()).collect::<Vec<_>>()
        };
        match everyday {
            Some(Everyday::Looks(paths)) => {
                let outside = resolved(&paths).into_iter().filter(|path| !files::is_inside(policy, path));
                plan.reads.extend(outside);
            }
            Some(Everyday::Edits(paths)) => {
                let paths = resolved(&paths);
                plan.is_edit |= paths.iter().all(|path| files::is_inside(policy, path));
                plan.writes.extend(paths);
            }
            None => (),
        }
        plan.to_allow.push(likeness(simple, &raw));
    }
    plan
}

/// The pattern of commands like this one: all of a subcommand, where it seems to have one; else the command itself.
fn likeness(simple: &Simple, raw: &str) -> String {
    let word = |text: &str| {
        text.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'))
    };
    match simple.words.as_slice() {
        [name, second, ..] if word(&name.raw) && word(&second.raw) => {
            format!("{} {} *", name.raw, second.raw)
        }
        _ => raw.to_owned(),
    }
}

/// Whether a command needs nobody's leave: it only looks, within the roots, or edits there and the mode lets it.
/// `moved`: the shell's directory is another by then, so that no path means what it seems to.
fn is_free(policy: &Policy, everyday: &Everyday, facts: &Facts, moved: bool) -> bool {
    let (paths, free) = match everyday {
        Everyday::Looks(paths) => (paths, true),
        Everyday::Edits(paths) => (paths, policy.mode == PermissionMode::AcceptEdits && !paths.is_empty()),
    };
    let edits = matches!(everyday, Everyday::Edits(_));
    free && (!moved || (paths.is_empty() && !edits))
        && paths.iter().all(|path| {
            files::resolved(path, facts).is_some_and(|path| {
                files::is_inside(policy, path)
                    && !(edits && (policy.roots.contains(path) || files::is_guarded_below(policy, path)))
            })
        })
}

fn command<'a>(call: &Call<'a>) -> Option<&'a str> {
    call.input.get("command")?.as_str()
}

/// The most paths of one command that are looked at.
const MAX_PATHS: usize = 256;

/// The files that the command redirects from and to, and those that commands about files name, where they stand in it
/// literally.
pub(crate) fn paths(call: &Call<'_>) -> Vec<String> {
    let Some(command) = command(call) else { return Vec::new() };
    let script = Script::read(command);
    let redirects = script.redirects().filter(|redirect| is_file(redirect) && !redirect.target.expands);
    let redirects = redirects.map(|redirect| redirect.target.text.clone());
    let named = script.commands.iter().filter_map(everyday::read).flat_map(|everyday| match everyday {
        Everyday::Looks(paths) | Everyday::Edits(paths) => paths,
    });
    let mut paths: Vec<String> = Vec::new();
    for path in redirects.chain(named).take(MAX_PATHS).chain(Seen::of(call).files) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

fn is_file(redirect: &Redirect) -> bool {
    !NO_FILES.contains(&redirect.target.text.as_str())
}

/// A Bash call, read once for all rules that refuse.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    script: Script,
    /// What a rule that refuses may find: the whole, and all readings of its parts.
    readings: Vec<String>,
    /// What is known of commands of which the shell computes the rest.
    beginnings: Vec<String>,
    /// What commands about files name to them.
    files: Vec<String>,
    /// Where the shell goes on the way, one step after the other.
    folders: Vec<PathBuf>,
    /// Something is not understood, or there is too much of it.
    is_unclear: bool,
    /// Characters that readings may still have.
    left: usize,
}

/// The most steps of a shell's way through directories that are followed.
const MAX_FOLDERS: usize = 8;

/// The most characters of all readings: so that a command of nothing but wrappers is decided soon.
const MAX_READING_CHARS: usize = 512 * 1024;

impl Seen {
    pub(crate) fn of(call: &Call<'_>) -> Self {
        let Some(command) = command(call) else { return Self { is_unclear: true, ..Self::default() } };
        let script = Script::read(command);
        let mut seen = Self { left: MAX_READING_CHARS, ..Self::default() };
        seen.is_unclear = script.hazard.is_some();
        seen.push(command.trim().to_owned());
        for simple in &script.commands {
            seen.is_unclear |= simple.hazard().is_some();
            seen.beginnings.extend(simple.known_beginnings());
            seen.command(simple, 0);
        }
        Self { script, ..seen }
    }

    fn command(&mut self, simple: &Simple, depth: usize) {
        for reading in simple.readings() {
            self.push(reading);
        }
        self.name_files(simple);
        if depth == MAX_DEPTH {
            return;
        }
        for inner in simple.inner_scripts() {
            if !self.spend(inner.len()) {
                return;
            }
            for simple in &Script::read(&inner).commands {
                self.command(simple, depth + 1);
            }
        }
    }

    /// Notes what a command about files names, from where it is named.
    fn name_files(&mut self, simple: &Simple) {
        if let Some(target) = simple.new_directory()
            && self.folders.len() < MAX_FOLDERS
        {
            let from = self.folders.last().cloned().unwrap_or_default();
            self.folders.push(from.join(target));
        }
        for name in simple.file_arguments().iter().flat_map(named_files).take(MAX_PATHS) {
            let below = self.folders.iter().map(|folder| folder.join(&name).to_string_lossy().into_owned());
            self.files.extend(below);
            self.files.push(name);
        }
    }

    fn push(&mut self, reading: String) {
        if self.spend(reading.len()) {
            self.readings.push(reading);
        }
    }

    /// Whether there was room for so many characters.
    fn spend(&mut self, characters: usize) -> bool {
        let left = self.left.checked_sub(characters);
        self.left = left.unwrap_or(0);
        self.is_unclear |= left.is_none();
        left.is_some()
    }

    /// Whether a rule that refuses a command applies to any part of the script.
    pub(crate) fn refused(&self, pattern: &Wildcard) -> Applies {
        if self.readings.iter().any(|reading| pattern.matches(reading)) {
            return Applies::Yes;
        }
        let could = self.is_unclear || self.beginnings.iter().any(|known| pattern.could_match(known));
        if could { Applies::Maybe } else { Applies::No }
    }

    /// Whether a rule that refuses files applies to what the script redirects from or to, or names to a command about
    /// files. What a command does with its files is for the sandbox to wall in: this only helps the model along.
    pub(crate) fn refused_file(&self, rule: &Rule, pattern: &PathPattern, facts: &Facts) -> Applies {
        let covers = |text: &str| {
            let readings = files::readings(text, facts);
            readings.iter().any(|path| pattern.refuses(path, facts))
        };
        let about = |writes: bool| {
            if writes {
                files::is_about(rule, "Edit") || files::is_about(rule, "Write")
            } else {
                files::is_about(rule, "Read")
            }
        };
        let mut applies = if self.readings.is_empty() { Applies::Maybe } else { Applies::No };
        for redirect in self.script.redirects().filter(|redirect| is_file(redirect) && about(redirect.writes))
        {
            let target = &redirect.target;
            if covers(&target.text) {
                return Applies::Yes;
            }
            let unknown = target.expands
                || self.script.changes_directory()
                || files::resolved(&target.text, facts).is_none();
            if unknown {
                applies = Applies::Maybe;
            }
        }
        let could = |text: &String| {
            // As it is written, a path from home or a variable lies nowhere.
            let first = text.split('/').next().filter(|first| first.starts_with(['~', '$']));
            let is_meant = |path: &Path| first.is_none_or(|first| path.iter().all(|name| name != first));
            let mut readings = files::readings(text, facts).into_iter().filter(|path| is_meant(path));
            text.contains(['*', '?', '[', '{']) && readings.any(|path| pattern.could_meet(&path, facts))
        };
        let mut files = self.files.iter().take(MAX_PATHS);
        if files.clone().any(|path| covers(path)) {
            return Applies::Yes;
        }
        if self.files.len() >= MAX_PATHS || files.any(could) { Applies::Maybe } else { applies }
    }
}

/// What an argument may name: itself, and what an option or `name=` brings (`if=x`, `--file=x`, `-fx`).
fn named_files(word: &Word) -> impl Iterator<Item = String> {
    let text = word.text.as_str();
    let value = text.split_once('=').map(|(_, value)| value);
    let short = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')).and_then(|rest| {
        let mut letters = rest.chars();
        letters.next().map(|_| letters.as_str())
    });
    let named = [Some(text), value, short].into_iter().flatten().filter(|path| !path.is_empty());
    named.map(str::to_owned).collect::<Vec<_>>().into_iter()
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
    let mut moved = false;
    let mut by_rules = true;
    for simple in &script.commands {
        let raw = simple.raw();
        let exactly = matching(policy, &raw).any(Wildcard::is_exact);
        match simple.hazard() {
            // A rule that spells the whole command out leaves nothing open.
            Some(hazard) if !exactly => return not_evaluated(hazard),
            Some(_) | None => (),
        }
        if !simple.words.is_empty() && matching(policy, &raw).next().is_some() {
            moved |= simple.changes_directory();
            continue;
        }
        by_rules = false;
        let everyday = everyday::read(simple);
        let free = everyday.as_ref().is_some_and(|everyday| is_free(policy, everyday, facts, moved))
            && reads_here(policy, simple, facts, moved);
        moved |= simple.changes_directory();
        if free {
            continue;
        }
        let shown: String = raw.chars().take(100).collect();
        let kind = match &everyday {
            Some(Everyday::Looks(paths) | Everyday::Edits(paths)) if !paths.is_empty() => ReasonKind::Touched,
            Some(_) | None if script.commands.len() > 1 => ReasonKind::Parts,
            Some(_) | None => ReasonKind::Unapproved,
        };
        return Decision::ask(kind, format!("no rule allows the command {shown:?}"));
    }
    let mut reads = script.redirects().filter(|redirect| !redirect.writes && is_file(redirect));
    if let Some(redirect) = reads.find(|redirect| !read_is_allowed(policy, &script, redirect, facts)) {
        let shown: String = redirect.target.raw.chars().take(100).collect();
        return Decision::ask(ReasonKind::Touched, format!("no rule allows reading {shown:?}"));
    }
    let mut writes = script.redirects().filter(|redirect| redirect.writes && is_file(redirect));
    match writes.find(|redirect| !write_is_allowed(policy, &script, redirect, facts)) {
        Some(redirect) => {
            let shown: String = redirect.target.raw.chars().take(100).collect();
            Decision::ask(ReasonKind::Touched, format!("no rule allows writing to {shown:?}"))
        }
        None if by_rules => Decision::allow(ReasonKind::Parts, "rules allow each part of the command"),
        None => Decision::allow(ReasonKind::Parts, "each part of the command is allowed, or only looks"),
    }
}

/// Whether what a command is fed from files lies within the roots.
fn reads_here(policy: &Policy, simple: &Simple, facts: &Facts, moved: bool) -> bool {
    let mut reads = simple.redirects.iter().filter(|redirect| !redirect.writes && is_file(redirect));
    reads.all(|redirect| {
        !moved
            && !redirect.target.expands
            && files::resolved(&redirect.target.text, facts)
                .is_some_and(|path| files::is_inside(policy, path))
    })
}

fn matching<'a>(policy: &'a Policy, raw: &str) -> impl Iterator<Item = &'a Wildcard> {
    let patterns = policy.allow.iter().filter_map(|rule| match &rule.specifier {
        Specifier::Command(pattern) => Some(pattern),
        Specifier::Any | Specifier::Path(_) | Specifier::Host(_) | Specifier::Field { .. } => None,
    });
    patterns.filter(move |pattern| pattern.matches(raw))
}

/// A redirect reads a file, so it needs what reading that file needs.
fn read_is_allowed(policy: &Policy, script: &Script, redirect: &Redirect, facts: &Facts) -> bool {
    let bare = policy.allow.iter().any(|rule| rule.is_bare() && rule.names("Read"));
    let path = files::resolved(&redirect.target.text, facts);
    let is_known = !redirect.target.expands && !script.changes_directory();
    bare || path.is_some_and(|path| {
        is_known && (files::is_inside(policy, path) || files::path_is_allowed(policy, "Read", path, facts))
    })
}

/// A redirect writes a file, so it needs what an edit of that file needs.
fn write_is_allowed(policy: &Policy, script: &Script, redirect: &Redirect, facts: &Facts) -> bool {
    if redirect.target.expands || script.changes_directory() {
        return false;
    }
    let Some(path) = files::resolved(&redirect.target.text, facts) else { return false };
    let edits_here = policy.mode == PermissionMode::AcceptEdits
        || policy.allow.iter().any(|rule| rule.is_bare() && (rule.names("Edit") || rule.names("Write")));
    let guarded = policy.mode == PermissionMode::AcceptEdits && files::is_guarded_below(policy, path);
    (edits_here && !guarded && files::is_inside(policy, path))
        || files::path_is_allowed(policy, "Edit", path, facts)
        || files::path_is_allowed(policy, "Write", path, facts)
}
