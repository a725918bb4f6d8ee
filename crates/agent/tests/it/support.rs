//! What the tests share.

use std::path::Path;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wardian_agent::{
    ApiConfig, ApiKey, Endpoint, Message, Options, Query, ResultMessage, Tool, ToolContext, ToolOutput,
};
use wardian_model::{Script, Server, ServerOptions};
use wardian_protocol::ContentBlock;

/// A scripted model that is up.
pub async fn model(script: &Value) -> Server {
    let script = Script::parse(&script.to_string()).unwrap();
    Server::bind(script, "127.0.0.1:0".parse().unwrap(), ServerOptions::default()).await.unwrap()
}

/// Options that reach it, for work in `cwd`.
pub fn options(model: &Server, cwd: &Path) -> Options {
    Options {
        cwd: cwd.to_owned(),
        model: "claude-sonnet-5".to_owned(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        output_dir: Some(cwd.join(".outputs")),
        api: ApiConfig {
            endpoint: Endpoint::Url(model.base_url()),
            key: ApiKey::key("sk-test"),
            ..ApiConfig::default()
        },
        ..Options::default()
    }
}

/// All messages of a query.
pub async fn messages(query: Query) -> Vec<Message> {
    query.map(|message| message.unwrap()).collect().await
}

/// The last result among messages.
pub fn result(messages: &[Message]) -> &ResultMessage {
    let last = messages.iter().rev().find_map(|message| match message {
        Message::Result(result) => Some(&**result),
        _ => None,
    });
    last.expect("a query ends with a result")
}

/// Messages as JSON with what differs from run to run taken out, a line each.
pub fn redacted(messages: &[Message], cwd: &Path) -> String {
    let cwd = cwd.canonicalize().unwrap().display().to_string();
    let lines = messages.iter().map(|message| {
        let mut value = message.to_value();
        // It grows with what the agent can do; `wire` has its fields.
        if value["subtype"] == "init" {
            value = serde_json::json!({"type": "system", "subtype": "init"});
        }
        if let Some(fields) = value.as_object_mut() {
            fields.shift_remove("subagent_stats");
            fields.shift_remove("model_usage_since_last_result");
        }
        redact(&mut value, &cwd);
        value.to_string()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn redact(value: &mut Value, cwd: &str) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let changing = matches!(
                    name.as_str(),
                    "uuid"
                        | "session_id"
                        | "timestamp"
                        | "duration_ms"
                        | "duration_api_ms"
                        | "durationMs"
                        | "thinking_duration_ms"
                        | "ttft_ms"
                        | "ttft_stream_ms"
                        | "time_to_request_ms"
                        | "first_content_frame_ms"
                        | "request_sent_wall_ms"
                        | "begun_message_ids"
                        | "request_id"
                        | "retry_delay_ms"
                        | "wardian_version"
                        | "id"
                        | "api_message_id"
                );
                if changing && !value.as_str().is_some_and(|text| text.starts_with("toolu_")) {
                    *value = "…".into();
                } else {
                    redact(value, cwd);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, cwd)),
        Value::String(text) if text.contains(cwd) => *text = text.replace(cwd, "/cwd"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// A bare server that answers each request with the next of these, whole HTTP responses, and then closes the connection.
pub async fn canned(responses: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<Value>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "the test awaits it")]
    let served = tokio::spawn(async move {
        let mut bodies = Vec::new();
        for response in responses {
            let (mut stream, _) = listener.accept().await.unwrap();
            bodies.push(request_body(&mut stream).await.unwrap());
            // The client may leave before the end of a long answer.
            let _ = stream.write_all(response.as_bytes()).await;
        }
        bodies
    });
    (url, served)
}

/// A whole response.
pub fn response(status: &str, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The body of a request; `None` where the client left before its end.
pub async fn request_body(stream: &mut tokio::net::TcpStream) -> Option<Value> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0_usize) {
            return Some(serde_json::from_str(body).unwrap());
        }
    }
}

/// The kinds of messages, in order: `system/init`, `assistant`, `user`, `result/success`, …
pub fn kinds(messages: &[Message]) -> Vec<String> {
    let kind = |message: &Message| match message {
        Message::System(system) => format!("system/{}", system.subtype),
        Message::Assistant(_) => "assistant".to_owned(),
        Message::User(_) => "user".to_owned(),
        Message::Result(result) => format!("result/{}", result.subtype),
        Message::StreamEvent(event) => event.event["type"].as_str().unwrap_or_default().to_owned(),
        Message::Other(value) => value.to_string(),
    };
    messages.iter().map(kind).collect()
}

/// The texts of the tool results among messages, with whether they are errors.
pub fn tool_results(messages: &[Message]) -> Vec<(String, bool)> {
    let content = messages.iter().filter_map(|message| match message {
        Message::User(user) => Some(&user.message.content),
        _ => None,
    });
    let result = |block: &ContentBlock| match block {
        ContentBlock::ToolResult { content, is_error, .. } => {
            Some((content.as_str().unwrap_or_default().to_owned(), is_error.unwrap_or(false)))
        }
        _ => None,
    };
    content.flatten().filter_map(result).collect()
}

/// A tool call of a script.
pub fn call(id: &str, name: &str, input: Value) -> Value {
    serde_json::json!({"id": id, "name": name, "input": input})
}

/// A tool that tells when it began, and ends when it is stopped or told to.
pub struct Waiter {
    pub began: std::sync::Arc<tokio::sync::Semaphore>,
    pub go_on: std::sync::Arc<tokio::sync::Semaphore>,
    pub read_only: bool,
}

impl Waiter {
    pub fn new(read_only: bool) -> std::sync::Arc<Self> {
        let none = || std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        std::sync::Arc::new(Self { began: none(), go_on: none(), read_only })
    }

    /// Waits until so many calls have begun.
    pub async fn has_begun(&self, calls: u32) {
        self.began.acquire_many(calls).await.unwrap().forget();
    }
}

impl Tool for Waiter {
    fn name(&self) -> &str {
        "wait"
    }
    fn description(&self) -> &str {
        "Waits."
    }
    fn input_schema(&self) -> Value {
        serde_json::json!({"type": "object", "properties": {"n": {"type": "integer"}}})
    }
    fn is_read_only(&self) -> bool {
        self.read_only
    }
    fn call<'a>(&'a self, _: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            self.began.add_permits(1);
            tokio::select! {
                () = context.cancel.cancelled() => ToolOutput::error("stopped"),
                go_on = self.go_on.acquire() => {
                    go_on.unwrap().forget();
                    ToolOutput::ok("waited", serde_json::json!({}))
                }
            }
        })
    }
}
