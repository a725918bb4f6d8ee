//! Managed sessions: leases and fences, commits, logs whose events have several rows, lists.

use serde_json::json;
use wardian_protocol::id as protocol;
use wardian_protocol::{NanoUsd, OrgId};
use wardian_store::{
    BeginRun, CreatedRange, Error, EventQuery, Lease, MAX_RAW_BYTES, MAX_RAW_ROWS, NewSession, Order, Page,
    Position, SessionCommit, SessionQuery, SessionStatus, SqliteStore, Store, UsageStart,
};

use crate::common::{at, change, commit, end, event, id, lease, leased, new_managed, seqs, session, start};

/// All of them, the newest first.
pub fn everything() -> SessionQuery {
    SessionQuery {
        agent_id: None,
        agent_version: None,
        statuses: Vec::new(),
        created: CreatedRange::default(),
        include_archived: true,
        user_id: None,
        page: Page::first(Order::Desc, 100),
    }
}

/// All of them, in order.
pub fn all_events() -> EventQuery {
    EventQuery {
        types: Vec::new(),
        created: CreatedRange::default(),
        order: Order::Asc,
        after: None,
        limit: 100,
    }
}

#[tokio::test]
async fn a_session_is_made_with_its_first_events() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    let mut new = new_managed(&org_id, 1, 5);
    let managed = new.managed.as_mut().unwrap();
    managed.events = vec![event(1, json!("one")), event(2, json!("two"))];
    managed.wake_at = Some(at(9));
    store.create_session(new.clone()).await.unwrap();
    assert!(matches!(store.create_session(new.clone()).await, Err(Error::Exists { what: "session", .. })));

    let record = store.session(&org_id, &id(1)).await.unwrap().unwrap();
    assert_eq!((record.status, record.runs, record.last_seq), (SessionStatus::Idle, 0, 2));
    assert_eq!((record.created_at, record.updated_at), (at(5), at(5)));
    let managed = record.managed.unwrap();
    assert_eq!((&managed.agent_id, managed.agent_version, &managed.environment_id), (&id(1), 1, &id(1)));
    assert_eq!((&managed.definition, &managed.state), (&json!({"session": 1}), &json!({})));
    assert_eq!((managed.wake_at, managed.archived_at), (Some(at(9)), None));
    assert_eq!((managed.lease_owner, managed.fence), (None, 0));
    let rows = store.event_rows(&org_id, &id(1), 0, 10).await.unwrap();
    assert_eq!(seqs(&rows), [(1, 1, "\"one\""), (2, 2, "\"two\"")]);

    // Nothing of one that is refused is kept.
    let mut large = new_managed(&org_id, 2, 5);
    large.managed.as_mut().unwrap().definition = json!("x".repeat(wardian_store::MAX_DEFINITION_BYTES));
    let refused = store.create_session(large).await;
    assert!(matches!(refused, Err(Error::TooLarge { what: "definition", .. })), "{refused:?}");
    assert_eq!(store.session(&org_id, &id(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_commit_is_all_or_nothing() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, session_id, fence) = leased(&store, 1, "here").await;
    let events = vec![event(1, json!({"type": "user.message"})), event(2, json!(2))];
    let mut turn = change(SessionStatus::Running, 10);
    turn.active_run = Some(id(7));
    turn.wake_at = Some(at(20));
    let raw = vec!["{\"a\":1}".to_owned(), String::new(), "not json \0 é".to_owned()];
    let whole =
        SessionCommit { change: Some(turn.clone()), raw: raw.clone(), ..commit(&org_id, 1, fence, events) };
    assert_eq!(store.commit_session(whole.clone()).await.unwrap(), 2);
    let record = store.session(&org_id, &session_id).await.unwrap().unwrap();
    assert_eq!((record.status, record.runs, &record.active_run), (SessionStatus::Running, 1, &Some(id(7))));
    assert_eq!((record.last_seq, record.updated_at), (2, at(10)));
    let managed = record.managed.unwrap();
    assert_eq!((managed.state, managed.wake_at), (json!({"at": 10}), Some(at(20))));
    assert_eq!(managed.definition, json!({"session": 1}), "not asked to change");
    let lines: Vec<_> = store.raw_rows(&org_id, &session_id, 0, 10).await.unwrap();
    assert_eq!(lines.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(lines.iter().map(|row| &row.line).eq(&raw));

    // The same turn is not a second run; another one is.
    store.commit_session(SessionCommit { raw: vec![], events: vec![], ..whole.clone() }).await.unwrap();
    assert_eq!(store.session(&org_id, &session_id).await.unwrap().unwrap().runs, 1);
    turn.active_run = Some(id(8));
    turn.definition = Some(json!("new"));
    turn.archived_at = Some(at(30));
    let next = SessionCommit { change: Some(turn.clone()), ..commit(&org_id, 1, fence, vec![]) };
    assert_eq!(store.commit_session(next).await.unwrap(), 2, "no event, no number");
    turn.archived_at = None;
    turn.wake_at = None;
    let next = SessionCommit { change: Some(turn), ..commit(&org_id, 1, fence, vec![]) };
    store.commit_session(next).await.unwrap();
    let record = store.session(&org_id, &session_id).await.unwrap().unwrap();
    let managed = record.managed.unwrap();
    assert_eq!((record.runs, managed.definition), (2, json!("new")));
    assert_eq!((managed.archived_at, managed.wake_at), (Some(at(30)), None), "archived once and for all");

    // One part that is refused takes the rest with it.
    let mut late = change(SessionStatus::Idle, 40);
    late.at = jiff::Timestamp::MIN;
    let bad = SessionCommit { change: Some(late), ..commit(&org_id, 1, fence, vec![event(3, json!(3))]) };
    assert!(matches!(store.commit_session(bad).await, Err(Error::Invalid { what: "time", .. })));
    let same = store.session(&org_id, &session_id).await.unwrap().unwrap();
    assert_eq!((same.last_seq, same.status), (2, SessionStatus::Running));
    assert_eq!(store.event_rows(&org_id, &session_id, 2, 10).await.unwrap(), []);
}

#[tokio::test]
async fn an_event_is_listed_once_where_it_came_and_as_it_is() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, session_id, fence) = leased(&store, 1, "here").await;
    let of = |n: u64, kind: &str, text: &str| {
        let mut event = event(n, json!(text));
        event.kind = kind.to_owned();
        event
    };
    let first = vec![of(1, "user", "a"), of(2, "user", "b"), of(3, "agent", "c")];
    store.commit_session(commit(&org_id, 1, fence, first)).await.unwrap();
    let mut later = of(1, "user", "A");
    later.at = at(500);
    // Twice in one commit, too.
    let second =
        vec![later, of(4, "user", "d"), of(4, "user", "D"), of(5, "agent", "e"), of(1, "user", "AA")];
    assert_eq!(store.commit_session(commit(&org_id, 1, fence, second)).await.unwrap(), 8);

    let rows = store.event_rows(&org_id, &session_id, 0, 100).await.unwrap();
    let firsts: Vec<_> = rows.iter().map(|row| (row.seq, row.first_seq)).collect();
    assert_eq!(firsts, [(1, 1), (2, 2), (3, 3), (4, 1), (5, 5), (6, 5), (7, 7), (8, 1)]);
    assert_eq!(
        (&*rows[3].payload, &rows[3].id, rows[3].at, &*rows[3].kind),
        ("\"A\"", &id(1), at(500), "user")
    );

    let list = async |query: EventQuery| store.list_events(&org_id, &session_id, query).await.unwrap();
    let all = list(all_events()).await;
    let expected = [(8, 1, "\"AA\""), (2, 2, "\"b\""), (3, 3, "\"c\""), (6, 5, "\"D\""), (7, 7, "\"e\"")];
    assert_eq!(seqs(&all), expected);
    let mut backward = list(EventQuery { order: Order::Desc, ..all_events() }).await;
    backward.reverse();
    assert_eq!(backward, all);
    let types = vec!["user".to_owned(), "nothing".to_owned()];
    let users = list(EventQuery { types, ..all_events() }).await;
    assert_eq!(users.iter().map(|row| row.first_seq).collect::<Vec<_>>(), [1, 2, 5]);
    let page = list(EventQuery { after: Some(2), limit: 2, ..all_events() }).await;
    assert_eq!(page.iter().map(|row| row.first_seq).collect::<Vec<_>>(), [3, 5]);
    let page = list(EventQuery { after: Some(5), order: Order::Desc, limit: 2, ..all_events() }).await;
    assert_eq!(page.iter().map(|row| row.first_seq).collect::<Vec<_>>(), [3, 2]);
    // By the time of the first row: the later one of event 1 does not count.
    let created = CreatedRange { gte: Some(at(2)), lt: Some(at(4)), ..CreatedRange::default() };
    let some = list(EventQuery { created, ..all_events() }).await;
    assert_eq!(some.iter().map(|row| row.first_seq).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(list(EventQuery { after: Some(u64::MAX), ..all_events() }).await, []);

    assert_eq!(store.event(&org_id, &session_id, &id(1)).await.unwrap(), Some(rows[7].clone()));
    assert_eq!(store.event(&org_id, &session_id, &id(99)).await.unwrap(), None);
    let folded = store.event_rows(&org_id, &session_id, 6, 1).await.unwrap();
    assert_eq!(folded.iter().map(|row| row.seq).collect::<Vec<_>>(), [7]);
}

#[tokio::test]
async fn an_old_fence_is_refused_on_every_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let (org_id, session_id, old) = leased(&store, 1, "here").await;
    let fenced = async |fence: u64| {
        let events = vec![event(1, json!(1))];
        let changed = Some(change(SessionStatus::Running, 3));
        let write = SessionCommit { change: changed, ..commit(&org_id, 1, fence, events.clone()) };
        for write in [write, commit(&org_id, 1, fence, events), commit(&org_id, 1, fence, vec![])] {
            let refused = store.commit_session(write).await;
            assert!(matches!(refused, Err(Error::Fenced)), "{fence}: {refused:?}");
        }
        let refused = store.delete_session(&org_id, &session_id, fence).await;
        assert!(matches!(refused, Err(Error::Fenced)), "{fence}: {refused:?}");
    };
    let same = lease(&store, &org_id, 1, "here").await;
    assert_eq!((old, same), (1, 2), "each taking has a number of its own, also that by the same owner");
    fenced(old).await;
    assert!(!store.release_session(&org_id, &session_id, old).await.unwrap());
    fenced(0).await;
    fenced(same + 1).await;
    fenced(u64::MAX).await;

    // Whoever comes beside is turned away while the owner lives, and takes over when it is gone.
    let beside = SqliteStore::open(&path).unwrap();
    assert_eq!(beside.lease_session(&org_id, &session_id, "beside", at(2)).await.unwrap(), Lease::Held);
    assert!(store.release_session(&org_id, &session_id, same).await.unwrap());
    assert!(!store.release_session(&org_id, &session_id, same).await.unwrap(), "once");
    fenced(same).await;
    let mine = lease(&store, &org_id, 1, "here").await;
    drop(store);
    let theirs = lease(&beside, &org_id, 1, "beside").await;
    assert_eq!(theirs, mine + 1);
    let record = beside.session(&org_id, &session_id).await.unwrap().unwrap();
    let managed = record.managed.unwrap();
    assert_eq!((managed.fence, managed.lease_owner.as_deref()), (theirs, Some("beside")));
    let refused = beside.commit_session(commit(&org_id, 1, mine, vec![])).await;
    assert!(matches!(refused, Err(Error::Fenced)), "{refused:?}");
    assert_eq!(beside.commit_session(commit(&org_id, 1, theirs, vec![event(1, json!(1))])).await.unwrap(), 1);
}

