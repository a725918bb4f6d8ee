//! A server's tool, as the model gets it.

use std::sync::Weak;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::registry::Registry;
use super::{McpServer, content, tool_name};
use crate::tool::{Tool, ToolContext, ToolOutput};
use crate::words;

/// The longest name of a tool. source: the Messages API.
const MAX_NAME: usize = 128;
/// What is told to the model of one tool at the most, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 16 * 1024;
/// The largest input schema, in bytes.
const MAX_SCHEMA_BYTES: usize = 256 * 1024;

/// A tool of a server.
pub(super) struct McpTool {
    registry: Weak<Registry>,
    server: String,
    /// What the model calls it.
    name: String,
    /// What the server calls it.
    own_name: String,
    /// What people call it.
    title: Option<String>,
    description: String,
    schema: Value,
    annotations: Value,
    is_read_only: bool,
    /// Whether whoever runs it knows the calls that it has already done.
    is_repeatable: bool,
    always_load: bool,
    call_timeout: Option<Duration>,
}

impl McpTool {
    /// Reads an entry of a list; one that cannot be offered is left out.
    pub(super) fn read(registry: &Weak<Registry>, server: &McpServer, tool: &Value) -> Option<Self> {
        let own_name = tool["name"].as_str()?.to_owned();
        let name = tool_name(&server.name, &own_name);
        let schema = match &tool["inputSchema"] {
            Value::Object(schema) => {
                let mut schema = schema.clone();
                // The API takes no other.
                schema.insert("type".to_owned(), "object".into());
                Value::Object(schema)
            }
            _ => json!({"type": "object"}),
        };
        if own_name.is_empty() || name.len() > MAX_NAME || schema.to_string().len() > MAX_SCHEMA_BYTES {
            tracing::warn!(server = %server.name, tool = %name, "a tool cannot be offered: its name or schema is too long");
            return None;
        }
        let mut description = tool["description"].as_str().unwrap_or_default().to_owned();
        description.truncate(description.floor_char_boundary(MAX_DESCRIPTION_BYTES));
        let hints = &tool["annotations"];
        let title = tool["title"].as_str().or(hints["title"].as_str());
        let own_load = tool["_meta"]["anthropic/alwaysLoad"].as_bool();
        Some(Self {
            registry: Weak::clone(registry),
            server: server.name.clone(),
            name,
            own_name,
            title: title.map(|title| title.chars().take(MAX_NAME).collect()),
            description,
            schema,
            annotations: annotations(hints),
            is_read_only: hints["readOnlyHint"] == true,
            is_repeatable: server.transport.is_host(),
            always_load: own_load.unwrap_or(server.always_load),
            call_timeout: server.call_timeout,
        })
    }

    /// What a host is told of it.
    pub(super) fn status(&self) -> Value {
        json!({"name": self.own_name, "annotations": self.annotations})
    }

    /// Whether the model has it from the start.
    pub(super) const fn always_load(&self) -> bool {
        self.always_load
    }

    pub(super) fn own_name(&self) -> &str {
        &self.own_name
    }

    pub(super) fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    async fn run(&self, input: Value, context: &ToolContext) -> ToolOutput {
        let failed = |error: &str| ToolOutput::error(words::server_failed(&self.server, error));
        let Some(registry) = self.registry.upgrade() else { return failed("the session is over") };
        let stop = context.cancel.child_token();
        let answer = async {
            let connection = registry.connection(&self.server).await?;
            connection.call(&self.own_name, input, Some(&context.tool_use_id), &stop).await
        };
        let late = async {
            match self.call_timeout {
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
            // The server is told so, as the answer is dropped.
            stop.cancel();
        };
        let mut answer = std::pin::pin!(answer);
        let answered = tokio::select! {
            biased;
            answered = &mut answer => Some(answered),
            () = late => None,
        };
        match answered {
            _ if context.cancel.is_cancelled() => ToolOutput::error(words::STOPPED),
            Some(Ok(result)) => {
                let most = registry.surroundings.max_output_chars;
                content::fit(content::output(result), most, context).await
            }
            Some(Err(error)) => failed(&error),
            None => {
                let _ = answer.await;
                ToolOutput::error(words::server_late(&self.server, self.call_timeout))
            }
        }
    }
}

/// What a server hints about a tool, as hosts are told. source: the types of the TypeScript SDK.
fn annotations(hints: &Value) -> Value {
    let known =
        [("readOnlyHint", "readOnly"), ("destructiveHint", "destructive"), ("openWorldHint", "openWorld")];
    let told =
        known.iter().filter_map(|(hint, name)| Some(((*name).to_owned(), hints[*hint].as_bool()?.into())));
    Value::Object(told.collect::<Map<_, _>>())
}

impl Tool for McpTool {
    fn name(&self) -> &str {
        &self.name
    }
    fn description(&self) -> &str {
        &self.description
    }
    fn input_schema(&self) -> Value {
        self.schema.clone()
    }
    fn is_read_only(&self) -> bool {
        self.is_read_only
    }
    fn runs_alongside(&self) -> bool {
        // The host's own know what they do at once; of others only what they say.
        self.is_repeatable || self.is_read_only
    }
    fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }
    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(self.run(input, context))
    }
}
