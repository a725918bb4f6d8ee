//! Jupyter notebooks: how they are shown, and NotebookEdit.

use std::path::Path;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::file::{self, Loaded};
use super::input::parse_input;
use super::patch::TEXT_BYTES;
use super::text::{PAGE_BYTES, json_bytes};
use super::write::{check_size, put_over};
use super::{Failure, work};
use crate::random;
use crate::tool::{Tool, ToolContext, ToolOutput};

/// What is shown of one output, in characters.
const OUTPUT_CHARS: usize = 10_000;
/// The longest image that is shown, in base64, and how many of them: together they stay far below a line's 1 MiB.
const IMAGE_BYTES: usize = 128 * 1024;
const MAX_IMAGES: usize = 2;

/// Whether a path names a notebook.
pub fn is_notebook(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("ipynb"))
}

/// Shows a notebook: its cells with their outputs.
pub fn show(given: &str, path: &Path, bytes: &[u8]) -> Result<ToolOutput, Failure> {
    let notebook = Notebook::parse(given, bytes)?;
    let language = notebook.language();
    let mut shown = Shown::default();
    let cells: Vec<Value> =
        notebook.cells().iter().enumerate().map(|(index, cell)| shown.cell(index, cell, &language)).collect();
    shown.flush();
    if shown.bytes > PAGE_BYTES {
        return Err(Failure::new(format!(
            "{given} has {} bytes of cells and outputs, more than the {PAGE_BYTES} that are read at once; look at parts of it with jq in Bash, like \
             jq '.cells[0:5]'",
            shown.bytes
        )));
    }
    let structured = json!({"type": "notebook", "file": {"filePath": path, "cells": cells}});
    Ok(ToolOutput { content: Value::Array(shown.blocks), ..ToolOutput::ok("", structured) })
}

/// What is told to the model.
#[derive(Default)]
struct Shown {
    blocks: Vec<Value>,
    text: String,
    images: usize,
    bytes: usize,
}

impl Shown {
    /// Shows a cell, and gives it as programs get it.
    fn cell(&mut self, index: usize, cell: &Value, language: &str) -> Value {
        let kind = cell["cell_type"].as_str().unwrap_or("code");
        let id = cell["id"].as_str().map_or_else(|| format!("cell-{index}"), str::to_owned);
        let source = text_of(&cell["source"]);
        let mut told = json!({"cellType": kind, "source": source, "cell_id": id});
        let of_kind = if kind == "code" { String::new() } else { format!(" type=\"{kind}\"") };
        self.say(&format!("<cell id=\"{id}\"{of_kind}>{source}</cell>\n"));
        if kind == "code" {
            told["language"] = language.into();
            told["execution_count"] = cell["execution_count"].clone();
            let outputs = cell["outputs"].as_array().into_iter().flatten();
            let outputs: Vec<Value> = outputs.map(|output| self.output(output)).collect();
            if !outputs.is_empty() {
                told["outputs"] = outputs.into();
            }
        }
        told
    }

    fn output(&mut self, output: &Value) -> Value {
        let kind = output["output_type"].as_str().unwrap_or_default();
        let text = match kind {
            "stream" => text_of(&output["text"]),
            "error" => {
                let trace = output["traceback"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let trace = trace.collect::<Vec<_>>().join("\n");
                let (name, value) = (&output["ename"], &output["evalue"]);
                format!(
                    "{}: {}\n{trace}",
                    name.as_str().unwrap_or_default(),
                    value.as_str().unwrap_or_default()
                )
            }
            _ => text_of(&output["data"]["text/plain"]),
        };
        let text = shortened(&text);
        if !text.is_empty() {
            self.say(&format!("<output>{text}</output>\n"));
        }
        let mut told = json!({"output_type": kind, "text": text});
        for media_type in ["image/png", "image/jpeg"] {
            let Some(data) = output["data"].get(media_type).map(text_of) else { continue };
            let data: String = data.split_whitespace().collect();
            if self.images == MAX_IMAGES || data.len() > IMAGE_BYTES || data.is_empty() {
                self.say("<output>[an image that is not shown]</output>\n");
                break;
            }
            self.images += 1;
            self.flush();
            told["image"] = json!({"image_data": data, "media_type": media_type});
            self.blocks.push(json!({
                "type": "image",
                "source": {"type": "base64", "media_type": media_type, "data": data},
            }));
            break;
        }
        told
    }

    fn say(&mut self, text: &str) {
        self.bytes += json_bytes(text);
        // What is too much is only counted.
        if self.bytes <= PAGE_BYTES {
            self.text.push_str(text);
        }
    }

    fn flush(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() || self.blocks.is_empty() {
            let text = if text.is_empty() { "[the notebook has no cells]" } else { text.trim_end() };
            self.blocks.push(json!({"type": "text", "text": text}));
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(OUTPUT_CHARS) {
        Some((at, _)) => format!("{}… [{} bytes]", &text[..at], text.len()),
        None => text.to_owned(),
    }
}

/// A text, or lines of one.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    }
}

struct Notebook(Map<String, Value>);

impl Notebook {
    fn parse(given: &str, bytes: &[u8]) -> Result<Self, Failure> {
        let broken =
            |why: String| Failure::new(format!("{given} is no notebook that can be used here: {why}"));
        let whole: Value = serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()))?;
        let Value::Object(whole) = whole else { return Err(broken("it is no JSON object".to_owned())) };
        match whole.get("cells") {
            Some(Value::Array(cells)) if cells.iter().all(Value::is_object) => Ok(Self(whole)),
            _ => Err(broken("it has no list of cells".to_owned())),
        }
    }

