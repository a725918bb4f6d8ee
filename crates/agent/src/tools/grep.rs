//! Grep.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::tool::{Tool, ToolContext, ToolOutput};

/// The tool `Grep`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grep;

impl Tool for Grep {
    fn name(&self) -> &str {
        "Grep"
    }

    fn description(&self) -> &str {
        "Searches the contents of files for a regular expression (ripgrep's syntax).\n\
         \n\
         - `output_mode`: `files_with_matches` (default) gives paths, newest first; `content` the matching lines as `path:number:line`; `count` the number of matching lines of each file.\n\
         - Braces and other signs of the syntax need a backslash to stand for themselves: `interface\\{\\}`.\n\
         - Within one line, unless `multiline` is set.\n\
         - What .gitignore names, binary files and `.git` are skipped; hidden files are not."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "pattern": {"type": "string", "description": "The regular expression"},
                "path": {"type": "string", "description": "File or folder to search; leave out for the working directory"},
                "glob": {"type": "string", "description": "Only files whose path fits, like `*.js` or `src/**/*.{ts,tsx}`; `!` in front excludes"},
                "type": {"type": "string", "description": "Only files of this type: rust, py, js, go, java, ..."},
                "output_mode": {"type": "string", "enum": ["content", "files_with_matches", "count"], "description": "What to give; default files_with_matches"},
                "-i": {"type": "boolean", "description": "Ignore case"},
                "-n": {"type": "boolean", "description": "Line numbers, in mode content; default true"},
                "-o": {"type": "boolean", "description": "Only the matching parts, one a line, in mode content"},
                "-A": {"type": "integer", "minimum": 0, "description": "Lines after each match, in mode content"},
                "-B": {"type": "integer", "minimum": 0, "description": "Lines before each match, in mode content"},
                "-C": {"type": "integer", "minimum": 0, "description": "The same as `context`"},
                "context": {"type": "integer", "minimum": 0, "description": "Lines before and after each match, in mode content"},
                "multiline": {"type": "boolean", "description": "Let the pattern span lines, and `.` match a line end"},
                "head_limit": {"type": "integer", "minimum": 0, "description": "Give the first so many lines or entries; default 250, 0 for as many as fit"},
                "offset": {"type": "integer", "minimum": 0, "description": "Leave out the first so many lines or entries"},
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
