//! The tool servers that a session is given: by `--mcp-config`, by `initialize`, by the project's `.mcp.json`.
//!
//! source: the agent protocol reference, section 2.5.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use wardian_agent::mcp::CONNECT_TIMEOUT;
use wardian_agent::{McpConfigError, McpManifest, McpServer, McpSource, McpTransport, Options};

use crate::args::Complaint;
use crate::debug;
use crate::host::Host;

pub mod config;

/// The most servers of one session.
const MAX_SERVERS: usize = 64;
/// The largest file of servers, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The fields of `initialize` that are read here.
pub const FIELDS: &[&str] = &[
    "mcpServers",
    "sdkMcpServers",
    "sdkMcpServerConfigs",
    "sdkMcpServerManifests",
    "sdkMcpServerManifestsOrigin",
];

/// Servers as they were named, with what was said of each.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    list: Vec<Named>,
    /// `--strict-mcp-config`: only what flags and `initialize` name.
    pub strict: bool,
    /// What settings forbid.
    pub forbidden: Forbidden,
    /// `--await-initialize`: `initialize` may name servers too.
    pub await_initialize: bool,
    /// `MCP_TIMEOUT`.
    pub connect_timeout: Option<Duration>,
    /// `MCP_TOOL_TIMEOUT`.
    pub call_timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Named {
    name: String,
    config: Value,
    source: McpSource,
    manifest: Option<McpManifest>,
}

/// Servers that settings forbid. Each entry names a server, a command with its arguments, or an address with `*`.
#[derive(Clone, Debug, Default)]
pub struct Forbidden {
    pub denied: Vec<Value>,
    /// Only these, where there is a list.
    pub allowed: Option<Vec<Value>>,
}

impl Forbidden {
    /// Whether a server may not be used. The host's own are its own affair.
    fn forbids(&self, server: &McpServer) -> bool {
        self.denied.iter().any(|entry| is_meant(entry, server))
            || self
                .allowed
                .as_ref()
                .is_some_and(|allowed| !allowed.iter().any(|entry| is_meant(entry, server)))
    }
}

fn is_meant(entry: &Value, server: &McpServer) -> bool {
    if let Some(name) = entry["serverName"].as_str() {
        return name == server.name;
    }
    match &server.transport {
        McpTransport::Stdio { command, args, env: _ } => {
            let line: Vec<&str> = std::iter::once(command).chain(args).map(String::as_str).collect();
            entry["serverCommand"] == json!(line)
        }
        McpTransport::Http { url, headers: _ } | McpTransport::Sse { url, headers: _ } => {
            entry["serverUrl"].as_str().is_some_and(|pattern| fits(pattern, url))
        }
        McpTransport::Host { .. } => false,
    }
}

/// Whether an address fits a pattern, in which `*` stands for anything.
fn fits(pattern: &str, url: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = url.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for piece in pieces {
        let Some(found) = rest.find(piece) else { return false };
        rest = &rest[found + piece.len()..];
        last = Some(piece);
    }
    match last {
        None => rest.is_empty(),
        Some(last) => rest.is_empty() || last.is_empty() || url.ends_with(last),
    }
}

/// What came of the servers of `initialize`, for the answer to it.
#[derive(Debug, Default)]
pub struct Applied {
    /// What became of the manifests; null where there were none.
    pub parked: Value,
    /// Whether `mcpServers` were taken; none where there were none.
    pub applied: Option<bool>,
}

impl Servers {
    /// Reads `--mcp-config`: JSON, or a file of it.
    pub fn add_config(&mut self, value: &str) -> Result<(), Complaint> {
        let text =
            if value.trim_start().starts_with('{') { value.to_owned() } else { read_file(Path::new(value))? };
        let servers = servers_of(&text).map_err(|error| format!("Invalid MCP configuration: {error}"))?;
        for (name, config) in servers {
            self.add(name, config, McpSource::Dynamic, None)?;
        }
        Ok(())
    }

    /// Takes the servers of `initialize` in. `is_new`: the session has not begun yet.
    pub fn add_initialize(
        &mut self,
        fields: &wardian_protocol::JsonMap,
        is_new: bool,
    ) -> Result<Applied, Complaint> {
        let field = |name: &str| fields.get(name).unwrap_or(&Value::Null);
        let mut came = Applied::default();
        match field("mcpServers") {
            Value::Null => (),
            Value::Object(servers) => {
                // source: the types of the TypeScript SDK: read at launch, and then only where a flag said so.
                came.applied = Some(self.await_initialize && (is_new || self.has_all(servers)));
                if came.applied == Some(true) && is_new {
                    for (name, config) in servers {
                        self.add(name.clone(), config.clone(), McpSource::Dynamic, None)?;
                    }
                }
            }
            _ => return Err("the initialize field 'mcpServers' must be an object".to_owned()),
        }
        let names = match field("sdkMcpServers") {
            Value::Null => return Ok(came),
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
            let mut config = field("sdkMcpServerConfigs")[&name].clone();
            if !config.is_object() {
                config = json!({});
            }
            config["type"] = "sdk".into();
            self.add(name, config, McpSource::Sdk, manifest)?;
        }
        if !parked.is_empty() {
            came.parked = Value::Object(parked);
        }
        Ok(came)
    }

