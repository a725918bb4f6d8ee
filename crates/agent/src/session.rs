//! The one task that owns a query: its conversation, its prompts, what may change while it runs.

mod begin;
mod inbox;
mod suggest;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wardian_ledger::PriceTable;
use wardian_protocol::frame::ModelUsage;
use wardian_protocol::{MessageParam, NanoUsd};

use self::begin::set_up;
use self::inbox::{Inbox, Next};
use crate::authorise::{Live, lock};
use crate::client::Client;
use crate::command::CustomCommand;
use crate::compact::Fill;
use crate::context::Asks;
use crate::frames::{AgentTag, Out};
use crate::hook::SessionHooks;
use crate::later::Later;
use crate::mcp::{Listener, Mcp};
use crate::meter::Meter;
use crate::offer::ServerTools;
use crate::permission::SettingsFiles;
use crate::plugin::{PluginError, PluginInfo};
use crate::prompt::Opening;
use crate::query::{Command, text_prompt};
use crate::queue::{Fate, Queue};
use crate::skill::Skills;
use crate::state::Limits;
use crate::structured::StructuredOutput;
use crate::subagent::{AgentDefinition, Seen};
use crate::switch::Switches;
use crate::task::Tasks;
use crate::tool::{Tool, ToolContext};
use crate::transcript::{Conversation, Found, Journal, OpenReply};
use crate::turn::Cause;
use crate::view::View;
use crate::{
    AutoCompact, CanUseTool, Error, Message, Options, Prompt, RetryPolicy, SetupTrigger, Thinking,
    UserMessage, models, random, tools,
};

/// The most reply tokens asked for when nobody says how many: enough for any file, and a bound on what a reply reserves.
const DEFAULT_MAX_TOKENS: u64 = 32_000;

/// What stays as it is while a query runs.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) out: Out,
    pub(crate) client: Arc<Client>,
    /// What the query and its subagents have used.
    pub(crate) meter: Arc<Mutex<Meter>>,
    /// What goes on beside the turn.
    pub(crate) tasks: Tasks,
    /// The subagents that can be called on.
    pub(crate) agents: Arc<BTreeMap<String, AgentDefinition>>,
    /// What this thread works as.
    pub(crate) agent: Option<Arc<AgentDefinition>>,
    /// A subagent's model; the main thread's may change.
    pub(crate) model: Option<String>,
    /// Added to each request.
    pub(crate) headers: HeaderMap,
    /// Taken into the body of each request.
    pub(crate) extra_body: Arc<wardian_protocol::JsonMap>,
    /// What the conversation had cost before this query.
    pub(crate) carried: NanoUsd,
    /// What the query had cost before the conversation was cleared.
    pub(crate) spent_before: NanoUsd,
    /// Whether anything may go on beside the turn.
    pub(crate) background_tasks: bool,
    pub(crate) forward_subagent_text: bool,
    pub(crate) retry: RetryPolicy,
    pub(crate) live: Arc<Mutex<Live>>,
    pub(crate) tools: Vec<Offered>,
    /// The tools as the API wants them.
    pub(crate) definitions: Vec<Value>,
    pub(crate) skills: Skills,
    /// The way to the web.
    pub(crate) web_proxy: Option<Arc<str>>,
    /// Names that lead to another tool.
    pub(crate) tool_aliases: Arc<BTreeMap<String, String>>,
    /// What takes the structured output, where a turn shall end with it.
    pub(crate) structured: Option<Arc<StructuredOutput>>,
    pub(crate) system: Vec<String>,
    /// What opens the conversation.
    pub(crate) opening: Opening,
    /// How the model is to plan in plan mode.
    pub(crate) plan_mode_instructions: Option<String>,
    pub(crate) auto_compact: AutoCompact,
    /// How often what a subagent does is summed up.
    pub(crate) agent_progress_summaries: Option<Duration>,
    /// How often it is told that a call still runs.
    pub(crate) tool_heartbeat: Duration,
    /// Whether the next prompt is suggested after a turn.
    pub(crate) prompt_suggestions: bool,
    /// What the host asks about the conversation.
    pub(crate) asks: Asks,
    pub(crate) commands: Arc<[CustomCommand]>,
    pub(crate) plugins: Vec<PluginInfo>,
    pub(crate) plugin_errors: Vec<PluginError>,
    pub(crate) hooks: SessionHooks,
    pub(crate) switches: Switches,
    /// What comes from beside.
    pub(crate) later: Later,
    pub(crate) can_use_tool: Option<CanUseTool>,
    pub(crate) settings_files: SettingsFiles,
    pub(crate) context: ToolContext,
    pub(crate) limits: Limits,
    pub(crate) home: Option<PathBuf>,
    pub(crate) additional_directories: Vec<PathBuf>,
    pub(crate) thinking: Thinking,
    pub(crate) thinking_display: Option<String>,
    pub(crate) task_budget: Option<u64>,
    pub(crate) effort: Option<String>,
    /// Whether prompts are given back as messages.
    pub(crate) replay_user_messages: bool,
    pub(crate) max_output_tokens: Option<u64>,
    /// The models that take the place of one that fails, in their order.
    pub(crate) fallback_models: Vec<String>,
    pub(crate) include_partial_messages: bool,
    pub(crate) state_events: bool,
    pub(crate) api_key_source: String,
    /// Questions to the host that are out.
    pub(crate) waiting: Arc<AtomicUsize>,
    /// Calls are looked into one after the other.
    pub(crate) order: Arc<tokio::sync::Mutex<()>>,
    /// The servers of tools, and what they add.
    pub(crate) servers: ServerTools,
}

