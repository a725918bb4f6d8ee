//! Whether a call may run: hooks, deny rules, ask rules, mode, allow rules, and then whoever can be asked.
//!
//! source: the agent protocol reference, section 1.5.

use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use wardian_policy::{Call, Decision, Facts, PathFact, PermissionMode, Policy, Reason, ReasonKind, Rule};

use crate::frames::Out;
use crate::hook::{HookDecision, HookOutcome};
use crate::permission::RuleKind;
use crate::{CanUseTool, Error, Permission, PermissionRequest, PermissionUpdate, Thinking, words};

/// What may change while a query runs.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) policy: Policy,
    pub(crate) model: String,
    pub(crate) first_model: String,
    pub(crate) bypass_permitted: bool,
    /// In place of what the options say.
    pub(crate) thinking: Option<Thinking>,
    /// In place of what the options say.
    pub(crate) effort: Option<String>,
}

impl Live {
    pub(crate) fn set_mode(&mut self, mode: PermissionMode) -> Result<(), Error> {
        if mode == PermissionMode::BypassPermissions && !self.bypass_permitted {
            return Err(Error::BypassNotPermitted);
        }
        self.policy.mode = mode;
        Ok(())
    }

    pub(crate) fn set_model(&mut self, model: Option<String>) {
        self.model = model.unwrap_or_else(|| self.first_model.clone());
    }

    fn apply(&mut self, update: PermissionUpdate) {
        match update {
            PermissionUpdate::AddRules(kind, rules) => self.rules(kind).extend(rules),
            PermissionUpdate::ReplaceRules(kind, rules) => *self.rules(kind) = rules,
            PermissionUpdate::RemoveRules(kind, rules) => {
                self.rules(kind).retain(|rule| rules.iter().all(|gone| gone.as_str() != rule.as_str()));
            }
            PermissionUpdate::SetMode(mode) => {
                if let Err(error) = self.set_mode(mode) {
                    tracing::warn!(%error, "a permission update was not applied");
                }
            }
            PermissionUpdate::AddDirectories(directories) => {
                self.policy.roots.extend(directories.iter().map(|directory| resolve(directory)));
            }
            PermissionUpdate::RemoveDirectories(directories) => {
                let gone: Vec<PathBuf> = directories.iter().map(|directory| resolve(directory)).collect();
                self.policy.roots.retain(|root| !gone.contains(root));
            }
        }
    }

    const fn rules(&mut self, kind: RuleKind) -> &mut Vec<Rule> {
        match kind {
            RuleKind::Allow => &mut self.policy.allow,
            RuleKind::Ask => &mut self.policy.ask,
            RuleKind::Deny => &mut self.policy.deny,
        }
    }
}

/// Locks what may change; a panic elsewhere does not make it unreadable.
pub(crate) fn lock(live: &Mutex<Live>) -> MutexGuard<'_, Live> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who decides.
pub(crate) struct Authority<'a> {
    pub(crate) live: &'a Mutex<Live>,
    pub(crate) can_use_tool: Option<&'a CanUseTool>,
    pub(crate) out: &'a Out,
    pub(crate) state_events: bool,
    pub(crate) cwd: &'a Path,
    pub(crate) home: Option<&'a Path>,
    /// Questions that are out: calls side by side may ask at the same time.
    pub(crate) waiting: &'a AtomicUsize,
}

/// What was decided about a call.
#[derive(Debug, PartialEq)]
pub(crate) enum Ruling {
    /// It runs on this input.
    Run(Value),
    /// It does not; the model is told so. `interrupt` ends the turn too.
    Refused { message: String, interrupt: bool, input: Value },
    /// The turn was stopped before it was decided.
    Stopped,
}

/// A call to decide about.
pub(crate) struct Asked<'a> {
    pub(crate) tool: &'a str,
    pub(crate) id: &'a str,
    pub(crate) input: Value,
    pub(crate) verdict: &'a HookOutcome,
}

