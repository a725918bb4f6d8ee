//! Hooks around tool calls: their fields, and what becomes of what they say.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{HookEvent, HookOutcome, SessionHooks};
use crate::permission::{Permission, PermissionRequest, PermissionUpdate};
use crate::tool::ToolOutput;
use crate::words;

/// A call that was run.
pub(crate) struct Ran<'a> {
    pub(crate) tool: &'a str,
    pub(crate) id: &'a str,
    pub(crate) input: &'a Value,
    pub(crate) took: Duration,
    pub(crate) interrupted: bool,
    /// The server that ran it, where one did.
    pub(crate) server: Option<Value>,
}

/// What hooks add to a call that was run.
#[derive(Debug, Default)]
pub(crate) struct After {
    pub(crate) context: Vec<String>,
    /// The turn ends.
    pub(crate) stops: bool,
}

impl SessionHooks {
    /// Runs the hooks on a call that the model has written.
    pub(crate) async fn before_call(
        &self,
        tool: &str,
        id: &str,
        input: &Value,
        server: Option<Value>,
    ) -> HookOutcome {
        let fields = from(json!({"tool_name": tool, "tool_input": input, "tool_use_id": id}), server);
        let mut outcome = self.run_for_call(HookEvent::PreToolUse, tool, id, fields).await;
        for text in &mut outcome.context {
            *text = words::hook_context(&format!("PreToolUse:{tool}"), text);
        }
        outcome
    }

    /// Runs the hooks on a call that was run, and puts what they say in the place of its output.
    pub(crate) async fn after_call(&self, ran: Ran<'_>, output: &mut ToolOutput) -> After {
        let Ran { tool, id, input, took, interrupted, server } = ran;
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if output.is_error {
            if !self.listens(HookEvent::PostToolUseFailure) {
                return After::default();
            }
            let fields = json!({
                "tool_name": tool, "tool_input": input, "tool_use_id": id, "error": text_of(&output.content),
                "is_interrupt": interrupted, "duration_ms": duration_ms,
            });
            let outcome =
                self.run_for_call(HookEvent::PostToolUseFailure, tool, id, from(fields, server)).await;
            // Nothing is left to be stopped or refused.
            let context = after("PostToolUseFailure", tool, &HookOutcome { block: None, ..outcome });
            return After { context, stops: false };
        }
        if !self.listens(HookEvent::PostToolUse) {
            return After::default();
        }
        let fields = json!({
            "tool_name": tool, "tool_input": input, "tool_response": output.structured, "tool_use_id": id,
            "duration_ms": duration_ms,
        });
        let outcome = self.run_for_call(HookEvent::PostToolUse, tool, id, from(fields, server)).await;
        let is_mcp = tool.starts_with("mcp__");
        let updated = outcome.last(|said| {
            let of_server = said.updated_mcp_tool_output.clone().filter(|_| is_mcp);
            said.updated_tool_output.clone().or(of_server)
        });
        if let Some(updated) = updated {
            // What does not fit the tool is shown as it is: a hook that takes something out must not fail to.
            let content = rendered(tool, &updated).unwrap_or_else(|| plain(&updated));
            *output = ToolOutput { content, ..ToolOutput::ok("", updated) };
        }
        After { context: after("PostToolUse", tool, &outcome), stops: outcome.stop.is_some() }
    }

    /// Runs the hooks on all calls of a reply: name, input, id and what the model gets of each.
    pub(crate) async fn after_batch(&self, calls: Vec<(&str, &Value, &str, &Value)>) -> After {
        if calls.is_empty() || !self.listens(HookEvent::PostToolBatch) {
            return After::default();
        }
        let call = |(tool, input, id, content): (&str, &Value, &str, &Value)| json!({"tool_name": tool, "tool_input": input, "tool_use_id": id, "tool_response": content});
        let calls: Vec<Value> = calls.into_iter().map(call).collect();
        let outcome = self.run(HookEvent::PostToolBatch, "", json!({"tool_calls": calls})).await;
        let mut context: Vec<String> =
            outcome.context.iter().map(|text| words::hook_context("PostToolBatch", text)).collect();
        let stop = outcome.stop.or(outcome.block);
        context.extend(stop.iter().map(|reason| words::hook_stopped("PostToolBatch", reason)));
        After { context, stops: stop.is_some() }
    }

    /// Lets hooks answer a question in the host's place.
    pub(crate) async fn asked_for_permission(&self, question: &PermissionRequest) -> Option<Permission> {
        if !self.listens(HookEvent::PermissionRequest) {
            return None;
        }
        let mut fields = json!({"tool_name": question.tool_name, "tool_input": question.input});
        let suggestions: Vec<Value> = question.suggestions.iter().map(PermissionUpdate::to_value).collect();
        if !suggestions.is_empty() {
            fields["permission_suggestions"] = suggestions.into();
        }
        let (event, tool) = (HookEvent::PermissionRequest, &question.tool_name);
        let outcome = self.run_for_call(event, tool, &question.tool_use_id, fields).await;
        if let Some(reason) = outcome.block {
            return Some(Permission::deny(reason));
        }
        let answers = outcome.specific.into_iter().filter_map(|said| said.decision);
        // A refusal goes before a grant, whoever was first.
        answers.map(Permission::from).max_by_key(|answer| matches!(answer, Permission::Deny { .. }))
    }

