//! The tool servers that the host runs in its own process: named by `--mcp-config` or by `initialize`, reached over the
//! control channel.
//!
//! source: the agent protocol reference, section 2.5.

use std::time::Duration;

use serde_json::{Value, json};
use wardian_agent::mcp::CONNECT_TIMEOUT;
use wardian_agent::{McpManifest, McpServer, McpTransport, Options};

use crate::args::Complaint;
use crate::host::Host;

/// The most servers of one host.
const MAX_SERVERS: usize = 64;
/// The fields of `initialize` that are read here.
pub const FIELDS: &[&str] =
    &["sdkMcpServers", "sdkMcpServerConfigs", "sdkMcpServerManifests", "sdkMcpServerManifestsOrigin"];
/// Shorter timeouts of calls are not taken. source: the types of the TypeScript SDK.
const MIN_CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Servers as they were named, with what was said of each.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    list: Vec<Named>,
    /// `MCP_TIMEOUT`.
    pub connect_timeout: Option<Duration>,
    /// `MCP_TOOL_TIMEOUT`.
    pub call_timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Named {
    name: String,
    config: Value,
    manifest: Option<McpManifest>,
}

impl Servers {
    /// Reads `--mcp-config`. Servers that are not the host's own are refused.
    pub fn add_config(&mut self, text: &str) -> Result<(), Complaint> {
        let config: Value = serde_json::from_str(text).map_err(|_| {
            "option '--mcp-config' is not supported by wardian-agent yet but as JSON".to_owned()
        })?;
        let servers = match (&config, config.get("mcpServers")) {
            (Value::Object(_), Some(Value::Object(servers))) => servers.clone(),
            (Value::Object(fields), None) if fields.is_empty() => return Ok(()),
            _ => return Err("option '--mcp-config' must be an object with 'mcpServers'".to_owned()),
        };
        for (name, config) in servers {
            let kind = config["type"].as_str().unwrap_or("stdio");
            if kind != "sdk" {
                let kind: String = kind.chars().take(40).collect();
                return Err(format!(
                    "option '--mcp-config': the server {name:?} is of the type '{kind}', which is not supported by \
                     wardian-agent yet; 'sdk' is"
                ));
            }
            self.add(name, config, None)?;
        }
        Ok(())
    }

    /// Takes the servers of `initialize` in; the answer to it says what became of their manifests.
    pub fn add_initialize(&mut self, fields: &wardian_protocol::JsonMap) -> Result<Value, Complaint> {
        let field = |name: &str| fields.get(name).unwrap_or(&Value::Null);
        let names = match field("sdkMcpServers") {
            Value::Null => return Ok(Value::Null),
            Value::Array(names) => names.clone(),
            _ => return Err("the initialize field 'sdkMcpServers' must be a list".to_owned()),
        };
        let manifests = field("sdkMcpServerManifests");
        let mut parked = serde_json::Map::new();
        for name in names {
            let Value::String(name) = name else {
                return Err("the initialize field 'sdkMcpServers' must be a list of names".to_owned());
            };
            let manifest = match &manifests[&name] {
                Value::Null => None,
                entry => {
                    let (manifest, became) = manifest(entry);
                    parked.insert(name.clone(), became.into());
                    manifest
                }
            };
            let config = field("sdkMcpServerConfigs")[&name].clone();
            self.add(name, config, manifest)?;
        }
        Ok(if parked.is_empty() { Value::Null } else { Value::Object(parked) })
    }

    fn add(&mut self, name: String, config: Value, manifest: Option<McpManifest>) -> Result<(), Complaint> {
        self.list.retain(|known| known.name != name);
        if self.list.len() >= MAX_SERVERS {
            return Err(format!("more than {MAX_SERVERS} tool servers were named"));
        }
        self.list.push(Named { name, config, manifest });
        Ok(())
    }

