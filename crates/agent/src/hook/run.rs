//! Runs the hooks of a session.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::timeout;
use wardian_protocol::hook::{HookInput, HookOutput};

use super::{Hook, HookEvent, HookOutcome, Hooks, OnFailure};
use crate::authorise::{Live, lock};
use crate::frames::Out;

/// The hooks of a session, and what they are told of it. Clones are cheap, and the same hooks.
#[derive(Clone)]
pub(crate) struct SessionHooks {
    hooks: Arc<Hooks>,
    out: Out,
    live: Arc<Mutex<Live>>,
    /// The prompt that is being answered.
    prompt_id: Arc<Mutex<Option<String>>>,
    /// In a subagent: its id.
    agent_id: Option<String>,
    /// What kind of agent this is, where it is one by name.
    agent_type: Option<String>,
}

impl SessionHooks {
    pub(crate) fn new(hooks: Hooks, out: &Out, live: &Arc<Mutex<Live>>) -> Self {
        Self {
            hooks: Arc::new(hooks),
            out: out.clone(),
            live: Arc::clone(live),
            prompt_id: Arc::default(),
            agent_id: None,
            agent_type: None,
        }
    }

    /// The same hooks, for an agent within this session. `agent_id` is none on the main thread.
    #[expect(dead_code, reason = "for subagents")]
    pub(crate) fn within(
        &self,
        agent_id: Option<String>,
        agent_type: String,
        out: &Out,
        live: &Arc<Mutex<Live>>,
    ) -> Self {
        Self {
            out: out.clone(),
            live: Arc::clone(live),
            agent_id,
            agent_type: Some(agent_type),
            ..self.clone()
        }
    }

    /// Notes which prompt is being answered.
    pub(crate) fn begin_prompt(&self, id: &str) {
        *self.prompt_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.to_owned());
    }

    /// Whether any hook is on this event: where none is, its input need not be made.
    pub(crate) fn listens(&self, event: HookEvent) -> bool {
        !self.hooks.of(event).is_empty()
    }

    /// Runs the hooks on an event whose matcher takes `subject` (the tool's name, the agent's type, the trigger; where
    /// the event has none, empty), side by side. `fields`: the event's own, an object.
    pub(crate) async fn run(&self, event: HookEvent, subject: &str, fields: Value) -> HookOutcome {
        let mut outcome = HookOutcome::default();
        if !self.listens(event) {
            return outcome;
        }
        let input = self.input(event, fields);
        let hooks = self.hooks.of(event).iter().filter(|hook| hook.matches(subject));
        let answers = join_all(hooks.map(|hook| self.ask(event, hook, &input))).await;
        for (hook, answer) in answers {
            match answer {
                Ok(output) => outcome.take_in(event, output),
                Err(failure) => {
                    if hook.on_failure == OnFailure::Block {
                        outcome.refuse(event, format!("the hook failed: {failure}"));
                    }
                    self.out.hook_failed(&format!("a hook on {event} failed: {failure}")).await;
                }
            }
        }
        outcome
    }

    async fn ask<'a>(
        &self,
        event: HookEvent,
        hook: &'a Hook,
        input: &HookInput,
    ) -> (&'a Hook, Result<HookOutput, String>) {
        let answer = match timeout(hook.timeout, (hook.callback)(input.clone())).await {
            Ok(answer) => answer.map_err(|failure| failure.0),
            Err(_) => Err(format!("no answer within {} s", hook.timeout.as_secs_f64())),
        };
        let answer = answer.and_then(|output| match &output.hook_specific_output {
            Some(specific) if specific.hook_event_name != event.as_str() => {
                Err(format!("it answers another event: {:?}", specific.hook_event_name))
            }
            Some(_) | None => Ok(output),
        });
        (hook, answer)
    }

    fn input(&self, event: HookEvent, fields: Value) -> HookInput {
        let transcript = self.out.journal.as_ref().map(|journal| journal.path().display().to_string());
        HookInput {
            hook_event_name: event.as_str().to_owned(),
            session_id: self.out.session_id.clone(),
            transcript_path: transcript.unwrap_or_default(),
            cwd: self.out.cwd.display().to_string(),
            prompt_id: self.prompt_id.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            permission_mode: Some(lock(&self.live).policy.mode.as_str().to_owned()),
            agent_id: self.agent_id.clone(),
            agent_type: self.agent_type.clone(),
            fields: match fields {
                Value::Object(fields) => fields,
                _ => wardian_protocol::JsonMap::new(),
            },
        }
    }
}
