//! One run, from its sandbox to its report: what is made, in which order, and how it is given back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wardian_gateway::{Door, DoorSpec, Grant, Spent};
use wardian_protocol::EventId;
use wardian_sandbox::Sandbox;
use wardian_sandbox::volume::{self, ChangeKind, Snapshot};
use wardian_store::{NewEvent, RunOutcomeRecord};

use crate::drive::{self, Driven};
use crate::engine::{Begun, Inner, RunEvent, RunSink, describe};
use crate::error::{FieldError, RunError};
use crate::launch;
use crate::plan::Plan;
use crate::report::{FileChange, ModelSpending, RunReport, RunStatus, Spending, TokenCounts};
use crate::request::{Place, Runtime};
use crate::stamp::stamp;
use crate::state::{Conclusion, Event, Row, RunState};
use crate::watch::TurnWatch;

/// The most changed files that a report lists.
pub const MAX_FILES_CHANGED: usize = 10_000;
/// How long a caller that takes no events holds up the end of its run. All of them are in the store.
pub(crate) const STALLED_CALLER: Duration = Duration::from_secs(30);

/// What a run holds, and gives back on every path.
pub(crate) struct Held {
    watch: TurnWatch,
    door: Option<Door>,
    sandbox: Option<Sandbox>,
}

impl Held {
    /// Nothing yet but who watches.
    pub(crate) const fn new(watch: TurnWatch) -> Self {
        Self { watch, door: None, sandbox: None }
    }
}

/// What the work came to, before anything is given back.
pub(crate) struct Worked {
    driven: Driven,
    before: Snapshot,
}

/// Makes everything that the run needs and follows the agent to its end.
pub(crate) async fn work(
    engine: &Inner,
    begun: &Begun,
    plan: &Plan,
    held: &mut Held,
    sink: &RunSink,
    cancel: &CancellationToken,
) -> Result<Worked, RunError> {
    let socket = engine.folder.door(&plan.request_id);
    let grant = Grant {
        org_id: begun.caller.org_id.clone(),
        user_id: begun.user.clone(),
        session_id: begun.session_id.clone(),
        run_id: plan.request_id.clone(),
        max_cost: Some(plan.limits.max_cost),
        models: None,
    };
    let before = prepare(engine, begun, plan).await?;
    let door = engine
        .gateway
        .open(DoorSpec { socket: socket.clone(), grant, observer: None })
        .map_err(RunError::Gateway)?;
    let door = held.door.insert(door);
    door.set_trace(held.watch.trace());
    let mut spec = launch::spec(&engine.config, plan, &begun.folders, socket);
    spec.tenant = tenant(begun, plan);
    let metrics = &engine.config.metrics;
    let asked = Instant::now();
    let created = engine.launcher.create(plan.request_id.as_str(), &spec).await;
    let sandbox = created.map_err(|error| {
        metrics.sandbox_failed();
        RunError::Sandbox(error)
    })?;
    metrics.sandbox_started(asked.elapsed());
    let sandbox = held.sandbox.insert(sandbox);
    let exec = launch::exec(plan, door.virtual_key().expose_secret());
    let process = match sandbox.exec(exec).await {
        Ok(process) => process,
        Err(wardian_sandbox::Error::Exec { program, cause })
            if matches!(plan.runtime, Runtime::Command(_)) =>
        {
            return Ok(Worked { driven: not_started(&program, &cause), before });
        }
        Err(error) => return Err(RunError::Sandbox(error)),
    };
    let started = RunEvent::Started {
        session_id: begun.session_id.clone(),
        request_id: plan.request_id.clone(),
        workspace: workspace(begun, plan).to_owned(),
        tier: sandbox.tier(),
    };
    let door = &*door;
    let spending = move || spending(door.spent());
    let driven =
        drive::drive(engine, begun, plan, process, started, &spending, &mut held.watch, sink, cancel).await?;
    Ok(Worked { driven, before })
}

/// A command whose program cannot be started has failed as it does in a shell.
fn not_started(program: &str, cause: &std::io::Error) -> Driven {
    let code = if cause.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    let mut state = RunState::command();
    state.step(Event::Stderr(format!("wardian: {program}: {cause}\n").into_bytes()));
    state.step(Event::Exited(code));
    Driven { state, shown: VecDeque::new(), last: None }
}

