//! After a crash: brings what is left back to what the store says. The only code that ends runs it did not run.

use serde_json::json;
use wardian_protocol::{EventId, NanoUsd};
use wardian_store::{NewEvent, RunOutcomeRecord, RunRecord, RunStatus, Store, UsageQuery};

use crate::config::EngineConfig;
use crate::error::StartError;
use crate::folder::{DataFolder, Others};

/// Ends the runs whose owner is gone, with a row that says so, charges what they left open, and removes their doors.
/// Their sandboxes are gone already: the launcher swept them when it started. Where other engines work in the folder,
/// it is left to the next one that comes when nobody is there.
pub(crate) async fn reconcile(
    config: &EngineConfig,
    folder: &DataFolder,
    store: &dyn Store,
    others: Others,
) -> Result<(), StartError> {
    if others == Others::Some {
        return Ok(());
    }
    let now = (config.clock)();
    // First the money: the outcome of an interrupted run then counts what was charged for it.
    let charged = store.settle_orphans(&config.owner, now).await.map_err(StartError::Store)?;
    let runs = store.interrupted_runs(&config.owner).await.map_err(StartError::Store)?;
    if !runs.is_empty() || charged > 0 {
        tracing::warn!(runs = runs.len(), requests = charged, "runs of a process that is gone are ended");
    }
    for run in runs {
        end_interrupted(store, &run, now).await.map_err(StartError::Store)?;
    }
    folder.sweep_doors().map_err(|source| StartError::Folder { path: config.data_dir.clone(), source })
}

async fn end_interrupted(
    store: &dyn Store,
    run: &RunRecord,
    at: jiff::Timestamp,
) -> Result<(), wardian_store::Error> {
    let query = UsageQuery { run_id: Some(run.id.clone()), ..UsageQuery::default() };
    let cost = store.usage(&run.org_id, query).await?.first().map_or(NanoUsd::ZERO, |row| row.cost);
    let event = NewEvent {
        id: EventId::from_random(crate::random_bits()),
        request_id: Some(run.id.clone()),
        kind: "run.interrupted".to_owned(),
        payload: json!({"source": "observed", "status": "interrupted", "cost_usd": cost}),
        at,
    };
    store.append_events(&run.org_id, &run.session_id, run.fence, vec![event]).await?;
    let outcome = RunOutcomeRecord {
        status: RunStatus::Interrupted,
        is_error: true,
        cost,
        num_turns: 0,
        stop_reason: None,
        exit_code: None,
        detail: Some("the server that ran it died".to_owned()),
        at,
    };
    store.end_run(&run.org_id, &run.session_id, &run.id, outcome).await?;
    Ok(())
}
