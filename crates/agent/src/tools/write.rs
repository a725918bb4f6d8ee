//! Write.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::tool::{Tool, ToolContext, ToolOutput};

/// The tool `Write`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Write;

impl Tool for Write {
    fn name(&self) -> &str {
        "Write"
    }

    fn description(&self) -> &str {
        "Writes a whole file: creates it, with the folders above it, or replaces what is there.\n\
         \n\
         - A file that exists must have been read with Read, and not have changed since.\n\
         - To change part of a file use Edit.\n\
         - The file is replaced in one step: nobody ever sees half of it."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "file_path": {"type": "string", "description": "Path of the file, best absolute; a relative one starts at the working directory"},
                "content": {"type": "string", "description": "All that the file shall contain"},
            },
            "required": ["file_path", "content"],
            "additionalProperties": false,
        })
    }

    fn call<'a>(&'a self, _input: Value, _context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async { ToolOutput::error("this tool is not built yet") })
    }
}
