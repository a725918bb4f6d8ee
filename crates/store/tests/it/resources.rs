//! Agents, environments, files, idempotent requests.

use serde_json::json;
use wardian_protocol::OrgId;
use wardian_store::{
    AgentQuery, CreatedRange, DeleteEnvironment, EnvironmentQuery, Error, ExpiredFile, FileQuery, Idempotent,
    IdempotentRequest, MAX_ANSWER_BYTES, MAX_DEFINITION_BYTES, MAX_FILENAME_BYTES, MAX_IDEMPOTENCY_KEY_BYTES,
    NewAgent, NewEnvironment, NewFile, Order, Page, SessionCommit, SessionStatus, SqliteStore, Store,
    UpdateAgent, UpdateEnvironment,
};

use crate::common::{at, change, commit, id, lease, new_managed};

fn agent(org_id: &OrgId, n: u64) -> NewAgent {
    let created_at = at(i64::try_from(n).unwrap());
    NewAgent { id: id(n), org_id: org_id.clone(), definition: json!({"n": n, "a": [1.5, "ü"]}), created_at }
}

fn environment(org_id: &OrgId, n: u64) -> NewEnvironment {
    let created_at = at(i64::try_from(n).unwrap());
    NewEnvironment { id: id(n), org_id: org_id.clone(), definition: json!({"n": n}), created_at }
}

fn file(org_id: &OrgId, n: u64) -> NewFile {
    NewFile {
        id: id(n),
        org_id: org_id.clone(),
        user_id: n.is_multiple_of(2).then(|| "bob".to_owned()),
        filename: format!("{n}.txt"),
        mime_type: "text/plain".to_owned(),
        size_bytes: n * 10,
        created_at: at(i64::try_from(n).unwrap()),
        expires_at: (n > 3).then(|| at(100 + i64::try_from(n).unwrap())),
        session_id: (n > 2).then(|| id(1)),
    }
}

fn files(page: Page) -> FileQuery {
    FileQuery { ids: Vec::new(), session_id: None, user_id: None, page }
}

#[tokio::test]
async fn an_agent_keeps_all_its_versions() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    for n in 1..=3 {
        store.create_agent(agent(&org_id, n)).await.unwrap();
    }
    let taken = store.create_agent(agent(&org_id, 1)).await;
    assert!(matches!(taken, Err(Error::Exists { what: "agent", .. })), "{taken:?}");

    let first = store.agent(&org_id, &id(1), None).await.unwrap().unwrap();
    assert_eq!((first.version, &first.definition), (1, &agent(&org_id, 1).definition));
    assert_eq!((first.created_at, first.updated_at, first.archived_at), (at(1), at(1), None));
    let update = async |expected: Option<u64>, definition: serde_json::Value, seconds: i64| {
        store.update_agent(&org_id, &id(1), expected, definition, at(seconds)).await.unwrap()
    };
    // The same with its keys in another order is the same.
    let same = update(Some(1), json!({"a": [1.5, "ü"], "n": 1}), 10).await;
    assert_eq!(same, UpdateAgent::Updated(first.clone()));
    let UpdateAgent::Updated(second) = update(None, json!("second"), 20).await else { panic!() };
    assert_eq!((second.version, second.created_at, second.updated_at), (2, at(1), at(20)));
    assert_eq!(update(Some(1), json!("third"), 30).await, UpdateAgent::WrongVersion { current: 2 });
    assert_eq!(update(Some(9), json!("third"), 30).await, UpdateAgent::WrongVersion { current: 2 });
    let UpdateAgent::Updated(third) = update(Some(2), json!("third"), 30).await else { panic!() };

    let versions = async |before: Option<u64>, limit: u32| {
        store.agent_versions(&org_id, &id(1), before, limit).await.unwrap().unwrap()
    };
    assert_eq!(versions(None, 10).await, [third.clone(), second.clone(), first.clone()]);
    assert_eq!(versions(Some(3), 1).await, std::slice::from_ref(&second));
    assert_eq!(versions(Some(1), 10).await, []);
    assert_eq!(versions(Some(u64::MAX), 1).await, std::slice::from_ref(&third));
    assert_eq!(store.agent_versions(&org_id, &id(9), None, 10).await.unwrap(), None);
    for (version, expected) in
        [(None, Some(&third)), (Some(2), Some(&second)), (Some(4), None), (Some(0), None)]
    {
        assert_eq!(store.agent(&org_id, &id(1), version).await.unwrap().as_ref(), expected);
    }
    assert_eq!(store.agent(&org_id, &id(1), Some(u64::MAX)).await.unwrap(), None);

    let archived = store.archive_agent(&org_id, &id(1), at(40)).await.unwrap().unwrap();
    assert_eq!((archived.version, archived.archived_at), (3, Some(at(40))));
    let again = store.archive_agent(&org_id, &id(1), at(50)).await.unwrap().unwrap();
    assert_eq!(again, archived);
    assert_eq!(update(None, json!("fourth"), 60).await, UpdateAgent::Archived);
    assert_eq!(store.archive_agent(&org_id, &id(9), at(50)).await.unwrap(), None);

    let list = async |include_archived, created| {
        let query = AgentQuery { created, include_archived, page: Page::first(Order::Desc, 10) };
        let agents = store.agents(&org_id, query).await.unwrap();
        agents.into_iter().map(|agent| (agent.id, agent.version)).collect::<Vec<_>>()
    };
    let all = [(id(3), 1), (id(2), 1), (id(1), 3)];
    assert_eq!(list(true, CreatedRange::default()).await, all);
    assert_eq!(list(false, CreatedRange::default()).await, all[..2]);
    assert_eq!(list(true, CreatedRange { lte: Some(at(2)), ..CreatedRange::default() }).await, all[1..]);
}

