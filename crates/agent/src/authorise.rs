//! Whether a call may run: hooks, deny rules, ask rules, mode, allow rules, and then whoever can be asked.
//!
//! source: the agent protocol reference, section 1.5.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wardian_policy::{
    Call, Decision, Facts, Link, PathFact, PermissionMode, Policy, Reason, ReasonKind, Rule,
};

use crate::frames::Out;
use crate::hook::{HookDecision, HookEvent, HookOutcome, SessionHooks};
use crate::offer::ServerTools;
use crate::permission::{PermissionChange, RuleKind, SettingsFiles, suggestions};
use crate::switch::LastReply;
use crate::{CanUseTool, Error, Permission, PermissionRequest, PermissionUpdate, Thinking, words};

mod decided;

pub(crate) use decided::{Accepted, Rejected};

/// How long somebody is waited for before hooks are told. source: the official CLI, observed.
const NOTIFY_AFTER: Duration = Duration::from_secs(6);

/// Who answered a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Host,
    Hook,
}

/// What may change while a query runs.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) policy: Policy,
    pub(crate) model: String,
    pub(crate) first_model: String,
    pub(crate) bypass_permitted: bool,
    /// What plan mode goes back to.
    pub(crate) mode_before_plan: Option<PermissionMode>,
    /// In place of what the options say.
    pub(crate) thinking: Option<Thinking>,
    /// In place of what the options say.
    pub(crate) effort: Option<String>,
    /// The environment of tools and hooks, in place of what the options say.
    pub(crate) env: Option<Arc<Vec<(String, String)>>>,
    /// Modes that ask more, for the tools of single servers.
    pub(crate) server_modes: BTreeMap<String, PermissionMode>,
    /// Those of subagents with a mode of their own: what else changes here changes there.
    pub(crate) within: Vec<Weak<Mutex<Self>>>,
    /// The last reply of the main thread.
    pub(crate) last_reply: Option<LastReply>,
}

impl Live {
    /// What holds until something changes it.
    pub(crate) fn new(policy: Policy, model: String, bypass_permitted: bool) -> Self {
        Self {
            policy,
            first_model: model.clone(),
            model,
            bypass_permitted,
            mode_before_plan: None,
            thinking: None,
            effort: None,
            env: None,
            server_modes: BTreeMap::new(),
            within: Vec::new(),
            last_reply: None,
        }
    }

    pub(crate) fn set_mode(&mut self, mode: PermissionMode) -> Result<(), Error> {
        if mode == PermissionMode::BypassPermissions && !self.bypass_permitted {
            return Err(Error::BypassNotPermitted);
        }
        if mode == PermissionMode::Plan && self.policy.mode != mode {
            self.mode_before_plan = Some(self.policy.mode);
        }
        self.policy.mode = mode;
        Ok(())
    }

    /// The policy for a tool of this server: a mode of its own never lets more through than the session's.
    fn policy_for(&self, server: Option<&str>) -> Policy {
        let mut policy = self.policy.clone();
        let is_free = matches!(policy.mode, PermissionMode::BypassPermissions | PermissionMode::Auto);
        if let Some(mode) = server.and_then(|server| self.server_modes.get(server)).filter(|_| is_free) {
            policy.mode = *mode;
        }
        policy
    }

    /// The same for a subagent with a mode of its own; `None`: it may not have this mode.
    pub(crate) fn branch(&mut self, mode: PermissionMode) -> Option<Arc<Mutex<Self>>> {
        let mut inner = Self { within: Vec::new(), ..self.clone() };
        inner.set_mode(mode).ok()?;
        let inner = Arc::new(Mutex::new(inner));
        self.within.retain(|known| known.strong_count() > 0);
        self.within.push(Arc::downgrade(&inner));
        Some(inner)
    }

    /// Does something here and in the subagents that have a mode of their own.
    pub(crate) fn everywhere(&mut self, change: &dyn Fn(&mut Self)) {
        change(self);
        for inner in self.within.iter().filter_map(Weak::upgrade) {
            lock(&inner).everywhere(change);
        }
    }