/// A tool that the model has.
#[derive(Clone)]
pub(crate) struct Offered {
    pub(crate) tool: Arc<dyn Tool>,
    pub(crate) schema: Value,
}

impl Setup {
    pub(crate) fn tool(&self, name: &str) -> Option<&Offered> {
        // source: the agent protocol reference, section 1.6.
        let name = if name == "Task" { "Agent" } else { name };
        self.tools.iter().find(|offered| offered.tool.name() == name)
    }

    /// Whether what this thread works as has a tool.
    pub(crate) fn admits(&self, tool: &str) -> bool {
        self.agent.as_ref().is_none_or(|agent| agent.admits(tool))
    }

    /// What the query has cost.
    pub(crate) fn spent(&self) -> NanoUsd {
        self.meter().total().saturating_sub(self.carried) + self.spent_before
    }

    /// The model that the next request is for.
    pub(crate) fn model(&self) -> String {
        self.model.clone().unwrap_or_else(|| lock(&self.live).model.clone())
    }

    /// A subagent's journal, where the session has one.
    pub(crate) fn journal_of(&self, tag: &AgentTag) -> Option<Arc<Journal>> {
        let journal = self.out.journal.as_ref()?;
        let made = journal.of_agent(&tag.agent_id);
        made.map_err(|error| tracing::warn!(%error, "a subagent's transcript is not kept")).ok().map(Arc::new)
    }

    /// The tool that a name in a call means: an alias leads to another, once.
    pub(crate) fn real_name<'a>(&'a self, name: &'a str) -> &'a str {
        // A hook or a rule on a tool must see the call whatever name it was made by.
        tools::canonical(self.tool_aliases.get(name).map_or(name, String::as_str))
    }

    /// What the model is told of the skills, where it can use them.
    pub(crate) fn skill_listing(&self) -> Option<String> {
        self.tool(tools::SKILL).and_then(|_| self.skills.listing())
    }

    /// Notes the end of a reply.
    pub(crate) async fn keep_reply_end(&self, kept: bool, stop_reason: Option<&str>) {
        let meter = self.meter().clone();
        self.out.keep_reply_end(kept, stop_reason, &meter).await;
    }

    /// What was used so far, locked: not to be held for long.
    pub(crate) fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn max_tokens(&self, model: &str) -> u64 {
        let known = PriceTable::embedded().model(models::api_name(model)).and_then(|price| price.max_output);
        let can = known.unwrap_or(DEFAULT_MAX_TOKENS);
        self.max_output_tokens.unwrap_or_else(|| can.min(DEFAULT_MAX_TOKENS))
    }
}

