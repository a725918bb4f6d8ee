//! Runs the hooks of a session.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wardian_protocol::JsonMap;
use wardian_protocol::hook::{HookInput, HookOutput};

use super::command::{CommandHook, Ended, Meaning, Written};
use super::{Hook, HookEvent, HookOutcome, Hooks, OnFailure, Work};
use crate::authorise::{Live, lock};
use crate::frames::Out;
use crate::spending::millis;
use crate::{random, words};

/// What the API does when nothing is said of effort.
const DEFAULT_EFFORT: &str = "high";
/// Programs that nobody waits for, at once; beyond, a further one is not started.
const MAX_BACKGROUND: usize = 32;
/// Between two reports of what a program writes. source: the official CLI, observed.
const PROGRESS: Duration = Duration::from_secs(1);
/// The most of each output that the host is told, in bytes: three times that fits into a line.
const MAX_TOLD_BYTES: usize = 64 * 1024;

/// The hooks of a session, and what they are told of it. Clones are cheap, and the same hooks.
#[derive(Clone)]
pub(crate) struct SessionHooks {
    hooks: Arc<Mutex<Arc<Hooks>>>,
    pub(super) out: Out,
    live: Arc<Mutex<Live>>,
    /// The prompt that is being answered.
    prompt_id: Arc<Mutex<Option<String>>>,
    /// How hard the model tries.
    effort: Arc<str>,
    /// The environment of programs, whole.
    env: Arc<Vec<(String, String)>>,
    /// Whether what programs do is told.
    told: bool,
    background: TaskTracker,
    ended: CancellationToken,
    /// The main thread's transcript, which subagents' hooks are told too.
    session_transcript: Arc<str>,
}

/// What hooks are told of beside the session itself.
pub(crate) struct Surroundings<'a> {
    pub(crate) effort: Option<&'a str>,
    /// The environment of programs, whole.
    pub(crate) env: Arc<Vec<(String, String)>>,
    /// Whether what programs do is told to the host.
    pub(crate) told: bool,
}

impl SessionHooks {
    pub(crate) fn new(
        hooks: Hooks,
        out: &Out,
        live: &Arc<Mutex<Live>>,
        surroundings: Surroundings<'_>,
    ) -> Self {
        let Surroundings { effort, env, told } = surroundings;
        Self {
            hooks: Arc::new(Mutex::new(Arc::new(hooks))),
            out: out.clone(),
            live: Arc::clone(live),
            prompt_id: Arc::default(),
            effort: effort.unwrap_or(DEFAULT_EFFORT).into(),
            env,
            told,
            background: TaskTracker::new(),
            ended: CancellationToken::new(),
            session_transcript: transcript(out).into(),
        }
    }

    /// No hooks at all.
    pub(crate) fn none(out: &Out, live: &Arc<Mutex<Live>>) -> Self {
        let surroundings = Surroundings { effort: None, env: Arc::default(), told: false };
        Self::new(Hooks::default(), out, live, surroundings)
    }

    /// The same hooks, for an agent within this session that speaks through `out`.
    pub(crate) fn within(&self, out: &Out, live: &Arc<Mutex<Live>>) -> Self {
        Self { out: out.clone(), live: Arc::clone(live), ..self.clone() }
    }

    /// The same hooks, told of another session.
    pub(crate) fn heard_by(&self, out: &Out) -> Self {
        Self { out: out.clone(), ..self.clone() }
    }

    /// Notes which prompt is being answered.
    pub(crate) fn begin_prompt(&self, id: Option<&str>) {
        let id = id.map_or_else(random::uuid, str::to_owned);
        *self.prompt_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
    }

    /// Whether any hook is on this event: where none is, its input need not be made.
    pub(crate) fn listens(&self, event: HookEvent) -> bool {
        !self.current().of(event).is_empty()
    }

    /// These are the hooks from now on, here and for all agents within this session.
    pub(crate) fn replace(&self, hooks: Hooks) {
        *self.hooks.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(hooks);
    }