    /// Makes a change hold. Gives the mode, where that has become another.
    pub(crate) fn apply(&mut self, change: PermissionChange) -> Option<PermissionMode> {
        if !matches!(change, PermissionChange::SetMode(_)) {
            for inner in self.within.iter().filter_map(Weak::upgrade) {
                lock(&inner).apply(change.clone());
            }
        }
        let before = self.policy.mode;
        match change {
            PermissionChange::AddRules(kind, rules) => self.rules(kind).extend(rules),
            PermissionChange::ReplaceRules(kind, rules) => *self.rules(kind) = rules,
            PermissionChange::RemoveRules(kind, rules) => {
                self.rules(kind).retain(|rule| rules.iter().all(|gone| gone.as_str() != rule.as_str()));
            }
            PermissionChange::SetMode(mode) => {
                if let Err(error) = self.set_mode(mode) {
                    tracing::warn!(%error, "a permission update was not applied");
                }
            }
            PermissionChange::AddDirectories(directories) => {
                self.policy.roots.extend(directories.iter().map(|directory| resolve(directory)));
            }
            PermissionChange::RemoveDirectories(directories) => {
                let gone: Vec<PathBuf> = directories.iter().map(|directory| resolve(directory)).collect();
                self.policy.roots.retain(|root| !gone.contains(root));
            }
        }
        (self.policy.mode != before).then_some(self.policy.mode)
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
    pub(crate) hooks: &'a SessionHooks,
    pub(crate) files: &'a SettingsFiles,
    pub(crate) out: &'a Out,
    pub(crate) servers: &'a ServerTools,
    pub(crate) state_events: bool,
    pub(crate) cwd: &'a Path,
    pub(crate) home: Option<&'a Path>,
    /// Questions that are out: calls side by side may ask at the same time.
    pub(crate) waiting: &'a AtomicUsize,
    /// Calls side by side are looked into one after the other, so that they are asked about in their order.
    pub(crate) order: &'a tokio::sync::Mutex<()>,
}

/// What was decided about a call, and by whom.
#[derive(Debug, PartialEq)]
pub(crate) enum Ruling {
    /// It runs on this input.
    Run { input: Value, by: Accepted },
    /// It does not; the model is told so.
    Refused { message: String, by: Rejected, input: Value },
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
            return Ruling::Refused { message: words::hook_refused(tool, reason), by: Rejected::Hook, input };
        }
        let server = self.servers.tool_origin(tool);
        let policy = lock(self.live).policy_for(server.as_ref().map(|origin| origin.server.as_str()));
        let call = Call { tool, input: &input };
        let facts = self.facts(&policy, &call, shell_cwd).await;
        let reason = match weigh(&policy, &call, &facts, &verdict.decision) {
            Weighed::Run(by) => return Ruling::Run { input, by },
            Weighed::Refuse(reason) => {
                let message = words::policy_refused(tool, &reason);
                self.out.permission_denied(tool, id, &message, &reason).await;
                return Ruling::Refused { message, by: Rejected::Config(reason.kind), input };
            }
            Weighed::Ask(reason) => reason,
        };
        if policy.mode == PermissionMode::DontAsk {
            let reason = Reason { kind: ReasonKind::Mode, text: reason.text };
            let message = words::nobody_to_ask(tool, &reason);
            self.out.permission_denied(tool, id, &message, &reason).await;
            return Ruling::Refused { message, by: Rejected::Config(ReasonKind::Mode), input };
        }
        let suggestions = suggestions(&policy, &call, &facts, &reason, self.can_use_tool.is_some());
        let question = PermissionRequest {
            tool_name: tool.to_owned(),
            tool_use_id: id.to_owned(),
            blocked_path: blocked_path(&policy, &facts, reason.kind),
            reason: reason.text,
            reason_kind: reason.kind,
            suggestions,
            agent_id: self.out.agent.as_ref().map(|agent| agent.agent_id.clone()),
            mcp_server: server,
            input,
        };
        let ruling = Box::pin(self.ask(question, stop)).await;
        self.still_permitted(tool, id, ruling, shell_cwd).await
    }

    /// Who is asked may write another input, but none that a deny rule refuses.
    async fn still_permitted(&self, tool: &str, id: &str, ruling: Ruling, shell_cwd: &Path) -> Ruling {
        let Ruling::Run { input, by } = ruling else { return ruling };
        let policy = lock(self.live).policy.clone();
        let call = Call { tool, input: &input };
        let facts = self.facts(&policy, &call, shell_cwd).await;
        let Decision::Deny { reason } = wardian_policy::decide(&policy, &call, &facts) else {
            return Ruling::Run { input, by };
        };
        let message = words::policy_refused(tool, &reason);
        self.out.permission_denied(tool, id, &message, &reason).await;
        Ruling::Refused { message, by: Rejected::Config(reason.kind), input }
    }

    /// Asks whoever can be asked; the first who answers decides.
    async fn ask(&self, question: PermissionRequest, stop: &CancellationToken) -> Ruling {
        let input = question.input.clone();
        let asks_host = self.can_use_tool.is_some();
        if asks_host && self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.state("requires_action").await;
        }
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            answer = self.answer(&question) => Some(answer),
        };
        if asks_host && self.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.state("running").await;
        }
        match answer {
            None => Ruling::Stopped,
            Some(None) => self.unasked(question).await,
            Some(Some((Permission::Allow { updated_input, updates }, by))) => {
                self.update(updates).await;
                let by = if by == Asker::Hook { Accepted::Hook } else { Accepted::Host };
                Ruling::Run { input: updated_input.unwrap_or(input), by }
            }
            Some(Some((Permission::Deny { message, interrupt }, by))) => {
                let by = match (interrupt, by) {
                    (true, _) => Rejected::AndStopped,
                    (false, Asker::Hook) => Rejected::Hook,
                    (false, Asker::Host) => Rejected::Host,
                };
                let message = if message.is_empty() || interrupt {
                    words::REFUSED_AND_STOPPED.to_owned()
                } else {
                    message
                };
                Ruling::Refused { message, by, input }
            }
        }
    }

    /// The first answer of the host and of hooks; `None`: there is nobody, or nobody knows.
    async fn answer(&self, question: &PermissionRequest) -> Option<(Permission, Asker)> {
        let host = async {
            match self.can_use_tool {
                Some(can_use_tool) => Some((can_use_tool(question.clone()).await, Asker::Host)),
                None => None,
            }
        };
        let hooks = async { Some((self.hooks.asked_for_permission(question).await?, Asker::Hook)) };
        let mut host = std::pin::pin!(host);
        let mut hooks = std::pin::pin!(hooks);
        let mut notice = std::pin::pin!(self.notify_late(question));
        let (mut host_done, mut hooks_done, mut notified) = (false, false, false);
        loop {
            let answer = tokio::select! {
                biased;
                answer = &mut host, if !host_done => { host_done = true; answer }
                answer = &mut hooks, if !hooks_done => { hooks_done = true; answer }
                () = &mut notice, if !notified => { notified = true; None }
            };
            // Hooks may still say something of what nobody else can be asked about.
            if answer.is_some() || (host_done && hooks_done) {
                return answer;
            }
        }
    }

    /// Tells hooks that somebody is being waited for, when they have been for a while.
    async fn notify_late(&self, question: &PermissionRequest) {
        if self.can_use_tool.is_some() && self.hooks.listens(HookEvent::Notification) {
            tokio::time::sleep(NOTIFY_AFTER).await;
            let text = words::waits_for_permission(&question.tool_name);
            self.hooks.notify("permission_prompt", &text).await;
        }
    }

    async fn unasked(&self, question: PermissionRequest) -> Ruling {
        let PermissionRequest { tool_name, tool_use_id, input, reason, reason_kind, .. } = question;
        let reason = Reason { kind: reason_kind, text: reason };
        let mut message = words::nobody_to_ask(&tool_name, &reason);
        self.out.permission_denied(&tool_name, &tool_use_id, &message, &reason).await;
        // Elsewhere hooks have decided, or know the rules; in this mode nobody knows before.
        if lock(self.live).policy.mode == PermissionMode::Auto
            && self.hooks.permission_denied(&tool_name, &tool_use_id, &input, &reason.text).await
        {
            message.push_str(words::MAY_RETRY);
        }
        Ruling::Refused { message, by: Rejected::Nobody, input }
    }

    /// Makes changes hold, and keeps those that are to be kept.
    async fn update(&self, updates: Vec<PermissionUpdate>) {
        for update in updates {
            if let Some(file) = self.files.of(update.destination) {
                crate::permission::keep(file, &update.change).await;
            }
            let mode = lock(self.live).apply(update.change);
            if let Some(mode) = mode {
                let fields = json!({"status": null, "permissionMode": mode.as_str()});
                self.out.system("status", fields).await;
            }
        }
    }

    async fn state(&self, state: &str) {
        if self.state_events {
            self.out.state(state).await;
        }
    }

    async fn facts(&self, policy: &Policy, call: &Call<'_>, shell_cwd: &Path) -> Facts {
        let base = if call.tool == "Bash" { shell_cwd } else { self.cwd };
        let given = wardian_policy::paths_of(call);
        let home = self.home.map(Path::to_owned);
        let places = policy.refused_places(self.cwd, self.home);
        let (cwd, start) = (self.cwd.to_owned(), base.to_owned());
        let _order = self.order.lock().await;
        let resolved = tokio::task::spawn_blocking(move || {
            let path = |given: String| PathFact { resolved: resolve(&start.join(&given)), given };
            let link = |named: PathBuf| Link { leads_to: resolve(&named), named };
            Facts {
                cwd: resolve(&cwd),
                call_cwd: resolve(&start),
                home,
                paths: given.into_iter().map(path).collect(),
                links: places.into_iter().map(link).filter(|link| link.leads_to != link.named).collect(),
            }
        });
        // A path that could not be resolved is none of the facts: the policy then takes the call for not evaluated.
        resolved.await.unwrap_or_else(|_| Facts {
            cwd: self.cwd.to_owned(),
            call_cwd: base.to_owned(),
            home: self.home.map(Path::to_owned),
            ..Facts::default()
        })
    }
}

