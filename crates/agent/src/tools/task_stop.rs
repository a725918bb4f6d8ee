//! TaskStop: ends a command or a subagent in the background.

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Failure;
use super::input::parse_input;
use crate::task::Killer;
use crate::tool::{Tool, ToolContext, ToolOutput};

/// The tool `TaskStop`.
#[derive(Debug)]
pub struct TaskStop;

#[derive(Debug, Deserialize)]
struct Input {
    task_id: Option<String>,
    shell_id: Option<String>,
}

impl Tool for TaskStop {
    fn name(&self) -> &str {
        "TaskStop"
    }

    fn description(&self) -> &str {
        "Ends a command or a subagent that works in the background, with all that it started. Its id was given when it \
         began."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {"task_id": {"type": "string", "description": "The id"}},
        })
    }

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            match parse_input::<Input>("TaskStop", &self.input_schema(), input) {
                Ok(input) => stop(input, context).await.unwrap_or_else(ToolOutput::from),
                Err(failure) => failure.into(),
            }
        })
    }
}

async fn stop(input: Input, context: &ToolContext) -> Result<ToolOutput, Failure> {
    let id = input.task_id.or(input.shell_id).ok_or_else(|| Failure::new("task_id is missing"))?;
    let tasks = context.within.setup().map(|setup| &setup.tasks);
    let stopped = match tasks {
        Some(tasks) => tasks.stop_and_wait(&id, Killer::Parent).await,
        None => None,
    };
    // Programs know these words.
    let (task_type, command) = stopped.ok_or_else(|| Failure::new(format!("No task found with ID: {id}")))?;
    let message = format!("Stopped task {id} ({command})");
    let structured = json!({"message": message, "task_id": id, "task_type": task_type, "command": command});
    Ok(ToolOutput::ok(message, structured))
}
