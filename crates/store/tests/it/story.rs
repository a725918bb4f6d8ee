//! What a server does with a store, from the first key to the bill, as one story that every store must tell.

use serde_json::json;
use wardian_protocol::id as protocol;
use wardian_protocol::{KeyId, NanoUsd, OrgId};
use wardian_store::{
    AgentQuery, BeginRun, CreatedRange, DeleteEnvironment, EnvironmentQuery, Error, FileQuery, ForgetUser,
    Forgotten, GroupBy, Idempotent, IdempotentRequest, Lease, NewAgent, NewEnvironment, NewFile, NewKey,
    NewSession, Order, Page, RunStatus, Scope, SessionCommit, SessionStatus, SqliteStore, Store, Tokens,
    UpdateAgent, UpdateEnvironment, UsageQuery,
};

use crate::common::{at, commit, end, event, id, leased, new_managed, outcome, start};
use crate::managed::{all_events, everything};

#[tokio::test]
async fn the_story_in_memory() {
    story(&SqliteStore::open_in_memory().unwrap()).await;
}

#[tokio::test]
async fn the_story_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    story(&SqliteStore::open(&folder.path().join("store.db")).unwrap()).await;
}

async fn story(store: &dyn Store) {
    store.ping().await.unwrap();
    let org_id = store.default_org().await.unwrap();
    store.ensure_org(&org_id, "again").await.unwrap();
    keys(store, &org_id).await;
    runs(store, &org_id).await;
    events(store, &org_id).await;
    money(store, &org_id).await;
    foreigners(store, &org_id).await;
    strangers_to_managed_sessions(store, &org_id).await;
}

async fn keys(store: &dyn Store, org_id: &OrgId) {
    let key = |n: u64, user: Option<&str>| NewKey {
        id: id(n),
        org_id: org_id.clone(),
        name: format!("key {n}"),
        scopes: vec![Scope::Sessions, Scope::Read],
        user_id: user.map(str::to_owned),
        secret_sha256: [7; 32],
        created_at: at(i64::try_from(n).unwrap()),
    };
    store.create_key(key(2, Some("ada"))).await.unwrap();
    store.create_key(key(1, None)).await.unwrap();
    assert!(matches!(store.create_key(key(1, None)).await, Err(Error::Exists { what: "key", .. })));

    let found = store.key(&id(2)).await.unwrap().unwrap();
    assert_eq!((found.user_id.as_deref(), found.secret_sha256), (Some("ada"), [7; 32]));
    assert_eq!(found.scopes, [Scope::Sessions, Scope::Read]);
    assert_eq!(found.created_at, at(2));
    assert_eq!(store.key(&id(3)).await.unwrap(), None);

    assert!(store.revoke_key(org_id, &id(2), at(9)).await.unwrap());
    assert!(!store.revoke_key(org_id, &id(2), at(10)).await.unwrap(), "the first revocation stays");
    let revoked: Vec<_> =
        store.keys(org_id).await.unwrap().into_iter().map(|key| (key.id, key.revoked_at)).collect();
    assert_eq!(revoked, [(id(1), None), (id(2), Some(at(9)))]);
}

async fn runs(store: &dyn Store, org_id: &OrgId) {
    let new = NewSession {
        id: id(1),
        org_id: org_id.clone(),
        user_id: Some("bob".to_owned()),
        created_at: at(0),
        managed: None,
    };
    store.create_session(new.clone()).await.unwrap();
    assert!(matches!(store.create_session(new).await, Err(Error::Exists { what: "session", .. })));

    let begin = async |run: u64| store.begin_run(org_id, &id(1), &id(run), "here", at(5)).await;
    assert_eq!(begin(10).await.unwrap(), BeginRun::Started { fence: 1 });
    assert_eq!(begin(11).await.unwrap(), BeginRun::Busy);
    let session = store.session(org_id, &id(1)).await.unwrap().unwrap();
    assert_eq!((session.status, session.active_run, session.runs), (SessionStatus::Running, Some(id(10)), 1));
    assert_eq!(store.interrupted_runs("here").await.unwrap(), []);
    let orphans = store.interrupted_runs("after a restart").await.unwrap();
    assert_eq!(
        orphans.iter().map(|run| (&run.id, run.owner.as_str())).collect::<Vec<_>>(),
        [(&id(10), "here")]
    );

    let done = outcome(RunStatus::Completed, 5);
    assert!(!store.end_run(org_id, &id(1), &id(11), done.clone()).await.unwrap(), "never begun");
    assert!(store.end_run(org_id, &id(1), &id(10), done.clone()).await.unwrap());
    assert!(!store.end_run(org_id, &id(1), &id(10), done).await.unwrap(), "the first end stays");
    let session = store.session(org_id, &id(1)).await.unwrap().unwrap();
    assert_eq!((session.status, session.active_run, session.runs), (SessionStatus::Idle, None, 1));
    assert_eq!((session.user_id.as_deref(), session.updated_at), (Some("bob"), at(60)));
    assert_eq!(begin(11).await.unwrap(), BeginRun::Started { fence: 2 }, "the session goes on");
    assert!(matches!(begin(11).await, Ok(BeginRun::Busy)));
    let late = outcome(RunStatus::Interrupted, 0);
    assert!(store.end_run(org_id, &id(1), &id(11), late).await.unwrap());
    assert!(matches!(begin(10).await, Err(Error::Exists { what: "run", .. })), "a run's id is used once");
    assert_eq!(store.session(org_id, &id(1)).await.unwrap().unwrap().runs, 2);
}

