//! What the owner of a door is told: each beginning, and exactly one end for each, however a request ends.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wardian_gateway::{DoorSpec, Error, Exchange, MIN_OBSERVER_PLACES, RefusedFor};
use wardian_protocol::{NanoUsd, RequestId};

use super::client::Client;
use super::faulty::Faulty;
use super::raw::{Answer, Raw, Then};
use super::rig::{Rig, TestDoor, ask, model};

const MODEL: &str = "claude-sonnet-5-5";
const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-opus-4-8\",\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n";
const END: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":7}}\n\n";
const OVERLOADED: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";

/// A test hangs no longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// Room for all that a test does.
const PLACES: usize = 64;

fn usd(text: &str) -> Option<NanoUsd> {
    Some(text.parse().unwrap())
}

async fn next(exchanges: &mut Receiver<Exchange>) -> Exchange {
    timeout(PATIENCE, exchanges.recv()).await.expect("it is told in time").expect("the door is open")
}

async fn started(exchanges: &mut Receiver<Exchange>) -> RequestId {
    match next(exchanges).await {
        Exchange::Started { id, .. } => id,
        other @ (Exchange::Ended { .. } | Exchange::Refused { .. }) => panic!("{other:?}"),
    }
}

/// All that a closed door has told: each beginning with its end after it. Returns the number of pairs and their cost.
async fn pairs(mut exchanges: Receiver<Exchange>) -> (usize, NanoUsd) {
    let (mut open, mut done, mut sum) = (BTreeSet::new(), BTreeSet::new(), NanoUsd::ZERO);
    while let Some(told) =
        timeout(PATIENCE, exchanges.recv()).await.expect("a closed door lets go of its queue")
    {
        match told {
            Exchange::Started { id, model, .. } => {
                assert_eq!(model, MODEL);
                assert!(!done.contains(&id) && open.insert(id));
            }
            Exchange::Ended { id, cost, .. } => {
                assert!(open.remove(&id), "an end without a beginning");
                assert!(done.insert(id), "two ends");
                sum += cost;
            }
            Exchange::Refused { .. } => panic!("there is room for all"),
        }
    }
    assert!(open.is_empty(), "beginnings without an end: {open:?}");
    (done.len(), sum)
}

/// The beginning is told when the record is open and before a byte goes up; the end when the record is settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_comes_before_the_upstream_and_an_end_after_the_settlement() {
    let pieces = [START, END].map(str::as_bytes);
    let no_count = || Answer::json("500 Internal Server Error", "", "{}");
    let raw = Raw::new(vec![no_count(), no_count(), Answer::stream(&pieces, Then::Keep)]).await;
    let rig = Rig::new(&raw.url).await;
    // Two refusals fill the queue but for one place, so that the beginning cannot be told yet.
    let (door, mut exchanges) = rig.watched(usd("1"), 3);
    let mut client = door.connect().await;
    for _ in 0..2 {
        assert_eq!(client.ask(&ask(true, 900_000)).await.status, 429);
    }
    client.request("POST", "/v1/messages", &ask(true, 50)).await;
    while rig.usage().await.open_requests == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        (raw.requests().len() - 2, door.door.in_flight()),
        (0, 1),
        "two counts, and nothing else went up"
    );
    for _ in 0..2 {
        assert!(matches!(next(&mut exchanges).await, Exchange::Refused { .. }));
    }
    let begun = started(&mut exchanges).await;
    assert_eq!(client.reply().await.status, 200);
    let Exchange::Ended { id, model, status, is_error, tokens, cost, .. } = next(&mut exchanges).await else {
        panic!("an end comes next");
    };
    assert_eq!((id, model.as_str(), status, is_error), (begun, "claude-opus-4-8", Some(200), false));
    assert_eq!((tokens.input_tokens, tokens.output_tokens), (10, 7));
    let usage = rig.usage().await;
    assert_eq!((usage.open_requests, usage.requests, usage.cost), (0, 1, cost));
    assert_eq!(door.door.in_flight(), 0);
    assert_eq!(door.door.close().await.cost, cost);
    assert_eq!(exchanges.recv().await, None);
}

