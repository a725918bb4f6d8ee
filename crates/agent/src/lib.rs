#![doc = include_str!("../README.md")]
#![expect(dead_code, reason = "the engine behind this API lands next")]

pub mod error;
pub mod hook;
pub mod options;
pub mod permission;
pub mod query;
pub mod tool;
pub mod tools;

pub use error::Error;
pub use hook::{HookFailure, OnFailure, PreToolUseHook};
pub use options::{ApiConfig, ApiKey, Endpoint, Options, RetryPolicy, SystemPrompt, Thinking, ToolSet};
pub use permission::{CanUseTool, Permission, PermissionRequest, PermissionUpdate};
pub use query::{Interrupted, Prompt, Query, QueryHandle, query};
pub use tool::{Tool, ToolContext, ToolOutput};
pub use wardian_policy::PermissionMode;
pub use wardian_protocol::NanoUsd;
pub use wardian_protocol::frame::SdkMessage as Message;
pub use wardian_protocol::frame::{AssistantMessage, ResultMessage, SystemMessage, UserMessage};
