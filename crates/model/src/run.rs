//! The server as a command: `wardian model`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::script::{MAX_SCRIPT_BYTES, Script, ScriptError};
use crate::server::{Server, ServerOptions};

/// The arguments of the command. `Debug` does not show the key.
#[derive(Clone, Debug)]
pub struct ModelArgs {
    /// The script; without it every request is answered with its own last text.
    pub script: Option<PathBuf>,
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Log, expected key, and how many requests to keep (a command needs none of them in memory).
    pub options: ServerOptions,
}

/// What the server did, for the last line of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many requests came.
    pub requests: usize,
    /// How many clients left before their answer was complete.
    pub aborted: usize,
    /// How many replies of the script were never given.
    pub unused_replies: usize,
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file cannot be read.
    #[error("read {}", path.display())]
    File {
        /// The script's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no script.
    #[error("use {} as a script", path.display())]
    Script {
        /// The script's file.
        path: PathBuf,
        /// What is wrong, and where.
        source: ScriptError,
    },
    /// The address cannot be had, or the log cannot be opened.
    #[error("start the model server on {listen}")]
    Start {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Serves until `shutdown` is ready. Once it listens, `ready` gets one line of JSON:
/// `{"listening":"127.0.0.1:4010","base_url":"http://127.0.0.1:4010"}`.
///
/// # Errors
/// When the script cannot be read or the address cannot be had; nothing fails later.
pub async fn run(
    args: ModelArgs,
    ready: impl FnOnce(&str),
    shutdown: impl Future<Output = ()>,
) -> Result<Summary, RunError> {
    let ModelArgs { script, listen, options } = args;
    let script = match script {
        Some(path) => read(&path).await?,
        None => Script::echo(),
    };
    let server =
        Server::bind(script, listen, options).await.map_err(|source| RunError::Start { listen, source })?;
    ready(&json!({"listening": server.addr().to_string(), "base_url": server.base_url()}).to_string());
    shutdown.await;
    let summary = Summary {
        requests: server.request_count(),
        aborted: server.aborted(),
        unused_replies: server.unused_replies(),
    };
    server.shutdown().await;
    Ok(summary)
}

async fn read(path: &Path) -> Result<Script, RunError> {
    let failed = |source| RunError::File { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = String::new();
    // One byte over the limit is enough for `parse` to refuse it.
    file.take(MAX_SCRIPT_BYTES as u64 + 1).read_to_string(&mut text).await.map_err(failed)?;
    Script::parse(&text).map_err(|source| RunError::Script { path: path.to_owned(), source })
}
