//! Blocking work beside the async runtime.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::tool::{ToolContext, ToolOutput};

/// How long stopped work may take to notice. Work looks at its token every few milliseconds; only a file system that
/// hangs takes longer, and for that nobody waits.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How long any file work may take. A search ends itself long before; a file system that hangs does not.
const WORK_MAX: Duration = Duration::from_secs(60);

/// Runs blocking file work and gives what it gave. The token that it gets fires when the turn is stopped or the call
/// is dropped. Work that comes to its end although it was stopped has its result told: it may have written a file.
pub async fn blocking<F>(context: &ToolContext, work: F) -> ToolOutput
where
    F: FnOnce(&ToolContext, &CancellationToken) -> ToolOutput + Send + 'static,
{
    let stop = context.cancel.child_token();
    let _stop_when_dropped = stop.clone().drop_guard();
    let shared = context.clone();
    let mut task = tokio::task::spawn_blocking(move || work(&shared, &stop));
    let ended = tokio::select! {
        ended = &mut task => ended,
        () = tokio::time::sleep(WORK_MAX) => return ToolOutput::error("the file system did not answer in time"),
        () = context.cancel.cancelled() => match tokio::time::timeout(STOP_GRACE, task).await {
            Ok(ended) => ended,
            Err(_) => return ToolOutput::error("the call was stopped, and its file system did not answer"),
        },
    };
    ended.unwrap_or_else(|error| ToolOutput::error(format!("the tool broke: {error}")))
}

/// Returns how a call that was stopped failed.
pub fn stopped() -> Failure {
    Failure::new("the call was stopped before it was done")
}
