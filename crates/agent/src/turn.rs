//! One turn: a prompt, the model's replies, the tools that they call, the result. What comes next is decided in
//! [`crate::state`]; here it is done.

use std::collections::{HashMap, VecDeque};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wardian_protocol::frame::PermissionDenial;
use wardian_protocol::{ContentBlock, MessageParam, Role, Usage};

use crate::authorise::lock;
use crate::call::{Called, Whole, call_model, hooks_on};
use crate::command::Local;
use crate::execute::{Deferred, Past, ToolsEnd, run_tools};
use crate::frames::presentable;
use crate::meter::{add_usage, no_usage};
use crate::queue::Fate;
use crate::request::without_breakpoints;
use crate::session::Session;
use crate::spending::Spending;
use crate::state::{End, Progress, ReplyFacts, Step};
use crate::task::Notice;
use crate::transcript::{OpenReply, calls};
use crate::{AutoCompact, UserMessage, random, words};

mod ending;
mod hooked;
mod init;
mod planned;
mod prompts;
mod result;
mod structured;

pub use result::empty_usage;

pub(crate) use self::result::whole;

/// How often in a turn a reply may break off in the middle and be taken up again.
const MAX_BREAKS: u32 = 3;

/// What a turn begins with.
pub(crate) enum Cause {
    Prompt(Box<UserMessage>),
    /// Work in the background has ended.
    Notices(Vec<Notice>),
    /// Nothing new: a restart interrupted it.
    Restart,
}

/// A reply to act on.
struct Ahead {
    whole: Box<Whole>,
    /// What its calls came to before a restart.
    past: Past,
    /// It is kept already, and counted.
    is_known: bool,
}

/// What a turn has come to so far.
pub(crate) struct Turn {
    pub(crate) progress: Progress,
    spending: Spending,
    denials: Vec<PermissionDenial>,
    /// The text of the last reply: what the turn's result is.
    pub(crate) result: String,
    /// What hosts are told in its place.
    shown: Option<String>,
    /// Of the last reply alone.
    last_usage: Usage,
    /// The tools that were called.
    tools: Vec<String>,
    /// The background work whose end began it.
    origin: Option<Value>,
    stop_reason: Option<String>,
    api_error: Option<ApiFailure>,
    /// The command that this turn is, where the model is not asked.
    pub(crate) local_command: Option<&'static str>,
    /// The model of the command that began the turn, or the one that took the place of one that failed.
    pub(crate) model: Option<String>,
    /// The models that may.
    fallbacks: VecDeque<String>,
    /// How often a reply broke off in the middle.
    breaks: u32,
    /// The ids of the prompts that it took in.
    folded: Vec<String>,
    /// How often hooks kept it from ending.
    stop_blocks: u32,
    deferred: Option<Deferred>,
    output: structured::Output,
}

/// What the API said when it refused.
#[derive(Debug)]
struct ApiFailure {
    status: Option<u16>,
    kind: Option<String>,
    /// There was no connection, or it was lost.
    lost: bool,
}

/// What a subagent's turn came to.
pub(crate) struct Handed {
    pub(crate) end: End,
    /// What it says at the end.
    pub(crate) text: String,
    pub(crate) denials: Vec<PermissionDenial>,
    /// The tools that it called.
    pub(crate) tools: Vec<String>,
    /// Of its last reply.
    pub(crate) usage: Usage,
}

impl Turn {
    fn new(fallbacks: VecDeque<String>) -> Self {
        Self {
            progress: Progress::default(),
            spending: Spending::new(),
            denials: Vec::new(),
            result: String::new(),
            shown: None,
            last_usage: no_usage(),
            tools: Vec::new(),
            origin: None,
            stop_reason: None,
            api_error: None,
            local_command: None,
            model: None,
            fallbacks,
            breaks: 0,
            folded: Vec::new(),
            stop_blocks: 0,
            deferred: None,
            output: structured::Output::default(),
        }
    }
}

impl Turn {
    /// Ends with a text that the last reply is not.
    pub(crate) fn ends_with(&mut self, text: String) {
        (self.result, self.shown) = (text, None);
    }
}

