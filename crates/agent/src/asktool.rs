//! A tool of an MCP server that is asked about permissions, in place of the host.
//!
//! source: the official CLI, observed: `--permission-prompt-tool mcp__server__tool`.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use wardian_agent::{CanUseTool, Mcp, Permission, PermissionChange, PermissionMode, can_use_tool};
use wardian_protocol::control::PermissionAnswer;

/// The largest answer, in bytes: it may hold a whole file, as an input for Write.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// What is told of a failure, in characters.
const MAX_FAILURE_CHARS: usize = 300;

/// The tool. Whatever it says that is no plain yes is a no.
#[derive(Clone)]
pub struct AskTool {
    name: Arc<str>,
    mcp: Arc<OnceLock<Mcp>>,
}

impl AskTool {
    pub fn new(name: String) -> Self {
        Self { name: name.into(), mcp: Arc::default() }
    }

    /// Whether a text names a server's tool.
    pub fn is_name(text: &str) -> bool {
        let parts = text.strip_prefix("mcp__").and_then(|rest| rest.split_once("__"));
        parts.is_some_and(|(server, tool)| !server.is_empty() && !tool.is_empty())
    }

    /// The servers where it is.
    pub fn reaches(&self, mcp: Mcp) {
        // It is told once for each query, and there is one.
        let _ = self.mcp.set(mcp);
    }

    pub fn can_use_tool(&self) -> CanUseTool {
        let tool = self.clone();
        can_use_tool(move |request| {
            let tool = tool.clone();
            async move {
                let arguments = json!({
                    "tool_name": request.tool_name,
                    "input": request.input,
                    "tool_use_id": request.tool_use_id,
                });
                let said = match tool.mcp.get() {
                    Some(mcp) => mcp.ask(&tool.name, arguments).await,
                    None => Err("there are no servers yet".to_owned()),
                };
                said.and_then(|result| read(&result)).unwrap_or_else(|problem| {
                    let problem: String = problem.chars().take(MAX_FAILURE_CHARS).collect();
                    Permission::deny(format!("{} gave no permission: {problem}", tool.name))
                })
            }
        })
    }
}

/// Reads what the tool said: one text, which is the JSON of an answer.
fn read(result: &Value) -> Result<Permission, String> {
    let texts =
        || result["content"].as_array().into_iter().flatten().filter_map(|block| block["text"].as_str());
    if result.get("isError").is_some_and(|is_error| *is_error != false) {
        return Err(format!("it failed: {}", texts().next().unwrap_or_default()));
    }
    let text = texts().next().ok_or("it said nothing")?;
    if text.len() > MAX_ANSWER_BYTES {
        return Err("it said too much".to_owned());
    }
    let answer: Value =
        serde_json::from_str(text).map_err(|error| format!("its answer is no JSON: {error}"))?;
    let is_input = |input: &Value| input.is_object() || input.is_null();
    if answer.get("updatedInput").is_some_and(|input| !is_input(input)) {
        return Err("its updatedInput is no object".to_owned());
    }
    let answer: PermissionAnswer =
        serde_json::from_value(answer).map_err(|error| format!("its answer cannot be read: {error}"))?;
    Ok(match Permission::from(answer) {
        Permission::Allow { updated_input, mut updates } => {
            updates.retain(|update| only_adds(&update.change));
            Permission::Allow { updated_input, updates }
        }
        Permission::Deny { message, interrupt } if message.is_empty() => {
            Permission::Deny { message: "It was refused without a reason.".to_owned(), interrupt }
        }
        answer => answer,
    })
}

