//! Hooks on the beginning and the end of a turn.

use std::path::Path;

use serde_json::{Value, json};

use super::{HookEvent, HookOutcome, SessionHooks};
use crate::{SetupTrigger, random, words};

/// How often in a row hooks may keep a turn from ending. source: the official CLI, observed.
pub(crate) const STOP_CAP: u32 = 8;

/// What hooks said of a prompt.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) refusal: Option<Refusal>,
    /// Told to the model with the prompt.
    pub(crate) context: Vec<String>,
}

/// Why a prompt is not answered.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) text: String,
    /// Whether the prompt stays in the conversation.
    pub(crate) kept: bool,
    kind: &'static str,
    reason: Option<String>,
}

/// What is to come of a turn whose model is done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// It ends.
    End,
    /// It ends, a hook says.
    Prevented,
    /// It goes on: this is said in the user's place.
    Blocked(String),
    /// It goes on: this is told besides.
    Told(Vec<String>),
}

impl SessionHooks {
    /// Runs the hooks on the session's beginning. Gives what they have for the model.
    pub(crate) async fn session_started(&self, source: &str, model: Option<&str>) -> Vec<String> {
        let event = HookEvent::SessionStart;
        let mut fields = json!({"source": source});
        if let Some(model) = model {
            fields["model"] = model.into();
        }
        let outcome = self.run(event, source, fields).await;
        outcome.context.iter().map(|text| words::hook_context(event.as_str(), text)).collect()
    }

    /// Runs the hooks on the set-up of a session. Gives what they have for the model.
    pub(crate) async fn set_up(&self, trigger: SetupTrigger) -> Vec<String> {
        let event = HookEvent::Setup;
        let outcome = self.run(event, trigger.as_str(), json!({"trigger": trigger.as_str()})).await;
        outcome.context.iter().map(|text| words::hook_context(event.as_str(), text)).collect()
    }

    /// Runs the hooks on a settings file that has changed. Gives why the change is not to hold.
    pub(crate) async fn config_changed(&self, source: &str, path: &Path) -> Option<String> {
        let fields = json!({"source": source, "file_path": path});
        let said = self.run(HookEvent::ConfigChange, source, fields).await;
        said.block.or(said.stop)
    }

    /// Runs the hooks on the session's end.
    pub(crate) async fn session_ended(&self, reason: &str) {
        self.run(HookEvent::SessionEnd, reason, json!({"reason": reason})).await;
    }

    /// Runs the hooks on a prompt.
    pub(crate) async fn submitted(&self, prompt: &str) -> Heard {
        let event = HookEvent::UserPromptSubmit;
        if !self.listens(event) {
            return Heard::default();
        }
        let outcome = self.run(event, "", json!({"prompt": prompt})).await;
        if let Some(title) = outcome.last(|said| said.session_title.clone()) {
            self.out.system("session_title_changed", json!({"title": title})).await;
        }
        let refusal = refusal(prompt, &outcome);
        let context = outcome.context.iter().map(|text| words::hook_context(event.as_str(), text)).collect();
        Heard { refusal, context }
    }

    /// Says why a prompt is not answered.
    pub(crate) async fn refuse_prompt(&self, refusal: &Refusal) {
        let mut fate = json!({"kind": refusal.kind, "prompt_kept": refusal.kept});
        if let Some(reason) = &refusal.reason {
            fate["reason"] = reason.as_str().into();
        }
        let fields = json!({
            "content": refusal.text,
            "level": "warning",
            "prevent_continuation": true,
            "prompt_submit_outcome": fate,
        });
        self.out.system("informational", fields).await;
    }

