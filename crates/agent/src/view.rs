//! What of a running query can be looked at, and set, at any moment, without asking its task.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use tokio::time::Instant;
use wardian_protocol::NanoUsd;
use wardian_protocol::frame::ModelUsage;

use crate::authorise::{Live, lock, resolve};
use crate::client::{Client, Failure};
use crate::meter::Meter;
use crate::models::api_name;
use crate::request::ModelRequest;
use crate::session::Setup;
use crate::tool::{Known, ReadLog};
use crate::transcript::Journal;
use crate::{Error, PermissionChange, PermissionMode, Thinking};

/// What a query has used so far, over all its models and subagents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsageReport {
    /// By our own price table. Bills come from elsewhere.
    pub total_cost: NanoUsd,
    /// Waiting for the model.
    pub api_time: Duration,
    /// Since the query began.
    pub wall_time: Duration,
    /// By model.
    pub by_model: BTreeMap<String, ModelUsage>,
}

/// Servers that may have a mode of their own; they need not be there yet.
const MAX_SERVER_MODES: usize = 256;

/// The parts of a query's set-up that others may reach.
#[derive(Clone)]
pub(crate) struct View {
    live: Arc<Mutex<Live>>,
    meter: Arc<Mutex<Meter>>,
    reads: ReadLog,
    /// Weak: who keeps the handle of a query that has ended does not keep its transcript locked.
    journal: Option<Weak<Journal>>,
    session_id: String,
    began: Instant,
}

impl std::fmt::Debug for View {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("View").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

impl View {
    pub(crate) fn of(setup: &Setup) -> Self {
        Self {
            live: Arc::clone(&setup.live),
            meter: Arc::clone(&setup.meter),
            reads: setup.context.reads.clone(),
            journal: setup.out.journal.as_ref().map(Arc::downgrade),
            session_id: setup.out.session_id.clone(),
            began: Instant::now(),
        }
    }

    pub(crate) fn usage(&self) -> UsageReport {
        let meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        UsageReport {
            total_cost: meter.total(),
            api_time: meter.api_time(),
            wall_time: self.began.elapsed(),
            by_model: meter.by_model().clone(),
        }
    }

    /// The model that the next request is for.
    pub(crate) fn model(&self) -> String {
        lock(&self.live).model.clone()
    }

    pub(crate) fn set_thinking(&self, thinking: Option<Thinking>) {
        lock(&self.live).thinking = thinking;
    }

    pub(crate) fn set_effort(&self, effort: Option<String>) {
        lock(&self.live).effort = effort;
    }

    pub(crate) fn change_permissions(&self, changes: Vec<PermissionChange>) {
        let mut live = lock(&self.live);
        for change in changes {
            live.apply(change);
        }
    }

    pub(crate) fn set_env(&self, env: Vec<(String, String)>) {
        let env = Arc::new(env);
        lock(&self.live).everywhere(&|live| live.env = Some(Arc::clone(&env)));
    }

    pub(crate) fn set_server_mode(&self, server: String, mode: Option<PermissionMode>) -> bool {
        let mut live = lock(&self.live);
        let modes = &live.server_modes;
        if mode.is_some() && modes.len() >= MAX_SERVER_MODES && !modes.contains_key(&server) {
            return false;
        }
        live.everywhere(&|live| {
            match mode {
                Some(mode) => live.server_modes.insert(server.clone(), mode),
                None => live.server_modes.remove(&server),
            };
        });
        true
    }

    /// Notes that the model knows a file as it was at a time; one that has changed since it does not know.
    pub(crate) async fn seed_read(&self, path: &Path, modified: SystemTime) {
        let path = path.to_owned();
        let found = tokio::task::spawn_blocking(move || {
            let path = resolve(&path);
            let now = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok()?;
            Some((path, now))
        });
        let Ok(Some((path, now))) = found.await else { return };
        // Hosts count in whole milliseconds.
        if millis(now).is_some_and(|now| millis(modified) == Some(now)) {
            self.reads.note(&path, Known { modified: now, digest: None });
        }
    }

    /// Keeps a title for the conversation; where none is kept, this does nothing.
    pub(crate) async fn rename(&self, title: &str) -> Result<(), Error> {
        let Some(journal) = self.journal.as_ref().and_then(Weak::upgrade) else { return Ok(()) };
        let line = json!({"type": "custom-title", "customTitle": title, "sessionId": self.session_id});
        journal.append(&line).await.map_err(|_| Error::Transcript {
            path: journal.path().to_owned(),
            message: "it cannot be written".to_owned(),
        })
    }
}

/// Asks the API for the shortest reply of a model. What cannot be reached is not the model's fault.
pub(crate) async fn probe(client: &Client, model: &str) -> Result<(), Error> {
    let body = json!({
        "model": api_name(model),
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "Hi"}],
    });
    let request = ModelRequest { body: Bytes::from(body.to_string()), model: model.to_owned() };
    let headers = request.headers(&HeaderMap::new());
    match client.post(request.body, &headers).await {
        Err(failure) if is_about_the_model(&failure) => {
            Err(Error::Model { model: model.to_owned(), message: failure.describe() })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn is_about_the_model(failure: &Failure) -> bool {
    matches!(failure.status(), Some(400 | 403 | 404))
}

fn millis(time: SystemTime) -> Option<u128> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_millis())
}
