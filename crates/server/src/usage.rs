//! `GET /v1/x/usage`: what was spent, by user, session, model and day.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use wardian_protocol::{JsonMap, SessionId};
use wardian_store::{GroupBy, Scope, UsageQuery, UsageRow};

use crate::App;
use crate::auth::{Identity, authenticate};
use crate::error::Error;
use crate::query::{Query, TIME, read_time};

/// The handler.
pub async fn usage(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Error> {
    let identity = authenticate(&app, request.headers(), request.extensions().get()).await?;
    identity.require(&[Scope::Read, Scope::Sessions, Scope::Admin])?;
    let asked = read(request.uri().query())?;
    let group_by = asked.group_by.clone();
    let rows = app.store.usage(identity.org(), visible(asked, &identity)).await?;
    let data: Vec<Value> = rows.iter().map(|row| row_json(row, &group_by)).collect();
    Ok(Json(json!({"data": data, "group_by": group_by})))
}

fn read(query: Option<&str>) -> Result<UsageQuery, Error> {
    let mut query = Query::read(query)?;
    let text = |text: &str| (!text.is_empty() && text.len() <= 256).then(|| text.to_owned());
    let asked = UsageQuery {
        user_id: query.parsed("user", "a user's id", |id| {
            (!id.is_empty() && id.len() <= wardian_store::MAX_USER_BYTES).then(|| id.to_owned())
        }),
        session_id: query.parsed("session", "a session's id, `sesn_…`", |id| SessionId::from_str(id).ok()),
        run_id: None,
        model: query.parsed("model", "a model's name", text),
        from: query.parsed("from", TIME, read_time),
        to: query.parsed("to", TIME, read_time),
        group_by: query
            .parsed("group_by", "some of user, session, model, day, divided by commas", read_groups)
            .unwrap_or_default(),
    };
    query.finish()?;
    Ok(asked)
}

/// What the caller may see of it. A user-bound key that asks for somebody else gets what anybody gets who asks for a user
/// that does not exist: nothing.
fn visible(mut asked: UsageQuery, identity: &Identity) -> UsageQuery {
    if let Some(own) = identity.user() {
        if asked.user_id.as_deref().is_some_and(|user| user != own) {
            asked.session_id = Some(SessionId::from_random(crate::random_bits()));
        }
        asked.user_id = Some(own.to_owned());
    }
    asked
}

fn read_groups(text: &str) -> Option<Vec<GroupBy>> {
    let mut groups = Vec::new();
    for name in text.split(',') {
        let group = match name {
            "user" => GroupBy::User,
            "session" => GroupBy::Session,
            "model" => GroupBy::Model,
            "day" => GroupBy::Day,
            _ => return None,
        };
        if groups.contains(&group) {
            return None;
        }
        groups.push(group);
    }
    Some(groups)
}

fn row_json(row: &UsageRow, group_by: &[GroupBy]) -> Value {
    let mut fields = JsonMap::new();
    for group in group_by {
        let (name, key) = match group {
            GroupBy::User => ("user", json!(row.user_id)),
            GroupBy::Session => ("session_id", json!(row.session_id)),
            GroupBy::Model => ("model", json!(row.model)),
            GroupBy::Day => ("day", json!(row.day.map(|day| day.to_string()))),
        };
        fields.insert(name.to_owned(), key);
    }
    let tokens = &row.tokens;
    let figures = json!({
        "requests": row.requests,
        "input_tokens": tokens.input_tokens,
        "output_tokens": tokens.output_tokens,
        "cache_read_input_tokens": tokens.cache_read_tokens,
        "cache_creation_input_tokens":
            tokens.cache_write_5m_tokens.saturating_add(tokens.cache_write_1h_tokens),
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h_tokens,
        },
        "web_search_requests": tokens.web_search_requests,
        "cost_usd": row.cost,
        "open_requests": row.open_requests,
        "reserved_usd": row.reserved,
        "inexact_requests": row.inexact_requests,
        "unpriced_requests": row.unpriced_requests,
    });
    if let Value::Object(figures) = figures {
        fields.extend(figures);
    }
    Value::Object(fields)
}
