//! What fills the context window: `/context` and `get_context_usage`.
//!
//! source: the agent protocol reference, section 1.2, and the types of the SDKs. Counts are estimates; the sum is the API's
//! own as soon as there was a reply.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};
use wardian_protocol::{ContentBlock, Role};

use crate::authorise::lock;
use crate::compact::{estimate_block, reserved, tokens};
use crate::memory::MemoryFile;
use crate::models::context_window;
use crate::prompt::DYNAMIC_BOUNDARY;
use crate::session::{Session, Setup, definition};
use crate::subagent::{self, AgentDefinition};

/// Questions of the host about the conversation that wait for an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asks(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    askers: Mutex<Vec<oneshot::Sender<Value>>>,
    asked: Notify,
}

/// The most questions that wait.
const MAX_ASKS: usize = 64;

impl Asks {
    /// Adds a question; one too many is dropped, and its asker is told so.
    pub(crate) fn push(&self, reply: oneshot::Sender<Value>) {
        let mut askers = self.0.askers.lock().unwrap_or_else(PoisonError::into_inner);
        if askers.len() < MAX_ASKS {
            askers.push(reply);
            self.0.asked.notify_one();
        }
    }
}

/// Cells of the grid that hosts draw, by rows and columns.
const GRID: (usize, usize) = (10, 10);

impl Session {
    /// Answers what was asked meanwhile.
    pub(crate) fn answer_asks(&self) {
        if self.setup.out.agent.is_some() {
            return;
        }
        let askers = &self.setup.asks.0.askers;
        let askers = std::mem::take(&mut *askers.lock().unwrap_or_else(PoisonError::into_inner));
        if !askers.is_empty() {
            let usage = self.context_usage();
            // Who asked may not wait for the answer.
            askers.into_iter().for_each(|reply| drop(reply.send(usage.clone())));
        }
    }

    /// Does something that leaves the conversation as it is, and answers meanwhile what is asked about that.
    pub(crate) async fn answering<T>(&self, mut work: Pin<Box<impl Future<Output = T>>>) -> T {
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.setup.asks.0.asked.notified(), if self.setup.out.agent.is_none() => self.answer_asks(),
            }
        }
    }

    /// What fills the window now, in the shape of the answer to `get_context_usage`.
    pub(crate) fn context_usage(&self) -> Value {
        let setup = &self.setup;
        let model = lock(&setup.live).model.clone();
        let window = context_window(&model);
        let fixed = Fixed::of(setup);
        let breakdown = self.breakdown(&fixed);
        let messages = breakdown.sum();
        let counted = self.estimated_tokens();
        let estimated = fixed.sum() + messages;
        // What the API counts beyond the estimates is in the messages.
        let messages = messages + counted.saturating_sub(estimated);
        let total = fixed.sum() + messages;
        let threshold = setup.auto_compact_threshold(&model);
        let buffer = threshold.map_or(0, |_| reserved(window));
        let mut categories = Vec::new();
        for (id, name, tokens, color, kind) in [
            ("system_prompt", "System prompt", fixed.system, "promptBorder", "used"),
            ("system_tools", "System tools", fixed.tools, "inactive", "used"),
            ("mcp_tools", "MCP tools", fixed.mcp, "cyan_FOR_SUBAGENTS_ONLY", "used"),
            ("mcp_tools_deferred", "MCP tools (deferred)", fixed.deferred, "inactive", "deferred"),
            ("custom_agents", "Custom agents", fixed.agents, "permission", "used"),
            ("memory_files", "Memory files", fixed.memory, "claude", "used"),
            ("skills", "Skills", fixed.skills, "warning", "used"),
            ("messages", "Messages", messages, "purple_FOR_SUBAGENTS_ONLY", "used"),
            ("autocompact_buffer", "Autocompact buffer", buffer, "inactive", "buffer"),
        ] {
            // Of the first two there is always something to be said.
            if tokens > 0 || matches!(id, "system_prompt" | "system_tools") {
                categories.push(category(id, name, tokens, color, kind));
            }
        }
        let free = window.saturating_sub(total + buffer);
        categories.push(category("free_space", "Free space", free, "promptBorder", "free"));
        json!({
            "gridRows": grid(&categories, window),
            "categories": categories,
            "totalTokens": total,
            "maxTokens": window,
            "rawMaxTokens": window,
            "percentage": percentage(total, window),
            "model": model,
            "memoryFiles": setup.opening.memory.iter().map(memory_file).collect::<Vec<_>>(),
            "mcpTools": mcp_tools(setup),
            "agents": agents(setup),
            "skills": skills(setup),
            "autoCompactThreshold": threshold,
            "isAutoCompactEnabled": threshold.is_some(),
            "messageBreakdown": breakdown.to_value(),
            "apiUsage": self.fill.usage(),
        })
    }

    fn breakdown(&self, fixed: &Fixed) -> Breakdown {
        let mut sums = Breakdown::default();
        let mut names: HashMap<&String, &String> = HashMap::new();
        for message in &self.history {
            for block in &message.content {
                let tokens = estimate_block(block);
                match (block, &message.role) {
                    (ContentBlock::ToolUse { id, name, .. }, _) => {
                        names.insert(id, name);
                        sums.calls += tokens;
                        sums.by_tool.entry(name.clone()).or_default().0 += tokens;
                    }
                    (ContentBlock::ToolResult { tool_use_id, .. }, _) => {
                        sums.results += tokens;
                        let name = names.get(tool_use_id).map_or("", |name| name.as_str());
                        sums.by_tool.entry(name.to_owned()).or_default().1 += tokens;
                    }
                    (_, Role::Assistant) => sums.assistant += tokens,
                    (ContentBlock::Other(_), _) => sums.attachments += tokens,
                    (_, _) => sums.user += tokens,
                }
            }
        }
        // Instructions and skills are part of the first message, and categories of their own.
        sums.user = sums.user.saturating_sub(fixed.memory + fixed.skills);
        sums
    }
}