    fn current(&self) -> Arc<Hooks> {
        Arc::clone(&self.hooks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs the hooks on an event whose matcher takes `subject` (the agent's type, the trigger; where the event has
    /// none, empty), side by side. `fields`: the event's own, an object.
    pub(crate) async fn run(&self, event: HookEvent, subject: &str, fields: Value) -> HookOutcome {
        self.run_all(event, subject, None, fields).await
    }

    /// Runs the hooks on an event of a call.
    pub(super) async fn run_for_call(
        &self,
        event: HookEvent,
        tool: &str,
        id: &str,
        fields: Value,
    ) -> HookOutcome {
        self.run_all(event, tool, Some(id), fields).await
    }

    async fn run_all(
        &self,
        event: HookEvent,
        subject: &str,
        call: Option<&str>,
        fields: Value,
    ) -> HookOutcome {
        let mut outcome = HookOutcome::default();
        if !self.listens(event) {
            return outcome;
        }
        let input = self.input(event, call, fields);
        let mut commands = Vec::new();
        // Where there is nothing to match, matchers mean nothing. source: the official CLI, observed.
        let is_for = |hook: &&Hook| subject.is_empty() || hook.matches(subject);
        let current = self.current();
        let hooks = current.of(event).iter().filter(is_for);
        let hooks = hooks.filter(|hook| hook.is_wanted(&input, &mut commands));
        let mut answers: FuturesUnordered<_> =
            hooks.map(|hook| self.ask(event, subject, hook, &input)).collect();
        let began = Instant::now();
        // What comes last is what holds, where only one can.
        while let Some((hook, answer)) = answers.next().await {
            let (answered, took_ms) = (Silence::word(&answer), millis(began.elapsed()));
            tracing::debug!(%event, answered, took_ms, "hook");
            self.hear(event, subject, hook, &input, answer, &mut outcome).await;
        }
        outcome
    }

    async fn hear(
        &self,
        event: HookEvent,
        subject: &str,
        hook: &Hook,
        input: &HookInput,
        answer: Result<HookOutput, Silence>,
        outcome: &mut HookOutcome,
    ) {
        let blocks = hook.on_failure == OnFailure::Block && event.is_guarded();
        match answer {
            Ok(output) => {
                if let Some(message) = &output.system_message
                    && event != HookEvent::MessageDisplay
                {
                    self.say(event, subject, message).await;
                }
                outcome.take_in(event, output);
            }
            Err(Silence::TimedOut) => outcome.timed_out = true,
            Err(Silence::Blocks(reason)) => outcome.object(event, reason),
            Err(Silence::NoVerdict { reason, timed_out }) => {
                if blocks {
                    outcome.refuse(event, format!("the hook failed: {reason}"));
                }
                let mut verdict = json!({"hook_event": event.as_str(), "timed_out": timed_out});
                if let Some(call) = &input.call {
                    verdict["tool_use_id"] = call.as_str().into();
                }
                let fields = json!({
                    "content": words::hook_failed(event, &reason, blocks), "level": "warning",
                    "tag": "hook_no_verdict", "hook_no_verdict": verdict,
                });
                self.out.system("informational", fields).await;
            }
            Err(Silence::Failed(failure)) => {
                if blocks {
                    outcome.refuse(event, format!("the hook failed: {failure}"));
                }
                self.out.hook_failed(&words::hook_failed(event, &failure, blocks)).await;
            }
        }
    }

    async fn ask<'a>(
        &self,
        event: HookEvent,
        subject: &str,
        hook: &'a Hook,
        input: &HookInput,
    ) -> (&'a Hook, Result<HookOutput, Silence>) {
        let answer = match &hook.work {
            Work::Callback(callback) => match timeout(hook.timeout, callback(input.clone())).await {
                Ok(answer) => answer.map_err(|failure| Silence::Failed(failure.0)),
                Err(_) => Err(Silence::TimedOut),
            },
            Work::Command(command) => self.run_program(event, subject, hook.timeout, command, input).await,
        };
        let answer = answer.and_then(|output| match &output.hook_specific_output {
            Some(specific) if specific.hook_event_name != event.as_str() => {
                let text = format!("it answers another event: {:?}", specific.hook_event_name);
                Err(Silence::Failed(text))
            }
            Some(_) | None => Ok(output),
        });
        (hook, answer)
    }

    async fn run_program(
        &self,
        event: HookEvent,
        subject: &str,
        limit: Duration,
        command: &Arc<CommandHook>,
        input: &HookInput,
    ) -> Result<HookOutput, Silence> {
        let program = Program {
            hooks: self.clone(),
            command: Arc::clone(command),
            input: input.clone(),
            told: Told::new(event, subject),
            limit,
        };
        if command.in_background {
            if self.background.len() < MAX_BACKGROUND {
                let ended = self.ended.clone();
                self.background.spawn(async move {
                    program.run(&ended).await;
                });
            }
            return Ok(HookOutput::default());
        }
        let ended = program.run(&CancellationToken::new()).await;
        match ended.meaning(event) {
            Meaning::Said(output) => Ok(*output),
            Meaning::Blocks(reason) => Err(Silence::Blocks(reason)),
            Meaning::NoVerdict(reason) => Err(Silence::NoVerdict {
                reason: if ended.timed_out { "it took too long".to_owned() } else { reason },
                timed_out: ended.timed_out,
            }),
        }
    }

    /// The day, as `YYYY-MM-DD`.
    pub(crate) fn today(&self) -> String {
        self.out.timestamp().chars().take("YYYY-MM-DD".len()).collect()
    }

    /// Ends the programs that nobody waits for.
    pub(crate) async fn close(&self) {
        self.ended.cancel();
        self.background.close();
        self.background.wait().await;
    }

    async fn say(&self, event: HookEvent, subject: &str, message: &str) {
        let name = name_of(event, subject);
        let fields = json!({"content": words::hook_says(&name, message), "level": "notice"});
        self.out.system("informational", fields).await;
    }

    /// Where the transcript of this agent is, or would be.
    pub(super) fn transcript(&self) -> String {
        transcript(&self.out)
    }

    fn input(&self, event: HookEvent, call: Option<&str>, fields: Value) -> HookInput {
        let mut fields = match fields {
            Value::Object(fields) => fields,
            _ => JsonMap::new(),
        };
        if event.is_within_work() {
            fields.insert("effort".to_owned(), json!({"level": &*self.effort}));
        }
        let agent = self.out.agent.as_deref();
        HookInput {
            hook_event_name: event.as_str().to_owned(),
            session_id: self.out.session_id.clone(),
            transcript_path: self.session_transcript.to_string(),
            cwd: self.out.cwd.display().to_string(),
            prompt_id: self.prompt_id.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            permission_mode: event.tells_mode().then(|| lock(&self.live).policy.mode.as_str().to_owned()),
            agent_id: agent.map(|agent| agent.agent_id.clone()),
            agent_type: agent.map(|agent| agent.agent_type.clone()),
            fields,
            call: call.map(str::to_owned),
        }
    }
}

fn transcript(out: &Out) -> String {
    let journal = out.journal.as_ref();
    journal.map(|journal| journal.path().display().to_string()).unwrap_or_default()
}

/// Why a hook gave no answer.
enum Silence {
    TimedOut,
    Failed(String),
    /// A program objects.
    Blocks(String),
    /// A program did not do its work.
    NoVerdict {
        reason: String,
        timed_out: bool,
    },
}

impl Silence {
    /// What became of a hook, for the log.
    const fn word<T>(answer: &Result<T, Self>) -> &'static str {
        match answer {
            Ok(_) => "yes",
            Err(Self::TimedOut | Self::NoVerdict { timed_out: true, .. }) => "timed out",
            Err(Self::Failed(_) | Self::NoVerdict { .. }) => "failed",
            Err(Self::Blocks(_)) => "blocks",
        }
    }
}

/// A program under way.
struct Program {
    hooks: SessionHooks,
    command: Arc<CommandHook>,
    input: HookInput,
    told: Told,
    limit: Duration,
}

/// What the host is told of a program.
struct Told {
    id: String,
    name: String,
    event: HookEvent,
}

impl Told {
    fn new(event: HookEvent, subject: &str) -> Self {
        Self { id: random::uuid(), name: name_of(event, subject), event }
    }