impl Session {
    /// Takes a turn and gives its messages, from `system/init` to the result.
    pub(crate) async fn turn(&mut self, cause: Cause, stop: &CancellationToken) {
        let mut turn = Turn::new(self.setup.fallback_models.clone().into());
        self.run_begins().await;
        turn.spending.prompts = self.begin_prompts().await;
        self.refresh_tools();
        let cause = match cause {
            Cause::Prompt(prompt)
                if self.setup.out.agent.is_none()
                    && let Some(command) = Local::of(&prompt) =>
            {
                return Box::pin(self.run_local(turn, command, *prompt, stop)).await;
            }
            cause => cause,
        };
        let heard = self.show_hooks(&cause, stop).await;
        self.give_init(&turn).await;
        let cause = self.name_prompts(cause);
        for prompt in std::mem::take(&mut self.taken) {
            self.replay(&prompt).await;
            if let Some(uuid) = &prompt.uuid {
                self.take_checkpoint(uuid).await;
            }
        }
        let mut rules = Vec::new();
        let reply = match cause {
            Cause::Restart => self.open.take(),
            Cause::Prompt(mut prompt) => {
                if heard.refusal.as_ref().is_none_or(|refusal| refusal.kept) {
                    self.settle().await;
                    rules = self.expand(&mut turn, &mut prompt).await;
                    self.hear_prompt(*prompt, heard.context).await;
                }
                None
            }
            Cause::Notices(notices) => {
                self.settle().await;
                turn.origin = notices.last().map(Notice::origin);
                self.hear_notices(notices).await;
                None
            }
        };
        let mut end = match heard.refusal {
            None => self.drive(&mut turn, reply, stop).await,
            Some(refusal) => {
                self.setup.hooks.refuse_prompt(&refusal).await;
                turn.result = refusal.text;
                End::PromptRefused
            }
        };
        if self.setup.out.lost().is_some() {
            end = End::Unkept;
        }
        self.end_command(&rules);
        self.end_command(&self.setup.skills.take_granted());
        self.queue.note(&turn.folded, Fate::Completed);
        self.tell_news().await;
        self.give_result(turn, end).await;
    }

    pub(crate) async fn give_init(&self, turn: &Turn) {
        self.setup.out.system("init", self.init_fields(turn)).await;
    }

    /// Tells the host that something goes on, unless it was told.
    pub(crate) async fn run_begins(&mut self) {
        if self.setup.state_events && !std::mem::replace(&mut self.is_running, true) {
            self.setup.out.state("running").await;
        }
    }

    /// Tells the host that nothing goes on, if that is so: subagents in the background count, commands do not.
    pub(crate) async fn rest(&mut self) {
        if self.is_running && !self.setup.tasks.has_agents() && !self.queue.goes_on() {
            self.is_running = false;
            self.setup.out.state("idle").await;
        }
    }

    /// Takes a subagent's turn, without `init` and result.
    pub(crate) async fn task(&mut self, content: Vec<ContentBlock>, stop: &CancellationToken) -> Handed {
        let mut turn = Turn::new(self.setup.fallback_models.clone().into());
        self.refresh_tools();
        if std::mem::take(&mut self.is_new) {
            self.say_opening("session_start").await;
        }
        let is_beside = self.setup.out.agent.as_ref().is_some_and(|agent| agent.task.is_backgrounded());
        if is_beside {
            self.setup.out.keep_context(content.clone()).await;
        } else {
            self.setup.out.user(content.clone(), None, false).await;
        }
        self.hear(content);
        let end = self.drive(&mut turn, None, stop).await;
        Handed { end, text: turn.result, denials: turn.denials, tools: turn.tools, usage: turn.last_usage }
    }

    /// Tells the model what has ended in the background.
    async fn hear_notices(&mut self, notices: Vec<Notice>) {
        let content: Vec<ContentBlock> =
            notices.iter().map(|notice| ContentBlock::text(words::task_notice(notice))).collect();
        self.setup.out.keep_context(content.clone()).await;
        self.hear(content);
    }

