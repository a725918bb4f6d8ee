//! A subagent's life: begun by a call of the tool `Agent`, alone beside the turn, its report given back.
//!
//! The call waits for the report, or does not: what runs in the background tells of its end by a notice, and what runs
//! in the foreground may be moved there meanwhile. Either way it runs as a task of the session's registry.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use wardian_protocol::{ContentBlock, Usage};

use super::{MAX_DEPTH, builtin, summary, within};
use crate::frames::AgentTag;
use crate::hook::HookEvent;
use crate::session::{Session, Setup};
use crate::state::End;
use crate::task::{Finished, Kind, NewTask, Refusal, Status, Task, Tasks};
use crate::tool::{ToolContext, ToolOutput};
use crate::tools::file;
use crate::turn::{Handed, whole};
use crate::words;

/// What is asked of a subagent.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) description: String,
    pub(crate) prompt: String,
    pub(crate) kind: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) effort: Option<String>,
    pub(crate) background: Option<bool>,
}

/// What came of a subagent.
#[derive(Debug)]
struct Report {
    status: Status,
    /// What it says, or what went wrong.
    text: String,
    /// It was ended before it was done.
    is_partial: bool,
    tools: Vec<String>,
    usage: Usage,
    duration_ms: u64,
}

/// Runs a subagent for a call.
pub(crate) async fn run(setup: &Arc<Setup>, asked: Asked, context: &ToolContext) -> ToolOutput {
    let kind = asked.kind.clone().unwrap_or_else(|| builtin::GENERAL.to_owned());
    let Some(definition) = setup.agents.get(&kind) else {
        return ToolOutput::error(words::unknown_agent(&kind, setup.agents.keys()));
    };
    let depth = setup.out.agent.as_ref().map_or(0, |tag| tag.depth) + 1;
    if depth > MAX_DEPTH {
        setup.tasks.refuse(Refusal::Depth);
        return ToolOutput::error(words::TOO_DEEP);
    }
    if setup.limits.before_call(setup.spent()).is_some() {
        setup.tasks.refuse(Refusal::Budget);
        return ToolOutput::error(words::NO_MONEY_LEFT);
    }
    let in_background = setup.background_tasks && asked.background.or(definition.background).unwrap_or(true);
    let new = NewTask {
        kind: Kind::Agent {
            subagent_type: kind.clone(),
            prompt: asked.prompt.clone(),
            depth,
            asked: asked.background,
        },
        tool_use_id: context.tool_use_id.clone(),
        description: asked.description.clone(),
        is_backgrounded: in_background,
        owner: setup.out.agent.as_ref().map(|tag| tag.agent_id.clone()),
    };
    let task = match setup.tasks.start(new).await {
        Ok(task) => task,
        Err(refusal) => return ToolOutput::error(refusal),
    };
    let tag = Arc::new(AgentTag {
        agent_id: task.id.clone(),
        agent_type: kind,
        parent_tool_use_id: context.tool_use_id.clone(),
        description: asked.description.clone(),
        depth,
        forwards_text: setup.forward_subagent_text,
        tool_uses: AtomicU64::new(0),
        last_tokens: AtomicU64::new(0),
        tasks: setup.tasks.clone(),
        task: task.clone(),
    });
    let model = within::model(asked.model.as_deref()).or_else(|| within::model(definition.model.as_deref()));
    let inner = Arc::new(setup.within(tag, definition, model, asked.effort.clone()));
    let caller = setup.out.agent.as_ref().map(|tag| tag.agent_id.as_str());
    let facts = facts(&inner, definition.source.is_built_in(), caller);
    keep_facts(&inner, &facts).await;
    let (sender, report) = oneshot::channel();
    setup.tasks.spawn(work(Arc::clone(&inner), task.clone(), asked.prompt.clone(), facts, sender));
    wait(&inner, &asked, &task, context, report).await
}

/// Waits for the report, until the call is stopped or moved into the background.
async fn wait(
    inner: &Setup,
    asked: &Asked,
    task: &Task,
    context: &ToolContext,
    mut report: oneshot::Receiver<Report>,
) -> ToolOutput {
    tokio::select! {
        biased;
        () = task.moved.cancelled() => launched(inner, asked, task),
        report = &mut report => told(inner, asked, task, report.ok()),
        () = context.cancel.cancelled() => {
            inner.tasks.stop(&task.id, crate::task::Killer::User);
            told(inner, asked, task, report.await.ok())
        }
    }
}

