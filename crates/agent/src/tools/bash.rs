//! Bash.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::tool::{Tool, ToolContext, ToolOutput};

/// The tool `Bash`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bash;

impl Tool for Bash {
    fn name(&self) -> &str {
        "Bash"
    }

    fn description(&self) -> &str {
        "Runs a command in bash and gives what it printed, standard output and standard error in the order they came.\n\
         \n\
         - A `cd` lasts for the next call; variables, functions and options do not.\n\
         - There is no input and no terminal: a command that asks something gets end of file.\n\
         - A command that takes longer than `timeout` is ended, with all that it started. Default 2 minutes, at most 10.\n\
         - Long output is cut in the middle; all of it is then kept in a file that is named.\n\
         - To read, write, edit and search files use Read, Write, Edit, Glob and Grep rather than cat, sed, find and grep.\n\
         - Quote paths that have spaces."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "command": {"type": "string", "description": "The command"},
                "timeout": {"type": "integer", "minimum": 1, "description": "How long it may take, in milliseconds"},
                "description": {"type": "string", "description": "What it does, in a few plain words for the user"},
            },
            "required": ["command"],
            "additionalProperties": false,
        })
    }

    fn call<'a>(&'a self, _input: Value, _context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async { ToolOutput::error("this tool is not built yet") })
    }
}