    /// `reply`: the one that a restart left open.
    async fn drive(&mut self, turn: &mut Turn, reply: Option<OpenReply>, stop: &CancellationToken) -> End {
        let limits = self.setup.limits;
        let mut ahead = match reply {
            Some(reply) => Some(self.reopen(reply, stop).await),
            None => None,
        };
        let mut was_too_long = false;
        loop {
            if self.setup.out.lost().is_some() {
                return End::Unkept;
            }
            let Ahead { whole, past, is_known } = match ahead.take() {
                Some(ahead) => ahead,
                None => {
                    if let Some(end) = limits.before_call(self.spent()) {
                        return end;
                    }
                    self.answer_asks();
                    self.hear_later().await;
                    self.compact_if_full(turn, stop).await;
                    // The summary has cost something.
                    if let Some(end) = limits.before_call(self.spent()) {
                        return end;
                    }
                    match self.call(turn, stop).await {
                        Called::Failed(failure)
                            if failure.is_too_long()
                                && !std::mem::replace(&mut was_too_long, true)
                                && self.setup.auto_compact != AutoCompact::Off =>
                        {
                            if !self.compact_by_itself(turn, stop).await {
                                return self.api_error(turn, &failure).await;
                            }
                            continue;
                        }
                        Called::Replied(whole) => Ahead { whole, past: Past::default(), is_known: false },
                        Called::Broken(partial, _) if turn.breaks < MAX_BREAKS => {
                            self.broken(turn, *partial).await;
                            continue;
                        }
                        Called::Broken(_, failure) | Called::Failed(failure) => {
                            return self.api_error(turn, &failure).await;
                        }
                        Called::Interrupted(partial) if stop.is_cancelled() => {
                            return self.interrupted(turn, partial).await;
                        }
                        Called::Interrupted(partial) => return self.cut(turn, partial).await,
                    }
                }
            };
            match self.take_in(turn, &whole, is_known).await {
                Step::RunTools => {
                    if let Some(end) = self.run_tools(turn, whole, past, stop).await {
                        return end;
                    }
                    if self.queue.is_urgent() {
                        turn.result.clear();
                        return End::CutTools;
                    }
                    self.fold(turn).await;
                }
                Step::Continue => self.say(turn, words::GO_ON).await,
                Step::Resume => (),
                Step::Retell => self.retell(turn, &whole).await,
                Step::End(End::Completed) => {
                    if !self.remind_of_output(turn).await
                        && let Some(end) = self.stopping(turn, stop).await
                    {
                        return end;
                    }
                }
                Step::End(end) => return self.last_words(turn, end, &whole).await,
            }
        }
    }

    async fn call(&mut self, turn: &mut Turn, stop: &CancellationToken) -> Called {
        loop {
            self.refresh_tools();
            self.show();
            let cut = stop.child_token();
            self.queue.arm(cut.clone());
            let this = &*self;
            let Self { setup, history, .. } = this;
            let model = turn.current_model(setup);
            turn.fallbacks.retain(|fallback| *fallback != model);
            let write = |max_tokens| setup.request(&model, max_tokens, history);
            let has_fallback = !turn.fallbacks.is_empty();
            let max_tokens = setup.max_tokens(&model);
            let called = call_model(setup, &mut turn.spending, max_tokens, write, has_fallback, &cut);
            let called = this.answering(Box::pin(called)).await;
            match called {
                Called::Failed(failure) => {
                    let Some(trigger) = failure.fallback_trigger().filter(|_| has_fallback) else {
                        return Called::Failed(failure);
                    };
                    let fallback = turn.fallbacks.pop_front().expect("there is one");
                    let fields = json!({
                        "trigger": trigger,
                        "original_model": model,
                        "fallback_model": fallback,
                        "content": format!("{fallback} takes the place of {model} for this turn ({trigger})"),
                    });
                    setup.out.system("model_fallback", fields).await;
                    turn.model = Some(fallback);
                }
                Called::Replied(_) | Called::Broken(..) | Called::Interrupted(_) => return called,
            }
        }
    }

    /// Makes the reply that a restart left open one to act on: its hooks run again, for nobody knows what they said.
    async fn reopen(&self, reply: OpenReply, stop: &CancellationToken) -> Ahead {
        let OpenReply { content, stop_reason, answered, started } = reply;
        let past = Past { started, answered };
        let open = content.iter().filter(|block| !past.settles(block));
        let hooks = open.filter_map(|block| hooks_on(&self.setup, block)).collect::<Vec<_>>();
        let verdicts = tokio::select! {
            biased;
            () = stop.cancelled() => HashMap::new(),
            verdicts = join_all(hooks) => verdicts.into_iter().collect(),
        };
        let message = wardian_protocol::Message {
            id: String::new(),
            kind: "message".to_owned(),
            role: Role::Assistant,
            model: String::new(),
            content,
            stop_reason,
            stop_sequence: None,
            usage: no_usage(),
            extra: wardian_protocol::JsonMap::new(),
        };
        Ahead {
            whole: Box::new(Whole { message, verdicts, shown: HashMap::new(), request_id: None }),
            past,
            is_known: true,
        }
    }

