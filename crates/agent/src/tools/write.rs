//! Write.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::file::{self, Loaded};
use super::input::parse_input;
use super::{Failure, patch, work};
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

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            match parse_input("Write", &self.input_schema(), input) {
                Ok(input) => work::blocking(context, move |context, stop| write(&input, context, stop)).await,
                Err(failure) => failure.into(),
            }
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    file_path: String,
    content: String,
}

fn write(input: &Input, context: &ToolContext, stop: &CancellationToken) -> ToolOutput {
    let written = file::absolute(&input.file_path, context).and_then(|path| {
        check_size(input.content.len() as u64, context)?;
        match what_is_there(&input.file_path, &path)? {
            There::Nothing => create(input, &path, context),
            There::File => update(input, Loaded::known(&input.file_path, &path, context, stop)?, context),
        }
    });
    written.unwrap_or_else(ToolOutput::from)
}

/// Refuses content over the limit.
pub(super) fn check_size(bytes: u64, context: &ToolContext) -> Result<(), Failure> {
    let limit = context.limits.file_bytes;
    if bytes <= limit {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the content has {bytes} bytes, more than the {limit} that a file may have here"
    )))
}

pub(super) enum There {
    Nothing,
    File,
}

/// Looks at what is there before it is written to. A link that leads to a file is followed: the file changes, the link
/// stays. One that leads nowhere is refused, for what it would create may lie anywhere.
pub(super) fn what_is_there(given: &str, path: &Path) -> Result<There, Failure> {
    if given.ends_with('/') || path.file_name().is_none() {
        return Err(Failure::new(format!("{given} names a folder; give the path of a file")));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() && std::fs::metadata(path).is_err() => {
            let target = std::fs::read_link(path).unwrap_or_default();
            Err(Failure::new(format!(
                "{given} is a link that leads nowhere, to {}; write to the file that you mean",
                target.display()
            )))
        }
        Ok(_) => Ok(There::File),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(There::Nothing),
        Err(error) => Err(Failure::new(format!("failed to look at {given}: {error}"))),
    }
}

fn create(input: &Input, path: &Path, context: &ToolContext) -> Result<ToolOutput, Failure> {
    put_new(&input.file_path, path, input.content.as_bytes(), context)?;
    let structured = json!({
        "type": "create",
        "filePath": path,
        "content": input.content,
        "structuredPatch": [],
        "originalFile": null,
        "userModified": false,
    });
    Ok(ToolOutput::ok(format!("Created {} ({}).", input.file_path, lines(&input.content)), structured))
}

/// Makes a new file, with the folders above it, and notes it as known.
pub(super) fn put_new(
    given: &str,
    path: &Path,
    content: &[u8],
    context: &ToolContext,
) -> Result<PathBuf, Failure> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(|error| {
        Failure::new(format!("failed to create the folder {}: {error}", folder.display()))
    })?;
    context.before_change(path);
    let metadata = file::replace(path, content, None).map_err(|error| cannot_write(given, &error))?;
    let resolved = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    context.reads.note(&resolved, file::known(&metadata, Some(content)));
    Ok(resolved)
}

fn update(input: &Input, old: Loaded, context: &ToolContext) -> Result<ToolOutput, Failure> {
    put_over(&input.file_path, &old, input.content.as_bytes(), context)?;
    let before = String::from_utf8_lossy(&old.bytes);
    let structured = json!({
        "type": "update",
        "filePath": context.absolute(&input.file_path),
        "content": input.content,
        "structuredPatch": patch::structured(&before, &input.content),
        "originalFile": patch::text_or_null(&before),
        "userModified": false,
    });
    Ok(ToolOutput::ok(format!("Replaced {} ({}).", input.file_path, lines(&input.content)), structured))
}

/// Replaces a file as it was loaded, and notes it as known.
pub(super) fn put_over(
    given: &str,
    old: &Loaded,
    content: &[u8],
    context: &ToolContext,
) -> Result<Metadata, Failure> {
    context.before_change(&old.path);
    let metadata = file::replace(&old.path, content, Some(&old.metadata))
        .map_err(|error| cannot_write(given, &error))?;
    context.reads.note(&old.path, file::known(&metadata, Some(content)));
    Ok(metadata)
}

fn cannot_write(given: &str, error: &io::Error) -> Failure {
    Failure::new(format!("failed to write {given}: {error}; nothing was changed"))
}

fn lines(content: &str) -> String {
    match content.lines().count() {
        1 => "1 line".to_owned(),
        count => format!("{count} lines"),
    }
}
