//! What the server does from time to time: forgets answers that were kept long enough, files whose time is over, and what
//! else is kept for a time only.

use std::sync::Arc;
use std::time::Duration;

use wardian_protocol::{FileId, OrgId};
use wardian_session::Retention;

use crate::App;
use crate::idempotency::KEPT;

/// How often it is done.
const EVERY: Duration = Duration::from_secs(300);
/// Files that are looked for at once.
const BATCH: u32 = 100;

/// Runs until the server stops. `named`: bytes of files that were there at the start.
pub async fn run(app: Arc<App>, named: Vec<(OrgId, FileId)>) {
    let work = async {
        app.blobs.remove_unknown(app.store.as_ref(), named).await;
        loop {
            if let Err(error) = once(&app).await {
                tracing::warn!(%error, "what is over could not be forgotten; it is tried again");
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = app.stopping.cancelled() => {}
    }
}

/// Deletes by age until the server stops. A batch that was begun is ended, so that no folder stays without its session.
pub async fn expire(app: Arc<App>) {
    let retention = app.config.retention;
    if retention == Retention::default() {
        return;
    }
    while !app.stopping.is_cancelled() {
        if let Err(error) = app.engine.expire(&retention).await {
            tracing::warn!(%error, "what was kept for long enough could not be deleted; it is tried again");
        }
        tokio::select! {
            () = tokio::time::sleep(app.config.retention_every) => {}
            () = app.stopping.cancelled() => {}
        }
    }
}

async fn once(app: &App) -> Result<(), wardian_store::Error> {
    let now = (app.config.clock)();
    if let Ok(before) = now.checked_sub(KEPT) {
        app.store.expire_idempotent(before).await?;
    }
    loop {
        let expired = app.store.expired_files(now, BATCH).await?;
        if expired.is_empty() {
            return Ok(());
        }
        for file in expired {
            app.store.delete_file(&file.org_id, &file.file_id).await?;
            app.blobs.remove(&file.org_id, &file.file_id).await;
        }
    }
}
