//! `/v1/sessions/{id}/events`: posted and listed.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde_json::{Value, json};
use wardian_protocol::SessionId;
use wardian_session::Caller;
use wardian_store::{EventQuery, EventRow, Order};

use crate::App;
use crate::auth::{Identity, reader, writer};
use crate::body::read_json;
use crate::error::Error;
use crate::managed::{created_range, order, session_error, session_id, with_ids};
use crate::page::Asked;
use crate::query::{self, Query};
use crate::seed::Seed;
use crate::wire::event::{EVENT_TYPES, read_send};

/// The most events on a page: stock helpers ask for so many.
const MAX_EVENTS_LIMIT: u32 = 1000;

/// `POST /v1/sessions/{id}/events`: appended at once, answered when durable.
pub async fn send(
    State(app): State<Arc<App>>,
    Extension(seed): Extension<Seed>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let (text, id) = session_id(path)?;
    let caller = identity.caller();
    // A foreign session is not there, whatever the body says.
    app.engine.get_session(&caller, &id).await.map_err(|error| session_error(error, &text))?;
    let events = read_send(read_json(&app, request).await?).map_err(|errors| Error::fields(&errors))?;
    let rows = app.engine.send_events(&caller, &id, with_ids(seed, 0, events)).await;
    let rows = rows.map_err(|error| session_error(error, &text))?;
    Ok(Json(json!({"data": rows})))
}

/// `GET /v1/sessions/{id}/events`: each event once, at the place where it was accepted, as it is now.
pub async fn list(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Error> {
    let identity = reader(&app, &request).await?;
    let (text, id) = session_id(path)?;
    let (query, asked) = read_list(request.uri().query(), &identity, &id)?;
    let page = fetch(&app, &identity.caller(), &id, query).await;
    let (rows, more) = page.map_err(|error| session_error(error, &text))?;
    let next = rows.last().filter(|_| more).map(|row| asked.cursor(&row.first_seq, false));
    let body = render(&rows, next.as_deref());
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from(body))
        .into_response())
}

fn read_list(
    text: Option<&str>,
    identity: &Identity,
    id: &SessionId,
) -> Result<(EventQuery, Asked<u64>), Error> {
    let mut query = Query::read(text)?;
    let types = query.list("types", "a type of event such as `agent.message`", EVENT_TYPES.len(), |text| {
        EVENT_TYPES.contains(&text).then(|| text.to_owned())
    });
    let types = types.unwrap_or_default();
    let created = created_range(&mut query);
    let order = order(&mut query, Order::Asc);
    let binding = json!([
        "events",
        identity.org(),
        id,
        types,
        [created.gt, created.gte, created.lt, created.lte],
        order == Order::Asc,
    ]);
    let asked: Asked<u64> = Asked::read(&mut query, &binding, MAX_EVENTS_LIMIT);
    query.finish()?;
    let query = EventQuery { types, created, order, after: asked.after, limit: asked.limit };
    Ok((query, asked))
}

/// A page, and whether there is more behind it. The store may end a page early, where its events are large.
async fn fetch(
    app: &App,
    caller: &Caller,
    id: &SessionId,
    query: EventQuery,
) -> Result<(Vec<EventRow>, bool), wardian_session::SessionError> {
    let rows = app.engine.list_events(caller, id, query.clone()).await?;
    let Some(last) = rows.last() else { return Ok((rows, false)) };
    let bytes: usize = rows.iter().map(|row| row.payload.len()).sum();
    let full = u64::try_from(rows.len()).is_ok_and(|found| found >= u64::from(query.limit));
    if !full && bytes < wardian_store::MAX_PAGE_BYTES / 2 {
        return Ok((rows, false));
    }
    let next = EventQuery { after: Some(last.first_seq), limit: 1, ..query };
    let more = !app.engine.list_events(caller, id, next).await?.is_empty();
    Ok((rows, more))
}

/// The answer, of texts that are JSON already.
fn render(rows: &[EventRow], next_page: Option<&str>) -> String {
    let bytes: usize = rows.iter().map(|row| row.payload.len() + 1).sum();
    let mut body = String::with_capacity(bytes + 256);
    body.push_str("{\"data\":[");
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&row.payload);
    }
    let next_page = json!(next_page);
    write!(body, "],\"next_page\":{next_page}}}").expect("writing to a String cannot fail");
    body
}
