//! A transcript given to the host too, for one that keeps it elsewhere: each line once, in the order of the file, after it
//! was written and before what it tells is shown.
//!
//! source: the agent protocol reference, sections 1.1 (`sessionStore`) and 1.3 (`transcript_mirror`), and the SDKs. There is
//! no answer: a host that does not read holds the session up as it does with any message, and one that is gone no more.

use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::path::Path;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::read::next_line;
use crate::{Error, Message, words};

/// The most entries of a message, where a whole file is given: hosts write a message at once.
const MAX_ENTRIES: usize = 256;
/// The most bytes of a message's entries: half of the longest line that hosts take.
const MAX_BYTES: usize = 512 * 1024;
/// Base64 over this many bytes is left out of an entry that is too long: half of it is no image.
const MAX_DATA_BYTES: usize = 64 * 1024;

/// Where lines are given.
#[derive(Clone, Debug)]
pub(super) struct Mirror(mpsc::Sender<Result<Message, Error>>);

impl Mirror {
    pub(super) const fn to(sender: mpsc::Sender<Result<Message, Error>>) -> Self {
        Self(sender)
    }

    /// Gives entries of the file at `path`.
    pub(super) async fn give(&self, path: &Path, entries: Vec<Value>) {
        // Nobody may be listening any more.
        let _ = self.0.send(Ok(message(path, entries))).await;
    }

    /// Gives a whole file. Blocks.
    pub(super) fn give_file(&self, path: &Path, mut file: &File) -> io::Result<()> {
        file.seek(SeekFrom::Start(0))?;
        let mut source = BufReader::new(file);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut line = Vec::new();
        while next_line(&mut source, &mut line)?.is_some() {
            let Ok(entry) = serde_json::from_slice(&line) else { continue };
            if entries.len() == MAX_ENTRIES || bytes + line.len() > MAX_BYTES && !entries.is_empty() {
                self.give_now(path, std::mem::take(&mut entries));
                bytes = 0;
            }
            bytes += line.len();
            entries.push(entry);
        }
        if !entries.is_empty() {
            self.give_now(path, entries);
        }
        Ok(())
    }

    fn give_now(&self, path: &Path, entries: Vec<Value>) {
        let _ = self.0.blocking_send(Ok(message(path, entries)));
    }
}

fn message(path: &Path, mut entries: Vec<Value>) -> Message {
    entries.iter_mut().for_each(fit);
    Message::Other(json!({"type": "transcript_mirror", "filePath": path, "entries": entries}))
}

/// Leaves images and documents out of an entry that no host could take: cut anywhere they are none, and the API would
/// refuse the conversation that holds one. Texts may be cut, and are where lines are written.
fn fit(entry: &mut Value) {
    let mut left = MAX_BYTES;
    if is_long(entry, &mut left) {
        leave_out_data(entry);
    }
}

/// Whether the strings of a value are longer together than what is `left`.
fn is_long(value: &Value, left: &mut usize) -> bool {
    match value {
        Value::String(text) if text.len() > *left => true,
        Value::String(text) => {
            *left -= text.len();
            false
        }
        Value::Array(items) => items.iter().any(|item| is_long(item, left)),
        Value::Object(fields) => fields.values().any(|field| is_long(field, left)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn leave_out_data(value: &mut Value) {
    let data = value.pointer("/source/data").and_then(Value::as_str);
    if data.is_some_and(|data| data.len() > MAX_DATA_BYTES) {
        *value = json!({"type": "text", "text": words::LEFT_OUT_OF_MIRROR});
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(leave_out_data),
        Value::Object(fields) => fields.values_mut().for_each(leave_out_data),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(message: &Message) -> Vec<Value> {
        message.to_value()["entries"].as_array().unwrap().clone()
    }

    #[test]
    fn a_file_is_given_in_bounded_parts_and_in_order() {
        let (sender, mut receiver) = mpsc::channel(64);
        let mut file = tempfile::tempfile().unwrap();
        for n in 0..600 {
            let text = if n % 100 == 0 { "x".repeat(300 * 1024) } else { String::new() };
            io::Write::write_all(&mut file, format!("{{\"n\":{n},\"text\":\"{text}\"}}\n").as_bytes())
                .unwrap();
            io::Write::write_all(&mut file, b"{ broken\n").unwrap();
        }
        Mirror::to(sender).give_file(Path::new("/a/b.jsonl"), &file).unwrap();
        let mut given = Vec::new();
        while let Ok(message) = receiver.try_recv() {
            let message = message.unwrap();
            let entries = entries(&message);
            assert!(entries.len() <= MAX_ENTRIES);
            assert!(message.to_value().to_string().len() < MAX_BYTES * 2 - MAX_BYTES / 2);
            given.extend(entries.iter().map(|entry| entry["n"].as_u64().unwrap()));
        }
        assert_eq!(given, (0..600).collect::<Vec<_>>());
    }

    #[test]
    fn an_image_that_no_line_holds_becomes_a_word_and_small_ones_stay() {
        let image =
            |bytes: usize| json!({"type": "image", "source": {"type": "base64", "data": "A".repeat(bytes)}});
        let entry = |bytes| json!({"message": {"content": [{"type": "text", "text": "see"}, image(bytes)]}});
        let mut long = entry(2 * 1024 * 1024);
        fit(&mut long);
        assert_eq!(long["message"]["content"][1], json!({"type": "text", "text": words::LEFT_OUT_OF_MIRROR}));
        assert_eq!(long["message"]["content"][0]["text"], "see");
        let mut short = entry(300 * 1024);
        fit(&mut short);
        assert_eq!(short, entry(300 * 1024));
    }
}
