//! `wardian usage`.

use std::path::PathBuf;
use std::process::ExitCode;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use wardian_protocol::SessionId;
use wardian_store::{GroupBy, Store as _, UsageQuery, UsageRow};

use crate::config::open_store;
use crate::failure::{Failure, Outcome, print, setup};
use crate::host;
use crate::show::printable;

/// Shows tokens and dollars, as the gateway counted them.
#[derive(clap::Args)]
pub struct Arguments {
    /// The data folder [default: that of `wardian run`]
    #[arg(long, env = "WARDIAN_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What a line stands for: user, session, model, day; several with commas
    #[arg(long, value_name = "KEYS", value_delimiter = ',', default_value = "model", value_parser = group)]
    by: Vec<GroupBy>,
    /// Only this user
    #[arg(long, value_name = "U")]
    user: Option<String>,
    /// Only this session
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Only this model
    #[arg(long, value_name = "M")]
    model: Option<String>,
    /// Only from this moment on: a date, or 2026-11-22T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Timestamp>,
    /// Only before this moment
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<Timestamp>,
    /// A line of JSON a line of the table, with all figures
    #[arg(long)]
    json: bool,
}

/// Prints the table.
pub async fn usage(arguments: Arguments) -> Outcome {
    let data_dir = arguments.data_dir.map_or_else(host::local_data_dir, Ok)?;
    let store = open_store(&data_dir)?;
    let org_id = store.default_org().await.map_err(setup)?;
    let query = UsageQuery {
        user_id: arguments.user,
        session_id: arguments.session,
        model: arguments.model,
        from: arguments.from,
        to: arguments.to,
        group_by: arguments.by.clone(),
        ..UsageQuery::default()
    };
    let rows = store.usage(&org_id, query).await.map_err(setup)?;
    if arguments.json {
        for row in &rows {
            print(&described(row, &arguments.by).to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let titles = ["requests", "input", "cache read", "cache write", "output", "cost"];
    let keys = arguments.by.iter().map(|group| key_title(*group).to_owned());
    let mut table = vec![keys.chain(titles.map(str::to_owned)).collect::<Vec<_>>()];
    table.extend(rows.iter().map(|row| cells(row, &arguments.by)));
    print_table(&table, arguments.by.len())?;
    Ok(ExitCode::SUCCESS)
}

fn group(text: &str) -> Result<GroupBy, String> {
    match text {
        "user" => Ok(GroupBy::User),
        "session" => Ok(GroupBy::Session),
        "model" => Ok(GroupBy::Model),
        "day" => Ok(GroupBy::Day),
        _ => Err("expected user, session, model or day".to_owned()),
    }
}

const fn key_title(group: GroupBy) -> &'static str {
    match group {
        GroupBy::User => "user",
        GroupBy::Session => "session",
        GroupBy::Model => "model",
        GroupBy::Day => "day",
    }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let date = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp());
    let moment = text.parse().ok().or_else(date);
    moment.ok_or_else(|| {
        "expected a date such as 2026-11-22, or a time such as 2026-11-22T12:00:00Z".to_owned()
    })
}

fn described(row: &UsageRow, by: &[GroupBy]) -> Value {
    let mut figures = json!({
        "requests": row.requests,
        "input_tokens": row.tokens.input_tokens,
        "cache_read_tokens": row.tokens.cache_read_tokens,
        "cache_write_5m_tokens": row.tokens.cache_write_5m_tokens,
        "cache_write_1h_tokens": row.tokens.cache_write_1h_tokens,
        "output_tokens": row.tokens.output_tokens,
        "cost_usd": row.cost,
        "open_requests": row.open_requests,
        "reserved_usd": row.reserved,
        "inexact_requests": row.inexact_requests,
        "unpriced_requests": row.unpriced_requests,
    });
    for group in by {
        figures[key_title(*group)] = json!(key(row, *group));
    }
    figures
}

fn key(row: &UsageRow, group: GroupBy) -> Option<String> {
    match group {
        GroupBy::User => row.user_id.clone(),
        GroupBy::Session => row.session_id.as_ref().map(ToString::to_string),
        GroupBy::Model => row.model.clone(),
        GroupBy::Day => row.day.map(|day| day.to_string()),
    }
}

fn cells(row: &UsageRow, by: &[GroupBy]) -> Vec<String> {
    let tokens = &row.tokens;
    let written = tokens.cache_write_5m_tokens.saturating_add(tokens.cache_write_1h_tokens);
    let figures =
        [row.requests, tokens.input_tokens, tokens.cache_read_tokens, written, tokens.output_tokens];
    by.iter()
        .map(|group| key(row, *group).map_or_else(|| "-".to_owned(), |key| printable(&key)))
        .chain(figures.map(|figure| figure.to_string()))
        .chain([row.cost.to_string()])
        .collect()
}

/// Keys to the left, figures to the right.
pub fn print_table(table: &[Vec<String>], keys: usize) -> Result<(), Failure> {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in table {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(place, (cell, width))| {
                    if place < keys { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        print(line.join("  ").trim_end())?;
    }
    Ok(())
}