/// A query's conversation and counts.
pub(crate) struct Session {
    /// What hooks on its beginning have for the model: told with the first prompt.
    pub(crate) told: Vec<String>,
    pub(crate) setup: Arc<Setup>,
    pub(crate) history: Vec<MessageParam>,
    /// The reply that a turn before a restart did not get past.
    pub(crate) open: Option<OpenReply>,
    pub(crate) results: u64,
    /// The last turn was one of the model's, and came to its end.
    pub(crate) ended_well: bool,
    /// What was used when the last result was given.
    pub(crate) reported: BTreeMap<String, ModelUsage>,
    /// The prompts that wait; a subagent has none.
    pub(crate) queue: Queue,
    /// The prompts that the next turn begins with, as they came.
    pub(crate) taken: Vec<UserMessage>,
    /// The ids of the prompts that were taken: none is taken twice.
    pub(crate) prompts: HashSet<String>,
    /// The last prompt before a restart, and the result of its turn if it ended.
    last: Option<(String, Option<Message>)>,
    /// Nothing was said yet.
    pub(crate) is_new: bool,
    /// Where Bash was when it was kept last.
    pub(crate) kept_cwd: Option<PathBuf>,
    /// How full the context window is.
    pub(crate) fill: Fill,
    /// The prompt that has no reply yet: its id, and where it begins in the last message.
    pub(crate) waiting_prompt: Option<(String, usize)>,
    /// Whether hosts were told that it runs.
    pub(crate) is_running: bool,
    /// Who follows the conversation from outside.
    pub(crate) shown_to: Option<watch::Sender<Seen>>,
}

/// Runs a query until it has no more prompts, or is cancelled.
pub(crate) async fn run(
    prompt: Prompt,
    mut options: Options,
    mcp: Mcp,
    messages: mpsc::Sender<Result<Message, Error>>,
    commands: mpsc::Receiver<Command>,
    show: watch::Sender<Option<View>>,
    cancel: CancellationToken,
) {
    let conversation = options.conversation.take();
    let kept_id = conversation.as_ref().map(|conversation| conversation.session_id().to_owned());
    let out = Out {
        sender: messages,
        session_id: options.session_id.clone().or(kept_id).unwrap_or_else(random::uuid),
        clock: options.clock,
        cwd: options.cwd.clone(),
        journal: conversation.as_ref().and_then(|conversation| conversation.journal.clone()),
        agent: None,
    };
    let session_id = out.session_id.clone();
    let forked = conversation.as_ref().is_some_and(|conversation| conversation.forked_from().is_some());
    // source: the agent protocol reference, section 2.11.
    options.api.headers.push(("x-claude-code-session-id".to_owned(), session_id));
    if let Some(journal) = &out.journal {
        journal.seal_with(cancel.clone());
        if options.mirror_transcript {
            journal.mirror_to(out.sender.clone());
        }
    }
    let found = conversation.map(Conversation::into_found).unwrap_or_default();
    let resumes = options.continue_interrupted && found.interrupted;
    // However the session ends, its servers do.
    let _servers = mcp.guard();
    let (patience, spares_tasks) = (options.background_patience, options.interrupt_spares_tasks);
    let (told, folds) = (options.prompt_events, options.fold_prompts);
    let trigger = options.set_up;
    match set_up(options, out.clone(), mcp).await {
        Ok(mut setup) => {
            if let Some(system) = found.system_prompt.clone().filter(|_| setup.opening.keeps_system_prompt) {
                setup.system = system;
            }
            let tasks = setup.tasks.clone();
            let initial = setup.agent.as_ref().and_then(|agent| agent.initial_prompt.clone());
            let mut session = Session::new(setup, found);
            show.send_replace(Some(View::of(&session.setup)));
            let mut inbox = Inbox::new(prompt, &session.setup);
            inbox.queue.set_up(&out.session_id, told, folds);
            session.queue = inbox.queue.clone();
            (inbox.patience, inbox.spares_tasks) = (patience, spares_tasks);
            if let Some(initial) = initial.filter(|_| session.is_new) {
                inbox.queue.push_front(text_prompt(initial));
            }
            let mut commands = commands;
            let hooks = session.setup.hooks.clone();
            if session.connect(&mut inbox, &mut commands, &cancel).await {
                session.begin(trigger, forked, &cancel).await;
                session.run(inbox, resumes, commands, cancel.clone()).await;
                if !cancel.is_cancelled() {
                    hooks.session_ended("other").await;
                }
            }
            tasks.end().await;
            hooks.close().await;
        }
        Err(error) => {
            let _ = out.sender.send(Err(error)).await;
        }
    }
}