/// A session of runs and a managed one are not taken for each other.
#[tokio::test]
async fn the_two_kinds_of_session_do_not_mix() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, managed, fence) = leased(&store, 1, "here").await;
    let (_, runs) = session(&store, 2).await;
    let begun = store.begin_run(&org_id, &managed, &id(1), "here", at(1)).await.unwrap();
    assert_eq!(begun, BeginRun::NoSession);
    let unknown = store.append_events(&org_id, &managed, fence, vec![event(1, json!(1))]).await;
    assert!(matches!(unknown, Err(Error::Unknown { what: "session", .. })), "{unknown:?}");
    assert_eq!(store.lease_session(&org_id, &runs, "here", at(1)).await.unwrap(), Lease::Missing);
    let unknown = store.commit_session(commit(&org_id, 2, 0, vec![])).await;
    assert!(matches!(unknown, Err(Error::Unknown { what: "session", .. })), "{unknown:?}");
    assert!(!store.delete_session(&org_id, &runs, 0).await.unwrap());
    let listed = store.sessions(&org_id, everything()).await.unwrap();
    assert_eq!(listed.iter().map(|session| &session.id).collect::<Vec<_>>(), [&managed]);
    assert_eq!(store.session(&org_id, &runs).await.unwrap().unwrap().managed, None);
}

