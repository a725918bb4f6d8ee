//! The index of a session's copies: a line a checkpoint, and a line a file that joined one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{Backup, Checkpoint, Content};

const NAME: &str = "index.jsonl";
/// The most that is read of an index, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    /// A checkpoint's prompt; without one, the files join the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    path: PathBuf,
    version: u64,
    folder: PathBuf,
    /// The copy; without one there was no file, or it is not known what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default)]
    mode: u32,
    #[serde(default)]
    missing: bool,
}

pub(super) fn checkpoint(checkpoint: &Checkpoint) -> Line {
    let files = checkpoint.files.iter().filter_map(|(path, backup)| entry(path, backup)).collect();
    Line { prompt: Some(checkpoint.prompt.clone()), files }
}

pub(super) fn file(path: &Path, backup: &Backup) -> Line {
    Line { prompt: None, files: entry(path, backup).into_iter().collect() }
}

/// `None` for a path that is no text, which JSON cannot hold: the rest of its line still counts.
fn entry(path: &Path, backup: &Backup) -> Option<Entry> {
    path.to_str().and_then(|_| backup.folder.to_str())?;
    let (name, mode, missing) = match &backup.content {
        Content::Missing => (None, 0, true),
        Content::Copy { name, mode } => (Some(name.clone()), *mode, false),
        Content::Unknown => (None, 0, false),
    };
    let (path, folder) = (path.to_owned(), backup.folder.clone());
    Some(Entry { path, version: backup.version, folder, name, mode, missing })
}

/// Adds a line. What cannot be written is lost with the process, and nothing else.
pub(super) fn append(folder: &Path, line: &Line) {
    let write = || -> std::io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut file = open_to_append(folder)?;
        // What a crash or a full disk cut must not take this line with it.
        let mut text = if ends_in_a_line(&file)? { String::new() } else { "\n".to_owned() };
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
        file.write_all(text.as_bytes())
    };
    if let Err(error) = write() {
        tracing::warn!(%error, "the index of the file checkpoints was not written");
    }
}

fn open_to_append(folder: &Path) -> io::Result<File> {
    // A pipe in its place must not be waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
    let mut options = std::fs::OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(folder.join(NAME))
}

fn ends_in_a_line(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    Ok(last == [b'\n'])
}

/// Has a folder begin with what another holds. The copies are shared: nobody writes into one.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let index = super::open_plain(&from.join(NAME))?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    for entry in std::fs::read_dir(from)?.flatten() {
        let name = entry.file_name();
        if name == NAME || !entry.file_type()?.is_file() {
            continue;
        }
        if std::fs::hard_link(entry.path(), to.join(&name)).is_err() {
            std::fs::copy(entry.path(), to.join(&name))?;
        }
    }
    // What names the copies comes last.
    let mut text = Vec::new();
    index.take(MAX_BYTES).read_to_end(&mut text)?;
    open_to_append(to)?.write_all(&text)
}

/// Reads an index back, with the bytes that the copies take. Lines that are none are passed over.
pub(super) fn read(folder: &Path) -> (Vec<Checkpoint>, u64) {
    let mut checkpoints: Vec<Checkpoint> = Vec::new();
    let Ok(file) = super::open_plain(&folder.join(NAME)) else { return (checkpoints, 0) };
    for line in BufReader::new(file.take(MAX_BYTES)).split(b'\n').map_while(Result::ok) {
        let Ok(Line { prompt, files }) = serde_json::from_slice::<Line>(&line) else { continue };
        if let Some(prompt) = prompt {
            checkpoints.push(Checkpoint { prompt, files: BTreeMap::new() });
        }
        if let Some(last) = checkpoints.last_mut() {
            last.files.extend(files.into_iter().filter_map(backup));
        }
        super::forget_first(&mut checkpoints);
    }
    let sizes = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = sizes.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum();
    (checkpoints, bytes)
}

/// A copy is a file of the folder and nothing else: the index may lie.
fn backup(entry: Entry) -> Option<(PathBuf, Backup)> {
    let Entry { path, version, folder, name, mode, missing } = entry;
    let content = match name {
        Some(name) if name.contains('/') => return None,
        Some(name) => Content::Copy { name, mode: mode & 0o777 },
        None if missing => Content::Missing,
        None => Content::Unknown,
    };
    path.is_absolute().then_some((path, Backup { version, content, folder }))
}
