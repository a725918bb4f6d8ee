//! Glob.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::tool::{Tool, ToolContext, ToolOutput};

/// The tool `Glob`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Glob;

impl Tool for Glob {
    fn name(&self) -> &str {
        "Glob"
    }

    fn description(&self) -> &str {
        "Finds files by name, newest first.\n\
         \n\
         - `*` and `?` stay within one folder, `**` goes through any number of them, `{a,b}` and `[abc]` choose: `src/**/*.rs`, `**/*.{ts,tsx}`.\n\
         - A pattern without a slash, like `*.rs`, finds files of that name in any folder.\n\
         - Hidden and ignored files are found too; what lies in `.git` is not. Links are not followed."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "pattern": {"type": "string", "description": "The pattern, relative to `path`"},
                "path": {"type": "string", "description": "Folder to search; leave out for the working directory"},
            },
            "required": ["pattern"],
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