    /// Runs the hooks on the end of a turn. `blocks`: how often they kept it from ending so far.
    pub(crate) async fn stopping(&self, last_text: &str, blocks: u32, background: Vec<Value>) -> Stopping {
        let agent = self.out.agent.as_deref();
        let event = if agent.is_some() { HookEvent::SubagentStop } else { HookEvent::Stop };
        if !self.listens(event) {
            return Stopping::End;
        }
        let mut fields = json!({
            "stop_hook_active": blocks > 0,
            "last_assistant_message": last_text,
            "background_tasks": background,
            "session_crons": [],
        });
        if agent.is_some() {
            fields["agent_transcript_path"] = self.transcript().into();
        }
        let subject = agent.map_or("", |agent| &agent.agent_type);
        let outcome = self.run(event, subject, fields).await;
        if outcome.timed_out {
            let fields = json!({"content": words::late_stop_hook(event), "level": "notice"});
            self.out.system("informational", fields).await;
        }
        match outcome {
            HookOutcome { stop: Some(_), .. } => Stopping::Prevented,
            HookOutcome { block: Some(reason), .. } => {
                Stopping::Blocked(format!("{event} hook feedback:\n{reason}"))
            }
            HookOutcome { context, .. } if !context.is_empty() => {
                let told = context.iter().map(|text| words::hook_context(event.as_str(), text));
                Stopping::Told(told.collect())
            }
            HookOutcome { .. } => Stopping::End,
        }
    }

    /// Tells the host's screen that a hook keeps the turn from ending.
    pub(crate) async fn stop_blocked(&self) {
        let fields = json!({"key": "stop-hook-error", "text": words::STOP_BLOCKED, "priority": "immediate"});
        self.out.system("notification", fields).await;
    }

    /// Says that hooks kept the turn from ending too often.
    pub(crate) async fn stop_cap_reached(&self, blocks: u32) {
        let text = words::stop_cap(blocks);
        self.out.system("informational", json!({"content": text, "level": "warning"})).await;
        let fields =
            json!({"key": "stop-hook-block-cap", "text": text, "priority": "high", "color": "warning"});
        self.out.system("notification", fields).await;
    }

    /// Lets hooks see a text of a reply before it is shown. Gives what is shown in its place, nothing at all maybe; `None`:
    /// the text itself. What subagents say is not shown to them. source: the official CLI, observed: a text is one piece.
    pub(crate) async fn displayed(&self, turn_id: &str, text: &str) -> Option<String> {
        let event = HookEvent::MessageDisplay;
        if self.out.agent.is_some() || text.is_empty() || !self.listens(event) {
            return None;
        }
        let message_id = random::uuid();
        let call = format!("{message_id}-0");
        let fields = json!({
            "turn_id": turn_id, "message_id": message_id, "index": 0, "final": true, "delta": text,
        });
        let outcome = self.run_for_call(event, "", &call, fields).await;
        outcome.last(|said| said.display_content.clone())
    }

    /// Tells hooks that the turn ends with a failure.
    pub(crate) async fn stop_failed(&self, error: &str, text: &str) {
        let fields = json!({"error": error, "last_assistant_message": text});
        self.run(HookEvent::StopFailure, error, fields).await;
    }
}

fn refusal(prompt: &str, outcome: &HookOutcome) -> Option<Refusal> {
    if let Some(reason) = &outcome.block {
        let suppress = outcome.last(|said| said.suppress_original_prompt).unwrap_or(false);
        return Some(Refusal {
            text: words::prompt_blocked(reason, (!suppress && !outcome.failed).then_some(prompt)),
            kept: false,
            kind: if outcome.failed { "no_verdict" } else { "blocked_by_hook" },
            reason: Some(reason.clone()),
        });
    }
    if outcome.timed_out {
        let text = words::prompt_blocked(words::LATE_PROMPT_HOOK, None);
        return Some(Refusal { text, kept: false, kind: "no_verdict", reason: None });
    }
    let reason = outcome.stop.as_ref()?;
    Some(Refusal {
        text: words::prompt_stopped(reason),
        kept: true,
        kind: "stopped_by_hook",
        reason: Some(reason.clone()),
    })
}
