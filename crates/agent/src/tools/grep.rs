//! Grep, with ripgrep's own libraries.

use std::time::SystemTime;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::page::Page;
use self::search::Search;
use super::input::parse_input;
use super::text::shown_path;
use super::walk::{Newest, Watch};
use super::work;
use crate::tool::{Tool, ToolContext, ToolOutput};

mod page;
mod search;

/// The most entries that are skipped and given together, whatever is asked for.
const MAX_ENTRIES: usize = 50_000;

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

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            match parse_input("Grep", &self.input_schema(), input) {
                Ok(input) => work::blocking(context, move |context, stop| grep(&input, context, stop)).await,
                Err(failure) => failure.into(),
            }
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Input {
    pattern: String,
    path: Option<String>,
    glob: Option<String>,
    r#type: Option<String>,
    output_mode: Mode,
    #[serde(rename = "-i")]
    ignore_case: bool,
    #[serde(rename = "-n")]
    line_numbers: Option<bool>,
    #[serde(rename = "-o")]
    only_matching: bool,
    #[serde(rename = "-A")]
    after: Option<usize>,
    #[serde(rename = "-B")]
    before: Option<usize>,
    #[serde(rename = "-C")]
    around: Option<usize>,
    context: Option<usize>,
    multiline: bool,
    head_limit: Option<usize>,
    offset: usize,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Content,
    #[default]
    FilesWithMatches,
    Count,
}

impl Input {
    /// How many entries to give at most.
    fn head(&self, context: &ToolContext) -> usize {
        match self.head_limit.unwrap_or(context.limits.grep_head) {
            0 => MAX_ENTRIES,
            limit => limit.min(MAX_ENTRIES),
        }
    }

    fn skip(&self) -> usize {
        self.offset.min(MAX_ENTRIES)
    }

    fn page(&self, context: &ToolContext) -> Page {
        Page::new(self.skip(), self.head(context))
    }
}

fn grep(input: &Input, context: &ToolContext, stop: &CancellationToken) -> ToolOutput {
    let watch = Watch::new(stop);
    let found = Search::new(input, context).and_then(|mut search| {
        let output = match input.output_mode {
            Mode::Content => content(input, &mut search, context, &watch),
            Mode::Count => count(input, &mut search, context, &watch),
            Mode::FilesWithMatches => files(input, &mut search, context, &watch),
        };
        if watch.is_stopped() { Err(work::stopped()) } else { Ok(output) }
    });
    found.unwrap_or_else(ToolOutput::from)
}

fn content(input: &Input, search: &mut Search, context: &ToolContext, watch: &Watch<'_>) -> ToolOutput {
    let mut page = input.page(context);
    let (mut files, mut matches) = (0, 0);
    let ended = search.each_file(watch, |search, path| {
        let found = search.lines(path, &shown_path(path, &context.cwd), watch, &mut page)?;
        matches += found;
        files += usize::from(found > 0);
        Ok(())
    });
    let structured = json!({
        "mode": "content",
        "numFiles": files,
        "filenames": [],
        "totalFiles": files,
        "content": page.lines().join("\n"),
        "numLines": page.given(),
        "totalLines": page.total(),
        "numMatches": matches,
    });
    told(input, &page, structured, &ended)
}

fn count(input: &Input, search: &mut Search, context: &ToolContext, watch: &Watch<'_>) -> ToolOutput {
    let mut page = input.page(context);
    let mut matches = 0;
    let ended = search.each_file(watch, |search, path| {
        let found = search.count(path, watch)?;
        if found > 0 {
            page.push(&format!("{}:{found}", shown_path(path, &context.cwd)));
            matches += found;
        }
        Ok(())
    });
    let structured = json!({
        "mode": "count",
        "numFiles": page.total(),
        "filenames": [],
        "totalFiles": page.total(),
        "content": page.lines().join("\n"),
        "numMatches": matches,
    });
    told(input, &page, structured, &ended)
}

fn files(input: &Input, search: &mut Search, context: &ToolContext, watch: &Watch<'_>) -> ToolOutput {
    let mut newest = Newest::new(input.skip() + input.head(context));
    let ended = search.each_file(watch, |search, path| {
        if search.is_in(path, watch)? {
            let modified = std::fs::symlink_metadata(path).and_then(|found| found.modified());
            newest.push(modified.unwrap_or(SystemTime::UNIX_EPOCH), path.to_owned());
        }
        Ok(())
    });
    let total = newest.total();
    let mut page = input.page(context);
    newest.into_files().iter().for_each(|path| page.push(&shown_path(path, &context.cwd)));
    page.set_total(total);
    let structured = json!({
        "mode": "files_with_matches",
        "numFiles": page.given(),
        "filenames": page.lines(),
        "totalFiles": total,
    });
    told(input, &page, structured, &ended)
}

/// How a search ended.
#[derive(Debug, Default)]
struct Ended {
    /// Before its end, for it took too long.
    timed_out: bool,
    /// Files that could not be searched, and the first of them with its reason.
    failed: usize,
    first_failure: Option<String>,
}

fn told(input: &Input, page: &Page, mut structured: Value, ended: &Ended) -> ToolOutput {
    let mut text = if page.given() == 0 { "[nothing found]".to_owned() } else { page.lines().join("\n") };
    if input.offset > 0 {
        structured["appliedOffset"] = json!(input.skip());
    }
    if let Some(next) = page.next() {
        structured["appliedLimit"] = json!(page.given());
        text.push_str(&format!(
            "\n\n[{} of {} given; to go on, set offset to {next}, or narrow the search]",
            page.given(),
            page.total()
        ));
    } else if page.given() == 0 && page.total() > 0 {
        text.push_str(&format!("\n\n[there are only {} before offset {}]", page.total(), input.skip()));
    }
    if ended.timed_out {
        structured["timedOut"] = json!(true);
        text.push_str(
            "\n\n[the search took too long and was ended; there may be more: search a smaller folder]",
        );
    }
    if let Some(first) = &ended.first_failure {
        text.push_str(&format!("\n\n[{} files could not be searched; the first: {first}]", ended.failed));
    }
    ToolOutput::ok(text, structured)
}
