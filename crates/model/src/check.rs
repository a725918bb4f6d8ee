//! Checks a request as the Messages API does. Unknown fields pass, as new betas bring them every week.

use std::collections::BTreeSet;

use serde_json::Value;
use wardian_protocol::message::json_type;

/// The most blocks that may carry `cache_control`.
const MAX_CACHE_BREAKPOINTS: usize = 4;
/// The longest tool name, in characters.
const MAX_TOOL_NAME: usize = 128;
/// The smallest thinking budget.
const MIN_THINKING_TOKENS: u64 = 1024;

/// Checks the body of `POST /v1/messages`; the error is the message of an `invalid_request_error`.
pub(crate) fn messages(body: &Value) -> Result<(), String> {
    count_tokens(body)?;
    let max_tokens = field(body, "max_tokens")?;
    let max_tokens = max_tokens
        .as_u64()
        .filter(|tokens| *tokens > 0)
        .ok_or_else(|| "max_tokens: Input should be a whole number greater than 0".to_owned())?;
    if let Some(stream) = present(body, "stream")
        && !stream.is_boolean()
    {
        return Err(format!("stream: Input should be true or false, found {}", json_type(stream)));
    }
    check_thinking(body, max_tokens)
}

/// Checks the body of `POST /v1/messages/count_tokens`, which needs no `max_tokens`.
pub(crate) fn count_tokens(body: &Value) -> Result<(), String> {
    if !body.is_object() {
        return Err(format!("the request body should be a JSON object, found {}", json_type(body)));
    }
    let model = field(body, "model")?;
    if model.as_str().is_none_or(str::is_empty) {
        return Err("model: Input should be a non-empty string".to_owned());
    }
    let messages = field(body, "messages")?;
    let messages = messages
        .as_array()
        .ok_or_else(|| format!("messages: Input should be a list, found {}", json_type(messages)))?;
    check_messages(messages)?;
    if let Some(system) = present(body, "system") {
        check_content(system, "system", "system")?;
    }
    if let Some(tools) = present(body, "tools") {
        check_tools(tools)?;
    }
    check_cache_breakpoints(body)
}

fn present<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|value| !value.is_null())
}

fn field<'a>(body: &'a Value, name: &str) -> Result<&'a Value, String> {
    present(body, name).ok_or_else(|| format!("{name}: Field required"))
}

fn check_messages(messages: &[Value]) -> Result<(), String> {
    let Some(first) = messages.first() else {
        return Err("messages: at least one message is required".to_owned());
    };
    if first["role"] == "assistant" {
        return Err("messages: first message must use the \"user\" role".to_owned());
    }
    let mut calls = Calls::default();
    for (index, message) in messages.iter().enumerate() {
        let at = format!("messages.{index}");
        if !message.is_object() {
            return Err(format!("{at}: Input should be an object, found {}", json_type(message)));
        }
        let role = match message["role"].as_str() {
            Some(role @ ("user" | "assistant" | "system")) => role,
            Some(other) => {
                let shown: String = other.chars().take(40).collect();
                return Err(format!(
                    "{at}.role: unexpected role {shown:?}; allowed are \"user\", \"assistant\" and \"system\""
                ));
            }
            None => return Err(format!("{at}.role: Field required")),
        };
        let content = field(message, "content").map_err(|problem| format!("{at}.{problem}"))?;
        let is_last = index + 1 == messages.len();
        // The official CLI sends empty system messages after it has compacted a conversation.
        if is_empty(content) && role != "system" && !(is_last && role == "assistant") {
            return Err(format!(
                "{at}: all messages must have non-empty content except for the optional final assistant message"
            ));
        }
        check_content(content, &format!("{at}.content"), role)?;
        calls.follow(index, role, content)?;
    }
    calls.end()
}

