//! Runs the hooks of a session.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::time::timeout;
use wardian_protocol::JsonMap;
use wardian_protocol::hook::{HookInput, HookOutput};

use super::{Hook, HookEvent, HookOutcome, Hooks, OnFailure};
use crate::authorise::{Live, lock};
use crate::frames::Out;
use crate::{random, words};

/// What the API does when nothing is said of effort.
const DEFAULT_EFFORT: &str = "high";

/// The hooks of a session, and what they are told of it. Clones are cheap, and the same hooks.
#[derive(Clone)]
pub(crate) struct SessionHooks {
    hooks: Arc<Hooks>,
    pub(super) out: Out,
    live: Arc<Mutex<Live>>,
    /// The prompt that is being answered.
    prompt_id: Arc<Mutex<Option<String>>>,
    /// How hard the model tries.
    effort: Arc<str>,
}

impl SessionHooks {
    pub(crate) fn new(hooks: Hooks, out: &Out, live: &Arc<Mutex<Live>>, effort: Option<&str>) -> Self {
        Self {
            hooks: Arc::new(hooks),
            out: out.clone(),
            live: Arc::clone(live),
            prompt_id: Arc::default(),
            effort: effort.unwrap_or(DEFAULT_EFFORT).into(),
        }
    }

    /// The same hooks, for an agent within this session that speaks through `out`.
    #[expect(dead_code, reason = "for subagents")]
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
        !self.hooks.of(event).is_empty()
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
        let hooks = self.hooks.of(event).iter().filter(|hook| hook.matches(subject));
        let mut answers: FuturesUnordered<_> = hooks.map(|hook| ask(event, hook, &input)).collect();
        // What comes last is what holds, where only one can.
        while let Some((hook, answer)) = answers.next().await {
            match answer {
                Ok(output) => {
                    if let Some(message) = &output.system_message {
                        self.say(event, call.map(|_| subject), message).await;
                    }
                    outcome.take_in(event, output);
                }
                Err(Silence::TimedOut) => outcome.timed_out = true,
                Err(Silence::Failed(failure)) => {
                    let blocks = hook.on_failure == OnFailure::Block && event.is_guarded();
                    if blocks {
                        outcome.refuse(event, format!("the hook failed: {failure}"));
                    }
                    self.out.hook_failed(&words::hook_failed(event, &failure, blocks)).await;
                }
            }
        }
        outcome
    }

    async fn say(&self, event: HookEvent, tool: Option<&str>, message: &str) {
        let name = tool.map_or_else(|| event.to_string(), |tool| format!("{event}:{tool}"));
        let fields = json!({"content": words::hook_says(&name, message), "level": "notice"});
        self.out.system("informational", fields).await;
    }

    /// Where the transcript of this agent is, or would be.
    pub(super) fn transcript(&self) -> String {
        let journal = self.out.journal.as_ref();
        journal.map(|journal| journal.path().display().to_string()).unwrap_or_default()
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
            transcript_path: self.transcript(),
            cwd: self.out.cwd.display().to_string(),
            prompt_id: self.prompt_id.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            permission_mode: Some(lock(&self.live).policy.mode.as_str().to_owned()),
            agent_id: agent.map(|agent| agent.agent_id.clone()),
            agent_type: agent.map(|agent| agent.agent_type.clone()),
            fields,
            call: call.map(str::to_owned),
        }
    }
}

/// Why a hook said nothing.
enum Silence {
    TimedOut,
    Failed(String),
}

async fn ask<'a>(
    event: HookEvent,
    hook: &'a Hook,
    input: &HookInput,
) -> (&'a Hook, Result<HookOutput, Silence>) {
    let answer = match timeout(hook.timeout, (hook.callback)(input.clone())).await {
        Ok(answer) => answer.map_err(|failure| Silence::Failed(failure.0)),
        Err(_) => Err(Silence::TimedOut),
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