impl Authority<'_> {
    /// Decides about a call. `shell_cwd` is where a shell command would begin.
    pub(crate) async fn decide(
        &self,
        asked: Asked<'_>,
        shell_cwd: &Path,
        stop: &CancellationToken,
    ) -> Ruling {
        let Asked { tool, id, input, verdict } = asked;
        if let HookDecision::Deny(reason) = &verdict.decision {
            return Ruling::Refused { message: words::hook_refused(tool, reason), interrupt: false, input };
        }
        let policy = lock(self.live).policy.clone();
        let facts = self.facts(&Call { tool, input: &input }, shell_cwd).await;
        let (reason, blocked_path) =
            match weigh(&policy, &Call { tool, input: &input }, &facts, &verdict.decision) {
                Weighed::Run => return Ruling::Run(input),
                Weighed::Refuse(reason) => {
                    let message = words::policy_refused(tool, &reason);
                    self.announce(tool, id, &message, &reason).await;
                    return Ruling::Refused { message, interrupt: false, input };
                }
                Weighed::Ask(reason) => {
                    let blocked =
                        (reason.kind == ReasonKind::Boundary).then(|| first_outside(&policy, &facts));
                    (reason, blocked.flatten())
                }
            };
        let Some(can_use_tool) = self.can_use_tool.filter(|_| policy.mode != PermissionMode::DontAsk) else {
            let message = words::nobody_to_ask(tool, &reason);
            self.announce(tool, id, &message, &reason).await;
            return Ruling::Refused { message, interrupt: false, input };
        };
        let question = PermissionRequest {
            tool_name: tool.to_owned(),
            input: input.clone(),
            tool_use_id: id.to_owned(),
            blocked_path,
            reason: reason.text,
            reason_kind: reason.kind,
        };
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.state("requires_action").await;
        }
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            answer = can_use_tool(question) => Some(answer),
        };
        if self.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.state("running").await;
        }
        match answer {
            None => Ruling::Stopped,
            Some(Permission::Allow { updated_input, updates }) => {
                let mut live = lock(self.live);
                updates.into_iter().for_each(|update| live.apply(update));
                Ruling::Run(updated_input.unwrap_or(input))
            }
            Some(Permission::Deny { message, interrupt }) => {
                let message =
                    if message.is_empty() { words::REFUSED_AND_STOPPED.to_owned() } else { message };
                Ruling::Refused { message, interrupt, input }
            }
        }
    }

    async fn state(&self, state: &str) {
        if self.state_events {
            self.out.state(state).await;
        }
    }

    async fn announce(&self, tool: &str, id: &str, message: &str, reason: &Reason) {
        self.out.permission_denied(tool, id, message, reason).await;
    }

    async fn facts(&self, call: &Call<'_>, shell_cwd: &Path) -> Facts {
        let base = if call.tool == "Bash" { shell_cwd } else { self.cwd };
        let given = wardian_policy::paths_of(call);
        let home = self.home.map(Path::to_owned);
        let (cwd, start) = (self.cwd.to_owned(), base.to_owned());
        let unresolved = (cwd.clone(), start.clone());
        let resolved = tokio::task::spawn_blocking(move || {
            let paths = given
                .into_iter()
                .map(|given| PathFact { resolved: resolve(&start.join(&given)), given })
                .collect::<Vec<_>>();
            (resolve(&cwd), resolve(&start), paths)
        });
        // A path that could not be resolved is none of the facts: the policy then takes the call for not evaluated.
        let (cwd, call_cwd, paths) =
            resolved.await.unwrap_or_else(|_| (unresolved.0, unresolved.1, Vec::new()));
        Facts { cwd, call_cwd, home, paths }
    }
}

enum Weighed {
    Run,
    Ask(Reason),
    Refuse(Reason),
}

/// Puts the policy's decision and the hook's together. A hook's `allow` answers the question that nothing else
/// answered; it beats neither a deny nor an ask rule. A hook's `ask` makes a question of what would run.
fn weigh(policy: &Policy, call: &Call<'_>, facts: &Facts, hook: &HookDecision) -> Weighed {
    match (wardian_policy::decide(policy, call, facts), hook) {
        (Decision::Deny { reason }, _) => Weighed::Refuse(reason),
        (Decision::Ask { reason }, HookDecision::Allow) if reason.kind != ReasonKind::Rule => Weighed::Run,
        (Decision::Ask { reason }, _) => Weighed::Ask(reason),
        (Decision::Allow { .. }, HookDecision::Ask(text)) => {
            let text = if text.is_empty() { "a hook wants it asked".to_owned() } else { text.clone() };
            Weighed::Ask(Reason { kind: ReasonKind::NotAllowed, text })
        }
        (Decision::Allow { .. }, HookDecision::None | HookDecision::Allow) => Weighed::Run,
        // Denied and ended calls do not come here; refuse them all the same.
        (Decision::Allow { reason }, HookDecision::Deny(_) | HookDecision::Defer) => Weighed::Refuse(reason),
    }
}

fn first_outside(policy: &Policy, facts: &Facts) -> Option<String> {
    let outside = |path: &&PathFact| !policy.roots.iter().any(|root| path.resolved.starts_with(root));
    facts.paths.iter().find(outside).map(|path| path.resolved.display().to_string())
}

/// Links followed in one path; the system itself stops at 40.
const MAX_LINKS: usize = 40;

/// An absolute path without symbolic links and `..`; what is not there yet is taken as it is written. Blocks.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    let mut left: Vec<PathBuf> = reversed_components(path);
    let mut resolved = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = left.pop() {
        match part.components().next() {
            Some(Component::ParentDir) => {
                resolved.pop();
            }
            Some(Component::Normal(name)) => {
                resolved.push(name);
                if links < MAX_LINKS
                    && let Ok(target) = resolved.read_link()
                {
                    links += 1;
                    resolved.pop();
                    left.extend(reversed_components(&target));
                }
            }
            Some(Component::RootDir) => resolved = PathBuf::from("/"),
            Some(Component::CurDir | Component::Prefix(_)) | None => (),
        }
    }
    resolved
}

fn reversed_components(path: &Path) -> Vec<PathBuf> {
    path.components().rev().map(|component| PathBuf::from(component.as_os_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_resolve_as_far_as_they_exist() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/file"), "").unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        std::os::unix::fs::symlink(root.join("a"), root.join("in")).unwrap();
        std::os::unix::fs::symlink("/etc/wardian-is-not-here", root.join("dangling")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        let inside = |path: &str| root.join(path);
        for (path, expected) in [
            ("a/file", inside("a/file")),
            ("a/b/../file", inside("a/file")),
            ("in/b", inside("a/b")),
            ("new", inside("new")),
            ("new/deep/er", inside("new/deep/er")),
            ("new/../a/file", inside("a/file")),
            ("new/../../x", root.parent().unwrap().join("x")),
            ("out/passwd", "/etc/passwd".into()),
            ("out/new", "/etc/new".into()),
            ("dangling", "/etc/wardian-is-not-here".into()),
            ("dangling/x", "/etc/wardian-is-not-here/x".into()),
        ] {
            assert_eq!(resolve(&root.join(path)), expected, "{path}");
        }
        // A link to itself ends somewhere, and does not hang.
        let _ = resolve(&root.join("loop/x"));
    }
}