    fn fields(&self) -> Value {
        json!({"hook_id": self.id, "hook_name": self.name, "hook_event": self.event.as_str()})
    }
}

impl Program {
    /// Runs it to its end, or until `cancel` fires.
    async fn run(self, cancel: &CancellationToken) -> Ended {
        // What happens before anybody could ask for it is always told.
        let told = self.hooks.told || matches!(self.told.event, HookEvent::SessionStart | HookEvent::Setup);
        if told {
            self.hooks.out.system("hook_started", self.told.fields()).await;
        }
        let (written, cwd) = (Written::default(), self.hooks.out.cwd.clone());
        let env = lock(&self.hooks.live).env.clone().unwrap_or_else(|| Arc::clone(&self.hooks.env));
        let running = self.command.run(&self.input, &env, &cwd, self.limit, &written);
        let mut running = std::pin::pin!(running);
        let mut shown = 0;
        let mut tick = tokio::time::interval_at(Instant::now() + PROGRESS, PROGRESS);
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut running => break Some(ended),
                () = cancel.cancelled() => break None,
                _ = tick.tick(), if told => {
                    let (stdout, stderr) = written.texts();
                    if stdout.len() + stderr.len() > shown {
                        shown = stdout.len() + stderr.len();
                        self.tell("hook_progress", &stdout, &stderr, json!({})).await;
                    }
                }
            }
        };
        let was_cancelled = ended.is_none();
        let ended = ended.unwrap_or_default();
        if told {
            let outcome = match ended.code {
                _ if was_cancelled || ended.timed_out => "cancelled",
                Some(0) => "success",
                Some(_) | None => "error",
            };
            let more = json!({"exit_code": ended.code.unwrap_or(1), "outcome": outcome});
            self.tell("hook_response", &ended.stdout, &ended.stderr, more).await;
        }
        ended
    }

    async fn tell(&self, subtype: &str, stdout: &str, stderr: &str, more: Value) {
        let mut fields = self.told.fields();
        let shown = |text: &str| text[..text.floor_char_boundary(MAX_TOLD_BYTES)].to_owned();
        let (stdout, stderr) = (shown(stdout), shown(stderr));
        fields["output"] = format!("{stdout}{stderr}").into();
        fields["stdout"] = stdout.into();
        fields["stderr"] = stderr.into();
        if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
            fields.extend(more);
        }
        self.hooks.out.system(subtype, fields).await;
    }
}

fn name_of(event: HookEvent, subject: &str) -> String {
    if subject.is_empty() { event.to_string() } else { format!("{event}:{subject}") }
}

impl Hook {
    /// Whether it is for this input; a program that is in a list twice runs once.
    fn is_wanted(&self, input: &HookInput, known: &mut Vec<Arc<CommandHook>>) -> bool {
        let Work::Command(command) = &self.work else { return true };
        if known.iter().any(|known| **known == **command) || !command.is_for(input) {
            return false;
        }
        known.push(Arc::clone(command));
        true
    }
}