enum Weighed {
    Run(Accepted),
    Ask(Reason),
    Refuse(Reason),
}

/// Puts the policy's decision and the hook's together. A hook's `allow` answers the question that nothing else
/// answered; it beats neither a deny nor an ask rule. A hook's `ask` makes a question of what would run.
fn weigh(policy: &Policy, call: &Call<'_>, facts: &Facts, hook: &HookDecision) -> Weighed {
    match (wardian_policy::decide(policy, call, facts), hook) {
        (Decision::Deny { reason }, _) => Weighed::Refuse(reason),
        (Decision::Ask { reason }, HookDecision::Allow) if reason.kind != ReasonKind::Rule => {
            Weighed::Run(Accepted::Hook)
        }
        (Decision::Ask { reason }, HookDecision::Ask(_)) if reason.kind == ReasonKind::Rule => {
            Weighed::Ask(reason)
        }
        (Decision::Ask { .. } | Decision::Allow { .. }, HookDecision::Ask(text)) => {
            let text = if text.is_empty() { "a hook wants it asked".to_owned() } else { text.clone() };
            Weighed::Ask(Reason { kind: ReasonKind::Hook, text })
        }
        (Decision::Ask { reason }, _) => Weighed::Ask(reason),
        (Decision::Allow { .. }, HookDecision::Allow) => Weighed::Run(Accepted::Hook),
        (Decision::Allow { reason }, HookDecision::None) => Weighed::Run(Accepted::Config(reason.kind)),
        // Denied and ended calls do not come here; refuse them all the same.
        (Decision::Allow { reason }, HookDecision::Deny(_) | HookDecision::Defer) => Weighed::Refuse(reason),
    }
}