/// What a subagent does, from its first request to its end.
async fn work(
    inner: Arc<Setup>,
    task: Task,
    prompt: String,
    mut facts: Value,
    sender: oneshot::Sender<Report>,
) {
    let tasks = inner.tasks.clone();
    let run = AssertUnwindSafe(Box::pin(handed(&inner, &task, prompt))).catch_unwind().await;
    // Its commands end with it.
    tasks.stop_owned(&task.id).await;
    let report = match run {
        Ok(handed) => {
            tasks.deny(handed.denials);
            Report::of(handed.end, handed.text, handed.tools, handed.usage, &task)
        }
        Err(_) => Report::of(End::ApiError, words::CRASHED.to_owned(), Vec::new(), Usage::default(), &task),
    };
    keep_report(&task, &report).await;
    facts["finished"] = true.into();
    keep_facts(&inner, &facts).await;
    finish(&tasks, &task, &report).await;
    // The call may be over.
    let _ = sender.send(report);
}

/// The most skills that a subagent begins with.
const MAX_SKILLS: usize = 32;

/// What the skills say that the definition names, behind the prompt as in the official CLI. One that cannot be used is
/// said to be missing; what skills allow is for those who call them.
async fn skills(inner: &Setup) -> Vec<String> {
    let named = inner.agent.iter().flat_map(|agent| &agent.skills).take(MAX_SKILLS);
    let mut texts = Vec::new();
    for name in named {
        let text = match inner.skills.get(name) {
            None => Err(words::unknown_skill(name, &inner.skills.names())),
            Some(skill) if !inner.skills.is_enabled(&skill) => Err(words::skill_not_enabled(&skill.name)),
            Some(skill) => skill.text("").await,
        };
        texts.push(text.unwrap_or_else(|problem| {
            tracing::warn!(skill = %name, %problem, "a subagent goes without a skill");
            problem
        }));
    }
    texts
}

async fn handed(inner: &Arc<Setup>, task: &Task, prompt: String) -> Handed {
    let tag = inner.out.agent.clone().expect("a subagent has a tag");
    let fields = json!({"agent_id": tag.agent_id, "agent_type": tag.agent_type});
    let outcome = inner.hooks.run(HookEvent::SubagentStart, &tag.agent_type, fields).await;
    let context = outcome.context.iter().map(|text| words::hook_context("SubagentStart", text));
    let mut content: Vec<ContentBlock> = context.map(ContentBlock::text).collect();
    content.push(ContentBlock::text(prompt));
    content.extend(skills(inner).await.into_iter().map(ContentBlock::text));
    let mut session = Session::within(Arc::clone(inner));
    let Some(every) = inner.agent_progress_summaries else { return session.task(content, &task.stop).await };
    let (show, seen) = watch::channel(None);
    session.shown_to = Some(show);
    let ended = task.stop.child_token();
    let work = async {
        let handed = session.task(content, &task.stop).await;
        // The summary under way is not dropped: what it cost so far is counted.
        ended.cancel();
        handed
    };
    tokio::join!(work, summary::tell(&tag, every, &seen, &ended)).0
}

impl Report {
    fn of(end: End, text: String, tools: Vec<String>, usage: Usage, task: &Task) -> Self {
        let status = match end.kind() {
            EndKind::Done | EndKind::Cut => Status::Completed,
            EndKind::Failed => Status::Failed,
            EndKind::Aborted => Status::Stopped,
        };
        let duration_ms = u64::try_from(task.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self { status, text, is_partial: end.kind() == EndKind::Cut, tools, usage, duration_ms }
    }

    fn tokens(&self) -> u64 {
        let counts = [
            self.usage.input_tokens,
            self.usage.output_tokens,
            self.usage.cache_creation_input_tokens,
            self.usage.cache_read_input_tokens,
        ];
        counts.into_iter().flatten().fold(0, u64::saturating_add)
    }

    fn figures(&self) -> Value {
        json!({
            "total_tokens": self.tokens(),
            "tool_uses": self.tools.len(),
            "duration_ms": self.duration_ms,
        })
    }

    /// The text with a word that it is not all, where that is so.
    fn said(&self) -> String {
        if self.is_partial {
            format!("{}\n\n{}", words::PARTIAL_REPORT, self.text)
        } else {
            self.text.clone()
        }
    }
}

/// What an end means to who waits for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndKind {
    Done,
    /// A limit came first.
    Cut,
    Failed,
    Aborted,
}