/// What every request has, and what it does not have yet.
struct Fixed {
    system: u64,
    tools: u64,
    mcp: u64,
    /// Tools that the model has to search for: not in the window.
    deferred: u64,
    agents: u64,
    memory: u64,
    skills: u64,
}

impl Fixed {
    fn of(setup: &Setup) -> Self {
        let system = setup.system.iter().filter(|block| *block != DYNAMIC_BOUNDARY);
        let of_tools = |is_mcp: bool| -> u64 {
            let named = |tool: &&Value| is_server_tool(tool["name"].as_str().unwrap_or_default()) == is_mcp;
            setup.definitions.iter().filter(named).map(size).sum()
        };
        let agents = given_agents(setup).map(|(_, agent)| agent_size(agent)).sum();
        Self {
            system: tokens(system.map(String::len).sum()),
            // What there is to say of an agent stands in the tool that calls on it.
            tools: of_tools(false).saturating_sub(agents),
            mcp: of_tools(true),
            deferred: server_tools(setup).filter(|tool| !tool.is_loaded).map(|tool| tool.tokens).sum(),
            agents,
            memory: setup.opening.memory.iter().map(|file| tokens(file.content.len())).sum(),
            skills: setup.skill_listing().map_or(0, |listing| tokens(listing.len())),
        }
    }

    const fn sum(&self) -> u64 {
        self.system + self.tools + self.mcp + self.agents + self.memory + self.skills
    }
}

#[derive(Default)]
struct Breakdown {
    calls: u64,
    results: u64,
    attachments: u64,
    assistant: u64,
    user: u64,
    /// Calls and results, by the tool.
    by_tool: BTreeMap<String, (u64, u64)>,
}

impl Breakdown {
    const fn sum(&self) -> u64 {
        self.calls + self.results + self.attachments + self.assistant + self.user
    }

