//! What a host may offer its user besides yes and no.
//!
//! source: the agent protocol reference, section 2.4.

use std::path::{Path, PathBuf};

use wardian_policy::{Facts, PermissionMode, Policy, Reason, ReasonKind, Rule, plan_of};

use super::{Destination, PermissionChange, PermissionUpdate, RuleKind};

/// The changes after which a call like this one would not be asked about. `asks_host`: rules that outlive the session
/// are offered to people only, not to hooks.
pub(crate) fn suggestions(
    policy: &Policy,
    call: &wardian_policy::Call<'_>,
    facts: &Facts,
    reason: &Reason,
    asks_host: bool,
) -> Vec<PermissionUpdate> {
    // What somebody wrote a rule or a hook about is to be asked each time.
    if matches!(reason.kind, ReasonKind::Rule | ReasonKind::Hook | ReasonKind::Mode | ReasonKind::Safety) {
        return Vec::new();
    }
    match call.tool {
        "Bash" => of_command(policy, call, facts, asks_host),
        "Write" | "Edit" | "NotebookEdit" => of_edit(policy, facts),
        "Read" | "Glob" | "Grep" => outside(policy, facts).iter().filter_map(|path| reading(path)).collect(),
        "WebFetch" => wardian_policy::host_of(call)
            .and_then(|host| rule(&format!("WebFetch(domain:{host})")))
            .map(kept)
            .into_iter()
            .collect(),
        "ExitPlanMode" | "AskUserQuestion" => Vec::new(),
        tool => rule(tool).map(kept).into_iter().collect(),
    }
}

fn of_command(
    policy: &Policy,
    call: &wardian_policy::Call<'_>,
    facts: &Facts,
    asks_host: bool,
) -> Vec<PermissionUpdate> {
    let plan = plan_of(policy, call, facts);
    let mut updates = Vec::new();
    if asks_host {
        let rules: Vec<Rule> =
            plan.to_allow.iter().filter_map(|text| rule(&format!("Bash({text})"))).collect();
        if !rules.is_empty() {
            updates.push(PermissionUpdate {
                change: PermissionChange::AddRules(RuleKind::Allow, rules),
                destination: Destination::LocalSettings,
            });
        }
    }
    updates.extend(plan.reads.iter().filter_map(|path| reading(path)));
    let directories = directories(plan.writes.iter());
    if !directories.is_empty() {
        updates.push(PermissionUpdate::session(PermissionChange::AddDirectories(directories)));
    }
    if plan.is_edit && policy.mode != PermissionMode::AcceptEdits {
        updates.push(PermissionUpdate::session(PermissionChange::SetMode(PermissionMode::AcceptEdits)));
    }
    updates
}

fn of_edit(policy: &Policy, facts: &Facts) -> Vec<PermissionUpdate> {
    let directories = directories(outside(policy, facts).iter());
    let mut updates = Vec::new();
    if !directories.is_empty() {
        updates.push(PermissionUpdate::session(PermissionChange::AddDirectories(directories)));
    }
    if policy.mode != PermissionMode::AcceptEdits {
        updates.push(PermissionUpdate::session(PermissionChange::SetMode(PermissionMode::AcceptEdits)));
    }
    updates
}

fn directories<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for directory in paths.filter_map(|path| path.parent()) {
        if !found.iter().any(|known| known == directory) {
            found.push(directory.to_owned());
        }
    }
    found
}

fn outside(policy: &Policy, facts: &Facts) -> Vec<PathBuf> {
    let is_outside = |path: &&PathBuf| !policy.roots.iter().any(|root| path.starts_with(root));
    facts.paths.iter().map(|fact| &fact.resolved).filter(is_outside).cloned().collect()
}

fn reading(path: &Path) -> Option<PermissionUpdate> {
    let directory = path.parent().filter(|directory| *directory != Path::new("/"))?;
    let rule = rule(&format!("Read(/{}/**)", directory.display()))?;
    Some(PermissionUpdate::session(PermissionChange::AddRules(RuleKind::Allow, vec![rule])))
}

fn kept(rule: Rule) -> PermissionUpdate {
    PermissionUpdate {
        change: PermissionChange::AddRules(RuleKind::Allow, vec![rule]),
        destination: Destination::LocalSettings,
    }
}

fn rule(text: &str) -> Option<Rule> {
    text.parse().ok()
}
