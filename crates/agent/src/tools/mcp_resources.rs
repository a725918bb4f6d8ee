//! ListMcpResourcesTool and ReadMcpResourceTool: what servers have to be read.
//!
//! source: the agent protocol reference, section 1.6.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::{BoxFuture, join_all};
use serde::Deserialize;
use serde_json::{Value, json};

use super::file;
use super::input::parse_input;
use crate::mcp::Mcp;
use crate::session::file_name;
use crate::tool::{Tool, ToolContext, ToolOutput};

/// The name that the model calls the list by.
pub(crate) const LIST: &str = "ListMcpResourcesTool";
/// The name that the model calls reading by.
pub(crate) const READ: &str = "ReadMcpResourceTool";
/// The most items of one resource.
const MAX_ITEMS: usize = 64;
/// Characters of a resource's name or description that are told.
const MAX_FIELD_CHARS: usize = 1_000;

/// The tool that lists.
#[derive(Debug)]
pub(crate) struct ListResources(pub(crate) Mcp);

/// The tool that reads.
#[derive(Debug)]
pub(crate) struct ReadResource(pub(crate) Mcp);

#[derive(Deserialize)]
struct ListInput {
    server: Option<String>,
}

#[derive(Deserialize)]
struct ReadInput {
    server: String,
    uri: String,
}

impl Tool for ListResources {
    fn name(&self) -> &str {
        LIST
    }
    fn description(&self) -> &str {
        "Lists what the connected MCP servers have to be read: for each resource its URI, name and server. With \
         `server`, only that server's."
    }
    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {"server": {"type": "string", "description": "Only this server's resources"}},
            "additionalProperties": false,
        })
    }
    fn is_read_only(&self) -> bool {
        true
    }
    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(self.list(input, context))
    }
}

impl ListResources {
    async fn list(&self, input: Value, context: &ToolContext) -> ToolOutput {
        let input: ListInput = match parse_input(LIST, &self.input_schema(), input) {
            Ok(input) => input,
            Err(failure) => return failure.into(),
        };
        let mut servers = self.0.with_resources();
        if let Some(wanted) = input.server {
            if let Err(missing) = self.0.known(&wanted) {
                return ToolOutput::error(missing);
            }
            servers.retain(|server| *server == wanted);
        }
        let lists = servers.into_iter().map(|server| async {
            let listed = self.0.resources(&server).await;
            (server, listed)
        });
        let lists = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return ToolOutput::error(crate::words::STOPPED),
            lists = join_all(lists) => lists,
        };
        let mut all = Vec::new();
        let mut failures = Vec::new();
        for (server, listed) in lists {
            match listed {
                Ok(resources) => all.extend(resources.iter().filter_map(|resource| row(&server, resource))),
                Err(failure) => failures.push(format!("The server {server:?} gave no list: {failure}")),
            }
        }
        let mut text = match all.is_empty() {
            true => "There are no resources. Servers may still have tools.".to_owned(),
            false => Value::Array(all.clone()).to_string(),
        };
        for failure in failures {
            text.push('\n');
            text.push_str(&failure);
        }
        ToolOutput::ok(text, Value::Array(all))
    }
}

fn row(server: &str, resource: &Value) -> Option<Value> {
    let field = |name: &str| {
        let text: String = resource[name].as_str()?.chars().take(MAX_FIELD_CHARS).collect();
        Some((name.to_owned(), Value::String(text)))
    };
    let mut row: serde_json::Map<String, Value> = [field("name").or_else(|| {
        // A name is asked for by the shape; the URI is one.
        field("uri").map(|(_, uri)| ("name".to_owned(), uri))
    })?]
    .into_iter()
    .chain([field("uri")?])
    .collect();
    row.extend(["description", "mimeType"].into_iter().filter_map(field));
    row.insert("server".to_owned(), server.into());
    Some(Value::Object(row))
}

impl Tool for ReadResource {
    fn name(&self) -> &str {
        READ
    }
    fn description(&self) -> &str {
        "Reads a resource of an MCP server, by the server's name and the resource's URI. What is not text is kept in a \
         file, whose path you get."
    }
    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "server": {"type": "string", "description": "The server's name"},
                "uri": {"type": "string", "description": "The resource's URI"},
            },
            "required": ["server", "uri"],
            "additionalProperties": false,
        })
    }
    fn is_read_only(&self) -> bool {
        true
    }
    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(self.read(input, context))
    }
}

impl ReadResource {
    async fn read(&self, input: Value, context: &ToolContext) -> ToolOutput {
        let ReadInput { server, uri } = match parse_input(READ, &self.input_schema(), input) {
            Ok(input) => input,
            Err(failure) => return failure.into(),
        };
        if let Err(missing) = self.0.known(&server) {
            return ToolOutput::error(missing);
        }
        let mut result = match self.0.read_resource_until(&server, &uri, &context.cancel).await {
            Ok(result) => result,
            Err(failure) => {
                let text = format!("The server did not give this resource: {failure}");
                return ToolOutput::ok(text.clone(), json!({"contents": [], "error": text}));
            }
        };
        let Some(Value::Array(items)) = result.get_mut("contents").map(Value::take) else {
            return ToolOutput::error("The server's answer is no resource.");
        };
        let mut contents = Vec::new();
        for (index, item) in items.iter().take(MAX_ITEMS).enumerate() {
            contents.push(content(&server, item, index, context).await);
        }
        let structured = json!({"contents": contents});
        ToolOutput::ok(structured.to_string(), structured)
    }
}

/// An item of a resource: its text, or where its bytes are kept.
async fn content(server: &str, item: &Value, index: usize, context: &ToolContext) -> Value {
    let mut given = serde_json::Map::new();
    for name in ["uri", "mimeType", "text"] {
        if let Some(text) = item[name].as_str() {
            given.insert(name.to_owned(), text.into());
        }
    }
    if let Some(blob) = item["blob"].as_str() {
        let kind = item["mimeType"].as_str().unwrap_or("unknown type");
        let kind: String = kind.chars().take(80).collect();
        let note = match keep(blob, index, context).await {
            Ok((path, size)) => {
                given.insert("blobSavedTo".to_owned(), path.display().to_string().into());
                format!("[{size} bytes of {kind} from {server:?} are kept in {}]", path.display())
            }
            Err(failure) => format!("[The bytes of type {kind} could not be kept: {failure}]"),
        };
        given.insert("text".to_owned(), note.into());
    }
    Value::Object(given)
}

async fn keep(blob: &str, index: usize, context: &ToolContext) -> Result<(PathBuf, usize), String> {
    let bytes = STANDARD.decode(blob.trim()).map_err(|_| "they are not base64".to_owned())?;
    let name = format!("{}-{index}.bin", file_name(&context.tool_use_id));
    let path = context.output_dir.join(name);
    let length = bytes.len();
    file::keep(&path, bytes).await.map_err(|error| error.to_string())?;
    Ok((path, length))
}
