//! Read.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::window::{Page, Window};
use super::file::{self, ReadError};
use super::input::parse_input;
use super::text::PAGE_BYTES;
use super::{Failure, notebook, work};
use crate::tool::{Tool, ToolContext, ToolOutput};

mod image;
mod window;

/// What one Read gives with `allow_large`, in bytes as they are in JSON.
const LARGE_PAGE_BYTES: usize = 4 * PAGE_BYTES;

/// How far into a file over the size limit lines are counted. Beyond, `tail`, `dd` and the like are the tools.
const SCAN_BYTES: u64 = 1024 * 1024 * 1024;

/// The largest image, in bytes: 5 MB in base64 is what the Messages API takes.
const IMAGE_BYTES: usize = 3_750_000;

/// The largest image of which the program gets a second copy; see [`PAGE_BYTES`].
const IMAGE_TWICE_BYTES: usize = 330_000;

/// What a PDF begins with.
const PDF: &[u8] = b"%PDF-";

/// Bytes at the start that tell text from binary.
const SNIFF_BYTES: usize = 8 * 1024;

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
         - Images (PNG, JPEG, GIF, WebP) are shown to you as images, PDFs as documents, notebooks by their cells. Other binary files are refused.\n\
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
                "pages": {"type": "string", "description": "Pages of a PDF; not cut out here, see what it says"},
                "allow_large": {"type": "boolean", "description": "Give several times as much at once as usual; only when you need all of a big file"},
            },
            "required": ["file_path"],
            "additionalProperties": false,
        })
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            match parse_input("Read", &self.input_schema(), input) {
                Ok(input) => work::blocking(context, move |context, stop| read(&input, context, stop)).await,
                Err(failure) => failure.into(),
            }
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    file_path: String,
    offset: Option<usize>,
    limit: Option<usize>,
    pages: Option<String>,
    #[serde(default)]
    allow_large: bool,
}

impl Input {
    fn window(&self, context: &ToolContext) -> Window {
        let lines = match self.limit {
            Some(limit) => limit,
            None if self.allow_large => usize::MAX,
            None => context.limits.read_lines,
        };
        let bytes = if self.allow_large { LARGE_PAGE_BYTES } else { PAGE_BYTES };
        Window::new(self.offset.unwrap_or(1).max(1), lines, bytes, context.limits.read_line_chars)
    }
}

fn read(input: &Input, context: &ToolContext, stop: &CancellationToken) -> ToolOutput {
    let read = file::absolute(&input.file_path, context).and_then(|path| {
        let (file, metadata) =
            file::open_regular(&path).map_err(|error| error.told(&input.file_path, context))?;
        let opened = Opened { path, file, metadata };
        if opened.metadata.len() > context.limits.file_bytes {
            read_large(input, opened, context, stop)
        } else {
            read_whole(input, opened, context, stop)
        }
    });
    read.unwrap_or_else(ToolOutput::from)
}

struct Opened {
    path: PathBuf,
    file: File,
    metadata: Metadata,
}

impl Opened {
    fn note(&self, bytes: Option<&[u8]>, context: &ToolContext) {
        // A file that is gone by now need not be known.
        if let Ok(resolved) = std::fs::canonicalize(&self.path) {
            context.reads.note(&resolved, file::known(&self.metadata, bytes));
        }
    }
}

fn read_whole(
    input: &Input,
    mut opened: Opened,
    context: &ToolContext,
    stop: &CancellationToken,
) -> Result<ToolOutput, Failure> {
    let bytes = file::read_whole(&mut opened.file, context.limits.file_bytes, stop)
        .map_err(|error| error.told(&input.file_path, context))?;
    if let Some(media_type) = image::media_type(&bytes) {
        let shown = show_image(&input.file_path, media_type, &bytes)?;
        opened.note(Some(&bytes), context);
        return Ok(shown);
    }
    if bytes.starts_with(PDF) {
        let shown = show_pdf(input, &opened.path, &bytes)?;
        opened.note(Some(&bytes), context);
        return Ok(shown);
    }
    if notebook::is_notebook(&opened.path) {
        let shown = notebook::show(&input.file_path, &opened.path, &bytes)?;
        opened.note(Some(&bytes), context);
        return Ok(shown);
    }
    refuse_binary(&input.file_path, &bytes)?;
    opened.note(Some(&bytes), context);
    let mut window = input.window(context);
    window.feed(&bytes);
    Ok(show_page(input, &opened.path, window.page(), true))
}