    fn cells(&self) -> &[Value] {
        self.0["cells"].as_array().map_or(&[], Vec::as_slice)
    }

    fn language(&self) -> String {
        let language = self.0.get("metadata").map(|metadata| &metadata["language_info"]["name"]);
        language.and_then(Value::as_str).unwrap_or("python").to_owned()
    }

    /// Whether cells have ids: from format 4.5 on.
    fn has_ids(&self) -> bool {
        let number = |name: &str| self.0.get(name).and_then(Value::as_u64).unwrap_or_default();
        (number("nbformat"), number("nbformat_minor")) >= (4, 5)
    }

    /// A cell by its id, or as `cell-3`, by its place.
    fn find(&self, id: &str) -> Option<usize> {
        let by_id = self.cells().iter().position(|cell| cell["id"] == id);
        let by_place = || id.strip_prefix("cell-")?.parse().ok().filter(|place| *place < self.cells().len());
        by_id.or_else(by_place)
    }

    fn write(&self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        let written = self.0.serialize(&mut serializer);
        written.map_err(|error| Failure::new(format!("failed to write the notebook: {error}")))?;
        Ok(bytes)
    }
}

/// The tool `NotebookEdit`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotebookEdit;

impl Tool for NotebookEdit {
    fn name(&self) -> &str {
        "NotebookEdit"
    }

    fn description(&self) -> &str {
        "Changes one cell of a Jupyter notebook (.ipynb): replaces its source, puts a new cell in, or takes one out.\n\
         \n\
         - The notebook must have been read with Read, which shows the ids of the cells, and not have changed since.\n\
         - A new cell comes after the one with `cell_id`, or first, and needs a `cell_type`.\n\
         - The outputs of a cell that is replaced are removed."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "notebook_path": {"type": "string", "description": "Path of the notebook, best absolute"},
                "cell_id": {"type": "string", "description": "The cell's id, as Read shows it"},
                "new_source": {"type": "string", "description": "What the cell shall contain"},
                "cell_type": {"type": "string", "enum": ["code", "markdown"], "description": "The cell's type; default: as it is"},
                "edit_mode": {"type": "string", "enum": ["replace", "insert", "delete"], "description": "Default replace"},
            },
            "required": ["notebook_path", "new_source"],
            "additionalProperties": false,
        })
    }

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            match parse_input("NotebookEdit", &self.input_schema(), input) {
                Ok(input) => work::blocking(context, move |context, stop| edit(&input, context, stop)).await,
                Err(failure) => failure.into(),
            }
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    notebook_path: String,
    cell_id: Option<String>,
    new_source: String,
    cell_type: Option<String>,
    #[serde(default)]
    edit_mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Replace,
    Insert,
    Delete,
}

fn edit(input: &Input, context: &ToolContext, stop: &CancellationToken) -> ToolOutput {
    let edited = file::absolute(&input.notebook_path, context).and_then(|path| {
        if !is_notebook(&path) {
            let given = &input.notebook_path;
            return Err(Failure::new(format!("{given} is no notebook (.ipynb); change it with Edit")));
        }
        edit_file(input, &path, context, stop)
    });
    edited.unwrap_or_else(ToolOutput::from)
}

