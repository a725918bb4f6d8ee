//! What a tool is, and what it gets.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::Checkpoints;

use crate::session::Setup;

/// A tool that the model can call. Users plug in their own.
pub trait Tool: Send + Sync {
    /// The name that the model calls it by.
    fn name(&self) -> &str;
    /// What the model is told about it.
    fn description(&self) -> &str;
    /// The JSON schema of its input, an object.
    fn input_schema(&self) -> Value;
    /// Whether it changes nothing: such calls of one reply run side by side.
    fn is_read_only(&self) -> bool {
        false
    }
    /// Whether it may run beside other calls of the same reply.
    fn runs_alongside(&self) -> bool {
        self.is_read_only()
    }
    /// Whether whoever runs it knows, by the call's id, what it has already done: then a call may be made again after a
    /// restart. Others are never run twice.
    fn is_repeatable(&self) -> bool {
        false
    }
    /// Whether it checks its input itself: then it also gets one that does not fit its schema.
    fn checks_input(&self) -> bool {
        false
    }
    /// What is wrong with an input that fits the schema, in words that the model can act on: then it is not run, and
    /// nobody is asked about it.
    fn objection(&self, _input: &Value) -> Option<String> {
        None
    }
    /// Does it. A failure is a [`ToolOutput`] that the model can act on. When `context.cancel` fires the tool ends
    /// what it started and returns soon.
    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput>;
}

/// What a tool gave.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolOutput {
    /// For the model: a string, or a list of content blocks.
    pub content: Value,
    /// For the program: `tool_use_result`, in the shape of the protocol reference, section 1.6.
    pub structured: Value,
    /// Whether it failed.
    pub is_error: bool,
    /// What the model is told after the results, in its user's place.
    pub followed_by: Option<String>,
}

impl ToolOutput {
    /// A success.
    #[must_use]
    pub fn ok(text: impl Into<String>, structured: Value) -> Self {
        Self { content: Value::String(text.into()), structured, is_error: false, followed_by: None }
    }

    /// A failure that the model can act on; programs see `Error: <text>`.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            structured: Value::String(format!("Error: {text}")),
            content: Value::String(text),
            is_error: true,
            followed_by: None,
        }
    }
}

/// What tools share within a session.
#[derive(Clone, Debug)]
pub struct ToolContext {
    /// The session's working directory, absolute.
    pub cwd: PathBuf,
    /// Where the next Bash call begins; a `cd` in one call lasts for the next.
    pub bash_cwd: Arc<Mutex<PathBuf>>,
    /// The environment of child processes, whole: nothing is inherited besides. Holds no key.
    pub env: Arc<Vec<(String, String)>>,
    /// Which files were read, and as of when.
    pub reads: ReadLog,
    /// Keeps what files were before they are changed: tools that write say so with [`Self::before_change`].
    pub checkpoints: Option<Checkpoints>,
    /// Where outputs too long for the model are kept.
    pub output_dir: PathBuf,
    /// Limits of the tools.
    pub limits: Arc<ToolLimits>,
    /// The call's id.
    pub tool_use_id: String,
    /// Fires when the turn is stopped.
    pub cancel: CancellationToken,
    /// The session that the call is made in.
    pub(crate) within: Within,
}

/// The session that a call is made in, for the tools that work on it; none in a tool that is called by itself.
#[derive(Clone, Default)]
pub(crate) struct Within(Option<Arc<Setup>>);

impl Within {
    pub(crate) fn of(setup: &Arc<Setup>) -> Self {
        Self(Some(Arc::clone(setup)))
    }

    pub(crate) const fn setup(&self) -> Option<&Arc<Setup>> {
        self.0.as_ref()
    }
}

impl std::fmt::Debug for Within {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Within")
    }
}

impl ToolContext {
    /// What a tool gets that is called by itself, in a test of it: an empty environment, default limits, no session.
    #[must_use]
    pub fn new(cwd: PathBuf, output_dir: PathBuf) -> Self {
        Self {
            bash_cwd: Arc::new(Mutex::new(cwd.clone())),
            cwd,
            env: Arc::default(),
            reads: ReadLog::default(),
            checkpoints: None,
            output_dir,
            limits: Arc::default(),
            tool_use_id: String::new(),
            cancel: CancellationToken::new(),
            within: Within::default(),
        }
    }

    /// A path from the model made absolute: `~` is not expanded, relative paths start at the working directory.
    #[must_use]
    pub fn absolute(&self, path: &str) -> PathBuf {
        self.cwd.join(path)
    }

    /// Keeps what a file is now, so that a change can be taken back. Blocks.
    pub fn before_change(&self, path: &Path) {
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.before_change(path);
        }
    }
}

/// Which files were read or written, and what they were then. Edit and Write refuse what was not read, or has changed
/// since. One entry a file; a file costs a tool call, so the turn limit bounds it.
#[derive(Clone, Debug, Default)]
pub struct ReadLog(Arc<Mutex<Reads>>);

#[derive(Debug, Default)]
struct Reads {
    known: HashMap<PathBuf, Known>,
    /// What was noted since somebody asked last.
    news: HashMap<PathBuf, Known>,
}

/// What the model knows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The modification time seen.
    pub modified: std::time::SystemTime,
    /// A digest of the content seen, where all of it was: two changes within one clock tick differ by it, and a file
    /// that was only touched does not.
    pub digest: Option<u64>,
}

impl ReadLog {
    /// Notes that the model now knows the file, given by its resolved path.
    pub fn note(&self, path: &Path, known: Known) {
        let mut reads = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        reads.known.insert(path.to_owned(), known);
        reads.news.insert(path.to_owned(), known);
    }

    /// What was noted since this was called last.
    pub(crate) fn take_news(&self) -> HashMap<PathBuf, Known> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).news)
    }

    /// What the model knows of the file, given by its resolved path.
    #[must_use]
    pub fn known(&self, path: &Path) -> Option<Known> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).known.get(path).copied()
    }
}

/// Limits of the tools. source: the agent protocol reference, sections 1.6, 1.7 and 1.9.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolLimits {
    /// How long a Bash call may take when it does not say.
    pub bash_default_timeout: Duration,
    /// How long a Bash call may ask for.
    pub bash_max_timeout: Duration,
    /// Characters of output that the model sees.
    pub bash_output_chars: usize,
    /// Bytes of output read at all; what a command writes beyond is drained and dropped.
    pub bash_output_bytes: usize,
    /// Lines that Read gives when it does not say.
    pub read_lines: usize,
    /// Characters of a line that Read gives.
    pub read_line_chars: usize,
    /// The largest file that Read, Edit and Write touch, in bytes.
    pub file_bytes: u64,
    /// Paths that Glob gives.
    pub glob_paths: usize,
    /// Entries or lines that Grep gives when it does not say.
    pub grep_head: usize,
}

impl Default for ToolLimits {
    fn default() -> Self {
        Self {
            bash_default_timeout: Duration::from_secs(120),
            bash_max_timeout: Duration::from_secs(600),
            bash_output_chars: 30_000,
            bash_output_bytes: 16 * 1024 * 1024,
            read_lines: 2_000,
            read_line_chars: 2_000,
            file_bytes: 10 * 1024 * 1024,
            glob_paths: 100,
            grep_head: 250,
        }
    }
}