/// Reads part of a file that is over the size limit, without ever holding more of it than the part.
fn read_large(
    input: &Input,
    mut opened: Opened,
    context: &ToolContext,
    stop: &CancellationToken,
) -> Result<ToolOutput, Failure> {
    let given = &input.file_path;
    if input.offset.is_none() && input.limit.is_none() {
        return Err(Failure::new(format!(
            "{given} has {} bytes, more than the {} that are read at once; give offset and limit to read a part, or \
             search it with Grep",
            opened.metadata.len(),
            context.limits.file_bytes
        )));
    }
    let mut window = input.window(context);
    let mut chunk = vec![0; 256 * 1024];
    let (mut scanned, mut whole) = (0, true);
    loop {
        if stop.is_cancelled() {
            return Err(work::stopped());
        }
        let read = opened.file.read(&mut chunk).map_err(|error| ReadError::Io(error).told(given, context))?;
        if read == 0 {
            break;
        }
        if scanned == 0 {
            refuse_binary(given, &chunk[..read])?;
        }
        window.feed(&chunk[..read]);
        scanned += read as u64;
        if scanned >= SCAN_BYTES {
            whole = false;
            break;
        }
    }
    opened.note(None, context);
    Ok(show_page(input, &opened.path, window.page(), whole))
}

fn refuse_binary(given: &str, bytes: &[u8]) -> Result<(), Failure> {
    let start = &bytes[..bytes.len().min(SNIFF_BYTES)];
    let kind = match start {
        [b'%', b'P', b'D', b'F', b'-', ..] => "a large PDF; pdftotext in Bash gives its text, if it is there",
        [0x1f, 0x8b, ..] => "gzip-compressed; zcat in Bash unpacks it",
        [b'P', b'K', 3, 4, ..] => "a ZIP archive; unzip in Bash lists and unpacks it",
        [0x7f, b'E', b'L', b'F', ..] => "a program; file, strings or objdump in Bash tell about it",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16 text; iconv -f UTF-16 -t UTF-8 in Bash converts it",
        _ if memchr::memchr(0, start).is_some() => "binary; file, xxd or strings in Bash tell about it",
        _ => return Ok(()),
    };
    Err(Failure::new(format!("{given} is not text: it is {kind}")))
}

fn show_page(input: &Input, path: &Path, page: Page, whole: bool) -> ToolOutput {
    let structured = json!({
        "type": "text",
        "file": {
            "filePath": path,
            "content": page.content(),
            "numLines": page.lines.len(),
            "startLine": page.first,
            "totalLines": page.total_lines,
        },
    });
    ToolOutput::ok(page.text(&input.file_path, whole), structured)
}

fn show_pdf(input: &Input, path: &Path, bytes: &[u8]) -> Result<ToolOutput, Failure> {
    let given = &input.file_path;
    if input.pages.is_some() || bytes.len() > IMAGE_BYTES {
        return Err(Failure::new(format!(
            "{given} has {} bytes; a PDF is shown whole, up to {IMAGE_BYTES} bytes, and single pages are not cut out here: `pdftotext -f 1 -l 5` in \
             Bash gives the text of some, if it is there",
            bytes.len()
        )));
    }
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    let copy = if bytes.len() <= IMAGE_TWICE_BYTES { base64.as_str() } else { "" };
    let structured =
        json!({"type": "pdf", "file": {"filePath": path, "base64": copy, "originalSize": bytes.len()}});
    let source = json!({"type": "base64", "media_type": "application/pdf", "data": base64});
    let block = json!({"type": "document", "source": source});
    Ok(ToolOutput { content: json!([block]), ..ToolOutput::ok("", structured) })
}

fn show_image(given: &str, media_type: &str, bytes: &[u8]) -> Result<ToolOutput, Failure> {
    if bytes.len() > IMAGE_BYTES {
        return Err(Failure::new(format!(
            "{given} is an image of {} bytes, more than the {IMAGE_BYTES} that can be shown; make it smaller first",
            bytes.len()
        )));
    }
    let dimensions = image::dimensions(media_type, bytes).ok_or_else(|| {
        Failure::new(format!("{given} begins like {media_type}, but it is broken: it cannot be shown"))
    })?;
    if dimensions.width.max(dimensions.height) > image::MAX_SIDE {
        return Err(Failure::new(format!(
            "{given} is an image of {}x{} pixels; more than {} on a side cannot be shown: make it smaller first",
            dimensions.width,
            dimensions.height,
            image::MAX_SIDE
        )));
    }
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    let copy = if bytes.len() <= IMAGE_TWICE_BYTES { base64.as_str() } else { "" };
    let structured = json!({
        "type": "image",
        "file": {
            "base64": copy,
            "type": media_type,
            "originalSize": bytes.len(),
            "dimensions": {"originalWidth": dimensions.width, "originalHeight": dimensions.height},
        },
    });
    let block = json!({
        "type": "image",
        "source": {"type": "base64", "media_type": media_type, "data": base64},
    });
    Ok(ToolOutput { content: json!([block]), ..ToolOutput::ok("", structured) })
}
