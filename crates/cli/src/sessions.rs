//! `wardian sessions`: what an operator asks beside a running server. It reads the store and changes nothing.

mod line;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use serde_json::{Value, json};
use wardian_protocol::{AgentId, OrgId, SessionId};
use wardian_store::{
    CreatedRange, EventRow, MAX_PAGE_EVENTS, MAX_PAGE_ROWS, Order, Page, Position, SessionQuery,
    SessionRecord, SessionStatus, SqliteStore, Store as _, UsageRow,
};

use crate::config::open_store;
use crate::failure::{FAILED, Failure, INTERRUPTED, Outcome, print, setup, usage};
use crate::host;
use crate::show::printable;
use crate::usage::print_table;

/// How often `logs -f` looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Sessions of the server. Each command may be used beside a running server, and changes nothing.
#[derive(clap::Subcommand)]
pub enum Command {
    /// List sessions of /v1/sessions, the newest first
    ///
    /// Shows id, status, user, agent, title, events, cost and when it was made. Sessions of `wardian run` and /v1/x/run are
    /// not listed; `show` and `logs` take their ids.
    List(List),
    /// Show one session: who, what, how far, how much
    Show {
        #[command(flatten)]
        at: At,
        /// One object of JSON
        #[arg(long)]
        json: bool,
        /// The session's id, `sesn_…`
        id: SessionId,
    },
    /// Print the events of a session, and with -f those to come
    ///
    /// A line an event: when, its place in the log, its type, and what it is about. With -f it goes on until the session is
    /// terminated or deleted, or Ctrl-C.
    Logs(Logs),
}

/// Where the store is.
#[derive(clap::Args)]
pub struct At {
    /// The server's data folder
    #[arg(long, env = "WARDIAN_DATA_DIR", value_name = "DIR", default_value = "wardian-data")]
    data_dir: PathBuf,
}