impl End {
    const fn kind(self) -> EndKind {
        match self {
            Self::Completed | Self::HookStopped | Self::StopHookPrevented | Self::Deferred => EndKind::Done,
            Self::MaxTurns => EndKind::Cut,
            Self::Budget
            | Self::ApiError
            | Self::Refused
            | Self::ContextFull
            | Self::PromptTooLong
            | Self::RequestTooLarge
            | Self::PromptRefused
            | Self::Unstructured
            | Self::Unkept => EndKind::Failed,
            Self::AbortedStreaming | Self::AbortedTools | Self::CutStreaming | Self::CutTools => {
                EndKind::Aborted
            }
        }
    }
}

async fn finish(tasks: &Tasks, task: &Task, report: &Report) {
    let finished = Finished {
        status: report.status,
        summary: report.said(),
        told: match report.status {
            Status::Completed => Some(format!("Agent {:?} finished", task.description)),
            Status::Failed => Some(format!("Agent {:?} failed", task.description)),
            Status::Stopped => None,
        },
        report: (report.status != Status::Stopped).then(|| report.said()),
        usage: Some(report.figures()),
    };
    tasks.finish(task, finished).await;
}

fn launched(inner: &Setup, asked: &Asked, task: &Task) -> ToolOutput {
    let structured = json!({
        "isAsync": true,
        "status": "async_launched",
        "agentId": task.id,
        "description": asked.description,
        "resolvedModel": inner.model(),
        "prompt": asked.prompt,
        "outputFile": task.output,
        "canReadOutputFile": inner.tool("Read").is_some() || inner.tool("Bash").is_some(),
    });
    let text = words::agent_launched(&task.id, &task.output);
    ToolOutput { content: json!([{"type": "text", "text": text}]), ..ToolOutput::ok("", structured) }
}

fn told(inner: &Setup, asked: &Asked, task: &Task, report: Option<Report>) -> ToolOutput {
    let Some(report) = report else { return ToolOutput::error(words::CRASHED) };
    match report.status {
        Status::Completed => (),
        Status::Failed => return ToolOutput::error(words::agent_failed(&task.id, &report.text)),
        Status::Stopped => return ToolOutput::error(words::AGENT_STOPPED),
    }
    let mut structured = json!({
        "status": "completed",
        "prompt": asked.prompt,
        "agentId": task.id,
        "agentType": inner.out.agent.as_ref().map(|tag| tag.agent_type.clone()),
        "content": [{"type": "text", "text": report.said()}],
        "resolvedModel": inner.model(),
        "totalDurationMs": report.duration_ms,
        "totalTokens": report.tokens(),
        "totalToolUseCount": report.tools.len(),
        "usage": whole(report.usage.clone()),
    });
    if !report.tools.is_empty() {
        let mut used = report.tools.clone();
        used.sort();
        used.dedup();
        structured["toolsUsed"] = used.into();
    }
    let text = words::agent_report(
        &task.id,
        &report.said(),
        report.tokens(),
        report.tools.len(),
        report.duration_ms,
    );
    ToolOutput { content: json!([{"type": "text", "text": text}]), ..ToolOutput::ok("", structured) }
}

/// Keeps the report where the task's output is looked for.
async fn keep_report(task: &Task, report: &Report) {
    let text = report.said();
    if let Err(error) = file::keep(&task.output, text.into_bytes()).await {
        tracing::warn!(%error, "a subagent's report was not kept");
    }
}

/// What a subagent is, for those who list subagents. source: observed of the official CLI.
fn facts(inner: &Setup, is_built_in: bool, caller: Option<&str>) -> Value {
    let Some(tag) = &inner.out.agent else { return json!({}) };
    let mut facts = json!({
        "agentType": tag.agent_type,
        "isBuiltIn": is_built_in,
        "description": tag.description,
        "toolUseId": tag.parent_tool_use_id,
        "spawnDepth": tag.depth,
        "requestShape": if tag.task.is_backgrounded() { "background" } else { "foreground" },
        "model": inner.model(),
    });
    if let Some(caller) = caller {
        facts["parentAgentId"] = caller.into();
    }
    facts
}

/// Keeps it beside the subagent's transcript.
async fn keep_facts(inner: &Setup, facts: &Value) {
    let Some(journal) = &inner.out.journal else { return };
    // A small file: it takes microseconds.
    if let Err(error) = std::fs::write(journal.path().with_extension("meta.json"), facts.to_string()) {
        tracing::warn!(%error, "what a subagent is was not kept");
    }
    // source: the SDKs' session stores, which make the file again from it.
    let mut entry = facts.clone();
    entry["type"] = "agent_metadata".into();
    journal.mirror_only(entry).await;
}
