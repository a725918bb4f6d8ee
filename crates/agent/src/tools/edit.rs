//! Edit.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::tool::{Tool, ToolContext, ToolOutput};

/// The tool `Edit`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edit;

impl Tool for Edit {
    fn name(&self) -> &str {
        "Edit"
    }

    fn description(&self) -> &str {
        "Replaces text in a file, exactly as given.\n\
         \n\
         - The file must have been read with Read, and not have changed since.\n\
         - `old_string` is the text of the file as it is, with its indentation, but without the line number and tab that Read puts before each line.\n\
         - `old_string` must occur once: give enough lines around it, or set `replace_all` to replace every occurrence.\n\
         - An empty `old_string` fills a file that is empty or does not exist."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "file_path": {"type": "string", "description": "Path of the file, best absolute; a relative one starts at the working directory"},
                "old_string": {"type": "string", "description": "The text to replace"},
                "new_string": {"type": "string", "description": "What to put in its place; must differ"},
                "replace_all": {"type": "boolean", "description": "Replace every occurrence (default false)"},
            },
            "required": ["file_path", "old_string", "new_string"],
            "additionalProperties": false,
        })
    }

    fn call<'a>(&'a self, _input: Value, _context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async { ToolOutput::error("this tool is not built yet") })
    }
}
