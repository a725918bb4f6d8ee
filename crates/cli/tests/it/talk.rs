//! A client of `/v1/sessions` that outlives the server and its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::{Asked, Event, Events, Reply, Wardian};

/// Where the server is, and as whom.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub key: String,
}

/// The connection broke: what was asked may have been done or not.
#[derive(Debug)]
pub struct Cut;

impl Client {
    pub fn of(wardian: &Wardian) -> Self {
        Self { address: wardian.address, key: wardian.key.clone() }
    }

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: &Value,
    ) -> Result<Events, Cut> {
        let mut headers = vec![("x-api-key", self.key.as_str())];
        headers.extend_from_slice(more);
        Asked { address: self.address, method, path, headers: &headers, body }.send().await.ok_or(Cut)
    }

    pub async fn get(&self, path: &str) -> Result<Value, Cut> {
        let reply = self.call("GET", path, &[], &Value::Null).await?.unbroken().await.ok_or(Cut)?;
        Ok(reply.report())
    }

    /// Posts what may be posted again under the same key.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Result<Reply, Cut> {
        let events = self.call("POST", path, &[("idempotency-key", key)], body).await?;
        events.unbroken().await.ok_or(Cut)
    }

    async fn create(&self, path: &str, body: &Value) -> Value {
        self.call("POST", path, &[], body).await.unwrap().whole().await.report()
    }

    /// A session of an agent of its own, whose tools have this policy.
    pub async fn session(&self, policy: &str) -> String {
        let tools = json!([{"type": "agent_toolset_20260401",
            "default_config": {"permission_policy": {"type": policy}}}]);
        let agent = json!({"name": "helper", "model": "claude-haiku-4-5", "tools": tools});
        let agent = self.create("/v1/agents", &agent).await;
        let environment = self.create("/v1/environments", &json!({"name": "plain"})).await;
        let session = json!({"agent": agent["id"], "environment_id": environment["id"]});
        self.create("/v1/sessions", &session).await["id"].as_str().unwrap().to_owned()
    }

    /// All events, page by page.
    pub async fn list(&self, session: &str) -> Result<Vec<Value>, Cut> {
        let mut path = format!("/v1/sessions/{session}/events?limit=100");
        let mut all = Vec::new();
        loop {
            let page = self.get(&path).await?;
            all.extend_from_slice(page["data"].as_array().unwrap());
            let Some(next) = page["next_page"].as_str() else { return Ok(all) };
            path = format!("/v1/sessions/{session}/events?limit=100&page={next}");
        }
    }

    /// Follows from after this row, as a client does that comes again.
    pub async fn follow(&self, session: &str, after: usize) -> Result<Events, Cut> {
        let path = format!("/v1/sessions/{session}/events/stream");
        let last = after.to_string();
        let events = self.call("GET", &path, &[("last-event-id", &last)], &Value::Null).await?;
        assert_eq!(events.status, 200);
        Ok(events)
    }
}

pub fn message(text: &str) -> Value {
    json!({"type": "user.message", "content": [{"type": "text", "text": text}]})
}

/// What a client knows of a session: all rows of its log from the first, and what was acknowledged.
pub struct Talk {
    pub session: String,
    pub rows: Vec<Value>,
    pub acknowledged: BTreeSet<String>,
}

/// How far a turn is.
#[derive(Debug, PartialEq)]
enum State {
    Works,
    Asks(Vec<String>),
    Ended,
}

impl Talk {
    pub const fn new(session: String) -> Self {
        Self { session, rows: Vec::new(), acknowledged: BTreeSet::new() }
    }

    /// Takes a row, which must be the next.
    pub fn take(&mut self, event: Event) {
        let Some(seq) = event.seq else { return };
        assert_eq!(seq, self.rows.len() as u64 + 1, "without gaps, each once: {event:#?}");
        assert_eq!(event.data["type"], event.name);
        self.rows.push(event.data);
    }

