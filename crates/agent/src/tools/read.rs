//! Read.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::tool::{Tool, ToolContext, ToolOutput};

/// The tool `Read`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Read;

impl Tool for Read {
    fn name(&self) -> &str {
        "Read"
    }

    fn description(&self) -> &str {
        "Reads a file. Gives its lines as `number, tab, line`, starting at line 1.\n\
         \n\
         - Without offset and limit it starts at the top and gives as much as fits; when more is left, the last line says where to go on.\n\
         - Images (PNG, JPEG, GIF, WebP) are shown to you as images. Other binary files are refused.\n\
         - It does not list folders: use Glob, or `ls` in Bash.\n\
         - Read a file before you Edit it or Write over it."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "file_path": {"type": "string", "description": "Path of the file, best absolute; a relative one starts at the working directory"},
                "offset": {"type": "integer", "minimum": 0, "description": "Line to start at, counted from 1"},
                "limit": {"type": "integer", "minimum": 1, "description": "How many lines to give"},
                "allow_large": {"type": "boolean", "description": "Give several times as much at once as usual; only when you need all of a big file"},
            },
            "required": ["file_path"],
            "additionalProperties": false,
        })
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn call<'a>(&'a self, _input: Value, _context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async { ToolOutput::error("this tool is not built yet") })
    }
}