/// Errors, cuts, refused connections and clients that leave are ends like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_a_request_ends_it_is_told_once() {
    let (start, end) = (START.as_bytes(), END.as_bytes());
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#;
    let cases = [
        (Answer::stream(&[start, end], Then::Keep), Some(200), false),
        (Answer::stream(&[start, end], Then::Close), Some(200), false),
        (Answer::stream(&[start], Then::Keep), Some(200), true),
        (Answer::stream(&[start], Then::Close), Some(200), true),
        (Answer::stream(&[start, OVERLOADED.as_bytes()], Then::Keep), Some(200), true),
        (Answer::json("529 Overloaded", "", overloaded), Some(529), true),
        (Answer::json("302 Found", "location: http://elsewhere/\r\n", ""), Some(502), true),
        (Answer::json("200 OK", "", "not JSON"), Some(200), true),
        (Answer::of("", Then::Close), Some(502), true),
        (Answer::of("no HTTP at all\r\n\r\n", Then::Close), Some(502), true),
    ];
    for (number, (answer, expected_status, expected_error)) in cases.into_iter().enumerate() {
        let raw = Raw::new(vec![answer]).await;
        let rig = Rig::new(&raw.url).await;
        let (door, mut exchanges) = rig.watched(None, PLACES);
        door.connect().await.ask(&ask(true, 50)).await;
        let begun = started(&mut exchanges).await;
        let Exchange::Ended { id, status, is_error, cost, .. } = next(&mut exchanges).await else {
            panic!("case {number}: an end comes next");
        };
        assert_eq!((id, status, is_error), (begun, expected_status, expected_error), "case {number}");
        assert_eq!(door.door.close().await.cost, cost, "case {number}");
        assert_eq!(exchanges.recv().await, None, "case {number}");
    }
    let rig = Rig::new("http://127.0.0.1:9").await;
    let (door, mut exchanges) = rig.watched(None, PLACES);
    assert_eq!(door.connect().await.ask(&ask(true, 50)).await.status, 502);
    started(&mut exchanges).await;
    assert!(matches!(
        next(&mut exchanges).await,
        Exchange::Ended { status: Some(502), is_error: true, cost: NanoUsd::ZERO, .. }
    ));
}

/// The client leaves before the head of the reply, in the middle of it, and while its beginning waits to be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_is_an_end() {
    let raw =
        Raw::new(vec![Answer::of("", Then::Hold), Answer::stream(&[START.as_bytes()], Then::Hold)]).await;
    let rig = Rig::new(&raw.url).await;
    let (door, mut exchanges) = rig.watched(None, MIN_OBSERVER_PLACES);
    for (so_far, expected) in [(0, None), (1, Some(200))] {
        let mut client = door.connect().await;
        client.request("POST", "/v1/messages", &ask(true, 50)).await;
        raw.wait_for(so_far + 1).await;
        if expected.is_some() {
            client.until("message_start").await;
        }
        // The one place that is left is taken by the beginning, which nobody has read: this one has to wait.
        let mut waiting = door.connect().await;
        waiting.request("POST", "/v1/messages", &ask(true, 50)).await;
        while door.door.in_flight() < 2 {
            tokio::task::yield_now().await;
        }
        drop(waiting);
        drop(client);
        started(&mut exchanges).await;
        let Exchange::Ended { status, is_error, .. } = next(&mut exchanges).await else {
            panic!("an end comes next");
        };
        assert_eq!((status, is_error), (expected, true));
        while door.door.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(raw.requests().len(), 2, "what was not told never went up");
    door.door.close().await;
    assert_eq!(exchanges.recv().await, None);
    assert_eq!((rig.usage().await.open_requests, rig.usage().await.requests), (0, 4));
}

/// Nobody reads, and the queue is full: closing waits for nobody, and every end is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_nobody_reads_does_not_hold_the_door() {
    let raw = Raw::new(vec![]).await;
    let rig = Rig::new(&raw.url).await;
    let (door, exchanges) = rig.watched(None, 5);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = door.connect().await;
        client.request("POST", "/v1/messages", &ask(true, 50)).await;
        clients.push(client);
    }
    while door.door.in_flight() < 20 {
        tokio::task::yield_now().await;
    }
    let spent = timeout(Duration::from_secs(5), door.door.close()).await.expect("closing does not wait");
    let (count, cost) = pairs(exchanges).await;
    assert!((1..=2).contains(&count), "{count}: two places each");
    assert_eq!(cost, spent.cost);
    assert_eq!((rig.usage().await.open_requests, rig.usage().await.cost), (0, spent.cost));
}

/// A hundred clients, every third of which leaves at once, and a queue of four places that is read slowly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_through_a_small_queue_are_all_told() {
    let model = model(r#"{"replies":[{"text":"Hello.","repeat":true}]}"#).await;
    let rig = Rig::new(&model.base_url()).await;
    let (door, exchanges) = rig.watched(None, 4);
    let reading = tokio_util::task::TaskTracker::new().spawn(pairs(exchanges));
    let mut asking = JoinSet::new();
    for number in 0..100 {
        let (socket, key) = (door.socket.clone(), door.key());
        asking.spawn(async move {
            let mut client = Client::open(&socket, &key).await;
            if number % 3 == 0 {
                client.request("POST", "/v1/messages", &ask(true, 50)).await;
                tokio::task::yield_now().await;
                return;
            }
            assert_eq!(client.ask(&ask(number % 2 == 0, 50)).await.status, 200);
        });
    }
    asking.join_all().await;
    let spent = door.door.close().await;
    let (count, cost) = reading.await.unwrap();
    assert!((66..=100).contains(&count), "{count}");
    assert_eq!(cost, spent.cost);
    assert_eq!(rig.usage().await.cost, spent.cost);
}

