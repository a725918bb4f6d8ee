//! The debug log: what the agent does, a line each, in a file of the user's choice. It holds names, numbers and outcomes:
//! no prompt, nothing that tools or the model say, and no secret that is known here, whatever a line would have held.
//!
//! Events come by `tracing`, which formats nothing while nobody listens. Only our own are taken: what libraries say of
//! their connections holds headers.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::OFlags;
use secrecy::ExposeSecret;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use wardian_agent::{ApiKey, McpServer, McpTransport};

use crate::env::Environment;

/// The most of a field that is written, in bytes: a line is read by people.
const MAX_FIELD_BYTES: usize = 600;
/// The most that one process writes: a log that was forgotten does not fill the disk.
const MAX_LOG_BYTES: u64 = 64 * 1024 * 1024;
/// The shortest text that is hidden: shorter ones are in every other word.
const MIN_SECRET_CHARS: usize = 4;
/// What stands for a secret.
const HIDDEN: &str = "***";
/// Where our events come from: the modules of our crates.
const OURS: &str = "wardian";

/// What was asked for by flags.
#[derive(Debug, Default)]
pub struct Wanted {
    /// `--debug`.
    pub on: bool,
    /// `--debug-file`.
    pub file: Option<PathBuf>,
}

/// A log that is to be written.
pub struct Plan {
    file: Option<PathBuf>,
    /// The folder of logs that no flag named a file for.
    folder: Option<PathBuf>,
    secrets: Vec<String>,
}

impl Plan {
    /// What flags and the environment ask for; `None`: no log.
    pub fn new(wanted: &mut Wanted, environment: &Environment) -> Option<Self> {
        let file = wanted.file.take();
        if file.is_none() && !wanted.on && !environment.debug {
            return None;
        }
        let folder = environment.config_dir.as_ref().map(|config| config.join("debug"));
        Some(Self { file, folder, secrets: secrets(environment) })
    }

    /// Begins the log. One that cannot be written is said on standard error, and nothing else comes of it.
    pub fn begin(self, session_id: &str, clock: fn() -> jiff::Timestamp) {
        let name = format!("{session_id}.txt");
        let path = match (self.file, self.folder) {
            (Some(file), _) => file,
            (None, Some(folder)) => {
                link_latest(&folder, &name);
                folder.join(name)
            }
            (None, None) => return,
        };
        let file = match open(&path) {
            Ok(file) => file,
            Err(error) => {
                eprintln!("warning: no debug log is written: failed to open {}: {error}", path.display());
                return;
            }
        };
        let sink = Mutex::new(Sink { file, left: MAX_LOG_BYTES });
        let log = Log { sink, secrets: Mutex::default(), clock };
        log.hide(self.secrets);
        if LOG.set(log).is_ok() {
            // Nobody else listens in this program.
            let _ = tracing::subscriber::set_global_default(Tap);
        }
    }
}

/// Has `latest` lead to the newest log. source: observed of the official CLI.
fn link_latest(folder: &Path, name: &str) {
    let link = folder.join("latest");
    // A convenience: who finds no link finds the file.
    let _ = std::fs::create_dir_all(folder);
    if std::fs::symlink_metadata(&link).is_ok_and(|there| there.is_symlink()) {
        let _ = std::fs::remove_file(&link);
    }
    let _ = std::os::unix::fs::symlink(name, link);
}

/// The secrets that the environment holds.
fn secrets(environment: &Environment) -> Vec<String> {
    let api = &environment.api;
    let mut secrets: Vec<String> = api.headers.iter().map(|(_, value)| value.clone()).collect();
    match &api.key {
        ApiKey::Key(key) | ApiKey::Bearer(key) => secrets.push(key.expose_secret().to_owned()),
        ApiKey::None | ApiKey::Missing => (),
    }
    for (name, value) in &environment.tools {
        let name = name.to_ascii_uppercase();
        if SECRET_WORDS.iter().any(|word| name.contains(word)) {
            secrets.push(value.clone());
        }
        secrets.extend(credentials(value));
    }
    secrets
}

