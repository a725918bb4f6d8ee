//! Who may use a session, how many at once, and what is left after a stop or a crash.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wardian_protocol::{OrgId, RequestId, SessionId};
use wardian_session::{Caller, Full, Ownership, RunError, RunEvent, RunStatus, StartError};
use wardian_store::{BeginRun, NewSession, SessionStatus};

use super::world::{World, command, deaf, request_id, start};

const QUIET: &str = r#"{"replies": []}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_session_is_answered_like_an_unknown_one() {
    let world = World::new(QUIET).await;
    let mut anns = command(&["true"]);
    anns.user = Some("ann".to_owned());
    let session = world.report(anns).await.session_id;
    let other_org = OrgId::from_random([9; 16]);
    world.store.ensure_org(&other_org, "other").await.unwrap();

    let attempt = |caller: Caller, user: Option<&str>, session: &SessionId| {
        let mut request = command(&["true"]);
        request.session_id = Some(session.clone());
        request.user = user.map(str::to_owned);
        world.engine.run(caller, request, deaf(), CancellationToken::new())
    };
    let unknown = SessionId::from_random([5; 16]);
    let foreign = Caller { org_id: other_org, user_id: None, key_id: None };
    for (refused, asked) in [
        (attempt(world.caller(Some("bob")), None, &session).await, &session),
        (attempt(world.caller(None), Some("bob"), &session).await, &session),
        (attempt(foreign, None, &session).await, &session),
        (attempt(world.caller(None), None, &unknown).await, &unknown),
    ] {
        assert!(matches!(&refused, Err(RunError::SessionNotFound(id)) if id == asked), "{refused:?}");
    }
    for allowed in [
        attempt(world.caller(Some("ann")), None, &session).await,
        attempt(world.caller(None), Some("ann"), &session).await,
        attempt(world.caller(None), None, &session).await,
    ] {
        assert_eq!(allowed.unwrap().session_id, session);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_one_run_at_a_time_and_caps_hold() {
    let world = World::with(QUIET, |config| config.caps.runs_per_user = 1).await;
    let (sink, mut events) = mpsc::channel(4);
    let cancel = CancellationToken::new();
    let mut long = command(&["sleep", "1000"]);
    long.user = Some("ann".to_owned());
    let first = world.engine.run(world.caller(None), long, sink, cancel.clone());
    let others = async {
        let Some(RunEvent::Started { session_id, .. }) = events.recv().await else { panic!("it starts") };
        let mut second = command(&["true"]);
        second.user = Some("ann".to_owned());
        let full = world.run(second).await.0;
        assert!(matches!(full, Err(RunError::Full(Full::User(1)))), "{full:?}");
        let busy = world
            .store
            .begin_run(&world.org, &session_id, &request_id(), "x", jiff::Timestamp::UNIX_EPOCH)
            .await;
        assert_eq!(busy.unwrap(), BeginRun::Busy);
        cancel.cancel();
        session_id
    };
    let (report, session) = tokio::join!(first, others);
    let report = report.unwrap();
    assert_eq!((report.status, &report.session_id), (RunStatus::Cancelled, &session));
    world.assert_clean(&session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_caller_drops_it_is_cleaned_up() {
    let world = World::new(QUIET).await;
    let (sink, mut events) = mpsc::channel(4);
    let run =
        world.engine.run(world.caller(None), command(&["sleep", "1000"]), sink, CancellationToken::new());
    let session = tokio::select! {
        _ = run => panic!("it sleeps"),
        event = events.recv() => match event {
            Some(RunEvent::Started { session_id, .. }) => session_id,
            other => panic!("{other:?}"),
        },
    };
    // The sink closes when the run is over.
    while events.recv().await.is_some() {}
    world.engine.stop(Duration::from_secs(10)).await;
    world.assert_clean(&session).await;
    let log = world.log(&session).await;
    assert_eq!(log.last().unwrap().payload["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_cancels_what_does_not_end_and_takes_nothing_new() {
    let world = World::new(QUIET).await;
    let (sink, mut events) = mpsc::channel(4);
    let run =
        world.engine.run(world.caller(None), command(&["sleep", "1000"]), sink, CancellationToken::new());
    let stop = async {
        events.recv().await;
        world.engine.stop(Duration::from_millis(100)).await;
    };
    let (report, ()) = tokio::join!(run, stop);
    let report = report.unwrap();
    assert_eq!(report.status, RunStatus::Cancelled);
    let refused = world.run(command(&["true"])).await.0;
    assert!(matches!(refused, Err(RunError::Stopping)), "{refused:?}");
    world.assert_clean(&report.session_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_left_is_put_right_at_the_next_start() {
    let world = World::new(QUIET).await;
    let session = SessionId::from_random([3; 16]);
    let at = jiff::Timestamp::UNIX_EPOCH;
    let new = NewSession {
        id: session.clone(),
        org_id: world.org.clone(),
        user_id: None,
        created_at: at,
        managed: None,
    };
    world.store.create_session(new).await.unwrap();
    let run = RequestId::from_random([4; 16]);
    world.store.begin_run(&world.org, &session, &run, "a process that died", at).await.unwrap();
    let World { engine, store, model, org, temp } = world;
    let second = start(&temp, &store, &model.base_url(), |_| ()).await;
    assert!(matches!(second, Err(StartError::Owned(_))), "one owner at a time");
    std::fs::write(temp.path().join("data/doors/left-open"), "").unwrap();
    drop(engine);

    let engine = start(&temp, &store, &model.base_url(), |_| ()).await.unwrap();
    let world = World { engine, store, model, org, temp };
    world.assert_clean(&session).await;
    let log = world.log(&session).await;
    assert_eq!(log.len(), 1);
    assert_eq!((log[0].kind.as_str(), log[0].request_id.as_ref()), ("run.interrupted", Some(&run)));
    assert_eq!(log[0].payload["cost_usd"], json!(0.0));
    let mut next = command(&["true"]);
    next.session_id = Some(session.clone());
    assert_eq!(world.report(next).await.session_id, session);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_prepared_leaves_the_session_usable() {
    let world = World::new(QUIET).await;
    let session = world.report(command(&["true"])).await.session_id;
    let workspace = world.engine.workspace(&session);
    std::fs::remove_dir_all(&workspace).unwrap();
    std::fs::write(&workspace, "a file stands where the folder was").unwrap();
    let again = || {
        let mut request = command(&["true"]);
        request.session_id = Some(session.clone());
        request
    };
    assert!(world.run(again()).await.0.is_err());
    world.assert_clean(&session).await;
    std::fs::remove_file(&workspace).unwrap();
    assert_eq!(world.report(again()).await.status, RunStatus::Completed);
    let record = world.store.session(&world.org, &session).await.unwrap().unwrap();
    assert_eq!(record.status, SessionStatus::Idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn local_engines_share_a_folder_and_leave_each_others_runs_alone() {
    let world = World::with(QUIET, |config| config.ownership = Ownership::Shared).await;
    let (sink, mut events) = mpsc::channel(4);
    let cancel = CancellationToken::new();
    let run = world.engine.run(world.caller(None), command(&["sleep", "1000"]), sink, cancel.clone());
    let others = async {
        let Some(RunEvent::Started { session_id, .. }) = events.recv().await else { panic!("it starts") };
        let starts = (0..3).map(|_| {
            start(&world.temp, &world.store, "http://127.0.0.1:1", |config| {
                config.ownership = Ownership::Shared
            })
        });
        let engines = futures_util::future::join_all(starts).await;
        assert!(engines.iter().all(Result::is_ok));
        let record = world.store.session(&world.org, &session_id).await.unwrap().unwrap();
        assert_eq!(record.status, SessionStatus::Running);
        cancel.cancel();
    };
    let (report, ()) = tokio::join!(run, others);
    assert_eq!(report.unwrap().status, RunStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_engine_says_so() {
    let world = World::new(QUIET).await;
    let health = world.engine.health().await;
    assert_eq!((health.store, health.sandbox, health.gateway), (Ok(()), Ok(()), Ok(())));
}
