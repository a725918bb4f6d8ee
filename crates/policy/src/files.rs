//! The file tools: what they read and write, and the boundary around the roots.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::decide::{Applies, not_allowed};
use crate::rule::{PathPattern, Specifier, inside, normal};
use crate::{Call, Decision, Facts, Policy, ReasonKind, Rule};

pub(crate) fn is_reading(tool: &str) -> bool {
    matches!(tool, "Read" | "Glob" | "Grep")
}

pub(crate) fn is_writing(tool: &str) -> bool {
    matches!(tool, "Write" | "Edit" | "NotebookEdit")
}

/// Whether a rule with a path is about what the tool does: `Read(…)` about every reading tool, `Edit(…)` about every
/// writing one, the others about themselves.
pub(crate) fn is_about(rule: &Rule, tool: &str) -> bool {
    match rule.tool_text() {
        "Read" => is_reading(tool),
        "Edit" => is_writing(tool),
        _ => rule.names(tool),
    }
}

/// The paths in the input of a file tool.
pub(crate) fn paths(call: &Call<'_>) -> Vec<String> {
    let field = |name: &str| call.input.get(name).and_then(Value::as_str).map(str::to_owned);
    match call.tool {
        "Read" | "Write" | "Edit" => field("file_path").into_iter().collect(),
        "NotebookEdit" => field("notebook_path").into_iter().collect(),
        "Grep" => vec![field("path").unwrap_or_else(|| ".".to_owned())],
        "Glob" => {
            let dir = field("path").unwrap_or_else(|| ".".to_owned());
            let begin = field("pattern").map(|pattern| fixed_beginning(&pattern).to_owned());
            let begin = begin.filter(|begin| !begin.is_empty());
            let from = begin.map(|begin| Path::new(&dir).join(begin).to_string_lossy().into_owned());
            [dir].into_iter().chain(from).collect()
        }
        _ => Vec::new(),
    }
}

/// The directory that a file name pattern begins with: `/etc/` of `/etc/*.conf`, nothing of `*.rs`.
fn fixed_beginning(pattern: &str) -> &str {
    let fixed = pattern.find(['*', '?', '[', '{', '\\']).unwrap_or(pattern.len());
    pattern[..fixed].rfind('/').map_or("", |slash| &pattern[..=slash])
}

/// Whether a rule that refuses applies to a file tool's call. Letters' case does not count, and both the path as given
/// and where it leads are looked at.
pub(crate) fn refused(rule: &Rule, pattern: &PathPattern, call: &Call<'_>, facts: &Facts) -> Applies {
    if !is_about(rule, call.tool) {
        return Applies::No;
    }
    let paths = paths(call);
    if paths.iter().any(|path| readings(path, facts).iter().any(|path| pattern.refuses(path, facts))) {
        return Applies::Yes;
    }
    let unresolved = paths.is_empty() || paths.iter().any(|path| resolved(path, facts).is_none());
    // A search through a directory shows what is in the files below it.
    let searches = call.tool == "Grep"
        && paths
            .iter()
            .filter_map(|path| resolved(path, facts))
            .any(|dir| pattern.could_cover_inside(dir, facts));
    if unresolved || searches || !glob_is_plain(call) { Applies::Maybe } else { Applies::No }
}

/// Whether a Glob pattern stays below its fixed beginning.
fn glob_is_plain(call: &Call<'_>) -> bool {
    let pattern = call.input.get("pattern").and_then(Value::as_str).unwrap_or("");
    let escapes = |part: &str| part.contains("..") || part.contains("{/") || part.contains(",/");
    call.tool != "Glob" || !escapes(&pattern[fixed_beginning(pattern).len()..])
}

/// Whether every path of the call leads to a place inside the roots.
pub(crate) fn all_inside(policy: &Policy, call: &Call<'_>, facts: &Facts) -> bool {
    let paths = paths(call);
    !paths.is_empty()
        && glob_is_plain(call)
        && paths.iter().all(|path| resolved(path, facts).is_some_and(|path| is_inside(policy, path)))
}

