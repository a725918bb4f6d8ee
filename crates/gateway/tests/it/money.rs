//! Money: never over the limit, never lost, never free.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use wardian_protocol::NanoUsd;
use wardian_store::{SqliteStore, Store, UsageQuery};

use super::client::Client;
use super::faulty::Faulty;
use super::raw::{Answer, Raw, Then};
use super::rig::{Rig, ask, model};

const MODEL: &str = "claude-sonnet-5-5";

fn usd(text: &str) -> Option<NanoUsd> {
    Some(text.parse().unwrap())
}

/// The refusal is the one that stock clients show and do not retry, and what it advises works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_a_request_is_refused_before_anything_goes_up() {
    let model = model(r#"{"replies":[{"text":"Hello.","repeat":true}]}"#).await;
    let rig = Rig::new(&model.base_url()).await;
    let door = rig.open(rig.grant(usd("0.05")));
    let mut client = door.connect().await;
    let refused = client.ask(&ask(false, 64_000)).await;
    assert_eq!((refused.status, refused.error().0.as_str()), (429, "billing_error"));
    for (name, value) in [
        ("x-should-retry", "false"),
        ("retry-after", "3600"),
        ("anthropic-ratelimit-unified-status", "rejected"),
        ("anthropic-ratelimit-unified-overage-utilization", "1"),
        ("anthropic-ratelimit-unified-overage-disabled-reason", "org_spend_cap_reached"),
    ] {
        assert_eq!(refused.header(name).as_deref(), Some(value), "{name}");
    }
    assert!(
        refused.header("anthropic-ratelimit-unified-reset").unwrap().parse::<u64>().unwrap() > 1_700_000_000
    );
    let details = &refused.json()["error"]["details"];
    assert_eq!((details["scope"].as_str(), details["limit_usd"].as_f64()), (Some("run"), Some(0.05)));
    assert_eq!((details["spent_usd"].as_f64(), details["reserved_usd"].as_f64()), (Some(0.0), Some(0.0)));
    let fits = details["max_tokens"].as_u64().unwrap();
    assert!((1000..6000).contains(&fits), "{details}");
    let asked: Vec<String> = model.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(asked, ["/v1/messages/count_tokens"], "only the free count went up");

    assert_eq!(client.ask(&ask(false, fits)).await.status, 200);
    let spent = door.door.close().await;
    assert!(spent.budget_refused);
    assert_eq!(spent.cost, rig.usage().await.cost);
    assert_eq!(rig.usage().await.requests, 1, "a refusal leaves no record");
}

/// The bound by length is several times too high: the count, which is free, lets the request through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_lets_through_what_the_length_alone_would_refuse() {
    let reply = format!(
        r#"{{"type":"message","model":"{MODEL}","usage":{{"input_tokens":9000,"output_tokens":5}}}}"#
    );
    let raw = Raw::new(vec![
        Answer::json("200 OK", "", r#"{"input_tokens":9000}"#),
        Answer::json("200 OK", "", &reply),
    ])
    .await;
    let rig = Rig::new(&raw.url).await;
    // 50 kB at $4.40 a million are $0.22; 10,500 tokens are $0.046.
    let door = rig.open(rig.grant(usd("0.06")));
    let body = ask(false, 100).replace("\"hi\"", &format!("\"{}\"", "word ".repeat(10_000)));
    assert_eq!(door.connect().await.ask(&body).await.status, 200);
    let requests = raw.requests();
    assert!(
        requests[0].starts_with("POST /base/v1/messages/count_tokens?beta=true "),
        "{}",
        &requests[0][..80]
    );
    assert!(!requests[0].contains("max_tokens") && requests[0].contains("word word"));
    assert!(requests[1].ends_with(&body));
    assert_eq!(door.door.close().await.cost.0, 9000 * 2000 + 5 * 10_000);
}

