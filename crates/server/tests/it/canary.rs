//! The canary, with a scripted model that answers, fails and waits.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use wardian_protocol::NanoUsd;
use wardian_server::{CanaryConfig, ServerConfig};
use wardian_store::{GroupBy, Scope, UsageQuery};

use super::admin::{get, watched};
use super::app::App;

const PATIENCE: Duration = Duration::from_secs(60);
/// What the reply below costs: 1000 input and 100 output tokens of haiku.
const COST: NanoUsd = NanoUsd(1_500_000);

fn reply(text: &str, repeat: bool) -> Value {
    json!({"model": "claude-haiku-4-5", "text": text, "repeat": repeat,
           "usage": {"input_tokens": 1000, "output_tokens": 100}})
}

fn canary(max_cost_per_day: NanoUsd, affects_readiness: bool) -> impl FnOnce(&mut ServerConfig) {
    move |config| {
        config.canary = Some(CanaryConfig {
            every: Duration::from_millis(20),
            model: "haiku".to_owned(),
            max_cost: NanoUsd(10 * COST.0),
            max_cost_per_day,
            affects_readiness,
        });
    }
}

/// The sum of the series of that name and outcome.
async fn count(admin: SocketAddr, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    let scraped = get(admin, "/metrics", &[]).await.body;
    let series = scraped
        .lines()
        .filter(|line| line.starts_with("wardian_canary_runs_total{") && line.contains(&label));
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

async fn until_counted(admin: SocketAddr, outcome: &str, least: f64) {
    let counted = async { while count(admin, outcome).await < least {} };
    tokio::time::timeout(PATIENCE, counted).await.unwrap();
}

/// Waits until `/readyz` says so: it is fresh twice a second.
async fn until_ready(app: &App, status: u16, canary: &Value) {
    let shown = async {
        loop {
            let ready = app.get("", "/readyz").await;
            if (ready.status, &ready.json()["canary"]) == (status, canary) {
                let word = if status == 200 { "ready" } else { "unready" };
                assert_eq!(ready.json()["status"], word);
                assert_eq!(ready.json()["gateway"]["status"], "ok");
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.unwrap();
}

fn folders(app: &App) -> usize {
    std::fs::read_dir(app.engine.files().parent().unwrap().join("sessions")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lives_on_its_own_money_and_leaves_nothing() {
    let script = json!({"replies": [reply("Alive.", true)]}).to_string();
    let (app, admin) = watched(&script, canary(NanoUsd::from_usd(1), false)).await;
    until_counted(admin, "alive", 3.0).await;
    until_ready(&app, 200, &json!({"status": "ok", "over_budget": false})).await;
    let scraped = get(admin, "/metrics", &[]).await.body;
    let value = |name: &str| -> f64 {
        let line = scraped.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
        line.unwrap_or_else(|| panic!("{name} in {scraped}")).rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("wardian_canary_last_success_timestamp_seconds") > 1.7e9);
    assert!(value("wardian_canary_duration_seconds") > 0.0);
    app.stop().await;
    // All is its own user's, nobody else's, and nothing is on the disk.
    let query = UsageQuery { group_by: vec![GroupBy::User], ..UsageQuery::default() };
    let usage = app.store.usage(&app.org, query).await.unwrap();
    assert_eq!((usage.len(), usage[0].user_id.as_deref()), (1, Some("canary")));
    assert!(usage[0].requests >= 3 && usage[0].open_requests == 0 && usage[0].unpriced_requests == 0);
    assert_eq!(folders(&app), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_shown_and_takes_nothing_out_of_rotation() {
    let script = json!({"replies": [reply("I am dead.", true)]}).to_string();
    let (app, admin) = watched(&script, canary(NanoUsd::from_usd(1), false)).await;
    until_counted(admin, "failed", 2.0).await;
    until_ready(&app, 200, &json!({"status": "failed", "over_budget": false})).await;
    assert!(!get(admin, "/metrics", &[]).await.body.contains("wardian_canary_last_success"));
    app.stop().await;
    assert_eq!(folders(&app), 0, "it cleans up after a failure, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_takes_the_server_out_of_rotation_where_it_shall_until_it_lives_again() {
    let replies = [
        json!({"error": {"status": 400, "type": "invalid_request_error", "message": "no"}}),
        reply("I am ALIVE!", true),
    ];
    let script = json!({"replies": replies}).to_string();
    let change = |config: &mut ServerConfig| {
        canary(NanoUsd::from_usd(1), true)(config);
        // Long enough to see the failure.
        config.canary.as_mut().unwrap().every = Duration::from_secs(2);
    };
    let (app, admin) = watched(&script, change).await;
    until_counted(admin, "failed", 1.0).await;
    until_ready(&app, 503, &json!({"status": "failed", "over_budget": false})).await;
    assert_eq!(app.get("", "/livez").await.status, 200);
    until_ready(&app, 200, &json!({"status": "ok", "over_budget": false})).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_has_its_budget_and_the_next_another() {
    // 2026-11-22 12:00 UTC
    static NOW: AtomicI64 = AtomicI64::new(1_795_348_800);
    let script = json!({"replies": [reply("alive", true)]}).to_string();
    // Room for two: a third could cost ten times what it does.
    let change = |config: &mut ServerConfig| {
        canary(NanoUsd(11 * COST.0), true)(config);
        config.clock = || Timestamp::from_second(NOW.load(Ordering::Relaxed)).unwrap();
    };
    let (app, admin) = watched(&script, change).await;
    until_counted(admin, "over_budget", 3.0).await;
    until_ready(&app, 200, &json!({"status": "ok", "over_budget": true})).await;
    assert_eq!(count(admin, "alive").await, 2.0);
    // What others spend does not count.
    let key = app.new_key(&[Scope::Sessions], None).await;
    assert_eq!(app.post(&key, "/v1/x/run", &json!({"prompt": "x", "model": "haiku"})).await.status, 200);
    let query = UsageQuery { group_by: vec![GroupBy::User], ..UsageQuery::default() };
    let usage = app.store.usage(&app.org, query).await.unwrap();
    let spent: Vec<_> = usage.iter().map(|row| (row.user_id.as_deref(), row.cost)).collect();
    assert_eq!(spent, [(None, COST), (Some("canary"), NanoUsd(2 * COST.0))]);
    NOW.fetch_add(12 * 3600, Ordering::Relaxed);
    until_counted(admin, "alive", 4.0).await;
    let before = count(admin, "over_budget").await;
    until_counted(admin, "over_budget", before + 3.0).await;
    assert_eq!(count(admin, "alive").await, 4.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_does_not_wait_for_it() {
    let mut slow = reply("alive", true);
    slow["delay_ms"] = json!(60_000);
    let script = json!({"replies": [slow]}).to_string();
    let (app, _) = watched(&script, canary(NanoUsd::from_usd(1), true)).await;
    let asked = async {
        while app.model.requests().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap();
    let begun = tokio::time::Instant::now();
    app.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(folders(&app), 0);
    // What was under way is settled, as its own.
    let usage = app.store.usage(&app.org, UsageQuery::default()).await.unwrap();
    assert_eq!(usage[0].open_requests, 0);
}