/// A receiver that is gone, also in the middle of a request, changes nothing for the sandbox.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_has_to_listen() {
    let model = model(r#"{"replies":[{"text":"Hello.","repeat":true}]}"#).await;
    let rig = Rig::new(&model.base_url()).await;
    let (door, exchanges) = rig.watched(usd("0.05"), MIN_OBSERVER_PLACES);
    drop(exchanges);
    assert_eq!(door.connect().await.ask(&ask(true, 50)).await.status, 200);
    assert_eq!(door.connect().await.ask(&ask(true, 64_000)).await.status, 429);
    assert_eq!(door.door.close().await.cost, rig.usage().await.cost);

    let raw = Raw::new(vec![Answer::of("", Then::Hold)]).await;
    let rig = Rig::new(&raw.url).await;
    let (door, mut exchanges) = rig.watched(None, MIN_OBSERVER_PLACES);
    let mut client = door.connect().await;
    client.request("POST", "/v1/messages", &ask(true, 50)).await;
    started(&mut exchanges).await;
    drop(exchanges);
    door.door.close().await;
    assert_eq!(rig.usage().await.open_requests, 0);
}

/// A record that cannot be opened leaves no beginning; a queue that is too small is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_record_nothing_is_told() {
    let model = model(r#"{"replies":[{"text":"Hello.","repeat":true}]}"#).await;
    let store = Faulty::new();
    store.failing_opens.store(1, Ordering::SeqCst);
    let rig = Rig::on(&model.base_url(), store, |_| ()).await;
    let (door, exchanges) = rig.watched(None, MIN_OBSERVER_PLACES);
    assert_eq!(door.connect().await.ask(&ask(true, 50)).await.status, 503);
    assert_eq!(door.door.in_flight(), 0);
    door.door.close().await;
    assert_eq!(pairs(exchanges).await, (0, NanoUsd::ZERO));

    let (told, _exchanges) = tokio::sync::mpsc::channel(MIN_OBSERVER_PLACES - 1);
    let spec = DoorSpec { socket: rig.folder.path().join("x"), grant: rig.grant(None), observer: Some(told) };
    assert!(matches!(rig.gateway.open(spec), Err(Error::Observer)));
    assert!(!rig.folder.path().join("x").exists());
}

/// A refusal for money is told; raising the limit lets the same request through, lowering it refuses the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_can_be_changed_while_the_door_is_open() {
    let model = model(r#"{"replies":[{"text":"Hello.","repeat":true}]}"#).await;
    let rig = Rig::new(&model.base_url()).await;
    let (door, mut exchanges) = rig.watched(usd("0.05"), PLACES);
    let mut client = door.connect().await;
    let refused = |told: Exchange| match told {
        Exchange::Refused {
            model, reason: RefusedFor::Budget { limit, spent, reserved, needed }, ..
        } => {
            assert_eq!((model.as_str(), reserved), (MODEL, NanoUsd::ZERO));
            assert!(spent + needed > limit);
            limit
        }
        other @ (Exchange::Started { .. } | Exchange::Ended { .. }) => panic!("{other:?}"),
    };
    assert_eq!(client.ask(&ask(true, 64_000)).await.status, 429);
    assert_eq!(Some(refused(next(&mut exchanges).await)), usd("0.05"));
    door.door.set_max_cost(usd("10"));
    assert_eq!(client.ask(&ask(true, 64_000)).await.status, 200);
    started(&mut exchanges).await;
    assert!(matches!(next(&mut exchanges).await, Exchange::Ended { is_error: false, .. }));
    door.door.set_max_cost(usd("0"));
    assert_eq!(client.ask(&ask(true, 1)).await.status, 429);
    assert_eq!(Some(refused(next(&mut exchanges).await)), usd("0"));
    door.door.set_max_cost(None);
    assert_eq!(client.ask(&ask(true, 64_000)).await.status, 200);
}

/// A request that waits for another one's reservation goes on when the limit is raised, and is refused when it is lowered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_limit_wakes_who_waits_for_room() {
    for (limit, expected) in [(usd("1"), 200), (usd("0.001"), 429)] {
        let reply = r#"{"type":"message","usage":{"input_tokens":1,"output_tokens":1}}"#;
        let raw = Raw::new(vec![Answer::of("", Then::Hold), Answer::json("200 OK", "", reply)]).await;
        let rig = Rig::with(&raw.url, |config| config.timeouts.reservation = Duration::from_secs(600)).await;
        let (door, mut exchanges) = rig.watched(usd("0.03"), PLACES);
        let mut first = door.connect().await;
        first.request("POST", "/v1/messages", &ask(true, 2000)).await;
        started(&mut exchanges).await;
        raw.wait_for(1).await;
        let asking = second(&door, expected);
        let changing = async {
            // Whether it waits already or comes later, it sees the new limit.
            tokio::task::yield_now().await;
            door.door.set_max_cost(limit);
        };
        timeout(PATIENCE, async { tokio::join!(asking, changing) }).await.expect("it is woken");
        assert!(door.door.reserved() > usd("0.02").unwrap(), "the first one is still under way");
    }
}

async fn second(door: &TestDoor, expected: u16) {
    let mut client = door.connect().await;
    assert_eq!(client.ask(&ask(false, 2000)).await.status, expected);
}
