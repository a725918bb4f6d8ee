#![doc = include_str!("../README.md")]

pub mod api_error;
pub mod control;
pub mod frame;
pub mod hook;
pub mod id;
pub mod message;
pub mod money;
pub mod sse;
pub mod stream;
pub mod usage;

pub use api_error::{ApiError, ApiErrorKind};
pub use frame::{AgentFrame, HostFrame};
pub use id::{AgentId, EnvironmentId, EventId, FileId, Id, KeyId, OrgId, RequestId, ResourceId, SessionId};
pub use message::{ContentBlock, Message, MessageParam, Role};
pub use money::NanoUsd;
pub use usage::Usage;

/// A JSON object whose fields keep their order.
pub type JsonMap = serde_json::Map<String, serde_json::Value>;
