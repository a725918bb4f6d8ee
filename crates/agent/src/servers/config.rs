//! A server's configuration, as `--mcp-config`, `.mcp.json` and hosts write it.
//!
//! source: the types of the TypeScript SDK, `McpServerConfigForProcessTransport`.

use std::time::Duration;

use serde_json::{Map, Value};
use wardian_agent::{McpConfigError, McpServer, McpSource, McpTransport};

/// Shorter timeouts of calls are not taken. source: the types of the TypeScript SDK.
const MIN_CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// The most arguments, variables or headers of one server.
const MAX_PARTS: usize = 256;
/// The longest of them, in bytes.
const MAX_PART_BYTES: usize = 128 * 1024;

/// Reads the configuration of a server that is not the host's own. `variables` is what `${NAME}` stands for.
pub fn read(
    name: &str,
    config: &Value,
    source: McpSource,
    variables: &[(String, String)],
) -> Result<McpServer, McpConfigError> {
    let invalid = |what: String| McpConfigError {
        name: name.to_owned(),
        kind: "invalid_config",
        message: format!("the configuration of the server {name:?} is skipped: {what}"),
    };
    let Some(fields) = config.as_object() else { return Err(invalid("it is no object".to_owned())) };
    let read = Fields { fields, variables };
    let transport = match fields.get("type").map_or(Some("stdio"), Value::as_str) {
        Some("stdio") => McpTransport::Stdio {
            command: read.text("command").map_err(invalid)?,
            args: read.list("args").map_err(invalid)?,
            env: read.pairs("env").map_err(invalid)?,
        },
        Some("http" | "streamable-http") => McpTransport::Http {
            url: read.text("url").map_err(invalid)?,
            headers: read.pairs("headers").map_err(invalid)?,
        },
        Some("sse") => McpTransport::Sse {
            url: read.text("url").map_err(invalid)?,
            headers: read.pairs("headers").map_err(invalid)?,
        },
        kind => {
            let kind: String = kind.unwrap_or("(no text)").chars().take(40).collect();
            return Err(McpConfigError {
                name: name.to_owned(),
                kind: "unknown_type",
                message: format!("the server {name:?} is skipped: its type {kind:?} is not known"),
            });
        }
    };
    let mut server = McpServer { source, ..McpServer::new(name, transport) };
    more(&mut server, config);
    Ok(server)
}

/// What may be said of a server of any kind.
pub fn more(server: &mut McpServer, config: &Value) {
    let own = config["timeout"].as_u64().map(Duration::from_millis);
    server.call_timeout = own.filter(|timeout| *timeout >= MIN_CALL_TIMEOUT);
    server.always_load = config["alwaysLoad"] == true;
    for tool in config["tools"].as_array().into_iter().flatten() {
        let Some(name) = tool["name"].as_str() else { continue };
        match tool["permission_policy"].as_str() {
            // A grant is the user's to give, by a rule.
            Some("always_allow") | None => (),
            Some("always_deny") => server.deny.push(name.to_owned()),
            // What is not known asks: a host must not get less than it wanted.
            Some(_) => server.ask.push(name.to_owned()),
        }
    }
}

struct Fields<'a> {
    fields: &'a Map<String, Value>,
    variables: &'a [(String, String)],
}