    /// Puts them into the options of a query.
    pub fn install(&self, host: &Host, options: &mut Options) {
        for server in &self.list {
            let own = server.config["timeout"].as_u64().map(Duration::from_millis);
            let transport =
                McpTransport::Host { host: host.mcp_host(&server.name), manifest: server.manifest.clone() };
            options.mcp_servers.push(McpServer {
                connect_timeout: self.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
                call_timeout: own.filter(|timeout| *timeout >= MIN_CALL_TIMEOUT).or(self.call_timeout),
                ..McpServer::new(&server.name, transport)
            });
            for (tool, policy) in policies(&server.config) {
                let rule = wardian_agent::mcp::tool_name(&server.name, tool);
                match policy {
                    // A grant is the user's to give, by a rule.
                    Some("always_allow") | None => (),
                    Some("always_deny") => options.disallowed_tools.push(rule),
                    // What is not known asks: a host must not get less than it wanted.
                    Some(_) => options.ask_tools.push(rule),
                }
            }
        }
    }
}

fn policies(config: &Value) -> impl Iterator<Item = (&str, Option<&str>)> {
    let tools = config["tools"].as_array().into_iter().flatten();
    tools.filter_map(|tool| Some((tool["name"].as_str()?, tool["permission_policy"].as_str())))
}

fn manifest(entry: &Value) -> (Option<McpManifest>, &'static str) {
    let initialize = &entry["initializeResult"];
    if !initialize.is_object() {
        return (None, "malformed");
    }
    if initialize["protocolVersion"] != json!(wardian_agent::mcp::PROTOCOL) {
        return (None, "protocol_version_mismatch");
    }
    let tools = entry.get("toolsListResult").filter(|tools| tools.is_object()).cloned();
    (Some(McpManifest { initialize: initialize.clone(), tools }), "parked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosts_own_servers_are_taken() {
        let mut servers = Servers::default();
        for text in ["{}", r#"{"mcpServers":{}}"#, r#"{"mcpServers":{"lab":{"type":"sdk","name":"lab"}}}"#] {
            servers.add_config(text).unwrap();
        }
        assert_eq!(servers.list.len(), 1);
        for (text, expected) in [
            (r#"{"mcpServers":{"x":{}}}"#, "'stdio'"),
            (r#"{"mcpServers":{"x":{"type":"http","url":"u"}}}"#, "'http'"),
            (r#"{"mcpServers":{"x":{"type":"sse","url":"u"}}}"#, "'sse'"),
            (r#"{"mcpServers":7}"#, "must be an object"),
            (r#"{"other":{}}"#, "must be an object"),
            ("file.json", "not supported"),
        ] {
            let complaint = servers.add_config(text).unwrap_err();
            assert!(complaint.contains(expected), "{text}: {complaint}");
        }
        let many: serde_json::Map<_, _> =
            (0..=MAX_SERVERS).map(|n| (n.to_string(), json!({"type": "sdk"}))).collect();
        assert!(servers.add_config(&json!({"mcpServers": many}).to_string()).is_err());
    }

    #[test]
    fn manifests_are_taken_if_they_are_whole() {
        let about = |version: &str| json!({"protocolVersion": version, "capabilities": {"tools": {}}});
        let fields = json!({
            "sdkMcpServers": ["a", "b", "c", "d"],
            "sdkMcpServerManifests": {
                "a": {"initializeResult": about("2025-11-25"), "toolsListResult": {"tools": []}},
                "b": {"initializeResult": about("1999-01-01")},
                "c": 7,
                "x": {},
            },
        });
        let mut servers = Servers::default();
        let parked = servers.add_initialize(fields.as_object().unwrap()).unwrap();
        assert_eq!(parked, json!({"a": "parked", "b": "protocol_version_mismatch", "c": "malformed"}));
        assert!(servers.list[0].manifest.is_some() && servers.list[1].manifest.is_none());
        for fields in [json!({"sdkMcpServers": "a"}), json!({"sdkMcpServers": [1]})] {
            assert!(servers.add_initialize(fields.as_object().unwrap()).is_err(), "{fields}");
        }
    }
}