    /// Tells hooks that a call was refused. Gives whether the model may try again.
    pub(crate) async fn permission_denied(&self, tool: &str, id: &str, input: &Value, reason: &str) -> bool {
        let fields = json!({"tool_name": tool, "tool_input": input, "tool_use_id": id, "reason": reason});
        let outcome = self.run_for_call(HookEvent::PermissionDenied, tool, id, fields).await;
        outcome.last(|said| said.retry).unwrap_or(false)
    }

    /// Tells hooks that a command went to another folder.
    pub(crate) async fn cwd_changed(&self, from: &Path, to: &Path) {
        let fields = json!({"old_cwd": from, "new_cwd": to});
        self.run(HookEvent::CwdChanged, "", fields).await;
    }

    /// Tells hooks what the host's user should know.
    pub(crate) async fn notify(&self, kind: &str, message: &str) {
        let fields = json!({"message": message, "notification_type": kind});
        self.run(HookEvent::Notification, kind, fields).await;
    }
}

/// Notes where a tool comes from.
fn from(mut fields: Value, server: Option<Value>) -> Value {
    if let Some(server) = server {
        fields["mcp_server"] = server;
    }
    fields
}

/// What hooks on a call tell the model.
fn after(event: &str, tool: &str, outcome: &HookOutcome) -> Vec<String> {
    let name = format!("{event}:{tool}");
    let mut context: Vec<String> =
        outcome.context.iter().map(|text| words::hook_context(&name, text)).collect();
    context.extend(outcome.block.iter().map(|reason| words::hook_objects(&name, reason)));
    context.extend(outcome.stop.iter().map(|reason| words::hook_stopped(&name, reason)));
    context
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    }
}

/// What the model sees of an output that a hook wrote; `None` where the tool has no such output.
fn rendered(tool: &str, output: &Value) -> Option<Value> {
    let text = |name: &str| output.get(name).and_then(Value::as_str);
    let joined = |name: &str| {
        let names = output.get(name)?.as_array()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
        Some(names.join("\n"))
    };
    match tool {
        "Bash" => {
            let parts = [text("stdout")?, text("stderr").unwrap_or_default()];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            Some(if parts.is_empty() { "[no output]".into() } else { parts.join("\n").into() })
        }
        "Read" => {
            let file = output.get("file").filter(|_| text("type") == Some("text"))?;
            let first = file.get("startLine").and_then(Value::as_u64).unwrap_or(1);
            let lines = file.get("content")?.as_str()?.split('\n').zip(first..);
            Some(
                lines.map(|(line, number)| format!("{number}\t{line}")).collect::<Vec<_>>().join("\n").into(),
            )
        }
        "Glob" => joined("filenames").map(Value::from),
        "Grep" => text("content").map(str::to_owned).or_else(|| joined("filenames")).map(Value::from),
        "Write" | "Edit" | "NotebookEdit" => output.is_object().then(|| output.to_string().into()),
        _ => Some(plain(output)),
    }
}

fn plain(output: &Value) -> Value {
    match output {
        Value::String(_) => output.clone(),
        Value::Array(blocks) if blocks.iter().all(|block| block.get("type").is_some()) => output.clone(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_shown_as_its_tool_shows_it_or_not_at_all() {
        let file = json!({"type": "text", "file": {"content": "a\nb", "startLine": 3}});
        for (tool, output, expected) in [
            ("Bash", json!({"stdout": "a", "stderr": "b"}), Some(json!("a\nb"))),
            ("Bash", json!({"stdout": ""}), Some(json!("[no output]"))),
            ("Bash", json!("a"), None),
            ("Bash", json!({"stdout": 5}), None),
            ("Read", file, Some(json!("3\ta\n4\tb"))),
            ("Read", json!({"type": "text"}), None),
            ("Glob", json!({"filenames": ["a", "b"]}), Some(json!("a\nb"))),
            ("Glob", json!({"filenames": [5]}), None),
            ("Grep", json!({"content": "x"}), Some(json!("x"))),
            ("mcp__a__b", json!("x"), Some(json!("x"))),
            (
                "mcp__a__b",
                json!([{"type": "text", "text": "x"}]),
                Some(json!([{"type": "text", "text": "x"}])),
            ),
            ("mcp__a__b", json!({"a": 1}), Some(json!("{\"a\":1}"))),
        ] {
            assert_eq!(rendered(tool, &output), expected, "{tool} {output}");
        }
    }
}