    async fn take_in(&mut self, turn: &mut Turn, whole: &Whole, is_known: bool) -> Step {
        let reply = &whole.message;
        let tool_calls =
            reply.content.iter().filter(|block| matches!(block, ContentBlock::ToolUse { .. })).count();
        turn.stop_reason.clone_from(&reply.stop_reason);
        (turn.result, turn.shown) = (text_of(&reply.content), whole.shown_text());
        turn.tools.extend(tools_of(&reply.content));
        turn.last_usage = reply.usage.clone();
        let facts = ReplyFacts { stop_reason: reply.stop_reason.as_deref(), tool_calls, spent: self.spent() };
        let step = turn.progress.after_reply(self.setup.limits, &facts);
        // source: the reference, section 2.7: what the reply over the budget used is in `modelUsage` alone.
        if !is_known && step != Step::End(End::Budget) {
            add_usage(&mut turn.spending.usage, &reply.usage);
        }
        // What was refused would be refused again if it stayed in the conversation; an empty message the API refuses.
        let refused = matches!(step, Step::End(End::Refused) | Step::Retell);
        let keep = !refused && !reply.content.is_empty();
        if keep {
            self.remember(&reply.content);
        }
        if !is_known {
            self.note_fill(&reply.usage);
            self.setup.keep_reply_end(keep, reply.stop_reason.as_deref()).await;
        }
        step
    }

    fn remember(&mut self, content: &[ContentBlock]) {
        self.waiting_prompt = None;
        let content = content.iter().map(presentable).collect();
        self.history.push(MessageParam::new(Role::Assistant, content));
    }

    async fn run_tools(
        &mut self,
        turn: &mut Turn,
        whole: Box<Whole>,
        past: Past,
        stop: &CancellationToken,
    ) -> Option<End> {
        self.show();
        let executed = run_tools(&self.setup, &whole.message, whole.verdicts, past, stop);
        let executed = self.answering(Box::pin(executed)).await;
        turn.progress.user_messages += executed.messages;
        let output = self.structured(turn, &executed);
        turn.denials.extend(executed.denials);
        self.hear(executed.results);
        self.keep_tool_state().await;
        self.be_told(executed.context).await;
        self.hear_of_plan_mode().await;
        match executed.ended {
            ToolsEnd::Done if output.is_some() => output,
            ToolsEnd::Done => {
                let owner = self.setup.out.agent.as_ref().map(|agent| agent.agent_id.as_str());
                let notices = self.setup.tasks.take_notices(owner);
                if !notices.is_empty() {
                    self.hear_notices(notices).await;
                }
                turn.progress.after_tools(self.setup.limits)
            }
            ToolsEnd::Interrupted => {
                self.note(turn, words::INTERRUPTED_TOOLS).await;
                Some(End::AbortedTools)
            }
            ToolsEnd::HookStopped => {
                turn.result.clear();
                Some(End::HookStopped)
            }
            ToolsEnd::Deferred => {
                turn.result.clear();
                turn.stop_reason = Some("tool_deferred".to_owned());
                turn.deferred = executed.deferred;
                Some(End::Deferred)
            }
        }
    }

    /// Says something to the model in the user's place.
    async fn say(&mut self, turn: &mut Turn, text: &str) {
        self.say_with(turn, text, true, wardian_protocol::JsonMap::new()).await;
    }

    /// Says to the model what the user did.
    async fn note(&mut self, turn: &mut Turn, text: &str) {
        self.say_with(turn, text, false, wardian_protocol::JsonMap::new()).await;
    }

    async fn say_with(
        &mut self,
        turn: &mut Turn,
        text: &str,
        synthetic: bool,
        more: wardian_protocol::JsonMap,
    ) {
        let block = ContentBlock::text(text);
        self.setup.out.user_with(vec![block.clone()], None, synthetic, more).await;
        turn.progress.user_messages += 1;
        self.hear(vec![block]);
    }