#[tokio::test]
async fn a_deleted_session_leaves_its_usage() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, session_id, fence) = leased(&store, 1, "here").await;
    let many = (1..=3000).map(|n| event(n, json!(n))).collect();
    let raw = (0..3000).map(|n| n.to_string()).collect();
    let write = SessionCommit { raw, ..commit(&org_id, 1, fence, many) };
    store.commit_session(write).await.unwrap();
    store
        .open_usage(UsageStart { session_id: session_id.clone(), ..start(&org_id, 1, "here") })
        .await
        .unwrap();
    assert!(store.delete_session(&org_id, &session_id, fence).await.unwrap());
    assert!(!store.delete_session(&org_id, &session_id, fence).await.unwrap());
    assert_eq!(store.session(&org_id, &session_id).await.unwrap(), None);
    assert_eq!(store.event_rows(&org_id, &session_id, 0, 10).await.unwrap(), []);
    assert_eq!(store.raw_rows(&org_id, &session_id, 0, 10).await.unwrap(), []);
    assert_eq!(store.sessions(&org_id, everything()).await.unwrap(), []);
    let usage = store.session_usage(&org_id, std::slice::from_ref(&session_id)).await.unwrap();
    assert_eq!(usage[0].1.requests, 1);
    // All rows are gone: a new one of this id would see none of the old.
    store.create_session(new_managed(&org_id, 1, 0)).await.unwrap();
    assert_eq!(store.event_rows(&org_id, &session_id, 0, 10).await.unwrap(), []);
}