    fn has_all(&self, servers: &serde_json::Map<String, Value>) -> bool {
        servers.iter().all(|(name, config)| {
            self.list.iter().any(|known| known.name == *name && known.config == *config)
        })
    }

    fn add(
        &mut self,
        name: String,
        config: Value,
        source: McpSource,
        manifest: Option<McpManifest>,
    ) -> Result<(), Complaint> {
        self.list.retain(|known| known.name != name);
        if self.list.len() >= MAX_SERVERS {
            return Err(format!("more than {MAX_SERVERS} tool servers were named"));
        }
        self.list.push(Named { name, config, source, manifest });
        Ok(())
    }

    /// Adds a server that a flag's of the same name goes before.
    pub fn add_unless_named(
        &mut self,
        name: String,
        config: Value,
        source: McpSource,
    ) -> Result<(), Complaint> {
        if self.list.iter().any(|known| known.name == name) {
            return Ok(());
        }
        self.add(name, config, source, None)
    }

    /// Puts them into the options of a query. Without a host there are no servers of its own.
    pub fn install(&self, host: Option<&Host>, options: &mut Options) {
        for named in &self.list {
            match self.server(named, host, &options.env) {
                Ok(server) => options.mcp_servers.push(server),
                Err(error) => options.mcp_config_errors.push(error),
            }
        }
    }

    /// Reads the servers that `mcp_set_servers` names.
    pub fn read_set(
        &self,
        servers: serde_json::Map<String, Value>,
        host: &Host,
        variables: &[(String, String)],
    ) -> (Vec<McpServer>, Vec<McpConfigError>) {
        let mut read = (Vec::new(), Vec::new());
        for (name, config) in servers {
            let named = Named { name, config, source: McpSource::Dynamic, manifest: None };
            match self.server(&named, Some(host), variables) {
                Ok(server) => read.0.push(server),
                Err(error) => read.1.push(error),
            }
        }
        read
    }

    fn server(
        &self,
        named: &Named,
        host: Option<&Host>,
        variables: &[(String, String)],
    ) -> Result<McpServer, McpConfigError> {
        let mut server = match (named.config["type"] == "sdk", host) {
            (true, Some(host)) => {
                let transport =
                    McpTransport::Host { host: host.mcp_host(&named.name), manifest: named.manifest.clone() };
                let mut server = McpServer::new(&named.name, transport);
                config::more(&mut server, &named.config);
                server
            }
            (true, None) => {
                let message =
                    format!("the server {:?} is skipped: there is no host that runs it", named.name);
                return Err(McpConfigError { name: named.name.clone(), kind: "invalid_config", message });
            }
            (false, _) => config::read(&named.name, &named.config, named.source, variables)?,
        };
        if !matches!(server.transport, McpTransport::Host { .. }) && self.forbidden.forbids(&server) {
            let message = format!("the server {:?} is skipped: settings forbid it", named.name);
            return Err(McpConfigError { name: named.name.clone(), kind: "blocked_by_policy", message });
        }
        server.connect_timeout = self.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        server.call_timeout = server.call_timeout.or(self.call_timeout);
        debug::hide(&server);
        Ok(server)
    }
}

/// Reads a project's file of servers; one that is not there names none.
pub fn project_file(path: &Path) -> Result<serde_json::Map<String, Value>, Complaint> {
    if !path.exists() {
        return Ok(serde_json::Map::new());
    }
    servers_of(&read_file(path)?).map_err(|error| format!("{}: {error}", path.display()))
}

fn servers_of(text: &str) -> Result<serde_json::Map<String, Value>, String> {
    let mut config: Value = serde_json::from_str(text).map_err(|_| "it is no JSON".to_owned())?;
    match config.get_mut("mcpServers").map(Value::take) {
        Some(Value::Object(servers)) => Ok(servers),
        None if config.as_object().is_some_and(serde_json::Map::is_empty) => Ok(serde_json::Map::new()),
        Some(_) | None => Err("it must be an object with 'mcpServers'".to_owned()),
    }
}

