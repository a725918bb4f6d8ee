//! A server that is a program: messages are lines on its standard input and output.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use rmcp::RoleClient;
use rmcp::transport::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::sync::CancellationToken;

use super::wire::{Incoming, MAX_MESSAGE_BYTES, MAX_UNASKED, Outgoing, Reader};
use crate::tools::bash::Tree;

/// How long a server may leave its input unread.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a server may take to end once its input has.
const EXIT_GRACE: Duration = Duration::from_millis(300);
/// What is kept of the end of standard error, in bytes: enough for the last words of a program.
const STDERR_BYTES: usize = 2 * 1024;

/// A running server. Dropping it kills the program and all that it started.
pub(super) struct Program {
    child: Child,
    tree: Tree,
    last_words: LastWords,
}

/// The end of what a program wrote to standard error.
#[derive(Clone, Debug, Default)]
pub(super) struct LastWords {
    kept: Arc<Mutex<Vec<u8>>>,
    /// Fires when nothing more is written.
    over: CancellationToken,
}

/// What a program needs to be started.
pub(super) struct Launch<'a> {
    pub(super) command: &'a str,
    pub(super) args: &'a [String],
    /// All of its environment.
    pub(super) env: &'a [(String, String)],
    pub(super) cwd: &'a Path,
    /// What starts it in its place, so that it dies with us.
    pub(super) launcher: &'a [String],
}

impl Program {
    /// Starts a program, and gives what it is spoken to by.
    pub(super) fn start(launch: &Launch<'_>) -> io::Result<(Self, StdioTransport, ChildStderr)> {
        let mut words = launch.launcher.iter().map(String::as_str).chain([launch.command]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .args(launch.args)
            .env_clear()
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            .current_dir(launch.cwd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let gone = || io::Error::other("it ended at once");
        let tree = Tree::of(child.id().ok_or_else(gone)?);
        let stdin = child.stdin.take().ok_or_else(gone)?;
        let stdout = child.stdout.take().ok_or_else(gone)?;
        let stderr = child.stderr.take().ok_or_else(gone)?;
        let program = Self { child, tree, last_words: LastWords::default() };
        Ok((program, StdioTransport::new(stdin, stdout), stderr))
    }

    /// Where its last words go.
    pub(super) fn last_words(&self) -> LastWords {
        self.last_words.clone()
    }

    /// Ends it: it is asked, then killed. What is left of its tree is ended even where the program itself has.
    pub(super) async fn end(mut self) {
        self.tree.end().await;
        let _ = self.child.wait().await;
    }

    /// Waits a moment for it to end by itself.
    pub(super) async fn ended(&mut self) {
        if timeout(EXIT_GRACE, self.child.wait()).await.is_ok() {
            let _ = timeout(EXIT_GRACE, self.last_words.over.cancelled()).await;
        }
    }

    /// How it ended, where it has.
    pub(super) fn epitaph(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten();
        let words = self.last_words.text();
        match (status, words.is_empty()) {
            (Some(status), true) => Some(format!("it ended with {status}")),
            (Some(status), false) => Some(format!("it ended with {status}: {words}")),
            (None, true) => None,
            (None, false) => Some(words),
        }
    }
}

impl LastWords {
    /// Reads to the end, and keeps the last of it.
    pub(super) async fn listen(self, mut stderr: ChildStderr) {
        let _over = self.over.clone().drop_guard();
        let mut chunk = [0; 1024];
        while let Ok(read) = stderr.read(&mut chunk).await {
            if read == 0 {
                break;
            }
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&chunk[..read]);
            let excess = kept.len().saturating_sub(STDERR_BYTES);
            kept.drain(..excess);
        }
    }

    fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        let last: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).rev().take(3).collect();
        last.into_iter().rev().map(str::trim).collect::<Vec<_>>().join(" | ")
    }
}

/// Lines to and from a program.
pub(super) struct StdioTransport {
    stdin: Arc<tokio::sync::Mutex<Option<ChildStdin>>>,
    lines: FramedRead<ChildStdout, LinesCodec>,
    reader: Reader,
    /// Lines that were no messages since the last that was one.
    nonsense: usize,
}

impl StdioTransport {
    fn new(stdin: ChildStdin, stdout: ChildStdout) -> Self {
        Self {
            stdin: Arc::new(tokio::sync::Mutex::new(Some(stdin))),
            lines: FramedRead::new(stdout, LinesCodec::new_with_max_length(MAX_MESSAGE_BYTES)),
            reader: Reader::default(),
            nonsense: 0,
        }
    }
}

impl Transport<RoleClient> for StdioTransport {
    type Error = io::Error;

    fn send(&mut self, item: Outgoing) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
        self.reader.note(&item);
        let stdin = Arc::clone(&self.stdin);
        async move {
            let mut line = serde_json::to_vec(&item)?;
            line.push(b'\n');
            let mut stdin = stdin.lock().await;
            let writing = async {
                let open = stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
                open.write_all(&line).await?;
                open.flush().await
            };
            match timeout(WRITE_PATIENCE, writing).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error),
                Err(_) => {
                    // Half a line may be written: nothing can follow it.
                    *stdin = None;
                    Err(io::Error::other("it does not read what it is sent"))
                }
            }
        }
    }

    async fn receive(&mut self) -> Option<Incoming> {
        loop {
            // A line that is too long, or not UTF-8, ends the connection: what waits for it must not wait for ever.
            let line = self.lines.next().await?.ok()?;
            let message = serde_json::from_str(&line).ok().and_then(|message| self.reader.read(message));
            if message.is_some() {
                self.nonsense = 0;
                return message;
            }
            // Many programs print what is no message.
            self.nonsense += 1;
            if self.nonsense > MAX_UNASKED {
                return None;
            }
        }
    }

    async fn close(&mut self) -> Result<(), io::Error> {
        // One that is being written to is closed by its dropping.
        if let Ok(mut stdin) = self.stdin.try_lock() {
            *stdin = None;
        }
        Ok(())
    }
}
