//! What the tests share.

use std::path::Path;

use futures_util::StreamExt;
use serde_json::Value;
use wardian_agent::{ApiConfig, ApiKey, Endpoint, Message, Options, Query, ResultMessage};
use wardian_model::{Script, Server, ServerOptions};

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