/// Reads a file of servers; who can write to it must not be able to stall or fill this process.
fn read_file(path: &Path) -> Result<String, Complaint> {
    let broken = |why: String| format!("Invalid MCP configuration: {}: {why}", path.display());
    let metadata = std::fs::metadata(path).map_err(|error| broken(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(broken(format!("it is no file of at most {MAX_FILE_BYTES} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| broken(error.to_string()))
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
    fn configurations_are_json_or_files_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("servers.json");
        std::fs::write(&file, r#"{"mcpServers":{"c":{"command":"c"}}}"#).unwrap();
        let mut servers = Servers::default();
        for text in ["{}", r#"{"mcpServers":{}}"#, r#"{"mcpServers":{"lab":{"type":"sdk","name":"lab"}}}"#] {
            servers.add_config(text).unwrap();
        }
        servers.add_config(file.to_str().unwrap()).unwrap();
        servers.add_config(r#"{"mcpServers":{"x":{"type":"http"},"y":{"type":"weird"}}}"#).unwrap();
        let mut options = Options::default();
        servers.install(None, &mut options);
        let names: Vec<&str> = options.mcp_servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["c"]);
        let errors: Vec<_> =
            options.mcp_config_errors.iter().map(|error| (&*error.name, error.kind)).collect();
        assert_eq!(errors, [("lab", "invalid_config"), ("x", "invalid_config"), ("y", "unknown_type")]);
        for text in
            [r#"{"mcpServers":7}"#, r#"{"other":{}}"#, "{nope", "[]", "/nowhere.json", "/dev/zero", "/"]
        {
            let complaint = servers.add_config(text).unwrap_err();
            assert!(complaint.starts_with("Invalid MCP configuration"), "{text}: {complaint}");
        }
        let many: serde_json::Map<_, _> =
            (0..=MAX_SERVERS).map(|n| (n.to_string(), json!({"type": "sdk"}))).collect();
        assert!(servers.add_config(&json!({"mcpServers": many}).to_string()).is_err());
    }

    #[test]
    fn settings_forbid_servers_by_name_command_and_address() {
        let text = r#"{"mcpServers":{"a":{"command":"a","args":["b"]},"c":{"command":"c"},
            "x":{"type":"http","url":"https://x.example/mcp"},"y":{"type":"sse","url":"https://y.example/"}}}"#;
        for (denied, allowed, left) in [
            (json!([]), None, &["a", "c", "x", "y"][..]),
            (json!([{"serverName": "a"}, {"serverUrl": "https://x.example/*"}, 7, {}]), None, &["c", "y"]),
            (json!([{"serverCommand": ["a", "b"]}, {"serverCommand": ["c", "d"]}]), None, &["c", "x", "y"]),
            (json!([]), Some(json!([{"serverUrl": "https://*.example/*"}])), &["x", "y"]),
            (json!([{"serverName": "y"}]), Some(json!([{"serverName": "y"}, {"serverName": "c"}])), &["c"]),
            (json!([]), Some(json!([])), &[]),
        ] {
            let list = |value: Value| value.as_array().unwrap().clone();
            let forbidden = Forbidden { denied: list(denied.clone()), allowed: allowed.map(list) };
            let mut servers = Servers { forbidden, ..Servers::default() };
            servers.add_config(text).unwrap();
            let mut options = Options::default();
            servers.install(None, &mut options);
            let names: Vec<&str> = options.mcp_servers.iter().map(|server| server.name.as_str()).collect();
            assert_eq!(names, left, "{denied}");
        }
        for (pattern, url, expected) in [
            ("http://h/a", "http://h/a", true),
            ("http://h/a", "http://h/ab", false),
            ("http://h/*", "http://h/", true),
            ("*/a", "http://h/a/a", true),
            ("*/a", "http://h/a/b", false),
            ("http://*.h/*", "http://x.h/y", true),
            ("http://*.h/*", "http://h/y", false),
        ] {
            assert_eq!(fits(pattern, url), expected, "{pattern} {url}");
        }
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
        let came = servers.add_initialize(fields.as_object().unwrap(), true).unwrap();
        assert_eq!(came.parked, json!({"a": "parked", "b": "protocol_version_mismatch", "c": "malformed"}));
        assert!(servers.list[0].manifest.is_some() && servers.list[1].manifest.is_none());
        for fields in [json!({"sdkMcpServers": "a"}), json!({"sdkMcpServers": [1]}), json!({"mcpServers": 1})]
        {
            assert!(servers.add_initialize(fields.as_object().unwrap(), true).is_err(), "{fields}");
        }
    }

    #[test]
    fn servers_of_initialize_are_taken_at_launch_where_a_flag_said_so() {
        let fields = json!({"mcpServers": {"a": {"command": "a"}}});
        let fields = fields.as_object().unwrap();
        let mut servers = Servers::default();
        assert_eq!(servers.add_initialize(fields, true).unwrap().applied, Some(false));
        assert!(servers.list.is_empty());
        servers.await_initialize = true;
        assert_eq!(servers.add_initialize(fields, true).unwrap().applied, Some(true));
        assert_eq!(servers.list.len(), 1);
        assert_eq!(servers.add_initialize(fields, false).unwrap().applied, Some(true), "the same set");
        let others = json!({"mcpServers": {"b": {"command": "b"}}});
        assert_eq!(servers.add_initialize(others.as_object().unwrap(), false).unwrap().applied, Some(false));
        assert_eq!(servers.list.len(), 1);
    }
}