#[tokio::test]
async fn the_newest_lines_are_kept() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, session_id, fence) = leased(&store, 1, "here").await;
    let write = async |raw: Vec<String>| {
        store.commit_session(SessionCommit { raw, ..commit(&org_id, 1, fence, vec![]) }).await.unwrap();
    };
    let numbers = async || {
        let mut numbers: Vec<u64> = Vec::new();
        loop {
            let after = numbers.last().copied().unwrap_or(0);
            let page = store.raw_rows(&org_id, &session_id, after, 1000).await.unwrap();
            if page.is_empty() {
                return numbers;
            }
            numbers.extend(page.iter().map(|row| row.number));
        }
    };
    write((0..MAX_RAW_ROWS).map(|n| n.to_string()).collect()).await;
    assert_eq!(numbers().await.len() as u64, MAX_RAW_ROWS);
    write(vec!["one more".to_owned()]).await;
    let kept = numbers().await;
    assert_eq!(kept.last(), Some(&(MAX_RAW_ROWS + 1)));
    assert_eq!(kept.len() as u64, MAX_RAW_ROWS / 8 * 7);
    assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]));

    // By bytes: all of one commit that is too much for one session, but for its end.
    let half = "x".repeat(usize::try_from(MAX_RAW_BYTES / 2).unwrap());
    write(vec![half.clone()]).await;
    assert!(numbers().await.len() > 1000);
    write(vec![half.clone(), half.clone(), half.clone() + "xx", half[1..].to_owned()]).await;
    let last = MAX_RAW_ROWS + 6;
    assert_eq!(numbers().await, [last]);
    write(vec!["y".to_owned()]).await;
    assert_eq!(numbers().await, [last, last + 1]);
    write(vec![half.clone() + &half + "x"]).await;
    assert_eq!(numbers().await, [0; 0], "no room for it nor for what was before it");
    write(vec!["z".to_owned()]).await;
    assert_eq!(numbers().await, [last + 3]);
}

