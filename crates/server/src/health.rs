//! `/livez` and `/readyz`: the two routes without a key.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use crate::App;

/// How long an answer is good: a flood of probes asks the parts no more often.
const FRESH: Duration = Duration::from_millis(500);
/// How long the parts may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last answer.
#[derive(Debug, Default)]
pub struct LastHealth(tokio::sync::Mutex<Option<(tokio::time::Instant, bool, Value)>>);

/// The process answers.
pub async fn livez() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// The parts work, each said for itself; 503 when one does not. What is wrong with it is in the log, not here: nobody
/// needs a key to ask.
pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    let mut last = app.health.0.lock().await;
    let (ready, body) = match &*last {
        Some((at, ready, body)) if at.elapsed() < FRESH => (*ready, body.clone()),
        _ => {
            let (ready, body) = ask(&app).await;
            *last = Some((tokio::time::Instant::now(), ready, body.clone()));
            (ready, body)
        }
    };
    drop(last);
    let ready = ready && !app.stopping.is_cancelled();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

async fn ask(app: &App) -> (bool, Value) {
    let Ok(health) = tokio::time::timeout(PATIENCE, app.engine.health()).await else {
        tracing::error!("the parts did not answer in time");
        let unknown = json!({"status": "unknown"});
        return (
            false,
            json!({"status": "unready", "store": unknown, "sandbox": unknown, "gateway": unknown}),
        );
    };
    let parts = [("store", health.store), ("sandbox", health.sandbox), ("gateway", health.gateway)];
    let ready = parts.iter().all(|(_, part)| part.is_ok());
    let mut body = json!({"status": if ready { "ready" } else { "unready" }});
    for (name, part) in parts {
        body[name] = match part {
            Ok(()) => json!({"status": "ok"}),
            Err(why) => {
                tracing::error!(part = name, why, "a part does not work");
                json!({"status": "failed"})
            }
        };
    }
    let Some(canary) = &app.config.canary else { return (ready, body) };
    body["canary"] = app.canary.shown();
    let ready = ready && !(canary.affects_readiness && app.canary.has_failed());
    body["status"] = json!(if ready { "ready" } else { "unready" });
    (ready, body)
}