/// Three hundred at once on a budget for a few: never over it, and afterwards nothing is reserved, nothing lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_at_once_stay_within_the_budget() {
    let usage = r#"{"input_tokens":60,"output_tokens":90,"cache_read_input_tokens":20}"#;
    let script =
        format!(r#"{{"replies":[{{"text":"Hello.","usage":{usage},"delay_ms":20,"repeat":true}}]}}"#);
    let model = model(&script).await;
    let rig = Rig::new(&model.base_url()).await;
    let limit = usd("0.05").unwrap();
    let door = rig.open(rig.grant(Some(limit)));
    let mut asking = JoinSet::new();
    for number in 0..300 {
        let (socket, key) = (door.socket.clone(), door.key());
        asking.spawn(async move {
            let mut client = Client::open(&socket, &key).await;
            client.ask(&ask(number % 2 == 0, 100)).await.status
        });
    }
    let statuses = asking.join_all().await;
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 300 - passed);
    assert!((7..300).contains(&passed), "{passed}");

    let reserved = door.door.reserved();
    let spent = door.door.close().await;
    let recorded = rig.usage().await;
    assert_eq!(reserved, NanoUsd::ZERO);
    assert!(spent.cost <= limit, "{}", spent.cost);
    // 60 at $2, 90 at $10, 20 at $0.10 a million.
    let each = 60 * 2000 + 90 * 10_000 + 20 * 100;
    assert_eq!(spent.cost.0, i64::try_from(passed).unwrap() * each);
    assert_eq!(recorded.cost, spent.cost);
    assert_eq!((recorded.requests, recorded.open_requests), (u64::try_from(passed).unwrap(), 0));
    let sent = model.requests().iter().filter(|request| request.path == "/v1/messages").count();
    assert_eq!(sent, passed, "what the upstream saw is what was recorded");
}

/// Where only another request is in the way, the next one waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_for_the_one_before_it() {
    let raw = Raw::new(vec![
        Answer::of("", Then::Hold),
        Answer::json("200 OK", "", r#"{"type":"message","usage":{"input_tokens":1,"output_tokens":1}}"#),
    ])
    .await;
    let rig = Rig::with(&raw.url, |config| config.timeouts.reservation = Duration::from_secs(10)).await;
    let door = rig.open(rig.grant(usd("0.03")));
    let mut first = door.connect().await;
    first.request("POST", "/v1/messages", &ask(true, 2000)).await;
    raw.wait_for(1).await;
    let mut second = door.connect().await;
    second.request("POST", "/v1/messages", &ask(false, 2000)).await;
    assert!(door.door.reserved() > usd("0.02").unwrap());
    drop(first);
    assert_eq!(second.reply().await.status, 200);
    assert_eq!(door.door.reserved(), NanoUsd::ZERO);
    let spent = door.door.close().await;
    assert_eq!(rig.usage().await.cost, spent.cost);
}

/// A record that cannot be opened: refused, nothing goes up, nothing stays reserved, and the next one works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_record_nothing_goes_up() {
    let model = model(r#"{"replies":[{"text":"Hello.","repeat":true}]}"#).await;
    let store = Faulty::new();
    let rig = Rig::on(&model.base_url(), store.clone(), |_| ()).await;
    let door = rig.open(rig.grant(usd("1")));
    let mut client = door.connect().await;
    store.failing_opens.store(2, Ordering::SeqCst);
    for stream in [true, false] {
        let refused = client.ask(&ask(stream, 50)).await;
        assert_eq!((refused.status, refused.error().0.as_str()), (503, "api_error"));
        assert_eq!(refused.error().1, "the request cannot be recorded now, so it was not sent");
        assert_eq!(door.door.reserved(), NanoUsd::ZERO);
    }
    assert_eq!(model.request_count(), 0);
    assert_eq!(client.ask(&ask(false, 50)).await.status, 200);
    let spent = door.door.close().await;
    assert_eq!(rig.usage().await.requests, 1);
    assert_eq!(rig.usage().await.cost, spent.cost);
}

/// A settlement that fails is tried again; one that fails for longer is done when the store works again, and seen in
/// the health until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_is_not_lost() {
    let model = model(r#"{"replies":[{"text":"Hello.","repeat":true}]}"#).await;
    let store = Faulty::new();
    let short =
        |config: &mut wardian_gateway::GatewayConfig| config.timeouts.settle = Duration::from_millis(400);
    let rig = Rig::on(&model.base_url(), store.clone(), short).await;
    let door = rig.door();
    store.failing_settles.store(2, Ordering::SeqCst);
    assert_eq!(door.connect().await.ask(&ask(true, 50)).await.status, 200);
    let first = door.door.close().await;
    assert_eq!((rig.usage().await.open_requests, rig.usage().await.cost), (0, first.cost));
    rig.gateway.health().unwrap();

    store.failing_settles.store(usize::MAX, Ordering::SeqCst);
    let door = rig.door();
    assert_eq!(door.connect().await.ask(&ask(true, 50)).await.status, 200);
    let second = door.door.close().await;
    assert_eq!(second.cost, first.cost, "the door knows what was spent");
    assert_eq!(rig.usage().await.open_requests, 1);
    assert_eq!(rig.gateway.health().unwrap_err(), "1 usage records could not be settled");

    store.failing_settles.store(0, Ordering::SeqCst);
    let door = rig.door();
    assert_eq!(door.connect().await.ask(&ask(true, 50)).await.status, 200);
    door.door.close().await;
    assert_eq!((rig.usage().await.open_requests, rig.usage().await.cost.0), (0, 3 * first.cost.0));
    assert_eq!(rig.usage().await.inexact_requests, 0);
    rig.gateway.health().unwrap();
}

