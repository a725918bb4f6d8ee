//! What is logged about a request: one line with figures, and nothing that anybody said.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::raw::{Answer, Raw};
use super::rig::{REAL_KEY, Rig, ask};

/// Keeps every event as a line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!(" {}={value:?}", field.name()));
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_request_is_one_line_without_contents() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let reply = r#"{"type":"message","model":"claude-sonnet-5-5","content":[{"type":"text","text":"the answer"}],"usage":{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":4}}"#;
    let raw = Raw::new(vec![Answer::json("200 OK", "request-id: req_up\r\n", reply)]).await;
    let rig = Rig::new(&raw.url).await;
    let door = rig.door();
    let key = door.key();
    let mut client = door.connect().await;
    let asked = client.ask(&ask(false, 50).replace("hi", "the question")).await;
    assert_eq!(asked.status, 200);
    assert_eq!(client.ask(r#"{"model":"the question""#).await.status, 400);
    client.request_with("POST", "/v1/messages", "x-api-key: sk-wrong\r\n", "").await;
    assert_eq!(client.reply().await.status, 401);
    door.door.close().await;

    let lines = lines.0.lock().unwrap().clone();
    let done: Vec<&String> =
        lines.iter().filter(|line| line.contains("message=model request done")).collect();
    assert_eq!(done.len(), 3, "{lines:#?}");
    let id = asked.header("x-wardian-request-id").unwrap();
    for part in [
        "INFO wardian_gateway",
        &format!("request_id={id}"),
        "upstream_request_id=\"req_up\"",
        "user_id=\"alice\"",
        "route=\"messages\"",
        "request_model=\"claude-sonnet-5-5\"",
        "status=200",
        "outcome=\"completed\"",
        "input_tokens=10 output_tokens=5 cache_read_tokens=4",
        "cost_nanousd=70400",
        "settled=\"exact\"",
        "unpriced=false",
        "price_version=",
        "ttfb_ms=",
        "duration_ms=",
    ] {
        assert!(done[0].contains(part), "{part} in {}", done[0]);
    }
    assert!(done[1].contains("outcome=\"refused\" error_type=\"invalid_request_error\""), "{}", done[1]);
    assert!(done[2].contains("status=401"), "{}", done[2]);
    let all = lines.concat();
    for secret in [REAL_KEY, &key, "sk-wrong", "the question", "the answer"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}