fn blocked_path(policy: &Policy, facts: &Facts, kind: ReasonKind) -> Option<String> {
    let outside = |path: &&PathFact| !policy.roots.iter().any(|root| path.resolved.starts_with(root));
    let path = match kind {
        ReasonKind::Boundary => facts.paths.iter().find(outside),
        ReasonKind::Touched => facts.paths.iter().find(outside).or_else(|| facts.paths.first()),
        _ => None,
    };
    path.map(|path| path.resolved.display().to_string())
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
    fn what_changes_reaches_subagents_with_a_mode_of_their_own() {
        let mut live = Live::new(Policy::default(), String::new(), false);
        assert!(live.branch(PermissionMode::BypassPermissions).is_none());
        let inner = live.branch(PermissionMode::Plan).unwrap();
        let innermost = lock(&inner).branch(PermissionMode::DontAsk).unwrap();
        live.apply(PermissionChange::AddRules(RuleKind::Deny, vec!["Bash(rm:*)".parse().unwrap()]));
        live.apply(PermissionChange::SetMode(PermissionMode::AcceptEdits));
        live.everywhere(&|live| live.env = Some(Arc::default()));
        for (inner, mode) in [(&inner, PermissionMode::Plan), (&innermost, PermissionMode::DontAsk)] {
            let inner = lock(inner);
            assert_eq!((inner.policy.mode, inner.policy.deny.len(), inner.env.is_some()), (mode, 1, true));
        }
        // A change within stays within; who has ended is forgotten.
        lock(&inner).apply(PermissionChange::AddRules(RuleKind::Allow, vec!["Bash".parse().unwrap()]));
        assert!(live.policy.allow.is_empty());
        drop((inner, innermost));
        let _ = live.branch(PermissionMode::Plan);
        assert_eq!(live.within.len(), 1);
    }

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