#[tokio::test]
async fn sessions_that_are_due_come_the_earliest_first() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    let other: OrgId = id(77);
    store.ensure_org(&other, "other").await.unwrap();
    for (n, org_id, wake) in
        [(1, &org_id, Some(30)), (2, &other, Some(10)), (3, &org_id, None), (4, &org_id, Some(20))]
    {
        let mut new = new_managed(org_id, n, 0);
        new.managed.as_mut().unwrap().wake_at = wake.map(at);
        store.create_session(new).await.unwrap();
    }
    let due = async |seconds: i64, limit: u32| -> Vec<_> {
        let due = store.due_sessions(at(seconds), limit).await.unwrap();
        due.into_iter().map(|due| (due.org_id, due.session_id, due.wake_at)).collect()
    };
    assert_eq!(due(9, 10).await, []);
    assert_eq!(due(10, 10).await, [(other.clone(), id(2), at(10))]);
    let both = [(other.clone(), id(2), at(10)), (org_id.clone(), id(4), at(20))];
    assert_eq!(due(29, 10).await, both);
    assert_eq!(due(100, 2).await, both);
    assert_eq!(store.next_wake(at(0)).await.unwrap(), Some(at(10)));
    assert_eq!(store.next_wake(at(10)).await.unwrap(), Some(at(20)));
    assert_eq!(store.next_wake(at(30)).await.unwrap(), None);
}

#[tokio::test]
async fn lists_take_what_fits() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    for n in 1..=6 {
        let mut new = new_managed(&org_id, n, i64::try_from(n).unwrap());
        new.user_id = n.is_multiple_of(2).then(|| "bob".to_owned());
        let managed = new.managed.as_mut().unwrap();
        (managed.agent_id, managed.agent_version) = (id(n % 3), n % 2);
        store.create_session(new).await.unwrap();
    }
    for (n, status, archived) in
        [(2, SessionStatus::Running, None), (3, SessionStatus::Terminated, Some(at(9)))]
    {
        let fence = lease(&store, &org_id, n, "here").await;
        let changed = wardian_store::SessionChange { archived_at: archived, ..change(status, 9) };
        let write = SessionCommit { change: Some(changed), ..commit(&org_id, n, fence, vec![]) };
        store.commit_session(write).await.unwrap();
    }
    let ask = async |query: SessionQuery| -> Vec<u64> {
        let sessions = store.sessions(&org_id, query).await.unwrap();
        let number = |session: &wardian_store::SessionRecord| {
            session.managed.as_ref().unwrap().definition["session"].as_u64().unwrap()
        };
        sessions.iter().map(number).collect()
    };
    assert_eq!(ask(everything()).await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(ask(SessionQuery { include_archived: false, ..everything() }).await, [6, 5, 4, 2, 1]);
    assert_eq!(ask(SessionQuery { agent_id: Some(id(0)), ..everything() }).await, [6, 3]);
    let version = SessionQuery { agent_id: Some(id(0)), agent_version: Some(0), ..everything() };
    assert_eq!(ask(version).await, [6]);
    assert_eq!(ask(SessionQuery { agent_version: Some(u64::MAX), ..everything() }).await, [0; 0]);
    assert_eq!(ask(SessionQuery { user_id: Some("bob".to_owned()), ..everything() }).await, [6, 4, 2]);
    let statuses = vec![SessionStatus::Running, SessionStatus::Terminated];
    assert_eq!(ask(SessionQuery { statuses, ..everything() }).await, [3, 2]);
    let fine = jiff::SignedDuration::from_nanos(1);
    for (created, expected) in [
        (CreatedRange { gt: Some(at(4)), ..CreatedRange::default() }, vec![6, 5]),
        (CreatedRange { gte: Some(at(4)), ..CreatedRange::default() }, vec![6, 5, 4]),
        (CreatedRange { gte: Some(at(4) + fine), ..CreatedRange::default() }, vec![6, 5]),
        (CreatedRange { gt: Some(at(4) - fine), ..CreatedRange::default() }, vec![6, 5, 4]),
        (CreatedRange { lt: Some(at(2)), ..CreatedRange::default() }, vec![1]),
        (CreatedRange { lt: Some(at(2) + fine), ..CreatedRange::default() }, vec![2, 1]),
        (CreatedRange { lte: Some(at(2)), gte: Some(at(2)), ..CreatedRange::default() }, vec![2]),
        (CreatedRange { lte: Some(at(2) - fine), ..CreatedRange::default() }, vec![1]),
        (
            CreatedRange {
                gt: Some(jiff::Timestamp::MIN),
                lt: Some(jiff::Timestamp::MAX),
                ..CreatedRange::default()
            },
            vec![6, 5, 4, 3, 2, 1],
        ),
    ] {
        assert_eq!(ask(SessionQuery { created, ..everything() }).await, expected, "{created:?}");
    }
    let after = Some(Position { at: at(4), id: id::<protocol::Session>(4).to_string() });
    let page = |order, backward| Page { order, after: after.clone(), backward, limit: 2 };
    for (order, backward, expected) in [
        (Order::Desc, false, [3, 2]),
        (Order::Desc, true, [6, 5]),
        (Order::Asc, false, [5, 6]),
        (Order::Asc, true, [2, 3]),
    ] {
        assert_eq!(ask(SessionQuery { page: page(order, backward), ..everything() }).await, expected);
    }
    let last = Page { order: Order::Desc, after: None, backward: true, limit: 2 };
    assert_eq!(ask(SessionQuery { page: last, ..everything() }).await, [2, 1]);
}

