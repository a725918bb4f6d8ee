#![doc = include_str!("../README.md")]

mod aside;
mod authorise;
mod call;
pub mod checkpoint;
mod client;
pub mod command;
mod compact;
mod context;
pub mod custom;
pub mod error;
mod execute;
mod frames;
mod frontmatter;
pub mod hook;
mod later;
pub mod mcp;
pub mod memory;
mod meter;
mod models;
mod offer;
pub mod options;
pub mod output;
pub mod permission;
mod plugin;
mod prompt;
mod proxy;
pub mod query;
mod queue;
mod random;
mod request;
mod schema;
mod session;
mod shelf;
pub mod skill;
mod spending;
mod state;
mod structured;
pub mod subagent;
mod switch;
mod task;
pub mod tool;
pub mod tools;
pub mod transcript;
mod turn;
mod view;
mod words;

#[doc = include_str!("../GUIDE.md")]
pub mod guide {}

pub use checkpoint::{Checkpoints, RewindError, Rewound};
pub use custom::{CustomTool, IntoToolOutput, Json, schema_of, tool, tool_with};
pub use error::Error;
pub use frames::PROTOCOL_VERSION;
pub use hook::{CommandHook, Hook, HookEvent, HookFailure, HookInput, HookOutput, Hooks, OnFailure};
pub use later::{NewDirectory, Reread};
pub use mcp::{
    Elicitation, Elicited, Mcp, McpChanges, McpConfigError, McpHost, McpManifest, McpServer, McpSource,
    McpToolOrigin, McpTransport, OnElicitation,
};
pub use options::{
    ApiConfig, ApiKey, AutoCompact, Endpoint, Options, RetryPolicy, SetupTrigger, SystemPrompt, Thinking,
    ToolSet,
};
pub use output::{OutputError, output, query_as};
pub use permission::{
    CanUseTool, Destination, Permission, PermissionChange, PermissionRequest, PermissionUpdate, RuleKind,
    SettingsFiles, can_use_tool,
};
pub use plugin::{PluginError, PluginInfo};
pub use prompt::DYNAMIC_BOUNDARY;
pub use query::{Interrupted, Prompt, Query, QueryHandle, query};
pub use random::uuid as new_session_id;
/// The crate whose derive makes schemas; `#[schemars(crate = "wardian_agent::schemars")]` uses it without a dependency of
/// one's own.
pub use schemars;
pub use schemars::JsonSchema;
pub use shelf::Shelf;
pub use skill::Skill;
pub use subagent::{AgentDefinition, AgentSource};
pub use switch::ModelSwitch;
pub use task::TaskOutput;
pub use tool::{Tool, ToolContext, ToolOutput};
pub use transcript::{Conversation, Resume, Transcripts};
pub use turn::empty_usage;
pub use view::UsageReport;
pub use wardian_policy::{PermissionMode, ReasonKind};
pub use wardian_protocol::NanoUsd;
pub use wardian_protocol::frame::SdkMessage as Message;
pub use wardian_protocol::frame::{AssistantMessage, ResultMessage, SystemMessage, UserMessage};