#[derive(clap::Args)]
pub struct List {
    #[command(flatten)]
    at: At,
    /// Only this user's
    #[arg(long, value_name = "U")]
    user: Option<String>,
    /// Only those that are idle, running, rescheduling or terminated; several with commas
    #[arg(long, value_name = "S", value_delimiter = ',', value_parser = status)]
    status: Vec<SessionStatus>,
    /// Only those made from this agent
    #[arg(long, value_name = "ID")]
    agent: Option<AgentId>,
    /// Archived ones too
    #[arg(long)]
    archived: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// A line of JSON a session
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct Logs {
    #[command(flatten)]
    at: At,
    /// Wait for more, until the session ends or Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only what comes after this place in the log
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u64,
    /// A line of JSON a row of the log: `{"seq": …, "event": …}`
    #[arg(long)]
    json: bool,
    /// The session's id, `sesn_…`
    id: SessionId,
}

/// Does it.
pub async fn sessions(command: Command) -> Outcome {
    match command {
        Command::List(arguments) => list(arguments).await,
        Command::Show { at, json, id } => show(&at, json, &id).await,
        Command::Logs(arguments) => logs(arguments).await,
    }
}

async fn list(arguments: List) -> Outcome {
    let (store, org_id) = open(&arguments.at.data_dir).await?;
    let records = page_through(&store, &org_id, &arguments).await?;
    let ids: Vec<SessionId> = records.iter().map(|record| record.id.clone()).collect();
    let mut spent = store.session_usage(&org_id, &ids).await.map_err(setup)?;
    let mut rows = Vec::new();
    for record in &records {
        let place = spent.iter().position(|(id, _)| *id == record.id);
        let row = place.map(|place| spent.swap_remove(place).1).unwrap_or_default();
        rows.push((record, row));
    }
    if arguments.json {
        for (record, spent) in rows {
            print(&described(record, &spent).to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let titles = ["session", "status", "user", "agent", "title", "made", "events", "cost"];
    let mut table = vec![titles.map(str::to_owned).to_vec()];
    table.extend(rows.iter().map(|(record, spent)| cells(record, spent)));
    print_table(&table, 6)?;
    Ok(ExitCode::SUCCESS)
}

async fn page_through(
    store: &SqliteStore,
    org_id: &OrgId,
    arguments: &List,
) -> Result<Vec<SessionRecord>, Failure> {
    let mut found: Vec<SessionRecord> = Vec::new();
    while found.len() < arguments.limit {
        let missing = u32::try_from(arguments.limit - found.len()).unwrap_or(u32::MAX).min(MAX_PAGE_ROWS);
        let after = found.last().map(|last| Position { at: last.created_at, id: last.id.to_string() });
        let query = SessionQuery {
            agent_id: arguments.agent.clone(),
            agent_version: None,
            statuses: arguments.status.clone(),
            created: CreatedRange::default(),
            include_archived: arguments.archived,
            user_id: arguments.user.clone(),
            page: Page { after, ..Page::first(Order::Desc, missing) },
        };
        let page = store.sessions(org_id, query).await.map_err(setup)?;
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    Ok(found)
}

async fn show(at: &At, as_json: bool, id: &SessionId) -> Outcome {
    let (store, org_id) = open(&at.data_dir).await?;
    let record = find(&store, &org_id, id).await?;
    let spent = store.session_usage(&org_id, std::slice::from_ref(id)).await.map_err(setup)?;
    let spent = spent.into_iter().next().map(|(_, spent)| spent).unwrap_or_default();
    let described = described(&record, &spent);
    if as_json {
        print(&described.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in described.as_object().into_iter().flatten() {
        let shown = match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => printable(text).replace('\n', " ⏎ "),
            other => other.to_string(),
        };
        print(&format!("{name:<20}{shown}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn logs(arguments: Logs) -> Outcome {
    let (store, org_id) = open(&arguments.at.data_dir).await?;
    find(&store, &org_id, &arguments.id).await?;
    let following = follow(&store, &org_id, &arguments);
    if !arguments.follow {
        return following.await;
    }
    tokio::select! {
        ended = following => ended,
        () = host::asked_to_stop() => Ok(ExitCode::from(INTERRUPTED)),
    }
}

/// Prints what is there, and, if asked to, what comes, until the session ends.
async fn follow(store: &SqliteStore, org_id: &OrgId, arguments: &Logs) -> Outcome {
    let mut after = arguments.after;
    loop {
        // First the status: what is written before the end is read after it.
        let record = store.session(org_id, &arguments.id).await.map_err(setup)?;
        let is_over = record.is_none_or(|record| record.status == SessionStatus::Terminated);
        let rows = store.event_rows(org_id, &arguments.id, after, MAX_PAGE_EVENTS).await.map_err(setup)?;
        for row in &rows {
            after = row.seq;
            print_row(row, arguments.json)?;
        }
        match rows.is_empty() {
            true if is_over || !arguments.follow => return Ok(ExitCode::SUCCESS),
            true => tokio::time::sleep(LOOK_AGAIN).await,
            false => (),
        }
    }
}

fn print_row(row: &EventRow, as_json: bool) -> Result<(), Failure> {
    let event: Value = serde_json::from_str(&row.payload).unwrap_or(Value::Null);
    if as_json {
        return print(&json!({"seq": row.seq, "type": &*row.kind, "at": row.at, "event": event}).to_string());
    }
    // An event that a client posted has a second row once the agent has taken it.
    if row.seq == row.first_seq {
        print(&line::of(row, &event))?;
    }
    Ok(())
}

async fn open(data_dir: &Path) -> Result<(SqliteStore, OrgId), Failure> {
    if !data_dir.join("wardian.db").is_file() {
        return Err(usage(anyhow!("read {}: there is no store", data_dir.display()))
            .hint("--data-dir or WARDIAN_DATA_DIR names the folder that `wardian serve` was given"));
    }
    let store = open_store(data_dir)?;
    let org_id = store.default_org().await.map_err(setup)?;
    Ok((store, org_id))
}

async fn find(store: &SqliteStore, org_id: &OrgId, id: &SessionId) -> Result<SessionRecord, Failure> {
    let found = store.session(org_id, id).await.map_err(setup)?;
    found.ok_or_else(|| {
        usage(anyhow!("find session {id}: there is none"))
            .hint("`wardian sessions list --archived` shows the sessions")
            .code(FAILED)
    })
}

/// Everything of a session that is for operators; nothing of what is said in it.
fn described(record: &SessionRecord, spent: &UsageRow) -> Value {
    let managed = record.managed.as_deref();
    let definition = managed.map(|managed| &managed.definition);
    let of = |pointer: &str| definition.and_then(|definition| definition.pointer(pointer)).cloned();
    json!({
        "id": record.id,
        "kind": if managed.is_some() { "managed" } else { "runs" },
        "status": record.status.to_string(),
        "user": record.user_id,
        "title": of("/title"),
        "agent_id": managed.map(|managed| &managed.agent_id),
        "agent_version": managed.map(|managed| managed.agent_version),
        "agent_name": of("/agent/name"),
        "environment_id": managed.map(|managed| &managed.environment_id),
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "archived_at": managed.and_then(|managed| managed.archived_at),
        "turns": record.runs,
        "active_turn": record.active_run,
        "last_seq": record.last_seq,
        "requests": spent.requests,
        "open_requests": spent.open_requests,
        "input_tokens": spent.tokens.input_tokens,
        "cache_read_tokens": spent.tokens.cache_read_tokens,
        "cache_write_tokens": spent.tokens.cache_write_5m_tokens.saturating_add(spent.tokens.cache_write_1h_tokens),
        "output_tokens": spent.tokens.output_tokens,
        "cost_usd": spent.cost,
    })
}

fn cells(record: &SessionRecord, spent: &UsageRow) -> Vec<String> {
    let described = described(record, spent);
    let text = |name: &str| {
        let found = described[name].as_str().map(line::short);
        found.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
    };
    let agent = described["agent_name"].as_str().map_or_else(|| text("agent_id"), line::short);
    vec![
        text("id"),
        text("status"),
        text("user"),
        agent,
        text("title"),
        line::time(record.created_at),
        record.last_seq.to_string(),
        spent.cost.to_string(),
    ]
}

fn status(text: &str) -> Result<SessionStatus, String> {
    serde_json::from_value(json!(text))
        .map_err(|_| "expected idle, running, rescheduling or terminated".to_owned())
}