fn is_empty(content: &Value) -> bool {
    match content {
        Value::String(text) => text.is_empty(),
        Value::Array(blocks) => blocks.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

fn check_content(content: &Value, at: &str, role: &str) -> Result<(), String> {
    let blocks = match content {
        Value::String(_) => return Ok(()),
        Value::Array(blocks) => blocks,
        other => {
            return Err(format!(
                "{at}: Input should be a string or a list of blocks, found {}",
                json_type(other)
            ));
        }
    };
    for (index, block) in blocks.iter().enumerate() {
        let at = format!("{at}.{index}");
        let Some(kind) = block.get("type").and_then(Value::as_str) else {
            return Err(format!("{at}.type: Field required"));
        };
        let needs = |name: &str| match block.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Ok(()),
            _ => Err(format!("{at}.{kind}.{name}: Input should be a non-empty string")),
        };
        match (kind, role) {
            ("text", _) => {
                let text = block["text"].as_str().ok_or_else(|| format!("{at}.text.text: Field required"))?;
                if text.trim().is_empty() {
                    return Err(format!("{at}: text content blocks must contain non-whitespace text"));
                }
            }
            ("tool_use", "assistant") => {
                needs("id").and(needs("name"))?;
                if !block["input"].is_object() {
                    return Err(format!("{at}.tool_use.input: Input should be an object"));
                }
            }
            ("tool_result", "user") => {
                needs("tool_use_id")?;
                if let Some(content) = present(block, "content") {
                    check_content(content, &format!("{at}.tool_result.content"), "tool_result")?;
                }
            }
            ("thinking", "assistant") => {
                needs("signature")?;
                if !block["thinking"].is_string() {
                    return Err(format!("{at}.thinking.thinking: Field required"));
                }
            }
            ("tool_use" | "thinking" | "tool_result", _) => {
                return Err(format!("{at}: `{kind}` blocks cannot stand in a {role} message"));
            }
            // Images, documents, server tools, blocks of tomorrow.
            (_, _) => (),
        }
    }
    Ok(())
}

/// Follows the tool calls through a conversation: each is answered in the turn right after it, before anything else.
#[derive(Default)]
struct Calls {
    seen: BTreeSet<String>,
    /// The calls of the last assistant turn.
    asked: BTreeSet<String>,
    /// Those of them without a result yet.
    open: BTreeSet<String>,
    /// Something else than a result came in this user turn.
    results_over: bool,
    asked_at: usize,
}

impl Calls {
    fn follow(&mut self, index: usize, role: &str, content: &Value) -> Result<(), String> {
        let blocks = content.as_array().map(Vec::as_slice).unwrap_or_default();
        match role {
            "assistant" => self.ask(index, blocks),
            "user" => self.answer(index, content, blocks),
            // A system message between two turns changes nothing about them.
            _ => Ok(()),
        }
    }

    fn ask(&mut self, index: usize, blocks: &[Value]) -> Result<(), String> {
        self.end()?;
        self.asked.clear();
        self.results_over = false;
        self.asked_at = index;
        for block in blocks.iter().filter(|block| block["type"] == "tool_use") {
            let id = block["id"].as_str().unwrap_or_default().to_owned();
            if !self.seen.insert(id.clone()) {
                return Err(format!(
                    "messages.{index}.content: `tool_use` ids must be unique, found {id} twice"
                ));
            }
            self.asked.insert(id.clone());
            self.open.insert(id);
        }
        Ok(())
    }

    fn answer(&mut self, index: usize, content: &Value, blocks: &[Value]) -> Result<(), String> {
        self.results_over |= content.is_string();
        for (place, block) in blocks.iter().enumerate() {
            if block["type"] != "tool_result" {
                self.results_over = true;
                continue;
            }
            let id = block["tool_use_id"].as_str().unwrap_or_default();
            let at = format!("messages.{index}.content.{place}");
            if !self.asked.contains(id) {
                return Err(format!(
                    "{at}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                ));
            }
            if !self.open.remove(id) {
                return Err(format!("{at}: each `tool_use` must have a single result, found more for {id}"));
            }
            if self.results_over {
                return Err(format!(
                    "{at}: `tool_result` blocks must come before any other content of their turn"
                ));
            }
        }
        if blocks.iter().any(|block| block["type"] != "tool_result") || content.is_string() {
            return self.end();
        }
        Ok(())
    }

    /// Whether every call so far was answered.
    fn end(&self) -> Result<(), String> {
        if self.open.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = self.open.iter().map(String::as_str).collect();
        Err(format!(
            "messages.{}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
            self.asked_at,
            ids.join(", ")
        ))
    }
}

fn check_tools(tools: &Value) -> Result<(), String> {
    let tools = tools
        .as_array()
        .ok_or_else(|| format!("tools: Input should be a list, found {}", json_type(tools)))?;
    let mut names = BTreeSet::new();
    for (index, tool) in tools.iter().enumerate() {
        let at = format!("tools.{index}");
        let is_custom = tool.get("type").is_none_or(|kind| kind == "custom");
        let Some(name) = tool.get("name").and_then(Value::as_str) else {
            // Toolsets of MCP servers have no name of their own.
            if is_custom {
                return Err(format!("{at}.name: Field required"));
            }
            continue;
        };
        let is_name = |name: &str| {
            (1..=MAX_TOOL_NAME).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        if !is_name(name) {
            return Err(format!(
                "{at}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,{MAX_TOOL_NAME}}}$'"
            ));
        }
        if is_custom && tool["input_schema"]["type"] != "object" {
            return Err(format!("{at}.input_schema.type: Input should be 'object'"));
        }
        if !names.insert(name) {
            return Err(format!("tools: Tool names must be unique, found {name} twice"));
        }
    }
    Ok(())
}

fn check_cache_breakpoints(body: &Value) -> Result<(), String> {
    let blocks = |content: &Value| content.as_array().map_or(0, |blocks| marked(blocks));
    let in_results = |content: &Value| {
        let results = content.as_array().into_iter().flatten();
        results.map(|block| block["content"].as_array().map_or(0, |inner| marked(inner))).sum::<usize>()
    };
    let messages = body["messages"].as_array().into_iter().flatten();
    let in_messages: usize =
        messages.map(|message| blocks(&message["content"]) + in_results(&message["content"])).sum();
    let found = blocks(&body["system"]) + blocks(&body["tools"]) + in_messages;
    if found > MAX_CACHE_BREAKPOINTS {
        return Err(format!(
            "A maximum of {MAX_CACHE_BREAKPOINTS} blocks with cache_control may be provided. Found {found}."
        ));
    }
    Ok(())
}

fn marked(blocks: &[Value]) -> usize {
    blocks.iter().filter(|block| present(block, "cache_control").is_some()).count()
}

fn check_thinking(body: &Value, max_tokens: u64) -> Result<(), String> {
    let Some(budget) = body.get("thinking").and_then(|thinking| thinking.get("budget_tokens")) else {
        return Ok(());
    };
    match budget.as_u64() {
        Some(budget) if budget < MIN_THINKING_TOKENS => {
            Err(format!("thinking.enabled.budget_tokens: Input should be at least {MIN_THINKING_TOKENS}"))
        }
        Some(budget) if budget >= max_tokens => {
            Err("`max_tokens` must be greater than `thinking.budget_tokens`".to_owned())
        }
        Some(_) => Ok(()),
        None => Err("thinking.enabled.budget_tokens: Input should be a whole number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(messages: Value) -> Result<(), String> {
        super::messages(&json!({"model": "m", "max_tokens": 10, "messages": messages}))
    }

    fn call(id: &str) -> Value {
        json!({"type": "tool_use", "id": id, "name": "Bash", "input": {}})
    }

    fn result(id: &str) -> Value {
        json!({"type": "tool_result", "tool_use_id": id, "content": "ok"})
    }

    #[test]
    fn conversations_that_the_api_takes() {
        for messages in [
            json!([{"role": "user", "content": "hi"}]),
            json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]),
            json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "text", "text": "b"}]}, {"role": "user", "content": "c"}]),
            json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]),
            json!([{"role": "user", "content": "a"}, {"role": "system", "content": "s"}, {"role": "assistant", "content": [call("1"), call("2")]},
                {"role": "user", "content": [result("2"), result("1"), {"type": "text", "text": "go on"}]}, {"role": "system", "content": "s"}]),
            json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [call("1"), call("2")]},
                {"role": "user", "content": [result("1")]}, {"role": "user", "content": [result("2")]}]),
            json!([{"role": "user", "content": [{"type": "block_of_tomorrow", "x": 1}]}]),
        ] {
            assert_eq!(verdict(messages.clone()), Ok(()), "{messages}");
        }
    }

    #[test]
    fn conversations_that_the_api_refuses() {
        for (messages, part) in [
            (json!([]), "at least one message"),
            (json!("hi"), "messages: Input should be a list, found a string"),
            (json!([7]), "messages.0: Input should be an object"),
            (json!([{"role": "assistant", "content": "a"}]), "first message must use"),
            (json!([{"role": "tool", "content": "a"}]), "unexpected role \"tool\""),
            (json!([{"content": "a"}]), "messages.0.role: Field required"),
            (json!([{"role": "user"}]), "messages.0.content: Field required"),
            (json!([{"role": "user", "content": ""}]), "non-empty content"),
            (json!([{"role": "user", "content": 5}]), "string or a list of blocks, found a number"),
            (
                json!([{"role": "user", "content": [{"text": "a"}]}]),
                "messages.0.content.0.type: Field required",
            ),
            (json!([{"role": "user", "content": [{"type": "text", "text": " \n"}]}]), "non-whitespace text"),
            (
                json!([{"role": "user", "content": [call("1")]}]),
                "`tool_use` blocks cannot stand in a user message",
            ),
            (json!([{"role": "user", "content": [result("1")]}]), "unexpected `tool_use_id`"),
            (
                json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [call("1")]}]),
                "without `tool_result`",
            ),
            (
                json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [call("1")]}, {"role": "user", "content": "b"}]),
                "messages.1: `tool_use` ids",
            ),
            (
                json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [call("1")]}, {"role": "assistant", "content": "b"}]),
                "messages.1: `tool_use` ids",
            ),
            (
                json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [call("1"), call("1")]}]),
                "must be unique",
            ),
            (
                json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [call("1")]}, {"role": "user", "content": [result("1"), result("1")]}]),
                "a single result",
            ),
            (
                json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [call("1")]}, {"role": "user", "content": [result("2")]}]),
                "messages.2.content.0: unexpected",
            ),
            (
                json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [call("1")]}, {"role": "user", "content": [{"type": "text", "text": "b"}, result("1")]}]),
                "must come before any other",
            ),
            (
                json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "thinking", "thinking": "b"}]}]),
                "thinking.signature",
            ),
        ] {
            let problem = verdict(messages.clone()).expect_err(&messages.to_string());
            assert!(problem.contains(part), "{messages}: {problem}");
        }
    }

    #[test]
    fn fields_around_the_messages() {
        let body = |name: &str, value: Value| {
            let mut body =
                json!({"model": "m", "max_tokens": 2000, "messages": [{"role": "user", "content": "hi"}]});
            body[name] = value;
            super::messages(&body)
        };
        let tool = |name: &str| json!({"name": name, "input_schema": {"type": "object"}});
        let marked = json!({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}});
        assert_eq!(body("system", json!([marked, marked, marked, marked])), Ok(()));
        assert_eq!(
            body("tools", json!([tool("a"), {"type": "web_search_20250305", "name": "web_search"}])),
            Ok(())
        );
        assert_eq!(body("field_of_tomorrow", json!({"a": 1})), Ok(()));
        assert_eq!(body("thinking", json!({"type": "enabled", "budget_tokens": 1024})), Ok(()));
        for (name, value, part) in [
            ("model", Value::Null, "model: Field required"),
            ("model", json!(5), "model: Input should be"),
            ("max_tokens", Value::Null, "max_tokens: Field required"),
            ("max_tokens", json!(0), "max_tokens: Input"),
            ("max_tokens", json!(1.5), "max_tokens: Input"),
            ("stream", json!("yes"), "stream: Input should be true or false, found a string"),
            ("system", json!(4), "system: Input should be"),
            ("system", json!([marked, marked, marked, marked, marked]), "A maximum of 4 blocks"),
            ("tools", json!({}), "tools: Input should be a list"),
            ("tools", json!([tool("a b")]), "tools.0.name: String should match"),
            ("tools", json!([{"name": "a"}]), "input_schema.type"),
            ("tools", json!([tool("a"), tool("a")]), "must be unique"),
            ("thinking", json!({"type": "enabled", "budget_tokens": 5}), "at least 1024"),
            ("thinking", json!({"type": "enabled", "budget_tokens": 2000}), "must be greater"),
        ] {
            let problem = body(name, value.clone()).expect_err(&value.to_string());
            assert!(problem.contains(part), "{name} {value}: {problem}");
        }
    }
}