/// Before a byte goes up, the store has the bound, durably: whoever opens it next can charge it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_on_its_way_is_in_the_store_with_its_bound() {
    let raw = Raw::new(vec![Answer::of("", Then::Hold)]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let rig = Rig::on(&raw.url, Arc::new(SqliteStore::open(&path).unwrap()), |_| ()).await;
    let door = rig.door();
    let mut client = door.connect().await;
    client.request("POST", "/v1/messages", &ask(true, 50)).await;
    raw.wait_for(1).await;
    let beside = SqliteStore::open(&path).unwrap();
    let rows = beside.usage(&rig.org_id, UsageQuery::default()).await.unwrap();
    assert_eq!((rows[0].open_requests, rows[0].reserved), (1, door.door.reserved()));
    assert!(rows[0].reserved.0 > 50 * 10_000);
}

/// A model without a price is reserved and charged as the dearest one, and marked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_without_a_price_is_never_free() {
    let reply = r#"{"type":"message","model":"claude-from-the-future-9","usage":{"input_tokens":100,"output_tokens":10}}"#;
    let raw = Raw::new(vec![Answer::json("200 OK", "", reply)]).await;
    let rig = Rig::new(&raw.url).await;
    let door = rig.door();
    let body = ask(false, 50).replace(MODEL, "claude-from-the-future-9");
    assert_eq!(door.connect().await.ask(&body).await.status, 200);
    let spent = door.door.close().await;
    // $10 and $50 a million.
    assert_eq!(spent.cost.0, 100 * 10_000 + 10 * 50_000);
    let rows = rig.usage_by_model().await;
    assert_eq!((rows[0].model.as_deref(), rows[0].unpriced_requests), (Some("claude-from-the-future-9"), 1));
}

/// A client that leaves while its record is being opened: nothing goes up, and nothing stays behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_before_its_request_is_sent_pays_nothing() {
    let model = model(r#"{"replies":[]}"#).await;
    let store = Faulty::new();
    store.gate.forget_permits(usize::MAX);
    let rig = Rig::on(&model.base_url(), store.clone(), |_| ()).await;
    let door = rig.open(rig.grant(usd("1")));
    let mut client = door.connect().await;
    client.request("POST", "/v1/messages", &ask(true, 50)).await;
    store.opening.acquire().await.unwrap().forget();
    assert!(door.door.reserved().0 > 0);
    // Half-closing is leaving; unlike a dropped client, this one sees when it was noticed.
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
    assert!(client.ends().await);
    store.gate.add_permits(1);
    let spent = door.door.close().await;
    assert_eq!(spent.cost, NanoUsd::ZERO);
    assert_eq!(model.request_count(), 0);
    let usage = rig.usage().await;
    assert_eq!((usage.requests, usage.open_requests, usage.cost), (1, 0, NanoUsd::ZERO));
}

/// Only the models of the grant, and nothing that the API would do by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_granted_is_refused_with_a_reason() {
    let model = model(r#"{"replies":[{"text":"Hello.","repeat":true}]}"#).await;
    let rig = Rig::new(&model.base_url()).await;
    let mut grant = rig.grant(None);
    grant.models = Some(vec!["sonnet".to_owned()]);
    let door = rig.open(grant);
    let mut client = door.connect().await;
    let opus = ask(false, 50).replace(MODEL, "claude-opus-5-5");
    for path in ["/v1/messages", "/v1/messages/count_tokens"] {
        client.request("POST", path, &opus).await;
        let refused = client.reply().await;
        assert_eq!((refused.status, refused.error().0.as_str()), (403, "permission_error"));
        assert!(refused.error().1.contains("allowed: sonnet"), "{}", refused.text());
    }
    for (field, named) in [
        (r#""tools":[{"type":"web_search_20250305","name":"web_search"}]"#, "web_search_20250305"),
        (r#""mcp_servers":[{"type":"url","url":"https://evil.example"}]"#, "mcp_servers"),
        (r#""container":"c_1""#, "container"),
    ] {
        let body = ask(false, 50).replacen('{', &format!("{{{field},"), 1);
        for path in ["/v1/messages", "/v1/messages/count_tokens"] {
            client.request("POST", path, &body).await;
            let refused = client.reply().await;
            assert_eq!((refused.status, refused.error().0.as_str()), (400, "invalid_request_error"));
            assert!(refused.error().1.contains(named), "{}", refused.text());
        }
    }
    assert_eq!(model.request_count(), 0);
    assert_eq!(client.ask(&ask(false, 50)).await.status, 200);
}