impl Session {
    fn new(mut setup: Setup, found: Found) -> Self {
        let Found { history, tool_state, open, meter, prompts, result, .. } = found;
        let last = prompts.last().cloned().map(|uuid| (uuid, result));
        let kept_cwd = tool_state.cwd.clone();
        tool_state.restore(&setup);
        let is_new = history.is_empty() && open.is_none();
        let reported = meter.by_model().clone();
        setup.carried = meter.total();
        *setup.meter() = meter;
        setup.servers.remember(&history);
        Self {
            told: Vec::new(),
            setup: Arc::new(setup),
            history,
            open,
            results: 0,
            ended_well: false,
            reported,
            queue: Queue::default(),
            taken: Vec::new(),
            prompts: prompts.into_iter().collect(),
            last,
            is_new,
            kept_cwd,
            fill: Fill::default(),
            waiting_prompt: None,
            is_running: false,
            shown_to: None,
        }
    }

    /// A subagent's.
    pub(crate) fn within(setup: Arc<Setup>) -> Self {
        Self {
            setup,
            history: Vec::new(),
            open: None,
            results: 0,
            ended_well: false,
            reported: BTreeMap::new(),
            queue: Queue::default(),
            taken: Vec::new(),
            prompts: HashSet::new(),
            last: None,
            is_new: true,
            kept_cwd: None,
            told: Vec::new(),
            fill: Fill::default(),
            waiting_prompt: None,
            is_running: false,
            shown_to: None,
        }
    }

    /// What this query has cost.
    pub(crate) fn spent(&self) -> NanoUsd {
        self.setup.spent()
    }

    /// What prompts begin together. One that was taken already, before a restart maybe, begins nothing again: its turn is
    /// taken to its end if it is open, and its result is given again if nobody may have heard it.
    async fn cause(&mut self, prompts: Vec<UserMessage>) -> Option<Cause> {
        let is_known =
            |prompt: &UserMessage| prompt.uuid.as_ref().is_some_and(|uuid| self.prompts.contains(uuid));
        let (known, new): (Vec<_>, Vec<_>) = prompts.into_iter().partition(is_known);
        if let Some(prompt) = folded(&new) {
            self.taken = new;
            return Some(Cause::Prompt(Box::new(prompt)));
        }
        let prompt = known.into_iter().next()?;
        match self.last.take_if(|(uuid, _)| prompt.uuid.as_ref() == Some(uuid)) {
            Some((_, Some(result))) => {
                self.setup.out.send(result).await;
                None
            }
            Some((_, None)) => Some(Cause::Restart),
            None => None,
        }
    }