#[tokio::test]
async fn a_definition_has_a_limit() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    let text = |bytes: usize| json!("x".repeat(bytes - 2));
    let largest = NewAgent { definition: text(MAX_DEFINITION_BYTES), ..agent(&org_id, 1) };
    store.create_agent(largest).await.unwrap();
    let large = NewAgent { definition: text(MAX_DEFINITION_BYTES + 1), ..agent(&org_id, 2) };
    let refused = store.create_agent(large).await.unwrap_err();
    assert_eq!(refused.to_string(), "store the agent: 1048577 is over the limit of 1048576");
    assert_eq!(store.agent(&org_id, &id(2), None).await.unwrap(), None);
    let refused = store.update_agent(&org_id, &id(1), None, text(MAX_DEFINITION_BYTES + 1), at(9)).await;
    assert!(matches!(refused, Err(Error::TooLarge { what: "agent", .. })), "{refused:?}");
    let large = NewEnvironment { definition: text(MAX_DEFINITION_BYTES + 1), ..environment(&org_id, 1) };
    assert!(matches!(store.create_environment(large).await, Err(Error::TooLarge { .. })));

    // Twenty of the largest are a page; too many are refused, since a shorter page would look like the last.
    for n in 2..=40 {
        let largest = NewAgent { definition: text(MAX_DEFINITION_BYTES), ..agent(&org_id, n) };
        store.create_agent(largest).await.unwrap();
    }
    let list = async |limit| {
        let page = Page::first(Order::Desc, limit);
        let query = AgentQuery { created: CreatedRange::default(), include_archived: true, page };
        store.agents(&org_id, query).await
    };
    assert_eq!(list(21).await.unwrap().len(), 21);
    let refused = list(100).await;
    assert!(
        matches!(refused, Err(Error::TooLarge { what: "page", .. })),
        "{:?}",
        refused.map(|all| all.len())
    );
}

#[tokio::test]
async fn an_environment_goes_when_nobody_needs_it() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    for n in 1..=2 {
        store.create_environment(environment(&org_id, n)).await.unwrap();
    }
    let taken = store.create_environment(environment(&org_id, 1)).await;
    assert!(matches!(taken, Err(Error::Exists { what: "environment", .. })), "{taken:?}");
    let update = async |n: u64, definition: serde_json::Value| {
        store.update_environment(&org_id, &id(n), definition, at(9)).await.unwrap()
    };
    let UpdateEnvironment::Updated(same) = update(1, json!({"n": 1})).await else { panic!() };
    assert_eq!((same.created_at, same.updated_at), (at(1), at(1)));
    let UpdateEnvironment::Updated(other) = update(1, json!("new")).await else { panic!() };
    assert_eq!((&other.definition, other.updated_at, other.archived_at), (&json!("new"), at(9), None));
    assert_eq!(update(3, json!("new")).await, UpdateEnvironment::Missing);
    assert_eq!(store.environment(&org_id, &id(1)).await.unwrap(), Some(other));
    let archived = store.archive_environment(&org_id, &id(2), at(10)).await.unwrap().unwrap();
    assert_eq!(archived.archived_at, Some(at(10)));
    assert_eq!(store.archive_environment(&org_id, &id(2), at(11)).await.unwrap(), Some(archived));
    assert_eq!(update(2, json!("new")).await, UpdateEnvironment::Archived);
    let list = async |include_archived| {
        let page = Page::first(Order::Asc, 10);
        let query = EnvironmentQuery { created: CreatedRange::default(), include_archived, page };
        let found = store.environments(&org_id, query).await.unwrap();
        found.into_iter().map(|environment| environment.id).collect::<Vec<_>>()
    };
    assert_eq!(list(true).await, [id(1), id(2)]);
    assert_eq!(list(false).await, [id(1)]);

    // Sessions 1 and 2 are made from environment 1.
    for n in 1..=2 {
        store.create_session(new_managed(&org_id, n, 0)).await.unwrap();
    }
    let delete = async |n: u64| store.delete_environment(&org_id, &id(n)).await.unwrap();
    assert_eq!(delete(1).await, DeleteEnvironment::InUse);
    for (n, status, archived) in [(1, SessionStatus::Terminated, None), (2, SessionStatus::Idle, Some(at(3)))]
    {
        let fence = lease(&store, &org_id, n, "here").await;
        let changed = wardian_store::SessionChange { archived_at: archived, ..change(status, 3) };
        assert_eq!(delete(1).await, DeleteEnvironment::InUse);
        let write = SessionCommit { change: Some(changed), ..commit(&org_id, n, fence, vec![]) };
        store.commit_session(write).await.unwrap();
    }
    assert_eq!(delete(1).await, DeleteEnvironment::Deleted);
    assert_eq!(delete(1).await, DeleteEnvironment::Missing);
    assert_eq!(delete(2).await, DeleteEnvironment::Deleted);
    assert_eq!(list(true).await, []);
}

