//! Requests about tool servers.
//!
//! source: the agent protocol reference, section 1.2.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use wardian_agent::{Mcp, PermissionMode};

use super::Front;
use super::request::{Answer, Asked, Done};

/// What of resources may be read by hosts: what is made to be shown. source: the types of the TypeScript SDK.
const UI_SCHEME: &str = "ui://";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    server_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Toggle {
    server_name: String,
    enabled: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerMode {
    server_name: String,
    mode: Option<String>,
}

/// The longest name of a server, in characters: names of tools are shorter.
const MAX_SERVER_NAME_CHARS: usize = 128;

#[derive(Deserialize)]
struct Set {
    servers: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    server_name: String,
    uri: String,
}

#[derive(Deserialize)]
struct Call {
    tool: String,
    #[serde(default)]
    arguments: Map<String, Value>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Deserialize)]
struct Said {
    server_name: String,
    message: Value,
}

impl Front {
    /// The servers; they connect once the host has said how the session is set up.
    fn mcp(&mut self) -> Result<Mcp, String> {
        if self.query.is_none() && !self.initialized {
            return Err("there are no servers before initialize".to_owned());
        }
        Ok(self.handle().mcp())
    }

    pub(super) fn mcp_status(&mut self) -> Done {
        let statuses = self.mcp().map(|mcp| mcp.statuses()).unwrap_or_default();
        Ok(Answer::Now(json!({"mcpServers": statuses})))
    }

    pub(super) fn mcp_reconnect(&mut self, asked: Asked) -> Done {
        let Server { server_name } = asked.read()?;
        let mcp = self.mcp()?;
        Ok(Answer::Later(Box::pin(async move { mcp.reconnect(&server_name).await.map(|()| json!({})) })))
    }

    pub(super) fn mcp_toggle(&mut self, asked: Asked) -> Done {
        let Toggle { server_name, enabled } = asked.read()?;
        let mcp = self.mcp()?;
        Ok(Answer::Later(Box::pin(
            async move { mcp.toggle(&server_name, enabled).await.map(|()| json!({})) },
        )))
    }

    pub(super) fn mcp_set_servers(&mut self, asked: Asked) -> Done {
        let Set { servers } = asked.read()?;
        let (servers, invalid) = self.setup.servers.read_set(servers, &self.host, &self.setup.options.env);
        let mcp = self.mcp()?;
        Ok(Answer::Later(Box::pin(async move {
            let changes = mcp.set_servers(servers).await;
            let failed = changes.errors.into_iter();
            let skipped = invalid.into_iter().map(|error| (error.name, error.message));
            let errors: Map<String, Value> =
                failed.chain(skipped).map(|(name, error)| (name, error.into())).collect();
            Ok(json!({"added": changes.added, "removed": changes.removed, "errors": errors}))
        })))
    }

    pub(super) fn mcp_read_resource(&mut self, asked: Asked) -> Done {
        let Read { server_name, uri } = asked.read()?;
        if !uri.starts_with(UI_SCHEME) {
            return Err(format!("mcp_read_resource: the uri must begin with {UI_SCHEME}"));
        }
        let mcp = self.mcp()?;
        Ok(Answer::Later(Box::pin(async move {
            let mut result = mcp.read_resource(&server_name, &uri).await?;
            match result.get_mut("contents").map(Value::take) {
                Some(contents @ Value::Array(_)) => Ok(json!({"contents": contents})),
                _ => Err(format!("the answer of the server {server_name:?} is no resource")),
            }
        })))
    }

    pub(super) fn mcp_call(&mut self, asked: Asked) -> Done {
        let Call { tool, arguments, more } = asked.read()?;
        if let Some(field) =
            more.iter().find(|(_, value)| !crate::settings::nothing(value)).map(|(name, _)| name)
        {
            return Err(format!("mcp_call: the field '{field}' is not supported by wardian-agent"));
        }
        let mcp = self.mcp()?;
        Ok(Answer::Later(Box::pin(async move {
            let result = mcp.call(&tool, Value::Object(arguments)).await?;
            if result["isError"] == true {
                return Err(said(&result).unwrap_or_else(|| format!("the tool {tool:?} failed")));
            }
            let mut answer = json!({"content": result.get("content").cloned().unwrap_or_else(|| json!([]))});
            for field in ["structuredContent", "_meta"] {
                if let Some(value) = result.get(field).filter(|value| !value.is_null()) {
                    answer[field] = value.clone();
                }
            }
            Ok(answer)
        })))
    }

    /// A mode of its own for the tools of a server, where the session's would let them through.
    pub(super) async fn set_server_mode(&mut self, asked: Asked) -> Done {
        let ServerMode { server_name, mode } = asked.read()?;
        let mode = match mode.as_deref() {
            None => None,
            Some("default") => Some(PermissionMode::Default),
            Some("auto") => Some(PermissionMode::Auto),
            Some(_) => {
                return Err("the mode of a server can only be 'default', 'auto' or null".to_owned());
            }
        };
        let length = server_name.chars().count();
        if !(1..=MAX_SERVER_NAME_CHARS).contains(&length) {
            return Err("the field 'serverName' must be the name of a server".to_owned());
        }
        let mcp = self.mcp()?;
        let set = self.handle().set_server_mode(&*server_name, mode).await;
        if !set.map_err(|error| format!("failed to {error}"))? {
            return Err("too many servers have a mode of their own".to_owned());
        }
        let is_known = mcp.statuses().iter().any(|status| status["name"] == *server_name);
        Ok(Answer::Now(if is_known {
            json!({})
        } else {
            json!({"warning": format!("no server is called {server_name:?} yet; the mode holds once one is")})
        }))
    }

    /// What one of the host's own servers says by itself.
    pub(super) fn mcp_message(&mut self, asked: Asked) -> Done {
        let Said { server_name, message } = asked.read()?;
        self.mcp()?.deliver(&server_name, message)?;
        Ok(Answer::Now(json!({})))
    }
}

fn said(result: &Value) -> Option<String> {
    let texts = result["content"].as_array()?.iter().filter_map(|block| block["text"].as_str());
    Some(texts.collect::<Vec<_>>().join("\n")).filter(|text| !text.is_empty())
}
