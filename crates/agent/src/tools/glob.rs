//! Glob.

use std::path::{Component, Path};
use std::time::{Instant, SystemTime};

use futures_util::future::BoxFuture;
use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::input::parse_input;
use super::text::{PAGE_BYTES, json_bytes, shown_path};
use super::walk::{self, Newest, Watch};
use super::{Failure, work};
use crate::tool::{Tool, ToolContext, ToolOutput};

/// The longest pattern, in bytes: that of a path.
const PATTERN_BYTES: usize = 4 * 1024;

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

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            match parse_input("Glob", &self.input_schema(), input) {
                Ok(input) => work::blocking(context, move |context, stop| glob(&input, context, stop)).await,
                Err(failure) => failure.into(),
            }
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    pattern: String,
    path: Option<String>,
}

fn glob(input: &Input, context: &ToolContext, stop: &CancellationToken) -> ToolOutput {
    let found = walk::root(input.path.as_deref(), context).and_then(|root| {
        if !root.is_dir() {
            return Err(Failure::new(format!("{} is not a folder", root.display())));
        }
        let pattern = matcher(&input.pattern, &root).map_err(Failure::new)?;
        find(&pattern, &root, context, stop)
    });
    found.unwrap_or_else(ToolOutput::from)
}

/// Makes a matcher of paths below the root. A pattern cannot leave the root, so that whoever decides about a search
/// need only look at its root.
fn matcher(pattern: &str, root: &Path) -> Result<GlobMatcher, String> {
    if pattern.is_empty() {
        return Err("the pattern is empty".to_owned());
    }
    if pattern.len() > PATTERN_BYTES {
        return Err(format!("the pattern is longer than {PATTERN_BYTES} bytes"));
    }
    let below = match Path::new(pattern).strip_prefix(root) {
        Ok(below) if pattern.starts_with('/') => below.to_str().unwrap_or(pattern),
        _ => pattern,
    };
    if below.starts_with('/') {
        return Err(format!(
            "the pattern {pattern} begins outside of {}; give the folder as path",
            root.display()
        ));
    }
    if Path::new(below).components().any(|component| component == Component::ParentDir) {
        return Err(format!("the pattern {pattern} goes up with `..`; give the folder as path"));
    }
    let below = below.strip_prefix("./").unwrap_or(below);
    let anywhere = format!("**/{below}");
    let glob = if below.contains('/') { below } else { &anywhere };
    let built = GlobBuilder::new(glob).literal_separator(true).build();
    built
        .map(|glob| glob.compile_matcher())
        .map_err(|error| format!("failed to understand the pattern: {error}"))
}

fn find(
    pattern: &GlobMatcher,
    root: &Path,
    context: &ToolContext,
    stop: &CancellationToken,
) -> Result<ToolOutput, Failure> {
    let started = Instant::now();
    let watch = Watch::new(stop);
    let mut newest = Newest::new(context.limits.glob_paths);
    let mut is_complete = true;
    for entry in walk::everything(root).build() {
        if watch.is_over() {
            is_complete = false;
            break;
        }
        // A folder that cannot be read has nothing to find.
        let Ok(entry) = entry else { continue };
        let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
        if pattern.is_match(below)
            && let Some(modified) = modified_if_file(&entry)
        {
            newest.push(modified, entry.into_path());
        }
    }
    if watch.is_stopped() {
        return Err(work::stopped());
    }
    Ok(told(newest, is_complete, started, context))
}

/// Returns when a file was modified, or the file that a link leads to; nothing for folders and special files.
fn modified_if_file(entry: &ignore::DirEntry) -> Option<SystemTime> {
    let kind = entry.file_type()?;
    let metadata = if kind.is_file() {
        entry.metadata().ok()?
    } else if kind.is_symlink() {
        std::fs::metadata(entry.path()).ok()?
    } else {
        return None;
    };
    if metadata.is_file() { metadata.modified().ok() } else { None }
}

fn told(newest: Newest, is_complete: bool, started: Instant, context: &ToolContext) -> ToolOutput {
    let total = newest.total();
    let mut room = PAGE_BYTES;
    let mut names = Vec::new();
    for path in newest.into_files() {
        let name = shown_path(&path, &context.cwd);
        let Some(left) = room.checked_sub(json_bytes(&name)) else { break };
        room = left;
        names.push(name);
    }
    let mut structured = json!({
        "durationMs": started.elapsed().as_millis() as u64,
        "numFiles": names.len(),
        "filenames": names,
        "truncated": names.len() < total,
        "totalMatches": total,
        "countIsComplete": is_complete,
    });
    let mut text = if names.is_empty() { "[no files found]".to_owned() } else { names.join("\n") };
    if names.len() < total {
        text.push_str(&format!(
            "\n\n[the newest {} of {total} files; narrow the pattern to see others]",
            names.len()
        ));
    }
    if !is_complete {
        structured["timedOut"] = json!(true);
        text.push_str(
            "\n\n[the search took too long and was ended; there may be more: search a smaller folder]",
        );
    }
    ToolOutput::ok(text, structured)
}