    fn to_value(&self) -> Value {
        let of_tool = |(name, (calls, results)): (&String, &(u64, u64))| json!({"name": name, "callTokens": calls, "resultTokens": results});
        let by_tool: Vec<Value> = self.by_tool.iter().map(of_tool).collect();
        json!({
            "toolCallTokens": self.calls,
            "toolResultTokens": self.results,
            "attachmentTokens": self.attachments,
            "assistantMessageTokens": self.assistant,
            "userMessageTokens": self.user,
            "redirectedContextTokens": 0,
            "unattributedTokens": 0,
            "toolCallsByType": by_tool,
            "attachmentsByType": [],
        })
    }
}

fn is_server_tool(name: &str) -> bool {
    name.starts_with("mcp__")
}

fn category(id: &str, name: &str, tokens: u64, color: &str, kind: &str) -> Value {
    json!({"id": id, "name": name, "tokens": tokens, "color": color, "kind": kind})
}

fn memory_file(file: &MemoryFile) -> Value {
    json!({"path": file.path, "type": file.kind.as_str(), "tokens": tokens(file.content.len())})
}

/// A tool of a server.
struct ServerTool<'a> {
    name: &'a str,
    server: &'a str,
    tokens: u64,
    is_loaded: bool,
}

fn server_tools(setup: &Setup) -> impl Iterator<Item = ServerTool<'_>> {
    setup.tools.iter().filter_map(|offered| {
        let name = offered.tool.name();
        let server = &setup.servers.origin(name)?.server;
        let is_loaded = setup.definitions.iter().any(|tool| tool["name"] == name);
        Some(ServerTool { name, server, tokens: size(&definition(offered)), is_loaded })
    })
}

fn mcp_tools(setup: &Setup) -> Vec<Value> {
    let tool = |tool: ServerTool<'_>| {
        json!({
            "name": tool.name,
            "serverName": tool.server,
            "tokens": tool.tokens,
            "isLoaded": tool.is_loaded,
        })
    };
    server_tools(setup).map(tool).collect()
}

/// The agents that are no part of this program, where the model can call on them.
fn given_agents(setup: &Setup) -> impl Iterator<Item = (&String, &AgentDefinition)> {
    let can_call = setup.tool("Agent").is_some();
    setup.agents.iter().filter(move |(_, agent)| can_call && !agent.source.is_built_in())
}

fn agent_size(agent: &AgentDefinition) -> u64 {
    tokens(subagent::shown_description(agent).len())
}

fn agents(setup: &Setup) -> Vec<Value> {
    let agent = |(name, agent): (&String, &AgentDefinition)| json!({"agentType": name, "source": agent.source.as_str(), "tokens": agent_size(agent)});
    given_agents(setup).map(agent).collect()
}

fn skills(setup: &Setup) -> Value {
    let all: Vec<Value> = setup.skills.told().into_iter().map(|skill| {
        let source = if skill.source == "user" { "userSettings" } else { "projectSettings" };
        let text = skill.name.len() + skill.description.len();
        json!({"name": skill.name, "source": source, "path": skill.folder.join("SKILL.md"), "tokens": tokens(text)})
    }).collect();
    let listing = setup.skill_listing().map_or(0, |listing| tokens(listing.len()));
    json!({"totalSkills": setup.skills.names().len(), "includedSkills": all.len(), "tokens": listing, "skillFrontmatter": all})
}

fn size(definition: &Value) -> u64 {
    tokens(definition.to_string().len())
}

fn percentage(part: u64, whole: u64) -> u64 {
    (part.saturating_mul(100) + whole / 2).checked_div(whole).unwrap_or(0)
}