    /// Adds to what the user's side says.
    pub(crate) fn hear(&mut self, content: Vec<ContentBlock>) {
        match self.history.last_mut() {
            // Two user messages in a row would be one to the API; make them one, so that the next request agrees.
            Some(last) if last.role == Role::User => last.content.extend(content),
            Some(_) | None => self.history.push(MessageParam::new(Role::User, content)),
        }
    }

    async fn hear_prompt(&mut self, prompt: UserMessage, context: Vec<String>) {
        let mut content = prompt.message.content;
        without_breakpoints(&mut content);
        let uuid = prompt.uuid.unwrap_or_else(random::uuid);
        let mode = lock(&self.setup.live).policy.mode.as_str();
        let message = MessageParam::new(Role::User, content);
        self.take_checkpoint(&uuid).await;
        if std::mem::take(&mut self.is_new) {
            self.open_conversation().await;
        }
        // Where it cannot be kept the turn ends before anything is done.
        let _ = self.setup.out.keep_prompt(&uuid, &message, mode).await;
        let said = self.history.last().filter(|last| last.role == Role::User);
        self.waiting_prompt = Some((uuid.clone(), said.map_or(0, |last| last.content.len())));
        self.prompts.insert(uuid);
        self.hear(message.content);
        let begun = std::mem::take(&mut self.told);
        self.be_told(begun.into_iter().chain(context).collect()).await;
        self.hear_of_servers().await;
        self.hear_of_plan_mode().await;
    }

    /// Tells the model what it has not heard yet of the servers of tools.
    async fn hear_of_servers(&mut self) {
        let said = |note: &&String| {
            let says =
                |block: &ContentBlock| matches!(block, ContentBlock::Text { text, .. } if text == *note);
            !self.history.iter().any(|message| message.content.iter().any(says))
        };
        let skills = self.setup.skill_listing();
        let notes = self.setup.servers.notes().iter().chain(skills.as_ref());
        let news = notes.filter(said).map(ContentBlock::text).collect::<Vec<_>>();
        if !news.is_empty() {
            self.setup.out.keep_context(news.clone()).await;
            self.hear(news);
        }
    }

    /// Answers the calls that an earlier turn, or a restart, left open: they are not run. Gives how many there were.
    pub(crate) async fn settle(&mut self) -> u64 {
        let mut past = Past::default();
        if let Some(OpenReply { content, started, answered, stop_reason: _ }) = self.open.take() {
            self.history.push(MessageParam::new(Role::Assistant, content));
            past = Past { started, answered };
        }
        let last = self.history.last().filter(|last| last.role == Role::Assistant);
        let calls: Vec<String> =
            last.map(|last| calls(&last.content).map(str::to_owned).collect()).unwrap_or_default();
        let mut results = Vec::new();
        let mut given = 0;
        for id in calls {
            if let Some(result) = past.answered.remove(&id) {
                results.push(result);
                continue;
            }
            let text =
                if past.started.contains(&id) { words::INTERRUPTED_BY_RESTART } else { words::NOT_RUN };
            let result = ContentBlock::tool_result(id, text, true);
            let note = Value::String(format!("Error: {text}"));
            self.setup.out.user(vec![result.clone()], Some(note), false).await;
            results.push(result);
            given += 1;
        }
        if !results.is_empty() {
            self.hear(results);
        }
        given
    }
}

fn tools_of(content: &[ContentBlock]) -> impl Iterator<Item = String> {
    content.iter().filter_map(|block| match block {
        ContentBlock::ToolUse { name, .. } => Some(name.clone()),
        ContentBlock::Text { .. }
        | ContentBlock::Thinking { .. }
        | ContentBlock::ToolResult { .. }
        | ContentBlock::Other(_) => None,
    })
}

fn text_of(content: &[ContentBlock]) -> String {
    let text = |block: &ContentBlock| match block {
        ContentBlock::Text { text, .. } => Some(text.clone()),
        ContentBlock::Thinking { .. }
        | ContentBlock::ToolUse { .. }
        | ContentBlock::ToolResult { .. }
        | ContentBlock::Other(_) => None,
    };
    content.iter().filter_map(text).collect::<Vec<_>>().join("")
}