/// Words in the names of variables that hold secrets.
const SECRET_WORDS: &[&str] = &["KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "AUTH", "COOKIE"];

/// User and password of an address, together and apart.
fn credentials(address: &str) -> Vec<String> {
    let Some((_, rest)) = address.split_once("://") else { return Vec::new() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let Some((both, _)) = authority.rsplit_once('@') else { return Vec::new() };
    let password = both.split_once(':').map(|(_, password)| password.to_owned());
    std::iter::once(both.to_owned()).chain(password).collect()
}

/// Keeps what a tool server is given out of the log.
pub fn hide(server: &McpServer) {
    let Some(log) = LOG.get() else { return };
    let values =
        |pairs: &[(String, String)]| pairs.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>();
    let secrets = match &server.transport {
        McpTransport::Stdio { command: _, args: _, env } => values(env),
        McpTransport::Http { url, headers } | McpTransport::Sse { url, headers } => {
            let mut secrets = values(headers);
            secrets.extend(credentials(url));
            secrets.extend(url.split_once('?').map(|(_, query)| query.to_owned()));
            secrets
        }
        McpTransport::Host { .. } => Vec::new(),
    };
    log.hide(secrets);
}

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    sink: Mutex<Sink>,
    /// What never appears, the longest first.
    secrets: Mutex<Vec<String>>,
    clock: fn() -> jiff::Timestamp,
}

struct Sink {
    file: File,
    /// The bytes that may still be written.
    left: u64,
}

impl Log {
    fn hide(&self, more: Vec<String>) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let long = |text: &&str| text.chars().count() >= MIN_SECRET_CHARS;
        for secret in more {
            // A header's value is `Bearer KEY`; a value of several lines may be shown by its lines.
            let parts = secret.split_whitespace().chain([secret.as_str()]).filter(long);
            secrets.extend(parts.map(str::to_owned));
        }
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
    }

    fn write(&self, level: Level, text: &str) {
        let line = format!("{:.3} [{level}] {text}\n", (self.clock)());
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let length = line.len() as u64;
        if sink.left == 0 {
            return;
        }
        let is_full = length > sink.left;
        let line = if is_full { "the log ends here: it has its full length\n".to_owned() } else { line };
        sink.left = if is_full { 0 } else { sink.left - length };
        // The other end of a pipe may be gone, or the disk full.
        if sink.file.write_all(line.as_bytes()).is_err() {
            sink.left = 0;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    // A named pipe that nobody reads is an error, and does not hold the agent.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)
}

/// Hands the events of our own crates to the log.
struct Tap;

impl Subscriber for Tap {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::DEBUG && metadata.target().starts_with(OURS)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::DEBUG)
    }

    fn event(&self, event: &Event<'_>) {
        let Some(log) = LOG.get() else { return };
        let secrets = log.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut line = Line { message: String::new(), fields: String::new(), secrets: &secrets };
        event.record(&mut line);
        log.write(*event.metadata().level(), &format!("{}{}", line.message, line.fields));
    }

    // There are no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event as text.
struct Line<'a> {
    message: String,
    fields: String,
    secrets: &'a [String],
}

impl Line<'_> {
    fn add(&mut self, field: &Field, text: &str) {
        let text = shown(text, self.secrets);
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.push_str(&format!(" {}={text}", field.name()));
        }
    }
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }
}

/// A text without secrets, of one line, and not too long. Secrets go first: what is cut or escaped is found no more.
fn shown(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        if text.contains(secret) {
            text = text.replace(secret, HIDDEN);
        }
    }
    let whole = text.len();
    text.truncate(text.floor_char_boundary(MAX_FIELD_BYTES));
    let mut text: String = text.chars().flat_map(one_line).collect();
    if whole > MAX_FIELD_BYTES {
        text.push('…');
    }
    text
}

fn one_line(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_of_one_line_and_without_secrets() {
        let secrets = ["sk-secret".to_owned(), "pw-1".to_owned()];
        for (text, expected) in [
            ("plain", "plain"),
            ("a\nb\r\x1b[31m\u{85}", "a\\nb\\r\\u{1b}[31m\\u{85}"),
            ("x-api-key: sk-secret, pw-1pw-1", "x-api-key: ***, ******"),
        ] {
            assert_eq!(shown(text, &secrets), expected);
        }
        let across = format!("{}sk-secret", "x".repeat(MAX_FIELD_BYTES - 3));
        assert!(!shown(&across, &secrets).contains("sk-"), "a cut leaves nothing of a secret");
        assert!(shown(&"é".repeat(9999), &secrets).len() < MAX_FIELD_BYTES + 8);
    }

    #[test]
    fn who_calls_is_found_in_addresses() {
        let of = |address| credentials(address).join(" ");
        assert_eq!(of("http://me:p@ss@proxy:3128/?a@b"), "me:p@ss p@ss");
        assert_eq!(of("socks5://token@h"), "token");
        for address in ["http://proxy:3128/a@b", "me@home", ""] {
            assert_eq!(of(address), "", "{address}");
        }
    }

    #[test]
    fn secrets_of_the_environment_are_known() {
        let variables = [
            ("ANTHROPIC_API_KEY", "sk-1"),
            ("ANTHROPIC_CUSTOM_HEADERS", "X-Team: red"),
            ("Db_Password", "hunter2"),
            ("HTTPS_PROXY", "http://u:proxy-pass@h"),
            ("PATH", "/bin"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let known = secrets(&Environment::from(variables.to_vec()));
        assert_eq!(known, ["red", "sk-1", "hunter2", "u:proxy-pass", "proxy-pass"]);
    }
}
