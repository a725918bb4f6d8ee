//! The built-in tools.
//!
//! Names, inputs and structured outputs are those of the protocol reference, section 1.6; what the model is told is
//! in our own words. A tool never decides whether it may run: that is done before it is called. What it does guard is
//! the process it runs in: no tool opens a device, a pipe or a file about a process, so none can hang on one or read
//! the agent's own memory and environment.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::tool::{Tool, ToolOutput};

mod agent;
mod ask;
pub mod bash;
mod edit;
pub(crate) mod file;
mod glob;
mod grep;
mod input;
pub(crate) mod mcp_resources;
mod notebook;
pub(crate) mod patch;
mod plan;
mod read;
mod set;
mod skill;
mod task_stop;
mod text;
mod todo;
pub(crate) mod tool_search;
mod walk;
pub(crate) mod web_fetch;
mod web_search;
mod work;
mod write;

pub use self::agent::Agent;
pub use self::ask::AskUserQuestion;
pub use self::bash::Bash;
pub use self::edit::Edit;
pub use self::glob::Glob;
pub use self::grep::Grep;
pub use self::notebook::NotebookEdit;
pub use self::plan::{EnterPlanMode, ExitPlanMode};
pub use self::read::Read;
pub use self::task_stop::TaskStop;
pub use self::web_fetch::WebFetch;
pub use self::web_search::WebSearch;
pub use self::write::Write;

pub(crate) use self::set::chosen;
pub use self::set::names;
pub(crate) use self::skill::NAME as SKILL;

/// The tools that a session has only where there are tool servers.
pub const FOR_SERVERS: [&str; 3] = [mcp_resources::LIST, mcp_resources::READ, tool_search::NAME];

/// Returns all built-in tools, made for one session.
#[must_use]
pub fn builtin() -> Vec<Arc<dyn Tool>> {
    let mut tools: Vec<Arc<dyn Tool>> = vec![
        // A session puts one in its place that knows its subagents.
        Arc::new(Agent::new(&BTreeMap::new(), true)),
        Arc::new(AskUserQuestion),
        Arc::new(Bash::default()),
        Arc::new(Edit),
        Arc::new(EnterPlanMode),
        Arc::new(ExitPlanMode),
        Arc::new(Glob),
        Arc::new(Grep),
        Arc::new(NotebookEdit),
        Arc::new(Read),
        Arc::new(TaskStop),
        Arc::new(WebFetch),
        Arc::new(WebSearch),
        Arc::new(Write),
    ];
    tools.extend(todo::tools());
    tools
}

/// Whether a session has a built-in tool without naming it. `has_host`: somebody can be asked.
pub(crate) fn is_default(name: &str, has_host: bool) -> bool {
    match name {
        "AskUserQuestion" | "EnterPlanMode" | "ExitPlanMode" => has_host,
        "TaskCreate" | "TaskGet" | "TaskList" | "TaskUpdate" => false,
        _ => true,
    }
}

/// The name that a tool has here: one has an old one too.
#[must_use]
pub fn canonical(name: &str) -> &str {
    if name == "Task" { "Agent" } else { name }
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
