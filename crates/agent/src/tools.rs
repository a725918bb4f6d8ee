//! The built-in tools: Read, Write, Edit, Bash, Glob, Grep.
//!
//! Names, inputs and structured outputs are those of the protocol reference, section 1.6; what the model is told is
//! in our own words. A tool never decides whether it may run: that is done before it is called. What it does guard is
//! the process it runs in: no tool opens a device, a pipe or a file about a process, so none can hang on one or read
//! the agent's own memory and environment.

use std::sync::Arc;

use crate::tool::Tool;

pub mod bash;
mod edit;
mod glob;
mod grep;
mod read;
mod write;

pub use self::bash::Bash;
pub use self::edit::Edit;
pub use self::glob::Glob;
pub use self::grep::Grep;
pub use self::read::Read;
pub use self::write::Write;

/// Returns all built-in tools, made for one session.
#[must_use]
pub fn builtin() -> Vec<Arc<dyn Tool>> {
    vec![Arc::new(Bash), Arc::new(Edit), Arc::new(Glob), Arc::new(Grep), Arc::new(Read), Arc::new(Write)]
}