    /// Posts events until they are acknowledged.
    pub async fn post(&mut self, client: &Client, key: &str, events: &Value) -> Result<Vec<String>, Cut> {
        let path = format!("/v1/sessions/{}/events", self.session);
        let key = &format!("{}-{key}", self.session);
        let mut reply = client.post(&path, key, &json!({"events": events})).await?;
        while reply.status == 409 {
            // The try that was cut goes on.
            tokio::time::sleep(Duration::from_millis(5)).await;
            reply = client.post(&path, key, &json!({"events": events})).await?;
        }
        let reply = reply.report();
        let ids: Vec<_> = reply["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect();
        self.acknowledged.extend(ids.iter().cloned());
        Ok(ids)
    }

    /// Posts a message, or posts it again, and follows its turn to the end, saying yes to all that is asked.
    pub async fn turn(&mut self, client: &Client, text: &str) -> Result<(), Cut> {
        let ids = self.post(client, text, &json!([message(text)])).await?;
        let mut events = client.follow(&self.session, self.rows.len()).await?;
        let mut answered = BTreeSet::new();
        loop {
            match self.state(&ids[0]) {
                State::Ended => return Ok(()),
                State::Asks(calls) if answered.insert(calls.clone()) => {
                    let confirm = |call| json!({"type": "user.tool_confirmation", "tool_use_id": call, "result": "allow"});
                    let key = format!("{}-{}", calls[0], calls.len());
                    let confirmed: Vec<_> = calls.iter().map(confirm).collect();
                    self.post(client, &key, &json!(confirmed)).await?;
                }
                State::Asks(_) | State::Works => self.take(events.next().await.ok_or(Cut)?),
            }
        }
    }

    /// How far the turn of this message is, by the rows.
    fn state(&self, message: &str) -> State {
        let is_taken = |row: &Value| row["id"] == message && !row["processed_at"].is_null();
        let Some(from) = self.rows.iter().position(is_taken) else { return State::Works };
        let is_status = |row: &&Value| row["type"].as_str().unwrap().starts_with("session.status_");
        let Some(last) = self.rows[from..].iter().rfind(is_status) else { return State::Works };
        if last["type"] != "session.status_idle" {
            return State::Works;
        }
        match last["stop_reason"]["type"].as_str().unwrap() {
            "end_turn" => State::Ended,
            "requires_action" => {
                let calls = last["stop_reason"]["event_ids"].as_array().unwrap();
                State::Asks(calls.iter().map(|call| call.as_str().unwrap().to_owned()).collect())
            }
            other => panic!("{other}: {:#?}", &self.rows[from..]),
        }
    }

    /// The rows are those of the log, the list is what they fold to, and everything acknowledged is in it.
    pub async fn is_what_is_listed(&mut self, client: &Client) {
        let session = client.get(&format!("/v1/sessions/{}", self.session)).await.unwrap();
        assert_eq!(session["status"], "idle", "{session:#}");
        let list = client.list(&self.session).await.unwrap();
        let mut again = Self::new(self.session.clone());
        let mut events = client.follow(&self.session, 0).await.unwrap();
        while again.rows.len() < self.rows.len() || fold(&again.rows) != list {
            again.take(events.next().await.unwrap());
        }
        assert_eq!(self.rows[..], again.rows[..self.rows.len()]);
        self.rows = again.rows;
        let listed: BTreeSet<_> = list.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        assert!(self.acknowledged.is_subset(&listed), "{:#?}", &self.acknowledged - &listed);
    }
}

/// What rows come to: each event at the place of its first row, as its last row has it.
pub fn fold(rows: &[Value]) -> Vec<Value> {
    let mut places = BTreeMap::new();
    let mut list: Vec<Value> = Vec::new();
    for row in rows {
        let place = *places.entry(row["id"].as_str().unwrap()).or_insert(list.len());
        if place == list.len() {
            list.push(row.clone());
        } else {
            list[place] = row.clone();
        }
    }
    list
}