#[tokio::test]
async fn files_are_rows() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    for n in 1..=5 {
        store.create_file(file(&org_id, n)).await.unwrap();
    }
    let taken = store.create_file(file(&org_id, 1)).await;
    assert!(matches!(taken, Err(Error::Exists { what: "file", .. })), "{taken:?}");
    let found = store.file(&org_id, &id(4)).await.unwrap().unwrap();
    assert_eq!(
        (found.filename.as_str(), found.mime_type.as_str(), found.size_bytes),
        ("4.txt", "text/plain", 40)
    );
    assert_eq!((found.user_id.as_deref(), found.session_id), (Some("bob"), Some(id(1))));
    assert_eq!((found.created_at, found.expires_at), (at(4), Some(at(104))));

    let list = async |query: FileQuery| {
        let found = store.files(&org_id, query).await.unwrap();
        found.into_iter().map(|file| file.id).collect::<Vec<_>>()
    };
    let page = Page::first(Order::Desc, 10);
    assert_eq!(list(files(page.clone())).await, [id(5), id(4), id(3), id(2), id(1)]);
    let of_session = FileQuery { session_id: Some(id(1)), ..files(page.clone()) };
    assert_eq!(list(of_session).await, [id(5), id(4), id(3)]);
    let of_user = FileQuery { user_id: Some("bob".to_owned()), ..files(page.clone()) };
    assert_eq!(list(of_user).await, [id(4), id(2)]);
    let some = FileQuery { ids: vec![id(9), id(2), id(2), id(5)], ..files(page.clone()) };
    assert_eq!(list(some).await, [id(5), id(2)]);

    let expired = async |seconds, limit| store.expired_files(at(seconds), limit).await.unwrap();
    assert_eq!(expired(103, 10).await, []);
    let four = ExpiredFile { org_id: org_id.clone(), file_id: id(4) };
    assert_eq!(expired(104, 10).await, std::slice::from_ref(&four));
    assert_eq!(expired(900, 1).await, [four]);
    assert!(store.delete_file(&org_id, &id(4)).await.unwrap());
    assert!(!store.delete_file(&org_id, &id(4)).await.unwrap());
    assert_eq!(store.file(&org_id, &id(4)).await.unwrap(), None);

    for bad in [
        NewFile { filename: String::new(), ..file(&org_id, 9) },
        NewFile { filename: "a\0b".to_owned(), ..file(&org_id, 9) },
        NewFile { filename: "x".repeat(MAX_FILENAME_BYTES + 1), ..file(&org_id, 9) },
        NewFile { mime_type: String::new(), ..file(&org_id, 9) },
        NewFile { size_bytes: u64::MAX, ..file(&org_id, 9) },
        NewFile { user_id: Some(String::new()), ..file(&org_id, 9) },
    ] {
        let refused = store.create_file(bad).await;
        assert!(matches!(refused, Err(Error::Invalid { .. } | Error::TooLarge { .. })), "{refused:?}");
    }
    let ids = vec![id(1); 2000];
    assert!(matches!(
        store.files(&org_id, FileQuery { ids, ..files(page) }).await,
        Err(Error::TooLarge { .. })
    ));
}

fn request(org_id: &OrgId, key: &str) -> IdempotentRequest {
    IdempotentRequest {
        org_id: org_id.clone(),
        key_id: id(1),
        route: "POST /v1/agents".to_owned(),
        key: key.to_owned(),
        request_sha256: [1; 32],
        seed: [7; 16],
        owner: "here".to_owned(),
        at: at(0),
    }
}