/// Whether a change takes no rule away and frees from none: that is the host's alone.
const fn only_adds(change: &PermissionChange) -> bool {
    match change {
        PermissionChange::AddRules(..) | PermissionChange::AddDirectories(_) => true,
        PermissionChange::SetMode(mode) => !matches!(mode, PermissionMode::BypassPermissions),
        PermissionChange::ReplaceRules(..)
        | PermissionChange::RemoveRules(..)
        | PermissionChange::RemoveDirectories(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Permission, String> {
        read(&json!({"content": [{"type": "text", "text": text}]}))
    }

    #[test]
    fn a_plain_yes_and_a_plain_no_are_heard() {
        for (text, input) in [
            (r#"{"behavior": "allow"}"#, None),
            (r#"{"behavior": "allow", "updatedInput": null}"#, None),
            (
                r#"{"behavior": "allow", "updatedInput": {"command": "ls"}, "x": 1}"#,
                Some(json!({"command": "ls"})),
            ),
        ] {
            let heard = said(text).unwrap();
            assert!(
                matches!(heard, Permission::Allow { ref updated_input, .. } if *updated_input == input),
                "{text}"
            );
        }
        let heard = said(r#"{"behavior": "deny", "message": "no", "interrupt": true}"#).unwrap();
        assert!(matches!(heard, Permission::Deny { ref message, interrupt: true } if message == "no"));
        assert!(matches!(said(r#"{"behavior": "deny"}"#), Ok(Permission::Deny { .. })));
    }

    #[test]
    fn it_takes_no_rule_away() {
        let rules = json!([{"toolName": "Bash", "ruleContent": "rm:*"}]);
        let update =
            |kind: &str| json!({"type": kind, "rules": rules, "behavior": "deny", "destination": "session"});
        let mode = |mode: &str| json!({"type": "setMode", "mode": mode, "destination": "session"});
        let updates = json!([
            update("addRules"),
            update("removeRules"),
            update("replaceRules"),
            mode("bypassPermissions"),
            mode("acceptEdits")
        ]);
        let answer = json!({"behavior": "allow", "updatedPermissions": updates}).to_string();
        let Ok(Permission::Allow { updates, .. }) = said(&answer) else { panic!("{answer}") };
        let kept: Vec<Value> = updates.iter().map(wardian_agent::PermissionUpdate::to_value).collect();
        assert_eq!(kept, [update("addRules"), mode("acceptEdits")]);
    }

    #[test]
    fn anything_else_is_no_permission() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let large = format!(r#"{{"behavior": "allow", "x": "{}"}}"#, "x".repeat(MAX_ANSWER_BYTES));
        for text in [
            "",
            "yes",
            "true",
            "null",
            "{}",
            "[]",
            r#"{"behavior": "Allow"}"#,
            r#"{"behavior": ["allow"]}"#,
            r#"{"behavior": "allow"} {"behavior": "deny"}"#,
            r#"{"behavior": "allow", "behavior": "allowed"}"#,
            r#"{"behavior": "allow", "updatedInput": "rm -rf /"}"#,
            r#"{"behavior": "allow", "updatedInput": [1]}"#,
            r#"{"behavior": "deny", "message": 5}"#,
            r#"{"decision": "allow"}"#,
            r#"{"behavior": "allow""#,
            "\u{feff}{\"behavior\": \"allow\"}",
            &deep,
            &large,
        ] {
            assert!(said(text).is_err(), "{}", text.chars().take(60).collect::<String>());
        }
        let yes = json!({"type": "text", "text": r#"{"behavior": "allow"}"#});
        for result in [
            json!(null),
            json!({}),
            json!({"content": []}),
            json!({"content": r#"{"behavior": "allow"}"#}),
            json!({"content": [{"type": "image", "data": "x"}]}),
            json!({"content": [yes], "isError": true}),
            json!({"content": [yes], "isError": "no"}),
            json!({"structuredContent": {"behavior": "allow"}}),
        ] {
            assert!(read(&result).is_err(), "{result}");
        }
    }

    #[test]
    fn names_of_tools_are_told_from_other_words() {
        for (text, is_name) in [
            ("mcp__lab__approve", true),
            ("mcp__lab", false),
            ("mcp____x", false),
            ("stdio", false),
            ("lab__x", false),
        ] {
            assert_eq!(AskTool::is_name(text), is_name, "{text}");
        }
    }
}