/// Files and folders that say what agents may do, or that programs run by themselves.
const GUARDED: &[&str] = &[
    ".bash_profile",
    ".bashrc",
    ".claude",
    ".claude.json",
    ".envrc",
    ".git",
    ".gitconfig",
    ".gitmodules",
    ".husky",
    ".idea",
    ".mcp.json",
    ".profile",
    ".ripgreprc",
    ".vscode",
    ".zprofile",
    ".zshrc",
];

/// Whether a file says what agents may do, or is run by other programs by itself: no mode lets it be edited unasked.
fn is_guarded(path: &Path) -> bool {
    let guarded = |name: &std::ffi::OsStr| GUARDED.iter().any(|known| name.eq_ignore_ascii_case(known));
    path.components().any(|component| guarded(component.as_os_str()))
}

/// The same, for what lies below a root: a root that is itself below such a folder guards nothing.
pub(crate) fn is_guarded_below(policy: &Policy, path: &Path) -> bool {
    let below = policy
        .roots
        .iter()
        .filter_map(|root| path.strip_prefix(root).ok())
        .min_by_key(|rest| rest.components().count());
    below.is_some_and(is_guarded)
}

pub(crate) fn is_inside(policy: &Policy, path: &Path) -> bool {
    // A path that still has `..` was not resolved.
    normal(path) == path && policy.roots.iter().any(|root| inside(path, root, false).is_some())
}

/// Whether allow rules let a file tool's call through. A bare rule (`Write`) keeps writing tools inside the roots; a
/// rule with a path that covers the place leads beyond.
pub(crate) fn allowed(policy: &Policy, call: &Call<'_>, facts: &Facts) -> Decision {
    let paths = paths(call);
    let resolved: Option<Vec<&PathBuf>> = paths.iter().map(|path| resolved(path, facts)).collect();
    let bare = policy.allow.iter().find(|rule| rule.is_bare() && rule.names(call.tool));
    let inside = all_inside(policy, call, facts);
    if let Some(rule) = bare
        && (inside || is_reading(call.tool))
    {
        return Decision::allow(ReasonKind::Rule, format!("the rule {rule} allows it"));
    }
    let Some(resolved) = resolved.filter(|paths| !paths.is_empty() && glob_is_plain(call)) else {
        return Decision::ask(ReasonKind::NotEvaluated, "where it leads is not known");
    };
    let by_rule = resolved.iter().all(|path| path_is_allowed(policy, call.tool, path, facts));
    if by_rule {
        return Decision::allow(ReasonKind::Rule, "rules allow these files");
    }
    if inside {
        return not_allowed(call.tool);
    }
    let outside = resolved.iter().find(|path| !is_inside(policy, path));
    let shown = outside.map(|path| path.display().to_string()).unwrap_or_default();
    Decision::ask(ReasonKind::Boundary, format!("{shown} is outside the working directories"))
}

/// Whether a rule with a path allows the tool this file.
pub(crate) fn path_is_allowed(policy: &Policy, tool: &str, path: &Path, facts: &Facts) -> bool {
    normal(path) == path
        && policy.allow.iter().any(|rule| match &rule.specifier {
            Specifier::Path(pattern) => is_about(rule, tool) && pattern.allows(path, facts),
            Specifier::Any | Specifier::Command(_) | Specifier::Host(_) | Specifier::Field { .. } => false,
        })
}

/// Where a path of the call leads, as the caller found.
pub(crate) fn resolved<'a>(given: &str, facts: &'a Facts) -> Option<&'a PathBuf> {
    let fact = facts.paths.iter().find(|fact| fact.given == given)?;
    fact.resolved.is_absolute().then_some(&fact.resolved)
}

/// All places that a path may mean: as given, and where it leads.
pub(crate) fn readings(given: &str, facts: &Facts) -> Vec<PathBuf> {
    let after = |names: &[&str]| {
        let rest = names.iter().find_map(|name| given.strip_prefix(name))?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
    };
    let at_home = after(&["~", "$HOME", "${HOME}"]).zip(facts.home.as_ref());
    let at_home = at_home.map(|(rest, home)| normal(&home.join(rest)));
    let at_cwd = after(&["~+", "$PWD", "${PWD}"]).map(|rest| normal(&facts.call_cwd.join(rest)));
    let literal = normal(&facts.call_cwd.join(given));
    [Some(literal), at_home, at_cwd, resolved(given, facts).map(|path| normal(path))]
        .into_iter()
        .flatten()
        .collect()
}