#[tokio::test]
async fn a_request_with_a_key_is_answered_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let org_id = store.default_org().await.unwrap();
    let begin = async |request: IdempotentRequest| store.begin_idempotent(request).await.unwrap();
    assert_eq!(begin(request(&org_id, "a")).await, Idempotent::New { seed: [7; 16] });
    let other_seed = IdempotentRequest { seed: [8; 16], ..request(&org_id, "a") };
    assert_eq!(begin(other_seed.clone()).await, Idempotent::InProgress);
    // Another process beside, while this one lives.
    let beside = SqliteStore::open(&path).unwrap();
    let theirs = IdempotentRequest { owner: "beside".to_owned(), ..other_seed };
    assert_eq!(beside.begin_idempotent(theirs.clone()).await.unwrap(), Idempotent::InProgress);
    for other in [
        IdempotentRequest { route: "POST /v1/files".to_owned(), ..request(&org_id, "a") },
        IdempotentRequest { request_sha256: [2; 32], ..request(&org_id, "a") },
    ] {
        assert_eq!(begin(other).await, Idempotent::Mismatch);
    }
    let of_other_key = IdempotentRequest { key_id: id(2), request_sha256: [2; 32], ..request(&org_id, "a") };
    assert_eq!(begin(of_other_key).await, Idempotent::New { seed: [7; 16] });

    let finish = async |key: &str, body: Vec<u8>| {
        store.finish_idempotent(&org_id, &id(1), key, 201, body, at(1)).await
    };
    assert!(!finish("none", vec![1]).await.unwrap());
    let too_large = finish("a", vec![0; MAX_ANSWER_BYTES + 1]).await;
    assert!(matches!(too_large, Err(Error::TooLarge { what: "answer", .. })), "{too_large:?}");
    assert!(finish("a", b"{}\0\xff".to_vec()).await.unwrap());
    assert!(!finish("a", b"other".to_vec()).await.unwrap(), "the first answer stays");
    assert!(!store.abandon_idempotent(&org_id, &id(1), "a").await.unwrap());
    let done = Idempotent::Done { status: 201, body: b"{}\0\xff".to_vec() };
    assert_eq!(begin(request(&org_id, "a")).await, done);
    assert_eq!(beside.begin_idempotent(theirs).await.unwrap(), done);

    // One that failed leaves nothing, also no seed.
    begin(request(&org_id, "b")).await;
    assert!(store.abandon_idempotent(&org_id, &id(1), "b").await.unwrap());
    let again = IdempotentRequest { seed: [9; 16], request_sha256: [3; 32], ..request(&org_id, "b") };
    assert_eq!(begin(again.clone()).await, Idempotent::New { seed: [9; 16] });

    // The process goes before it was done: the next one does it again, from the same seed.
    drop(store);
    let next = IdempotentRequest { seed: [10; 16], owner: "beside".to_owned(), ..again };
    assert_eq!(beside.begin_idempotent(next.clone()).await.unwrap(), Idempotent::Again { seed: [9; 16] });
    assert_eq!(beside.begin_idempotent(next).await.unwrap(), Idempotent::InProgress);
    assert_eq!(beside.begin_idempotent(request(&org_id, "a")).await.unwrap(), done);
}

#[tokio::test]
async fn keys_of_requests_have_limits_and_expire() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    for bad in [String::new(), "a\0".to_owned(), "k".repeat(MAX_IDEMPOTENCY_KEY_BYTES + 1)] {
        let refused = store.begin_idempotent(request(&org_id, &bad)).await;
        assert!(matches!(refused, Err(Error::Invalid { .. } | Error::TooLarge { .. })), "{refused:?}");
    }
    let longest = "k".repeat(MAX_IDEMPOTENCY_KEY_BYTES);
    store.begin_idempotent(request(&org_id, &longest)).await.unwrap();
    for n in 0..2500 {
        let request = IdempotentRequest { at: at(n % 2), ..request(&org_id, &n.to_string()) };
        store.begin_idempotent(request).await.unwrap();
    }
    assert_eq!(store.expire_idempotent(at(0)).await.unwrap(), 0);
    assert_eq!(store.expire_idempotent(at(1)).await.unwrap(), 1251);
    assert_eq!(store.begin_idempotent(request(&org_id, "1")).await.unwrap(), Idempotent::InProgress);
    assert_eq!(
        store.begin_idempotent(request(&org_id, "2")).await.unwrap(),
        Idempotent::New { seed: [7; 16] }
    );
    assert_eq!(store.expire_idempotent(at(5)).await.unwrap(), 1251);
    assert_eq!(store.expire_idempotent(at(5)).await.unwrap(), 0);
}