fn edit_file(
    input: &Input,
    path: &Path,
    context: &ToolContext,
    stop: &CancellationToken,
) -> Result<ToolOutput, Failure> {
    let given = &input.notebook_path;
    let old = Loaded::known(given, path, context, stop)?;
    let mut notebook = Notebook::parse(given, &old.bytes)?;
    let changed = change(&mut notebook, input)?;
    let mut bytes = notebook.write()?;
    if old.bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    check_size(bytes.len() as u64, context)?;
    context.before_change(&old.path);
    put_over(given, &old, &bytes, context)?;
    let whole = |bytes: &[u8]| match bytes.len() {
        length if length > TEXT_BYTES => String::new(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    };
    let mut structured = json!({
        "new_source": input.new_source,
        "cell_type": changed.kind,
        "language": notebook.language(),
        "edit_mode": input.edit_mode,
        "cell_id": changed.id,
        "error": "",
        "notebook_path": path,
        "original_file": whole(&old.bytes),
        "updated_file": whole(&bytes),
    });
    if let Some(old) = changed.old {
        structured["old_source"] = old.into();
    }
    let done = match input.edit_mode {
        Mode::Replace => "Replaced",
        Mode::Insert => "Put in",
        Mode::Delete => "Took out",
    };
    Ok(ToolOutput::ok(format!("{done} the cell {}.", changed.id), structured))
}

struct Changed {
    id: String,
    kind: String,
    /// The source before.
    old: Option<String>,
}

fn change(notebook: &mut Notebook, input: &Input) -> Result<Changed, Failure> {
    let place = match &input.cell_id {
        None => None,
        Some(id) => Some(notebook.find(id).ok_or_else(|| {
            let id: String = id.chars().take(60).collect();
            Failure::new(format!("there is no cell {id:?} in it; read the notebook for the ids of its cells"))
        })?),
    };
    let has_ids = notebook.has_ids();
    let Some(Value::Array(cells)) = notebook.0.get_mut("cells") else {
        return Err(Failure::new("the notebook has no list of cells"));
    };
    let need_place = || place.ok_or_else(|| Failure::new("say which cell: give its cell_id"));
    let shown_id = |cell: &Value, place: usize| match (&input.cell_id, cell["id"].as_str()) {
        (Some(given), _) => given.clone(),
        (None, Some(id)) => id.to_owned(),
        (None, None) => format!("cell-{place}"),
    };
    match input.edit_mode {
        Mode::Insert => {
            let Some(kind) = &input.cell_type else {
                return Err(Failure::new("say what the new cell is: give its cell_type, code or markdown"));
            };
            let place = place.map_or(0, |place| place + 1);
            let mut cell = json!({"cell_type": kind, "metadata": {}, "source": input.new_source});
            if has_ids {
                cell["id"] = random::uuid()[..8].into();
            }
            clear(&mut cell, kind);
            let id = cell["id"].as_str().map_or_else(|| format!("cell-{place}"), str::to_owned);
            cells.insert(place, cell);
            Ok(Changed { id, kind: kind.clone(), old: None })
        }
        Mode::Delete => {
            let place = need_place()?;
            let cell = cells.remove(place);
            let kind = cell["cell_type"].as_str().unwrap_or("code").to_owned();
            Ok(Changed { id: shown_id(&cell, place), kind, old: Some(text_of(&cell["source"])) })
        }
        Mode::Replace => {
            let place = need_place()?;
            let cell = &mut cells[place];
            let old = text_of(&cell["source"]);
            let was = cell["cell_type"].as_str().unwrap_or("code").to_owned();
            let kind = input.cell_type.clone().unwrap_or(was);
            cell["source"] = input.new_source.clone().into();
            cell["cell_type"] = kind.clone().into();
            clear(cell, &kind);
            Ok(Changed { id: shown_id(cell, place), kind, old: Some(old) })
        }
    }
}

/// A code cell without outputs; another has none at all.
fn clear(cell: &mut Value, kind: &str) {
    let Some(fields) = cell.as_object_mut() else { return };
    if kind == "code" {
        fields.insert("execution_count".to_owned(), Value::Null);
        fields.insert("outputs".to_owned(), json!([]));
    } else {
        fields.shift_remove("execution_count");
        fields.shift_remove("outputs");
    }
}
