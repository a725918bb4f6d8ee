//! Ids, times and records for the tests: all from small numbers, so that a failure reads the same every time.

use jiff::Timestamp;
use serde_json::{Value, json};
use wardian_protocol::id::{Id, Kind};
use wardian_protocol::{NanoUsd, OrgId, RequestId, SessionId};
use wardian_store::{
    BeginRun, EventRow, Lease, NewEvent, NewManaged, NewSession, RunOutcomeRecord, RunStatus, SessionChange,
    SessionCommit, SessionStatus, Settled, Store, Tokens, UsageEnd, UsageStart,
};

/// The n-th id of a kind.
pub fn id<K: Kind>(n: u64) -> Id<K> {
    Id::from_random(u128::from(n).to_be_bytes())
}

/// A time this many seconds after 2026-11-22 00:00 UTC.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_305_600 + seconds).unwrap()
}

pub fn event(n: u64, payload: Value) -> NewEvent {
    NewEvent {
        id: id(n),
        request_id: Some(id(900)),
        kind: "agent.message".to_owned(),
        payload,
        at: at(i64::try_from(n % 1000).unwrap()),
    }
}

pub fn small(n: u64) -> NewEvent {
    event(n, json!({"n": n}))
}

/// A session in the default org.
pub async fn session(store: &dyn Store, n: u64) -> (OrgId, SessionId) {
    let org_id = store.default_org().await.unwrap();
    let session = NewSession {
        id: id(n),
        org_id: org_id.clone(),
        user_id: Some("ada".to_owned()),
        created_at: at(0),
        managed: None,
    };
    store.create_session(session).await.unwrap();
    (org_id, id(n))
}

/// A session with a run going on.
pub async fn running(store: &dyn Store, n: u64, owner: &str) -> (OrgId, SessionId, RequestId) {
    let (org_id, session_id) = session(store, n).await;
    let begun = store.begin_run(&org_id, &session_id, &id(n), owner, at(1)).await.unwrap();
    assert_eq!(begun, BeginRun::Started { fence: 1 });
    (org_id, session_id, id(n))
}

/// A managed session to be made, from agent 1 in environment 1.
pub fn new_managed(org_id: &OrgId, n: u64, seconds: i64) -> NewSession {
    let managed = NewManaged {
        agent_id: id(1),
        agent_version: 1,
        environment_id: id(1),
        definition: json!({"session": n}),
        state: json!({}),
        events: Vec::new(),
        wake_at: None,
    };
    NewSession {
        id: id(n),
        org_id: org_id.clone(),
        user_id: Some("ada".to_owned()),
        created_at: at(seconds),
        managed: Some(managed),
    }
}

/// A managed session that this owner has, and the fence of its lease.
pub async fn leased(store: &dyn Store, n: u64, owner: &str) -> (OrgId, SessionId, u64) {
    let org_id = store.default_org().await.unwrap();
    store.create_session(new_managed(&org_id, n, 0)).await.unwrap();
    let fence = lease(store, &org_id, n, owner).await;
    (org_id, id(n), fence)
}

/// The fence of a new lease.
pub async fn lease(store: &dyn Store, org_id: &OrgId, n: u64, owner: &str) -> u64 {
    match store.lease_session(org_id, &id(n), owner, at(1)).await.unwrap() {
        Lease::Taken { fence, .. } => fence,
        other => panic!("{other:?}"),
    }
}

/// A commit of these events and nothing else.
pub fn commit(org_id: &OrgId, session: u64, fence: u64, events: Vec<NewEvent>) -> SessionCommit {
    SessionCommit {
        org_id: org_id.clone(),
        session_id: id(session),
        fence,
        events,
        change: None,
        raw: vec![],
    }
}

/// A change to this status.
pub fn change(status: SessionStatus, seconds: i64) -> SessionChange {
    SessionChange {
        status,
        active_run: None,
        state: json!({"at": seconds}),
        wake_at: None,
        definition: None,
        archived_at: None,
        at: at(seconds),
    }
}

/// Which rows of which events, as `(seq, first_seq, payload)`.
pub fn seqs(rows: &[EventRow]) -> Vec<(u64, u64, &str)> {
    rows.iter().map(|row| (row.seq, row.first_seq, &*row.payload)).collect()
}

pub fn outcome(status: RunStatus, cost: i64) -> RunOutcomeRecord {
    RunOutcomeRecord {
        status,
        is_error: status != RunStatus::Completed,
        cost: NanoUsd(cost),
        num_turns: 3,
        stop_reason: Some("end_turn".to_owned()),
        exit_code: None,
        detail: None,
        at: at(60),
    }
}

pub fn start(org_id: &OrgId, n: u64, owner: &str) -> UsageStart {
    UsageStart {
        id: id(n),
        org_id: org_id.clone(),
        user_id: Some("ada".to_owned()),
        session_id: id(1),
        run_id: id(2),
        owner: owner.to_owned(),
        model: "claude-sonnet-4-5".to_owned(),
        bound: NanoUsd(1_000),
        at: at(0),
    }
}

pub fn end(org_id: &OrgId, n: u64, cost: i64) -> UsageEnd {
    UsageEnd {
        id: id(n),
        org_id: org_id.clone(),
        model: Some("claude-sonnet-4-5-20250929".to_owned()),
        upstream_id: Some("req_011CS".to_owned()),
        status: 200,
        tokens: Tokens { input_tokens: 10, output_tokens: 5, ..Tokens::default() },
        cost: NanoUsd(cost),
        price_version: "2026-11-01".to_owned(),
        unpriced: false,
        settled: Settled::Exact,
        at: at(2),
    }
}