async fn events(store: &dyn Store, org_id: &OrgId) {
    let session_id = id(1);
    let payload = json!({"z": 1, "a": ["ü", null, 1.5], "text": "line\nline"});
    let events = vec![event(1, payload.clone()), event(2, json!("x")), event(3, json!(3))];
    assert_eq!(store.append_events(org_id, &session_id, 2, events).await.unwrap(), 3);
    assert_eq!(store.append_events(org_id, &session_id, 2, Vec::new()).await.unwrap(), 3);
    for fence in [0, 1, 3, u64::MAX] {
        let fenced = store.append_events(org_id, &session_id, fence, vec![event(4, json!(4))]).await;
        assert!(matches!(fenced, Err(Error::Fenced)), "{fence}: {fenced:?}");
    }
    assert_eq!(store.append_events(org_id, &session_id, 2, vec![event(5, json!(5))]).await.unwrap(), 4);

    let all = store.events(org_id, &session_id, 0, 100).await.unwrap();
    assert_eq!(all.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!((&all[0].payload, &all[0].id, all[0].at), (&payload, &id(1), at(1)));
    assert_eq!(all[0].payload.to_string(), payload.to_string(), "fields keep their order");
    let page = store.events(org_id, &session_id, 1, 2).await.unwrap();
    assert_eq!(page.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(store.events(org_id, &session_id, 4, 100).await.unwrap(), []);
    assert_eq!(store.events(org_id, &session_id, u64::MAX, u32::MAX).await.unwrap(), []);
    assert_eq!(store.session(org_id, &session_id).await.unwrap().unwrap().last_seq, 4);
}

async fn money(store: &dyn Store, org_id: &OrgId) {
    store.open_usage(start(org_id, 1, "here")).await.unwrap();
    store.open_usage(start(org_id, 2, "here")).await.unwrap();
    let twice = store.open_usage(start(org_id, 1, "here")).await;
    assert!(matches!(twice, Err(Error::Exists { what: "usage", .. })), "{twice:?}");
    let total = &store.usage(org_id, UsageQuery::default()).await.unwrap()[0];
    assert_eq!((total.requests, total.open_requests, total.reserved), (2, 2, NanoUsd(2_000)));
    assert_eq!(total.cost, NanoUsd::ZERO);

    assert!(store.settle_usage(end(org_id, 1, 77)).await.unwrap());
    assert!(!store.settle_usage(end(org_id, 1, 99)).await.unwrap(), "the first settlement stays");
    let unknown = store.settle_usage(end(org_id, 3, 1)).await;
    assert!(matches!(unknown, Err(Error::Unknown { what: "usage", .. })), "{unknown:?}");
    assert_eq!(store.settle_orphans("here", at(9)).await.unwrap(), 0);
    assert_eq!(store.settle_orphans("after a restart", at(9)).await.unwrap(), 1);
    assert!(!store.settle_usage(end(org_id, 2, 1)).await.unwrap(), "charged already");

    let query = UsageQuery { group_by: vec![GroupBy::Model], ..UsageQuery::default() };
    let rows = store.usage(org_id, query).await.unwrap();
    let models: Vec<_> = rows.iter().map(|row| (row.model.as_deref().unwrap(), row.cost)).collect();
    assert_eq!(
        models,
        [("claude-sonnet-4-5", NanoUsd(1_000)), ("claude-sonnet-4-5-20250929", NanoUsd(77))],
        "the orphan at its bound, under the model that was asked for"
    );
    assert_eq!((rows[0].inexact_requests, rows[1].inexact_requests), (1, 0));
    assert_eq!(rows[1].tokens, Tokens { input_tokens: 10, output_tokens: 5, ..Tokens::default() });
    assert_eq!((rows[0].open_requests, rows[0].reserved), (0, NanoUsd::ZERO));
}

/// What another org asks about agents, environments, files, managed sessions and keys of requests is answered as if they were not
/// there, and changes nothing.
async fn strangers_to_managed_sessions(store: &dyn Store, org_id: &OrgId) {
    let foreign: OrgId = id(77);
    let (definition, created_at) = (json!({"mine": true}), at(0));
    let agent = NewAgent { id: id(1), org_id: org_id.clone(), definition: definition.clone(), created_at };
    store.create_agent(agent.clone()).await.unwrap();
    let environment = NewEnvironment { id: id(1), org_id: org_id.clone(), definition, created_at };
    store.create_environment(environment.clone()).await.unwrap();
    let file = NewFile {
        id: id(1),
        org_id: org_id.clone(),
        user_id: Some("bob".to_owned()),
        filename: "f".to_owned(),
        mime_type: "t".to_owned(),
        size_bytes: 1,
        created_at,
        expires_at: None,
        session_id: Some(id(30)),
    };
    store.create_file(file.clone()).await.unwrap();
    let (_, session_id, fence) = leased(store, 30, "here").await;
    let raw = vec!["line".to_owned()];
    let write = SessionCommit { raw, ..commit(org_id, 30, fence, vec![event(60, json!("mine"))]) };
    assert_eq!(store.commit_session(write).await.unwrap(), 1);
    let request = IdempotentRequest {
        org_id: org_id.clone(),
        key_id: id(1),
        route: "POST /v1/agents".to_owned(),
        key: "k".to_owned(),
        request_sha256: [1; 32],
        seed: [1; 16],
        owner: "here".to_owned(),
        at: at(0),
    };
    store.begin_idempotent(request.clone()).await.unwrap();
    store.finish_idempotent(org_id, &id(1), "k", 200, b"mine".to_vec(), at(1)).await.unwrap();
    let before = store.session(org_id, &session_id).await.unwrap();

    strangers_to_resources(store, &foreign).await;
    assert_eq!(store.session(&foreign, &session_id).await.unwrap(), None);
    assert_eq!(store.sessions(&foreign, everything()).await.unwrap(), []);
    let leased = store.lease_session(&foreign, &session_id, "thief", at(2)).await.unwrap();
    assert_eq!(leased, Lease::Missing);
    assert!(!store.release_session(&foreign, &session_id, fence).await.unwrap());
    let mine =
        store.commit_session(commit(&foreign, 30, fence, vec![event(61, json!(1))])).await.unwrap_err();
    let nobodys = store.commit_session(commit(org_id, 404, fence, vec![])).await.unwrap_err();
    assert_eq!(mine.to_string(), format!("find the session `{session_id}`"));
    assert_eq!(nobodys.to_string(), format!("find the session `{}`", id::<protocol::Session>(404)));
    assert!(!store.delete_session(&foreign, &session_id, fence).await.unwrap());
    assert_eq!(store.event_rows(&foreign, &session_id, 0, 10).await.unwrap(), []);
    assert_eq!(store.raw_rows(&foreign, &session_id, 0, 10).await.unwrap(), []);
    assert_eq!(store.list_events(&foreign, &session_id, all_events()).await.unwrap(), []);
    assert_eq!(store.event(&foreign, &session_id, &id(60)).await.unwrap(), None);
    assert_eq!(store.event(org_id, &id(404), &id(60)).await.unwrap(), None);
    assert_eq!(store.session_usage(&foreign, &[id(1), session_id.clone()]).await.unwrap(), []);

    // The same key of a request in two orgs: two requests.
    let theirs = IdempotentRequest { org_id: foreign.clone(), seed: [2; 16], ..request.clone() };
    assert!(!store.finish_idempotent(&foreign, &id(1), "k", 200, vec![], at(1)).await.unwrap());
    assert_eq!(store.begin_idempotent(theirs).await.unwrap(), Idempotent::New { seed: [2; 16] });
    assert!(store.abandon_idempotent(&foreign, &id(1), "k").await.unwrap());
    let done = Idempotent::Done { status: 200, body: b"mine".to_vec() };
    assert_eq!(store.begin_idempotent(request).await.unwrap(), done);
    let nothing = ForgetUser::Forgotten(Forgotten::default());
    assert_eq!(store.forget_user(&foreign, "bob").await.unwrap(), nothing);

    // Their own may have the same ids, and nothing was changed.
    for made in [
        store.create_agent(NewAgent { org_id: foreign.clone(), ..agent }).await,
        store.create_environment(NewEnvironment { org_id: foreign.clone(), ..environment }).await,
        store.create_file(NewFile { org_id: foreign.clone(), ..file }).await,
        store.create_session(new_managed(&foreign, 30, 0)).await,
    ] {
        made.unwrap();
    }
    assert_eq!(store.session(org_id, &session_id).await.unwrap(), before);
    assert_eq!(store.agent(org_id, &id(1), None).await.unwrap().unwrap().definition, json!({"mine": true}));
    assert_eq!(store.environment(org_id, &id(1)).await.unwrap().unwrap().archived_at, None);
    assert!(store.file(org_id, &id(1)).await.unwrap().is_some());
    for new in [
        store.create_agent(NewAgent { id: id(1), org_id: id(78), definition: json!(1), created_at }).await,
        store.create_session(new_managed(&id(78), 1, 0)).await,
    ] {
        assert!(matches!(new, Err(Error::Unknown { what: "org", .. })), "{new:?}");
    }
}

async fn strangers_to_resources(store: &dyn Store, foreign: &OrgId) {
    let page = Page::first(Order::Desc, 10);
    let (created, include_archived) = (CreatedRange::default(), true);
    assert_eq!(store.agent(foreign, &id(1), None).await.unwrap(), None);
    assert_eq!(store.agent(foreign, &id(1), Some(1)).await.unwrap(), None);
    let updated = store.update_agent(foreign, &id(1), None, json!("theirs"), at(9)).await.unwrap();
    assert_eq!(updated, UpdateAgent::Missing);
    assert_eq!(store.archive_agent(foreign, &id(1), at(9)).await.unwrap(), None);
    let query = AgentQuery { created, include_archived, page: page.clone() };
    assert_eq!(store.agents(foreign, query).await.unwrap(), []);
    assert_eq!(store.agent_versions(foreign, &id(1), None, 10).await.unwrap(), None);
    assert_eq!(store.environment(foreign, &id(1)).await.unwrap(), None);
    let updated = store.update_environment(foreign, &id(1), json!("theirs"), at(9)).await.unwrap();
    assert_eq!(updated, UpdateEnvironment::Missing);
    assert_eq!(store.archive_environment(foreign, &id(1), at(9)).await.unwrap(), None);
    let query = EnvironmentQuery { created, include_archived, page: page.clone() };
    assert_eq!(store.environments(foreign, query).await.unwrap(), []);
    let deleted = store.delete_environment(foreign, &id(1)).await.unwrap();
    assert_eq!(deleted, DeleteEnvironment::Missing);
    assert_eq!(store.file(foreign, &id(1)).await.unwrap(), None);
    for (ids, session_id) in [(vec![], None), (vec![id(1)], None), (vec![], Some(id(30)))] {
        let query = FileQuery { ids, session_id, user_id: None, page: page.clone() };
        assert_eq!(store.files(foreign, query).await.unwrap(), []);
    }
    assert!(!store.delete_file(foreign, &id(1)).await.unwrap());
}

/// Another org sees nothing of it, and is answered as if it were not there.
async fn foreigners(store: &dyn Store, org_id: &OrgId) {
    let foreign: OrgId = id(77);
    let unknown = store.ensure_user(&foreign, "ada").await;
    assert!(matches!(unknown, Err(Error::Unknown { what: "org", .. })), "{unknown:?}");
    store.ensure_org(&foreign, "others").await.unwrap();
    let (session_id, run) = (id(1), id(20));

    assert_eq!(store.session(&foreign, &session_id).await.unwrap(), None);
    assert_eq!(store.events(&foreign, &session_id, 0, 10).await.unwrap(), []);
    assert_eq!(store.keys(&foreign).await.unwrap(), []);
    assert!(!store.revoke_key(&foreign, &KeyId::from_random(1u128.to_be_bytes()), at(1)).await.unwrap());
    let begun = store.begin_run(&foreign, &session_id, &run, "here", at(1)).await.unwrap();
    assert_eq!(begun, BeginRun::NoSession);
    assert!(!store.end_run(&foreign, &session_id, &id(10), outcome(RunStatus::Failed, 0)).await.unwrap());
    let mine = store.append_events(&foreign, &session_id, 0, vec![event(50, json!(1))]).await.unwrap_err();
    let nobodys = store.append_events(org_id, &id(404), 0, vec![event(50, json!(1))]).await.unwrap_err();
    assert_eq!(mine.to_string(), format!("find the session `{session_id}`"));
    assert_eq!(nobodys.to_string(), format!("find the session `{}`", id::<protocol::Session>(404)));
    assert!(matches!(store.settle_usage(end(&foreign, 1, 1)).await, Err(Error::Unknown { .. })));
    assert_eq!(store.usage(&foreign, UsageQuery::default()).await.unwrap()[0].requests, 0);
    assert_eq!(store.key(&id(1)).await.unwrap().unwrap().org_id, *org_id);
    assert_eq!(store.key(&id(1)).await.unwrap().unwrap().revoked_at, None);
}
