//! What an MCP tool gave, as the Messages API takes it.

use serde_json::{Value, json};

use crate::session::file_name;
use crate::tool::{ToolContext, ToolOutput};
use crate::tools::file;
use crate::words;

/// Characters that the model sees of a result that is kept in a file.
const SHOWN_CHARS: usize = 2_000;
/// The most blocks of one result.
const MAX_BLOCKS: usize = 256;
/// The largest picture, in characters of base64. source: the Messages API's limit of 5 MB a picture.
const MAX_IMAGE_CHARS: usize = 5 * 1024 * 1024;
/// The kinds of pictures that the API takes.
const IMAGES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// Reads the result of `tools/call`.
pub(super) fn output(mut result: Value) -> ToolOutput {
    let is_error = result["isError"] == true;
    let content = match result.get_mut("content").map(Value::take) {
        Some(Value::Array(blocks)) => blocks,
        Some(_) | None => Vec::new(),
    };
    let mut blocks: Vec<Value> =
        content.iter().take(MAX_BLOCKS).filter_map(|block| read(block, is_error)).collect();
    if content.len() > MAX_BLOCKS {
        blocks.push(text(format!("[{} more parts were left out]", content.len() - MAX_BLOCKS)));
    }
    let structured = result.get("structuredContent").filter(|value| !value.is_null());
    let is_text = |block: &Value| block["type"] == "text";
    if let Some(structured) = structured.filter(|_| !is_error && blocks.iter().all(is_text)) {
        // The texts beside it say the same.
        let said = structured.to_string();
        return ToolOutput::ok(said.clone(), json!({"content": said, "structuredContent": structured}));
    }
    if blocks.is_empty() {
        blocks.push(text("(The tool gave nothing.)"));
    }
    if is_error {
        let said: Vec<&str> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
        return ToolOutput::error(said.join("\n"));
    }
    ToolOutput { content: Value::Array(blocks), ..ToolOutput::ok("", Value::Array(content)) }
}

/// Keeps a result that is too long for the model in a file, and says where.
pub(super) async fn fit(output: ToolOutput, most_chars: usize, context: &ToolContext) -> ToolOutput {
    let texts: Vec<&str> = match &output.content {
        Value::String(text) => vec![text],
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        _ => return output,
    };
    // A character has a byte at least.
    if texts.iter().map(|text| text.len()).sum::<usize>() <= most_chars {
        return output;
    }
    let chars = texts.iter().map(|text| text.chars().count()).sum::<usize>();
    if chars <= most_chars {
        return output;
    }
    let whole = texts.join("\n");
    let path = context.output_dir.join(format!("{}.txt", file_name(&context.tool_use_id)));
    let beginning: String = whole.chars().take(SHOWN_CHARS.min(most_chars)).collect();
    let kept = file::keep(&path, whole.into_bytes())
        .await
        .map_err(|error| tracing::warn!(%error, "a long tool result was not kept"))
        .is_ok();
    let text = words::server_said_too_much(chars, most_chars, kept.then_some(path.as_path()), &beginning);
    ToolOutput { is_error: output.is_error, ..ToolOutput::ok(text.clone(), text.into()) }
}

/// A block; of an error only its words, for the API takes nothing else there.
fn read(block: &Value, is_error: bool) -> Option<Value> {
    let said = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(match block["type"].as_str() {
        // The API refuses empty text.
        Some("text") => text(Some(said(&block["text"])).filter(|text| !text.is_empty())?),
        Some("image") if !is_error => image(&block["mimeType"], &block["data"]),
        Some(kind @ ("image" | "audio")) => left_out(kind, &block["mimeType"]),
        Some("resource") => {
            let resource = &block["resource"];
            match (&resource["text"], &resource["blob"]) {
                (Value::String(body), _) => text(format!("[{}]\n{body}", said(&resource["uri"]))),
                (_, blob @ Value::String(_)) if !is_error => image(&resource["mimeType"], blob),
                _ => left_out("resource", &resource["mimeType"]),
            }
        }
        Some("resource_link") => text(format!("[{}: {}]", said(&block["name"]), said(&block["uri"]))),
        // Types of tomorrow are shown as they are.
        Some(_) => text(block.to_string()),
        None => return None,
    })
}

fn image(kind: &Value, data: &Value) -> Value {
    match (kind.as_str(), data.as_str()) {
        (Some(media_type), Some(data)) if IMAGES.contains(&media_type) && data.len() <= MAX_IMAGE_CHARS => {
            json!({"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}})
        }
        _ => left_out("image", kind),
    }
}

fn left_out(what: &str, kind: &Value) -> Value {
    let kind: String = kind.as_str().unwrap_or("unknown type").chars().take(80).collect();
    text(
        format!("[An {what} of type {kind} was left out: it cannot be shown to you.]").replace("An r", "A r"),
    )
}

fn text(text: impl Into<String>) -> Value {
    json!({"type": "text", "text": text.into()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_of_all_kinds() {
        let output = output(json!({"content": [
            {"type": "text", "text": "Hello."}, {"type": "text", "text": ""},
            {"type": "image", "mimeType": "image/png", "data": "iVBO"},
            {"type": "image", "mimeType": "image/tiff", "data": "x"},
            {"type": "image", "mimeType": "image/png", "data": "x".repeat(MAX_IMAGE_CHARS + 1)},
            {"type": "audio", "mimeType": "audio/wav", "data": "x"},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}},
            {"type": "resource_link", "uri": "file:///b", "name": "b"},
            {"type": "hologram", "x": 1}, 7, null,
        ]}));
        assert!(!output.is_error);
        assert_eq!(
            output.content,
            json!([
                {"type": "text", "text": "Hello."},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                {"type": "text", "text": "[An image of type image/tiff was left out: it cannot be shown to you.]"},
                {"type": "text", "text": "[An image of type image/png was left out: it cannot be shown to you.]"},
                {"type": "text", "text": "[An audio of type audio/wav was left out: it cannot be shown to you.]"},
                {"type": "text", "text": "[file:///a]\ninside"},
                {"type": "text", "text": "[b: file:///b]"},
                {"type": "text", "text": "{\"type\":\"hologram\",\"x\":1}"},
            ])
        );
    }

    #[test]
    fn little_and_nonsense() {
        for (result, expected, is_error) in [
            (json!({}), json!([{"type": "text", "text": "(The tool gave nothing.)"}]), false),
            (
                json!({"content": "no list"}),
                json!([{"type": "text", "text": "(The tool gave nothing.)"}]),
                false,
            ),
            (
                json!({"content": [{"type": "text", "text": "a is 1"}], "structuredContent": {"a": 1}}),
                json!("{\"a\":1}"),
                false,
            ),
            (
                json!({"isError": true, "content": [{"type": "text", "text": "No."}, {"type": "image", "mimeType": "image/png", "data": "x"}]}),
                json!("No.\n[An image of type image/png was left out: it cannot be shown to you.]"),
                true,
            ),
        ] {
            let output = output(result.clone());
            assert_eq!((output.content, output.is_error), (expected, is_error), "{result}");
        }
        let many = output(json!({"content": vec![json!({"type": "text", "text": "x"}); 1000]}));
        assert_eq!(many.content.as_array().unwrap().len(), MAX_BLOCKS + 1);
    }
}