impl Fields<'_> {
    fn text(&self, name: &str) -> Result<String, String> {
        match self.fields.get(name) {
            Some(Value::String(text)) if !text.is_empty() => self.expanded(name, text),
            _ => Err(format!("'{name}' must be a text")),
        }
    }

    fn list(&self, name: &str) -> Result<Vec<String>, String> {
        let broken = || format!("'{name}' must be a list of texts");
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(items)) if items.len() <= MAX_PARTS => {
                items.iter().map(|item| self.expanded(name, item.as_str().ok_or_else(broken)?)).collect()
            }
            Some(_) => Err(broken()),
        }
    }

    fn pairs(&self, name: &str) -> Result<Vec<(String, String)>, String> {
        let broken = || format!("'{name}' must be an object of texts");
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Object(fields)) if fields.len() <= MAX_PARTS => fields
                .iter()
                .map(|(key, value)| {
                    let usable = !key.is_empty() && !key.contains(['=', '\0']);
                    let text = value.as_str().filter(|_| usable).ok_or_else(broken)?;
                    Ok((key.clone(), self.expanded(name, text)?))
                })
                .collect(),
            Some(_) => Err(broken()),
        }
    }

    /// Puts the values of variables in: `${NAME}` and `${NAME:-otherwise}`.
    fn expanded(&self, name: &str, text: &str) -> Result<String, String> {
        let mut whole = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((inside, behind)) = after.split_once('}') else { break };
            whole.push_str(before);
            let (variable, otherwise) = match inside.split_once(":-") {
                Some((variable, otherwise)) => (variable, Some(otherwise)),
                None => (inside, None),
            };
            let found = self.variables.iter().find(|(known, _)| known == variable);
            let value = found.map(|(_, value)| value.as_str()).or(otherwise);
            whole.push_str(
                value.ok_or_else(|| format!("'{name}' needs the variable {variable}, which is not set"))?,
            );
            rest = behind;
        }
        whole.push_str(rest);
        if whole.len() > MAX_PART_BYTES || whole.contains('\0') {
            return Err(format!("'{name}' is too long, or holds what cannot be passed on"));
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: Value) -> Result<McpServer, String> {
        let variables = [("HOME".to_owned(), "/home/u".to_owned())];
        super::read("x", &config, McpSource::Dynamic, &variables).map_err(|error| error.message)
    }

    #[test]
    fn servers_of_all_kinds_are_read() {
        let server = read(
            json!({"command": "${HOME}/bin/s", "args": ["${NO:-a b}", "$HOME", "${"], "env": {"A": "1"}}),
        );
        let McpTransport::Stdio { command, args, env } = server.unwrap().transport else { panic!() };
        assert_eq!(command, "/home/u/bin/s");
        assert_eq!(args, ["a b", "$HOME", "${"]);
        assert_eq!(env, [("A".to_owned(), "1".to_owned())]);
        let server = read(json!({"type": "http", "url": "http://h", "headers": {"A": "b"}, "timeout": 2000,
            "alwaysLoad": true, "tools": [{"name": "a", "permission_policy": "always_deny"},
                {"name": "b", "permission_policy": "odd"}, {"permission_policy": "always_deny"}, 7]}))
        .unwrap();
        assert!(matches!(server.transport, McpTransport::Http { .. }) && server.always_load);
        assert_eq!(server.call_timeout, Some(Duration::from_secs(2)));
        assert_eq!((server.deny, server.ask), (vec!["a".to_owned()], vec!["b".to_owned()]));
        let server = read(json!({"type": "sse", "url": "http://h", "timeout": 10})).unwrap();
        assert!(matches!(server.transport, McpTransport::Sse { .. }) && server.call_timeout.is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (config, expected) in [
            (json!(7), "no object"),
            (json!({}), "'command'"),
            (json!({"command": ""}), "'command'"),
            (json!({"command": 7}), "'command'"),
            (json!({"command": "a", "args": "b"}), "'args'"),
            (json!({"command": "a", "args": [7]}), "'args'"),
            (json!({"command": "a", "args": vec!["x"; 1000]}), "'args'"),
            (json!({"command": "a", "args": ["a\u{0}b"]}), "cannot be passed on"),
            (json!({"command": "a", "args": ["x".repeat(1 << 20)]}), "too long"),
            (json!({"command": "a", "env": {"A": 7}}), "'env'"),
            (json!({"command": "a", "env": {"A=B": "c"}}), "'env'"),
            (json!({"command": "${SECRET}"}), "the variable SECRET"),
            (json!({"type": "http"}), "'url'"),
            (json!({"type": "weird"}), "\"weird\""),
            (json!({"type": 7}), "not known"),
        ] {
            let message = read(config.clone()).unwrap_err();
            assert!(message.contains(expected), "{config}: {message}");
        }
    }
}
