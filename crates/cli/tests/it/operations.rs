//! What an operator sees of a server: metrics, health, and its end.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::support::{Options, PATIENCE, Wardian, until, wardian};

const REPLIES: &str = r#"{"replies": [
    {"match": {"tool_result_contains": "marker"}, "repeat": true, "model": "claude-haiku-4-5", "text": "Done.",
     "usage": {"input_tokens": 2000, "output_tokens": 10}},
    {"match": {"last_text_contains": "look"}, "repeat": true, "model": "claude-haiku-4-5",
     "tool_use": [{"name": "Bash", "input": {"command": "echo marker"}}],
     "usage": {"input_tokens": 100, "output_tokens": 10}},
    {"match": {"last_text_contains": "wait"}, "repeat": true, "model": "claude-haiku-4-5",
     "tool_use": [{"name": "Bash", "input": {"command": "touch ready; while ! test -e go; do sleep 0.01; done; echo marker"}}],
     "usage": {"input_tokens": 100, "output_tokens": 10}}
]}"#;

fn watched() -> Options {
    let args = ["--admin-listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
    Options { args, ..Options::default() }
}

/// The sum of the series of that name whose labels have all of these.
fn value(scraped: &str, name: &str, labels: &[&str]) -> f64 {
    let series = scraped.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Each part counts into one registry, and the money is the report's.
#[tokio::test]
async fn a_run_is_counted_by_every_part() {
    let wardian = Wardian::start(REPLIES, watched()).await;
    let report = wardian.run(&json!({"prompt": "look", "user": "alice-secret"})).await.report();
    let scraped = wardian.metrics().await;
    let run = ["http_route=\"/v1/x/run\"", "http_response_status_code=\"200\""];
    assert_eq!(value(&scraped, "http_server_request_duration_seconds_count", &run), 1.0);
    let model = ["gen_ai_request_model=", "gen_ai_response_model=\"claude-haiku-4-5\""];
    assert_eq!(value(&scraped, "gen_ai_client_operation_duration_seconds_count", &model), 2.0);
    assert_eq!(value(&scraped, "gen_ai_server_time_to_first_token_seconds_count", &model), 2.0);
    let cost = value(&scraped, "claude_code_cost_usage_total", &["model=\"claude-haiku-4-5\""]);
    assert!((cost - report["cost_usd"].as_f64().unwrap()).abs() < 1e-9, "{cost} {report}");
    let turns = "wardian_turn_duration_seconds_count";
    assert_eq!(value(&scraped, turns, &["outcome=\"completed\""]), 1.0);
    assert_eq!(value(&scraped, "wardian_turn_time_to_first_message_seconds_count", &["start=\"cold\""]), 1.0);
    let calls = ["tool=\"Bash\"", "is_error=\"false\""];
    assert_eq!(value(&scraped, "wardian_tool_calls_total", &calls), 1.0);
    assert_eq!(value(&scraped, "wardian_sandbox_start_duration_seconds_count", &[]), 1.0);
    assert!(scraped.contains("\nwardian_sandboxes 0\n") && scraped.contains("\nwardian_turns_running 0\n"));
    assert!(value(&scraped, "wardian_store_commit_duration_seconds_count", &[]) > 5.0);
    assert!(value(&scraped, "process_memory_usage_bytes", &[]) > 1e6);
    for secret in ["alice", report["session_id"].as_str().unwrap(), "sk-"] {
        assert!(!scraped.contains(secret), "{secret} in {scraped}");
    }
}

/// Two servers that were not told where to show their metrics both serve; one that was told must get the place.
#[tokio::test]
async fn a_taken_place_stops_only_who_asked_for_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let serve = |admin: &str| {
        let mut command = wardian();
        command.args(["serve", "--listen", "127.0.0.1:0", "--allow-no-cgroup", "--admin-listen", admin]);
        command.arg("--data-dir").arg(folder.path().join("data")).env("ANTHROPIC_API_KEY", "sk-test");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    };
    let refused = serve(&address).output().await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(
        said.contains(&format!("listen on {address}")) && said.contains("hint: --admin-listen"),
        "{said}"
    );
    let refused = serve("8701").output().await.unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");

    let off = Options { args: vec!["--admin-listen".to_owned(), "none".to_owned()], ..Options::default() };
    let off = Wardian::start(REPLIES, off).await;
    assert_eq!(off.ready("admin"), Value::Null);
    // Whoever of the two, or somebody else on this machine, has the default place: both serve.
    let (one, other) = (
        Wardian::start(REPLIES, Options::default()).await,
        Wardian::start(REPLIES, Options::default()).await,
    );
    assert!(one.ready("admin").is_null() || other.ready("admin").is_null());
    for wardian in [&one, &other] {
        assert_eq!(wardian.get("", "/livez").await.status, 200);
    }
    assert!(one.log().contains("no metrics are shown") || other.log().contains("no metrics are shown"));
}

/// SIGTERM: no new run, the one under way ends in peace, and what watches the server sees it drain.
#[tokio::test]
async fn sigterm_lets_a_run_end_and_takes_no_other() {
    let mut wardian = Wardian::start(REPLIES, watched()).await;
    let admin = wardian.admin();
    let mut events = wardian.stream(&wardian.key, &json!({"prompt": "wait"})).await;
    let started = events.next().await.unwrap();
    let workspace = wardian.workspace(started.data["session_id"].as_str().unwrap());
    until("the tool runs", || workspace.join("ready").exists().then_some(())).await;
    let address = wardian.address;
    let ending = async {
        wardian.stop().await;
    };
    let watching = async {
        let refused = async { while tokio::net::TcpStream::connect(address).await.is_ok() {} };
        tokio::time::timeout(PATIENCE, refused).await.expect("it stops listening");
        let ready = plain_get(admin, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        assert!(plain_get(admin, "/metrics").await.contains("wardian_model_requests_running"));
        std::fs::write(workspace.join("go"), "").unwrap();
        let end = events.wait_for(|event| event.name == "run_result").await;
        assert_eq!(end.data["status"], "completed", "{end:?}");
    };
    tokio::join!(ending, watching);
    assert!(tokio::net::TcpStream::connect(admin).await.is_err());
}

/// A run that takes longer than the drain is cancelled, and says so.
#[tokio::test]
async fn the_drain_has_an_end() {
    let mut options = watched();
    options.args.extend(["--drain-timeout", "0"].map(str::to_owned));
    let mut wardian = Wardian::start(REPLIES, options).await;
    let mut events = wardian.stream(&wardian.key, &json!({"prompt": "wait"})).await;
    let started = events.next().await.unwrap();
    let workspace = wardian.workspace(started.data["session_id"].as_str().unwrap());
    until("the tool runs", || workspace.join("ready").exists().then_some(())).await;
    let ending = async { wardian.stop().await };
    let (_, end) = tokio::join!(ending, events.wait_for(|event| event.name != "message"));
    assert_eq!(end.data["error"]["type"], "overloaded_error", "{end:?}");
}

async fn plain_get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}