/// Gives back what is held, ends the run in the store, and makes the report.
pub(crate) async fn finish(
    engine: &Inner,
    begun: &Begun,
    plan: Plan,
    held: Held,
    worked: Result<Worked, RunError>,
    sink: &RunSink,
    cancel: &CancellationToken,
) -> Result<RunReport, RunError> {
    // First the sandbox: from here on nobody writes the workspace or asks the gateway.
    if let Some(sandbox) = held.sandbox {
        engine.config.metrics.sandbox_gone();
        if let Err(error) = sandbox.destroy().await {
            tracing::error!(
                error = describe(&error),
                "the sandbox was not destroyed; the launcher sweeps it"
            );
        }
    }
    let spending = match held.door {
        Some(door) => spending(door.close().await),
        None => Spending::default(),
    };
    let worked = match worked {
        Ok(worked) => worked,
        Err(error) => {
            let outcome = failed(&error, &spending, engine.now());
            tracing::error!(session_id = %begun.session_id, error = describe(&error), "the run failed");
            append(engine, begun, &plan, vec![ended_row(&outcome, Value::Null)]).await.ok();
            engine.end(begun, &plan.request_id, outcome).await;
            held.watch.end("error", true);
            return Err(error);
        }
    };
    let files_changed = files_changed(workspace(begun, &plan).to_owned(), worked.before).await;
    let Driven { state, shown, last } = worked.driven;
    let conclusion = state.conclude(spending.budget_refused);
    let counts = conclusion.counts;
    let report = report(begun, &plan, conclusion, &spending, files_changed);
    let outcome = outcome(&report, engine.now());
    let stored = append(engine, begun, &plan, vec![ended_row(&outcome, counts.to_json())]).await;
    engine.end(begun, &plan.request_id, outcome).await;
    held.watch.end(report.status.as_str(), report.is_error);
    tracing::info!(
        session_id = %begun.session_id, user_id = begun.user, status = report.status.as_str(),
        cost_usd = %report.cost_usd, rejected = counts.rejected, unasked = counts.unasked, dropped = counts.dropped,
        "run ended"
    );
    stored?;
    let last = last.map(|message| RunEvent::Message(stamp(message, &begun.session_id, &spending)));
    show(shown.into_iter().chain(last), sink, cancel).await;
    Ok(report)
}

fn workspace<'a>(begun: &'a Begun, plan: &'a Plan) -> &'a std::path::Path {
    match &plan.place {
        Place::Hosted => &begun.folders.workspace,
        Place::Local(dir) => dir,
    }
}

fn tenant(begun: &Begun, plan: &Plan) -> Option<String> {
    launch::tenant(&begun.caller.org_id, begun.user.as_deref(), &begun.session_id, &plan.place)
}

/// Makes the folders, writes the files, and looks at what is there before the agent comes.
async fn prepare(engine: &Inner, begun: &Begun, plan: &Plan) -> Result<Snapshot, RunError> {
    let tenant = tenant(begun, plan);
    match &plan.place {
        Place::Hosted => {
            engine
                .launcher
                .make_volume(&begun.folders.workspace, tenant.as_deref())
                .map_err(RunError::Sandbox)?;
        }
        Place::Local(dir) if !dir.is_dir() => {
            return Err(RunError::Invalid(vec![FieldError::new("cwd", "expected a folder")]));
        }
        Place::Local(_) => (),
    }
    engine.launcher.make_volume(&begun.folders.home, tenant.as_deref()).map_err(RunError::Sandbox)?;
    let root = workspace(begun, plan).to_owned();
    let files = Arc::clone(&plan.files);
    blocking(move || {
        if !files.is_empty() {
            volume::write_files(&root, &files).map_err(unwritten)?;
        }
        volume::snapshot(&root).map_err(RunError::Sandbox)
    })
    .await?
}

/// What the workspace does not take (a link or a folder stands in the way) is the request's fault.
fn unwritten(error: wardian_sandbox::Error) -> RunError {
    match error {
        wardian_sandbox::Error::Invalid { field, why } => {
            RunError::Invalid(vec![FieldError::new(field, why)])
        }
        other => RunError::Sandbox(other),
    }
}

