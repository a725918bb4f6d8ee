//! The built-in tools: Read, Write, Edit, Bash, Glob, Grep.
//!
//! Names, inputs and structured outputs are those of the protocol reference, section 1.6; what the model is told is
//! in our own words. A tool never decides whether it may run: that is done before it is called. What it does guard is
//! the process it runs in: no tool opens a device, a pipe or a file about a process, so none can hang on one or read
//! the agent's own memory and environment.

use std::sync::Arc;

use crate::tool::{Tool, ToolOutput};

pub mod bash;
mod edit;
pub(crate) mod file;
mod glob;
mod grep;
mod input;
pub(crate) mod mcp_resources;
mod patch;
mod read;
mod text;
pub(crate) mod tool_search;
mod walk;
mod work;
mod write;

pub use self::bash::Bash;
pub use self::edit::Edit;
pub use self::glob::Glob;
pub use self::grep::Grep;
pub use self::read::Read;
pub use self::write::Write;

/// The tools that a session has only where there are tool servers.
pub const FOR_SERVERS: [&str; 3] = [mcp_resources::LIST, mcp_resources::READ, tool_search::NAME];

/// Returns all built-in tools, made for one session.
#[must_use]
pub fn builtin() -> Vec<Arc<dyn Tool>> {
    vec![
        Arc::new(Bash::default()),
        Arc::new(Edit),
        Arc::new(Glob),
        Arc::new(Grep),
        Arc::new(Read),
        Arc::new(Write),
    ]
}

/// Why a call failed, in words that the model can act on.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<Failure> for ToolOutput {
    fn from(failure: Failure) -> Self {
        Self::error(failure.0)
    }
}

#[cfg(test)]
mod tests;