/// Squares in the proportion of the categories, as hosts draw them.
fn grid(categories: &[Value], window: u64) -> Vec<Vec<Value>> {
    let cells = GRID.0 * GRID.1;
    let mut squares = Vec::new();
    // What is not in the window takes no room in it.
    for category in categories.iter().filter(|category| category["kind"] != "deferred") {
        let tokens = category["tokens"].as_u64().unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "a share of a hundred squares")]
        let mut share = tokens as f64 * cells as f64 / window.max(1) as f64;
        while share > 0.0 && squares.len() < cells {
            squares.push(json!({
                "color": category["color"],
                "isFilled": category["kind"] == "used",
                "categoryName": category["name"],
                "tokens": tokens,
                "percentage": percentage(tokens, window),
                "squareFullness": share.min(1.0),
            }));
            share -= 1.0;
        }
    }
    squares.chunks(GRID.1).map(<[Value]>::to_vec).collect()
}

/// The same for a card, in the shape of `context_usage` of a message.
pub(crate) fn summary(usage: &Value) -> Value {
    let categories: Vec<Value> = list(usage, "categories")
        .iter()
        .map(|category| json!({"name": category["name"], "tokens": category["tokens"], "kind": category["kind"]}))
        .collect();
    let (total, window) =
        (usage["totalTokens"].as_u64().unwrap_or(0), usage["rawMaxTokens"].as_u64().unwrap_or(0));
    let mut summary = json!({
        "model": usage["model"],
        "total_tokens": total,
        "raw_max_tokens": window,
        "percentage": usage["percentage"],
        "categories": categories,
        "mcp_tools": usage["mcpTools"],
        "memory_files": usage["memoryFiles"],
    });
    if total > window {
        summary["over_limit"] = json!({"tokens_over": total - window, "kind": "hard_limit"});
    }
    summary
}

/// The same for people.
pub(crate) fn report(usage: &Value) -> String {
    let (total, window) =
        (usage["totalTokens"].as_u64().unwrap_or(0), usage["rawMaxTokens"].as_u64().unwrap_or(0));
    let mut text = format!(
        "## Context Usage\n\n**Model:** {}  \n**Tokens:** {} / {} ({}%)\n\n| Category | Tokens | Percentage |\n\
         |----------|--------|------------|\n",
        usage["model"].as_str().unwrap_or_default(),
        short(total),
        short(window),
        usage["percentage"],
    );
    for category in list(usage, "categories") {
        let tokens = category["tokens"].as_u64().unwrap_or(0);
        let name = category["name"].as_str().unwrap_or_default();
        text.push_str(&format!("| {name} | {} | {}% |\n", short(tokens), percentage(tokens, window)));
    }
    let files = list(usage, "memoryFiles");
    if !files.is_empty() {
        text.push_str("\n| Instructions | Path | Tokens |\n|--------------|------|--------|\n");
    }
    for file in files {
        let of = |name: &str| file[name].as_str().unwrap_or_default();
        text.push_str(&format!("| {} | {} | {} |\n", of("type"), of("path"), file["tokens"]));
    }
    text
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// A number of tokens as people read it: `967`, `19.1k`, `1m`.
fn short(tokens: u64) -> String {
    let (whole, part, unit) = match tokens {
        0..1_000 => return tokens.to_string(),
        1_000..1_000_000 => (tokens / 1_000, tokens % 1_000 / 100, 'k'),
        _ => (tokens / 1_000_000, tokens % 1_000_000 / 100_000, 'm'),
    };
    if part == 0 { format!("{whole}{unit}") } else { format!("{whole}.{part}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_short() {
        let written = [0, 999, 1_000, 19_123, 947_900, 1_000_000, 1_250_000].map(short);
        assert_eq!(written, ["0", "999", "1k", "19.1k", "947.9k", "1m", "1.2m"]);
    }

    #[test]
    fn a_grid_has_a_hundred_squares_at_most() {
        let free = category("free_space", "Free space", 900_000, "c", "free");
        let used = category("messages", "Messages", 95_000, "c", "used");
        let rows = grid(&[used.clone(), free], 1_000_000);
        assert_eq!((rows.len(), rows[0].len()), (10, 10));
        assert_eq!((&rows[0][0]["isFilled"], &rows[1][0]["isFilled"]), (&json!(true), &json!(false)));
        assert_eq!(grid(&[used], 0).iter().flatten().count(), 100, "a window that lies");
    }
}