async fn files_changed(root: std::path::PathBuf, before: Snapshot) -> Vec<FileChange> {
    let changes = blocking(move || Ok(volume::changed(&before, &volume::snapshot(&root)?))).await;
    match changes.and_then(|changes: Result<_, wardian_sandbox::Error>| changes.map_err(RunError::Sandbox)) {
        Ok(changes) => changes
            .into_iter()
            .take(MAX_FILES_CHANGED)
            .map(|change| FileChange {
                path: change.path.to_string_lossy().into_owned(),
                kind: match change.kind {
                    ChangeKind::Added => "added",
                    ChangeKind::Modified => "modified",
                    ChangeKind::Deleted => "deleted",
                },
            })
            .collect(),
        Err(error) => {
            tracing::error!(error = describe(&error), "the workspace could not be compared");
            Vec::new()
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RunError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| RunError::Internal)
}

fn spending(spent: Spent) -> Spending {
    let by_model = spent.by_model.into_iter().map(|(model, spent)| {
        let tokens = TokenCounts {
            input_tokens: spent.tokens.input_tokens,
            output_tokens: spent.tokens.output_tokens,
            cache_creation_input_tokens: spent
                .tokens
                .cache_write_5m_tokens
                .saturating_add(spent.tokens.cache_write_1h_tokens),
            cache_read_input_tokens: spent.tokens.cache_read_tokens,
            web_search_requests: spent.tokens.web_search_requests,
        };
        (model, ModelSpending { requests: spent.requests, tokens, cost_usd: spent.cost })
    });
    Spending { cost: spent.cost, by_model: by_model.collect(), budget_refused: spent.budget_refused }
}

fn report(
    begun: &Begun,
    plan: &Plan,
    conclusion: Conclusion,
    spending: &Spending,
    files_changed: Vec<FileChange>,
) -> RunReport {
    let requests = spending.by_model.values().map(|spent| spent.requests).sum();
    RunReport {
        session_id: begun.session_id.clone(),
        status: conclusion.status,
        result: conclusion.result,
        is_error: conclusion.status != RunStatus::Completed,
        exit_code: conclusion.exit_code,
        stdout: conclusion.stdout,
        stderr: conclusion.stderr,
        stop_reason: conclusion.stop_reason,
        num_turns: match plan.runtime {
            Runtime::Wardian => conclusion.num_turns.unwrap_or(0),
            Runtime::Command(_) => requests,
        },
        usage: spending.tokens(),
        model_usage: spending.by_model.clone(),
        cost_usd: spending.cost,
        files_changed,
        request_id: plan.request_id.clone(),
    }
}

fn outcome(report: &RunReport, at: jiff::Timestamp) -> RunOutcomeRecord {
    // What the agent says is cut, not refused: the store has limits on it.
    let stop_reason = report.stop_reason.as_ref().map(|reason| reason.chars().take(60).collect());
    RunOutcomeRecord {
        status: stored_status(report.status),
        is_error: report.is_error,
        cost: report.cost_usd,
        num_turns: report.num_turns.min(wardian_store::MAX_COUNT),
        stop_reason,
        exit_code: report.exit_code,
        detail: (report.status == RunStatus::MaxTurns).then(|| "the turns were used up".to_owned()),
        at,
    }
}

fn failed(error: &RunError, spending: &Spending, at: jiff::Timestamp) -> RunOutcomeRecord {
    RunOutcomeRecord {
        status: wardian_store::RunStatus::Failed,
        is_error: true,
        cost: spending.cost,
        num_turns: 0,
        stop_reason: None,
        exit_code: None,
        detail: Some(describe(error).chars().take(1000).collect()),
        at,
    }
}

const fn stored_status(status: RunStatus) -> wardian_store::RunStatus {
    match status {
        RunStatus::Completed | RunStatus::MaxTurns => wardian_store::RunStatus::Completed,
        RunStatus::Failed => wardian_store::RunStatus::Failed,
        RunStatus::BudgetReached => wardian_store::RunStatus::BudgetReached,
        RunStatus::TimedOut => wardian_store::RunStatus::TimedOut,
        RunStatus::Cancelled => wardian_store::RunStatus::Cancelled,
        RunStatus::Interrupted => wardian_store::RunStatus::Interrupted,
    }
}

fn ended_row(outcome: &RunOutcomeRecord, counts: Value) -> Row {
    let payload = json!({
        "source": "observed", "status": outcome.status, "is_error": outcome.is_error, "cost_usd": outcome.cost,
        "exit_code": outcome.exit_code, "frames": counts,
    });
    Row { kind: "run.ended", payload }
}

/// Rows in one append; more are cut into several, each durable before the next.
const ROWS_PER_APPEND: usize = 1000;

/// Writes rows to the session's log; they are durable when this returns.
pub(crate) async fn append(
    engine: &Inner,
    begun: &Begun,
    plan: &Plan,
    rows: Vec<Row>,
) -> Result<(), RunError> {
    let at = engine.now();
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let events = rows.by_ref().take(ROWS_PER_APPEND).map(|row| NewEvent {
            id: EventId::from_random(crate::random_bits()),
            request_id: Some(plan.request_id.clone()),
            kind: row.kind.to_owned(),
            payload: row.payload,
            at,
        });
        let events: Vec<_> = events.collect();
        engine
            .store
            .append_events(&begun.caller.org_id, &begun.session_id, begun.fence, events)
            .await
            .map_err(RunError::Store)?;
    }
    Ok(())
}

/// Gives the caller what it has not seen yet; one that takes nothing, or has left, is not waited for.
async fn show(events: impl Iterator<Item = RunEvent>, sink: &RunSink, cancel: &CancellationToken) {
    for event in events {
        let sent = tokio::select! {
            sent = tokio::time::timeout(STALLED_CALLER, sink.send(event)) => matches!(sent, Ok(Ok(()))),
            () = cancel.cancelled() => false,
        };
        if !sent {
            return;
        }
    }
}