    /// Connects the servers of tools. The host may be one that answers only when its own requests are, so those are taken
    /// meanwhile. False: the query was stopped.
    async fn connect(
        &mut self,
        inbox: &mut Inbox,
        commands: &mut mpsc::Receiver<Command>,
        cancel: &CancellationToken,
    ) -> bool {
        let mcp = self.setup.servers.mcp.clone();
        mcp.start(Listener { out: self.setup.out.clone(), hooks: self.setup.hooks.clone() });
        let live = Arc::clone(&self.setup.live);
        let mut settled = std::pin::pin!(mcp.settled());
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return false,
                () = &mut settled => break,
                Some(command) = commands.recv() => inbox.take_in(command, &live, None),
            }
        }
        self.refresh_tools();
        true
    }

    /// Shows who follows it how far the conversation is.
    pub(crate) fn show(&self) {
        if let Some(follower) = &self.shown_to {
            follower.send_replace(Some((Arc::clone(&self.setup), self.history.clone())));
        }
    }

    /// Brings the set-up up to date: the tools of servers, and what else changed beside the conversation.
    pub(crate) fn refresh_tools(&mut self) {
        self.take_changes();
        if self.setup.servers.is_stale() {
            Arc::make_mut(&mut self.setup).refresh_tools();
        }
    }

    /// Lets hooks see that the session begins, and before that what it is set up for.
    async fn begin(&mut self, set_up: Option<SetupTrigger>, forked: bool, cancel: &CancellationToken) {
        let source = match (self.history.is_empty() && self.open.is_none(), forked) {
            (true, _) => "startup",
            (false, true) => "fork",
            (false, false) => "resume",
        };
        let model = lock(&self.setup.live).model.clone();
        let hooks = &self.setup.hooks;
        let heard = async {
            let mut told = match set_up {
                Some(trigger) => hooks.set_up(trigger).await,
                None => Vec::new(),
            };
            told.extend(hooks.session_started(source, Some(&model)).await);
            told
        };
        self.told = tokio::select! {
            biased;
            () = cancel.cancelled() => Vec::new(),
            told = heard => told,
        };
    }

    /// Takes turns until there are no more prompts. `resumes`: the first is the one that a restart interrupted.
    async fn run(
        mut self,
        mut inbox: Inbox,
        resumes: bool,
        mut commands: mpsc::Receiver<Command>,
        cancel: CancellationToken,
    ) {
        let live = Arc::clone(&self.setup.live);
        let mut first = resumes.then_some(Cause::Restart);
        loop {
            let cause = match first.take() {
                Some(cause) => Some(cause),
                None => match inbox.next(&mut commands, &live, &cancel, || self.answer_asks()).await {
                    Next::Prompts(prompts) => self.cause(prompts).await,
                    Next::Notices(notices) => Some(Cause::Notices(notices)),
                    Next::Rest => {
                        self.rest().await;
                        None
                    }
                    Next::End => return,
                },
            };
            let Some(cause) = cause else {
                self.tell_news().await;
                continue;
            };
            // Whatever begins now, what was before the restart is past.
            self.last = None;
            let stop = cancel.child_token();
            // Hosts hear of this before they hear of the prompt.
            self.run_begins().await;
            let out = self.setup.out.clone();
            let uuids: Vec<String> = self.taken.iter().filter_map(|prompt| prompt.uuid.clone()).collect();
            {
                let mut turn = Box::pin(self.turn(cause, &stop));
                loop {
                    tokio::select! {
                        biased;
                        Some(command) = commands.recv() => inbox.take_in(command, &live, Some(&stop)),
                        () = inbox.queue.tell(&out), if inbox.queue.has_news() => (),
                        () = &mut turn => break,
                    }
                }
            }
            let fate = if stop.is_cancelled() { Fate::Cancelled } else { Fate::Completed };
            self.taken.clear();
            self.queue.note(&uuids, fate);
            self.tell_news().await;
            // Where more came meanwhile it goes on without a rest.
            while let Ok(command) = commands.try_recv() {
                inbox.take_in(command, &live, None);
            }
            self.rest().await;
            Box::pin(self.suggest(&mut inbox, &mut commands, &cancel)).await;
            self.rest().await;
        }
    }

    /// Tells hosts what became of prompts.
    pub(crate) async fn tell_news(&self) {
        while self.queue.has_news() {
            self.queue.tell(&self.setup.out).await;
        }
    }
}

/// Prompts as one: what they say one after the other, under the id of the last.
fn folded(prompts: &[UserMessage]) -> Option<UserMessage> {
    let mut prompt = prompts.last()?.clone();
    prompt.message.content =
        prompts.iter().flat_map(|prompt| prompt.message.content.iter().cloned()).collect();
    Some(prompt)
}

pub(crate) fn definition(offered: &Offered) -> Value {
    json!({
        "name": offered.tool.name(),
        "description": offered.tool.description(),
        "input_schema": offered.schema,
    })
}

/// A text as a file name: an id that others chose must not lead elsewhere.
pub(crate) fn file_name(text: &str) -> String {
    let name = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    text.chars().take(80).map(name).collect()
}
