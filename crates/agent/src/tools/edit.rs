//! Edit.
//!
//! It works on bytes, so that whatever else the file holds, also in another encoding, stays as it is.

use std::borrow::Cow;
use std::path::Path;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::file::{self, Loaded};
use super::input::parse_input;
use super::write::{There, check_size, put_new, put_over, what_is_there};
use super::{Failure, patch, work};
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

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            match parse_input("Edit", &self.input_schema(), input) {
                Ok(input) => work::blocking(context, move |context, stop| edit(&input, context, stop)).await,
                Err(failure) => failure.into(),
            }
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    file_path: String,
    old_string: String,
    new_string: String,
    #[serde(default)]
    replace_all: bool,
}

fn edit(input: &Input, context: &ToolContext, stop: &CancellationToken) -> ToolOutput {
    if input.old_string == input.new_string {
        return ToolOutput::error("old_string and new_string are the same: there is nothing to change");
    }
    let edited = file::absolute(&input.file_path, context).and_then(|path| {
        match what_is_there(&input.file_path, &path)? {
            There::Nothing if input.old_string.is_empty() => create(input, &path, context),
            _ => change(input, Loaded::known(&input.file_path, &path, context, stop)?, context),
        }
    });
    edited.unwrap_or_else(ToolOutput::from)
}

fn create(input: &Input, path: &Path, context: &ToolContext) -> Result<ToolOutput, Failure> {
    check_size(input.new_string.len() as u64, context)?;
    put_new(&input.file_path, path, input.new_string.as_bytes(), context)?;
    let text = format!("Created {}.", input.file_path);
    Ok(ToolOutput::ok(text, structured(input, context, "", &input.new_string)))
}

fn change(input: &Input, old: Loaded, context: &ToolContext) -> Result<ToolOutput, Failure> {
    let replaced = replace(input, &old.bytes, context)?;
    put_over(&input.file_path, &old, &replaced.bytes, context)?;
    let (before, after) = (String::from_utf8_lossy(&old.bytes), String::from_utf8_lossy(&replaced.bytes));
    let text = match replaced.count {
        1 => format!("Edited {} at line {}.", input.file_path, replaced.first_line),
        count => {
            format!(
                "Edited {} in {count} places, the first at line {}.",
                input.file_path, replaced.first_line
            )
        }
    };
    Ok(ToolOutput::ok(text, structured(input, context, &before, &after)))
}

fn structured(input: &Input, context: &ToolContext, before: &str, after: &str) -> Value {
    json!({
        "filePath": context.absolute(&input.file_path),
        "oldString": input.old_string,
        "newString": input.new_string,
        "originalFile": patch::text_or_null(before),
        "structuredPatch": patch::structured(before, after),
        "userModified": false,
        "replaceAll": input.replace_all,
    })
}

struct Replaced {
    bytes: Vec<u8>,
    count: usize,
    first_line: usize,
}

fn replace(input: &Input, bytes: &[u8], context: &ToolContext) -> Result<Replaced, Failure> {
    if input.old_string.is_empty() {
        return match bytes {
            [] => Ok(Replaced { bytes: input.new_string.clone().into_bytes(), count: 1, first_line: 1 }),
            _ => Err(refused(
                input,
                "old_string is empty, but the file is not; give the text to replace, or use Write",
            )),
        };
    }
    // The model sees and writes lines that end in LF. In a file of CRLF lines both texts are taken to mean that; where
    // line ends are mixed, the text as given is tried next.
    let is_crlf = ends_lines_in_crlf(bytes);
    let meant = |text| if is_crlf { with_crlf(text) } else { Cow::Borrowed(text) };
    let (mut old, mut new) = (meant(&input.old_string), meant(&input.new_string));
    let mut found = occurrences(bytes, old.as_bytes());
    if found.is_empty() {
        (old, new) = (Cow::Borrowed(input.old_string.as_str()), Cow::Borrowed(input.new_string.as_str()));
        found = occurrences(bytes, old.as_bytes());
    }
    let Some(first) = found.first() else {
        return Err(refused(
            input,
            &format!("old_string does not occur in it; {}", hint(&input.old_string, bytes)),
        ));
    };
    if found.len() > 1 && !input.replace_all {
        return Err(refused(
            input,
            &format!(
                "old_string occurs {} times in it; add lines around it until it is the only one, or set replace_all",
                found.len()
            ),
        ));
    }
    // Before it is built: a short text replaced by a long one can grow a thousandfold.
    check_size((bytes.len() - found.len() * old.len()) as u64 + (found.len() * new.len()) as u64, context)?;
    Ok(Replaced {
        bytes: splice(bytes, &found, old.len(), new.as_bytes()),
        count: found.len(),
        first_line: line_of(bytes, *first),
    })
}

fn refused(input: &Input, why: &str) -> Failure {
    Failure::new(format!("{} was not changed: {why}", input.file_path))
}

fn ends_lines_in_crlf(bytes: &[u8]) -> bool {
    memchr::memchr(b'\n', bytes).is_some_and(|at| at > 0 && bytes[at - 1] == b'\r')
}

fn with_crlf(text: &str) -> Cow<'_, str> {
    Cow::Owned(text.replace("\r\n", "\n").replace('\n', "\r\n"))
}

/// Returns where `needle` occurs, without overlaps.
fn occurrences(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    memchr::memmem::find_iter(bytes, needle).collect()
}

fn splice(bytes: &[u8], at: &[usize], length: usize, new: &[u8]) -> Vec<u8> {
    let mut spliced = Vec::with_capacity(bytes.len() + at.len() * new.len());
    let mut done = 0;
    for start in at {
        spliced.extend_from_slice(&bytes[done..*start]);
        spliced.extend_from_slice(new);
        done = start + length;
    }
    spliced.extend_from_slice(&bytes[done..]);
    spliced
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    memchr::memchr_iter(b'\n', &bytes[..at]).count() + 1
}

/// Says what is probably wrong with a text that was not found.
fn hint(old: &str, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if let Some(line) = find_loosely(old, &text) {
        return format!(
            "it does at line {line} when white space is not compared: copy that from the file exactly"
        );
    }
    let numbered =
        |line: &str| line.split_once('\t').is_some_and(|(number, _)| number.trim().parse::<u32>().is_ok());
    if old.lines().all(numbered) {
        return "leave out the line numbers and tabs that Read puts before each line".to_owned();
    }
    "read it again and copy the text exactly".to_owned()
}

/// Returns the line at which all lines of `old` follow each other, compared without white space.
fn find_loosely(old: &str, text: &str) -> Option<usize> {
    let squeeze = |line: &str| line.split_whitespace().collect::<String>();
    let wanted: Vec<_> = old.lines().map(squeeze).collect();
    if wanted.iter().all(String::is_empty) {
        return None;
    }
    let lines: Vec<_> = text.lines().map(squeeze).collect();
    lines.windows(wanted.len()).position(|window| window == wanted).map(|index| index + 1)
}
