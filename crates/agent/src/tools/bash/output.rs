//! What a command prints: its head and its tail in memory, all of it, up to a limit, in a file.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::tool::ToolContext;
use crate::tools::file::{self, random_name};

/// Takes the output of a command as it comes, in bounded memory.
#[derive(Debug)]
pub struct Collector {
    /// Characters that the model sees.
    max_chars: usize,
    /// The first bytes, enough for that many characters.
    head: Vec<u8>,
    /// The last bytes of what comes after, at least enough for half as many, at most for twice.
    tail: Vec<u8>,
    bytes: u64,
    folder: PathBuf,
    file: Option<(PathBuf, File)>,
    file_left: u64,
    file_broken: bool,
    /// Where all of it goes as it comes, once the command is in the background.
    log: Option<Log>,
}

/// The file of a command in the background.
#[derive(Debug)]
struct Log {
    file: File,
    left: u64,
}

impl Log {
    fn append(&mut self, bytes: &[u8]) {
        let fitting = &bytes[..bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))];
        self.left -= fitting.len() as u64;
        if self.file.write_all(fitting).is_err() || fitting.len() < bytes.len() {
            self.left = 0;
        }
    }
}

/// The output of a command.
#[derive(Debug)]
pub struct Output {
    /// As the model sees it.
    pub text: String,
    /// Its whole length.
    pub bytes: u64,
    /// Where it is kept, when the text is cut.
    pub kept: Option<PathBuf>,
}

impl Collector {
    pub fn new(context: &ToolContext) -> Self {
        Self {
            max_chars: context.limits.bash_output_chars,
            head: Vec::new(),
            tail: Vec::new(),
            bytes: 0,
            folder: context.output_dir.clone(),
            file: None,
            file_left: context.limits.bash_output_bytes as u64,
            file_broken: false,
            log: None,
        }
    }

    /// From now on all that comes goes to this file, after what has come. In memory only the beginning and the end stay.
    pub fn log_to(&mut self, path: &Path, limit: u64) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            file::private_folder(folder)?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut log = Log { file, left: limit };
        log.append(&self.head);
        log.append(&self.tail);
        self.log = Some(log);
        Ok(())
    }

    /// What has come so far, as far as it is in memory.
    pub fn so_far(&self) -> String {
        let bytes = [self.head.as_slice(), &self.tail].concat();
        last_chars(&String::from_utf8_lossy(&bytes), self.max_chars).to_owned()
    }

    pub fn push(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        match &mut self.log {
            Some(log) => log.append(chunk),
            None => self.keep(chunk),
        }
        let room = (self.max_chars * 4).saturating_sub(self.head.len());
        let (head, tail) = chunk.split_at(chunk.len().min(room));
        self.head.extend_from_slice(head);
        self.tail.extend_from_slice(tail);
        if self.tail.len() > self.max_chars * 4 {
            self.tail.drain(..self.tail.len() - self.max_chars * 2);
        }
    }

    /// Writes to the file what may be too long to be shown. A write into the page cache takes microseconds, so this is
    /// done in place; beyond the limit nothing is written.
    fn keep(&mut self, chunk: &[u8]) {
        if self.bytes <= self.max_chars as u64 || self.file_broken || self.file_left == 0 {
            return;
        }
        let written = if self.file.is_some() {
            self.append(chunk)
        } else {
            // Until now all that came is in the head.
            let before = self.head.clone();
            self.open().and_then(|()| self.append(&before)).and_then(|()| self.append(chunk))
        };
        self.file_broken = written.is_err();
    }

    fn open(&mut self) -> std::io::Result<()> {
        let path = self.folder.join(random_name("bash-", ".txt")?);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        self.file = Some((path, file));
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Some((_, file)) = &mut self.file else { return Ok(()) };
        let bytes = &bytes[..bytes.len().min(usize::try_from(self.file_left).unwrap_or(usize::MAX))];
        self.file_left -= bytes.len() as u64;
        file.write_all(bytes)
    }

    /// Ends the output.
    pub fn finish(self) -> Output {
        let head = String::from_utf8_lossy(&self.head);
        let path = self.file.map(|(path, _)| path);
        if self.tail.is_empty() && head.chars().nth(self.max_chars).is_none() {
            if let Some(path) = path {
                let _ = std::fs::remove_file(path);
            }
            return Output { text: trimmed(&head).to_owned(), bytes: self.bytes, kept: None };
        }
        let half = self.max_chars / 2;
        let all_is_here = self.bytes == (self.head.len() + self.tail.len()) as u64;
        let rest = if all_is_here { [self.head.as_slice(), &self.tail].concat() } else { self.tail };
        let rest = String::from_utf8_lossy(whole_chars(&rest));
        let (first, last) = (first_chars(&head, half), last_chars(&rest, half));
        let middle = self.bytes.saturating_sub((first.len() + last.len()) as u64);
        let kept = path.filter(|_| !self.file_broken);
        let whereabouts = match &kept {
            Some(path) if self.file_left > 0 => {
                format!("all of it is in {}; read or search that", path.display())
            }
            Some(path) => format!("its beginning is in {}; the rest was too long to keep", path.display()),
            None => "it could not be kept".to_owned(),
        };
        let text = format!(
            "{first}\n\n[{middle} of {} bytes of output left out here: {whereabouts}]\n\n{last}",
            self.bytes
        );
        Output { text: trimmed(&text).to_owned(), bytes: self.bytes, kept }
    }
}

/// Without empty lines at the start and white space at the end.
fn trimmed(text: &str) -> &str {
    let text = text.trim_end();
    let begins = text.len() - text.trim_start().len();
    let line = text[..begins].rfind('\n').map_or(0, |at| at + 1);
    &text[line..]
}

fn first_chars(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(at, _)| &text[..at])
}

fn last_chars(text: &str, chars: usize) -> &str {
    match chars.checked_sub(1) {
        Some(index) => text.char_indices().nth_back(index).map_or(text, |(at, _)| &text[at..]),
        None => "",
    }
}

/// Drops the rest of a character at the start.
fn whole_chars(bytes: &[u8]) -> &[u8] {
    let rest = bytes.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
    &bytes[rest..]
}
