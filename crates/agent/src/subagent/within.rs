//! The set-up of a subagent, made from that of the session that begins it.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderValue};
use wardian_policy::PermissionMode;

use super::{AgentDefinition, AgentSource, MAX_DEPTH};
use crate::authorise::lock;
use crate::frames::{AgentTag, Out};
use crate::prompt::Opening;
use crate::session::{Offered, Setup};
use crate::tool::{ReadLog, ToolContext};
use crate::{models, words};

/// Tools that only make sense where the user is.
const MAIN_ONLY: &[&str] = &["AskUserQuestion", "EnterPlanMode", "ExitPlanMode", "StructuredOutput"];

impl Setup {
    /// The set-up of a subagent: what it shares is shared, the rest its definition says.
    pub(super) fn within(
        &self,
        tag: Arc<AgentTag>,
        definition: &AgentDefinition,
        model: Option<String>,
        effort: Option<String>,
    ) -> Self {
        let mut setup = self.clone();
        setup.out = Out { journal: self.journal_of(&tag), agent: Some(Arc::clone(&tag)), ..self.out.clone() };
        setup.model = Some(model.unwrap_or_else(|| self.model()));
        let own_effort = effort.or_else(|| definition.effort.clone());
        setup.effort = own_effort.or_else(|| lock(&self.live).effort.clone()).or(setup.effort);
        setup.structured = None;
        setup.agent = Some(Arc::new(definition.clone()));
        setup.limits.max_turns = definition.max_turns;
        if let Some(mode) = definition.permission_mode {
            setup.take_mode(mode, definition.source);
        }
        // Hooks are told of the session's transcript.
        let out = Out { journal: self.out.journal.clone(), ..setup.out.clone() };
        setup.hooks = self.hooks.within(&out, &setup.live);
        setup.headers = agent_header(&tag.agent_id);
        setup.opening.title = None;
        setup.opening.keeps_system_prompt = false;
        if definition.omit_claude_md {
            setup.opening = Opening::default();
        }
        setup.take_tools(definition, tag.depth);
        let date = (self.out.clock)().strftime("%Y-%m-%d").to_string();
        let surroundings = words::surroundings(&self.context.cwd, &self.additional_directories, &date);
        setup.system = vec![
            format!("{}\n\n{}", definition.prompt.trim(), words::SUBAGENT).trim().to_owned(),
            surroundings,
        ];
        setup.context = ToolContext {
            // A `cd` of its own is no matter of its caller's, nor is what it has read.
            bash_cwd: Arc::new(Mutex::new(self.context.cwd.clone())),
            reads: ReadLog::default(),
            ..self.context.clone()
        };
        setup
    }

    /// A mode of its own, unless the session's is one that asks less, which holds for all. A file of the project's, or of
    /// a plugin's, gives none that asks less: whoever wrote it is not the user.
    fn take_mode(&mut self, mode: PermissionMode, source: AgentSource) {
        let is_stricter =
            matches!(mode, PermissionMode::Default | PermissionMode::Plan | PermissionMode::DontAsk);
        if matches!(source, AgentSource::Project | AgentSource::Plugin) && !is_stricter {
            return;
        }
        let mut live = lock(&self.live);
        let is_freer =
            matches!(live.policy.mode, PermissionMode::BypassPermissions | PermissionMode::AcceptEdits);
        let own = if is_freer { None } else { live.branch(mode) };
        drop(live);
        if let Some(own) = own {
            self.live = own;
        }
    }

    fn take_tools(&mut self, definition: &AgentDefinition, depth: usize) {
        self.drop_servers_tools();
        self.tools.retain(|offered| {
            let name = offered.tool.name();
            let is_too_deep = name == "Agent" && depth >= MAX_DEPTH;
            !MAIN_ONLY.contains(&name) && !is_too_deep && definition.admits(name)
        });
        self.servers.begin_again();
        let kept = |name: &str| self.tools.iter().any(|offered: &Offered| offered.tool.name() == name);
        self.definitions.retain(|tool| tool["name"].as_str().is_some_and(kept));
    }
}

impl AgentDefinition {
    /// Whether it has a tool.
    pub(crate) fn admits(&self, tool: &str) -> bool {
        self.tools.as_ref().is_none_or(|tools| tools.iter().any(|entry| names(entry, tool)))
            && !self.disallowed_tools.iter().any(|entry| names(entry, tool))
            && self.mcp_servers.as_ref().is_none_or(|servers| is_of(servers, tool))
    }
}

/// Whether an entry of a list of tools means a tool: a name, maybe with a rule, `*`, or all tools of a server.
fn names(entry: &str, tool: &str) -> bool {
    let entry = entry.split('(').next().unwrap_or(entry).trim();
    match entry {
        "*" => true,
        "Task" => tool == "Agent",
        entry if entry == tool => true,
        entry if !entry.starts_with("mcp__") => false,
        entry => match entry.strip_suffix('*') {
            Some(beginning) => tool.starts_with(beginning),
            None => tool.strip_prefix(entry).is_some_and(|rest| rest.starts_with("__")),
        },
    }
}

/// Whether a tool is none of a server, or of one of these.
fn is_of(servers: &[String], tool: &str) -> bool {
    let Some(rest) = tool.strip_prefix("mcp__") else { return true };
    servers.iter().any(|server| rest.strip_prefix(server.as_str()).is_some_and(|rest| rest.starts_with("__")))
}

/// The id that a model is meant by; `None`: the caller's.
pub(super) fn model(named: Option<&str>) -> Option<String> {
    let named = named.filter(|model| *model != "inherit")?;
    Some(models::resolve(named))
}

/// source: the agent protocol reference, section 2.11.
fn agent_header(id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let id = HeaderValue::from_str(id).expect("an id is letters and digits");
    headers.insert("x-claude-code-agent-id", id);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_lists_mean_tools() {
        for (entry, tool, expected) in [
            ("Read", "Read", true),
            ("Read", "ReadMcpResourceTool", false),
            ("*", "Anything", true),
            ("Task", "Agent", true),
            ("Bash(git *)", "Bash", true),
            ("mcp__lab", "mcp__lab__add", true),
            ("mcp__lab__*", "mcp__lab__add", true),
            ("mcp__lab__add", "mcp__lab__add", true),
            ("mcp__la", "mcp__lab__add", false),
            ("mcp__*", "mcp__lab__add", true),
            ("mcp__*", "Read", false),
        ] {
            assert_eq!(names(entry, tool), expected, "{entry} {tool}");
        }
        assert!(is_of(&["lab".to_owned()], "mcp__lab__add") && is_of(&[], "Read"));
        assert!(!is_of(&["la".to_owned()], "mcp__lab__add"));
    }
}