#[tokio::test]
async fn usage_is_summed_for_many_sessions_at_once() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    for n in 1..=6 {
        let start = UsageStart { session_id: id(n % 3), ..start(&org_id, n, "here") };
        store.open_usage(start).await.unwrap();
        if n > 1 {
            store.settle_usage(end(&org_id, n, i64::try_from(n).unwrap())).await.unwrap();
        }
    }
    let usage = store.session_usage(&org_id, &[id(1), id(2), id(9)]).await.unwrap();
    let sums: Vec<_> =
        usage.iter().map(|(id, row)| (id.clone(), row.requests, row.cost, row.tokens.input_tokens)).collect();
    assert_eq!(sums, [(id(1), 2, NanoUsd(4), 10), (id(2), 2, NanoUsd(7), 20)]);
    assert_eq!(store.session_usage(&org_id, &[]).await.unwrap(), []);
    assert_eq!(store.session_usage(&id(77), &[id(1)]).await.unwrap(), []);
    let too_many = vec![id(1); 2000];
    assert!(matches!(store.session_usage(&org_id, &too_many).await, Err(Error::TooLarge { .. })));
}

/// The clock goes back an hour: what comes later still has the larger numbers, and no page loses a row.
#[tokio::test]
async fn a_clock_that_goes_back_changes_no_order() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, session_id, fence) = leased(&store, 1, "here").await;
    for (n, seconds) in [(1, 7200), (2, 3600), (3, 3601), (4, 0)] {
        let mut event = event(n, json!(n));
        event.at = at(seconds);
        let changed = Some(change(SessionStatus::Idle, seconds));
        let write = SessionCommit { change: changed, ..commit(&org_id, 1, fence, vec![event]) };
        assert_eq!(store.commit_session(write).await.unwrap(), n);
    }
    let rows = store.event_rows(&org_id, &session_id, 0, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let list = store.list_events(&org_id, &session_id, all_events()).await.unwrap();
    assert_eq!(list, rows);

    let mut seen = Vec::new();
    let mut after = None;
    for (n, seconds) in [(2, 7200), (3, 3600), (4, 7200), (5, 0), (6, 3600)] {
        let new = NewSession { created_at: at(seconds), ..new_managed(&org_id, n, 0) };
        store.create_session(new).await.unwrap();
    }
    loop {
        let page = Page { order: Order::Desc, after: after.clone(), backward: false, limit: 1 };
        let found = store.sessions(&org_id, SessionQuery { page, ..everything() }).await.unwrap();
        let Some(session) = found.into_iter().next() else { break };
        after = Some(Position { at: session.created_at, id: session.id.to_string() });
        seen.push(session.id);
    }
    assert_eq!(seen, [id(4), id(2), id(6), id(3), id(5), id(1)]);
}
