//! Two users at once: neither sees anything of the other, through any route or from inside.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::support::{Event, Events, Options, Reply, Wardian, descendants, until};

const LOOKS: &str = include_str!("users.py");

const REPLIES: &str = r#"{"replies": [{"repeat": true, "model": "claude-haiku-4-5", "text": "ok",
    "usage": {"input_tokens": 1000, "output_tokens": 100}}]}"#;

/// A user and the run of theirs that is going on.
struct User {
    name: &'static str,
    key: String,
    session: String,
    request: String,
    workspace: PathBuf,
    events: Events,
}

impl User {
    /// Starts the program, which has left its traces when this returns.
    async fn start(wardian: &Wardian, name: &'static str) -> Self {
        let key = wardian.create_key(&["--scope", "sessions", "--user", name]).await;
        let body = json!({"prompt": name, "command": ["python3", "look.py"],
            "files": [{"path": "look.py", "content": LOOKS}]});
        let mut events = wardian.stream(&key, &body).await;
        let started = events.next().await.unwrap();
        let id = |name: &str| started.data[name].as_str().unwrap().to_owned();
        let (session, request) = (id("session_id"), id("request_id"));
        events.wait_for(|event| event.data["text"] == "ready\n").await;
        Self { name, key, workspace: wardian.workspace(&session), session, request, events }
    }

    fn program(&self, wardian: &Wardian) -> i32 {
        let prompt = format!("PROMPT={}", self.name);
        let is_theirs = |pid: &i32| environment(*pid).contains(&prompt);
        descendants(wardian.pid()).into_iter().find(is_theirs).unwrap()
    }

    /// The key of the user's gateway, as the host sees it.
    fn virtual_key(&self, wardian: &Wardian) -> String {
        let environment = environment(self.program(wardian));
        let key = environment.iter().find_map(|entry| entry.strip_prefix("ANTHROPIC_API_KEY="));
        key.unwrap().to_owned()
    }

    /// Everything that somebody who knew too much would need to get at the user.
    fn betrayed(&self, wardian: &Wardian) -> Value {
        let doors = std::fs::read_dir(wardian.data_dir().join("doors")).unwrap();
        let session = self.workspace.parent().unwrap();
        let program = self.program(wardian);
        json!({
            "name": self.name,
            "key": self.virtual_key(wardian),
            "paths": [wardian.data_dir(), wardian.data_dir().join("wardian.db"), session, self.workspace,
                self.workspace.join("look.py"), format!("/proc/{program}/root/workspace/look.py")],
            "sockets": doors.map(|door| door.unwrap().path()).collect::<Vec<_>>(),
            "pids": [program, wardian.pid()],
        })
    }

    async fn report(&mut self) -> Value {
        self.events.wait_for(|Event { name, .. }| name == "run_result").await.data
    }
}

fn environment(pid: i32) -> Vec<String> {
    let text = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    text.split(|byte| *byte == 0).map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
}

#[tokio::test]
async fn neither_sees_the_other() {
    let mut wardian = Wardian::start(REPLIES, Options::default()).await;
    let mut ann = User::start(&wardian, "ann").await;
    let mut bob = User::start(&wardian, "bob").await;
    let (of_ann, of_bob) = (ann.betrayed(&wardian), bob.betrayed(&wardian));
    assert_ne!(of_ann["key"], of_bob["key"]);
    // Both run and have left what there is to be seen; each is now told everything about the other.
    for (own, other) in [(&ann, &bob), (&bob, &ann)] {
        through_routes(&wardian, own, other, "running").await;
    }
    std::fs::write(ann.workspace.join("go.json"), of_bob.to_string()).unwrap();
    std::fs::write(bob.workspace.join("go.json"), of_ann.to_string()).unwrap();
    for user in [&ann, &bob] {
        until("both have looked", || user.workspace.join("done").exists().then_some(())).await;
    }
    for user in [&ann, &bob] {
        std::fs::write(user.workspace.join("end"), "").unwrap();
    }
    let (from_ann, from_bob) = (ann.report().await, bob.report().await);
    from_inside(&from_ann, &ann, &bob, &of_bob);
    from_inside(&from_bob, &bob, &ann, &of_ann);
    for (own, other) in [(&ann, &bob), (&bob, &ann)] {
        through_routes(&wardian, own, other, "idle").await;
        spending(&wardian, own, other).await;
    }
    wardian.stop().await;
}

fn from_inside(report: &Value, own: &User, other: &User, betrayed: &Value) {
    assert_eq!((&report["status"], &report["exit_code"]), (&json!("completed"), &json!(0)), "{report:#}");
    let found = std::fs::read(own.workspace.join("found.json")).unwrap();
    let found: Value = serde_json::from_slice(&found).unwrap();
    let seen = found["seen"].to_string();
    // It does see its own traces, so it would see the other's.
    for own_trace in
        [format!("trace-of-{}", own.name), format!("PROMPT={}", own.name), format!("door-of-{}", own.name)]
    {
        assert!(seen.contains(&own_trace), "{own_trace}: {seen}");
    }
    let theirs = betrayed["key"].as_str().unwrap();
    for trace in [
        &format!("trace-of-{}", other.name),
        &format!("PROMPT={}", other.name),
        &format!("door-of-{}", other.name),
        &other.session,
        &other.request,
        theirs,
    ] {
        assert!(!seen.contains(trace), "{trace}: {seen}");
    }
    let mut errors: BTreeMap<String, String> = serde_json::from_value(found["errors"].clone()).unwrap();
    let mut outcome = |what: &str| errors.remove(what).unwrap();
    assert_eq!([outcome("own key"), outcome("own key at the socket")], ["200", "200"]);
    assert_eq!([outcome("other's key"), outcome("other's key at the socket")], ["401", "401"]);
    // That port of this sandbox is its own listener's: there is one loopback for each.
    assert_eq!(outcome("other's port"), "1");
    assert_eq!(outcome("own abstract socket"), "'connected'");
    assert_eq!(outcome("other's abstract socket"), "ConnectionRefusedError");
    assert!(errors.len() >= 12, "{errors:#?}");
    for (what, error) in errors {
        let expected = ["FileNotFoundError", "ProcessLookupError", "PermissionError", "NotADirectoryError"];
        assert!(expected.contains(&error.as_str()), "{what}: {error}");
    }
    // Its costs are the two requests with its own key: 2 × (1000 × 1 µ$ + 100 × 5 µ$).
    assert_eq!(report["cost_usd"], json!(0.003), "{report:#}");
}

fn without(reply: &Reply, id: &str) -> Value {
    let mut body = reply.json();
    body["request_id"] = Value::Null;
    serde_json::from_str(&body.to_string().replace(id, "…")).unwrap()
}

async fn through_routes(wardian: &Wardian, own: &User, other: &User, status: &str) {
    let unknown = "sesn_00000000000000000000000000";
    // Each route answers the other's session exactly like one that does not exist.
    let get = async |id: &str| wardian.get(&own.key, &format!("/v1/x/sessions/{id}")).await;
    let (theirs, nobodys) = (get(&other.session).await, get(unknown).await);
    assert_eq!((theirs.status, theirs.error_type().as_str()), (404, "not_found_error"), "{theirs:#?}");
    assert_eq!(without(&theirs, &other.session), without(&nobodys, unknown));
    for body in [
        json!({"prompt": "x"}),
        json!({"prompt": "x", "command": ["cat", "look.py"]}),
        json!({"prompt": "x", "command": ["true"], "stream": true}),
        json!({"prompt": "x", "command": ["true"], "files": [{"path": "planted", "content": ""}]}),
    ] {
        let run = async |id: &str| {
            let mut body = body.clone();
            body["session_id"] = json!(id);
            wardian.post(&own.key, "/v1/x/run", &body).await
        };
        let (theirs, nobodys) = (run(&other.session).await, run(unknown).await);
        assert_eq!((theirs.status, theirs.error_type().as_str()), (404, "not_found_error"), "{theirs:#?}");
        assert_eq!(without(&theirs, &other.session), without(&nobodys, unknown));
    }
    assert!(!other.workspace.join("planted").exists());
    let posing = json!({"prompt": "x", "command": ["true"], "user": other.name});
    let posing = wardian.post(&own.key, "/v1/x/run", &posing).await;
    assert_eq!((posing.status, posing.error_type().as_str()), (400, "invalid_request_error"), "{posing:#?}");
    // A path of the host as a file, and as a place: neither is taken.
    for path in [
        other.workspace.join("planted").to_str().unwrap(),
        &format!("../../{}/workspace/planted", other.session),
    ] {
        let body = json!({"prompt": "x", "command": ["true"], "files": [{"path": path, "content": "x"}]});
        let reply = wardian.post(&own.key, "/v1/x/run", &body).await;
        assert_eq!(reply.status, 400, "{reply:#?}");
        assert!(!other.workspace.join("planted").exists());
    }
    let read = wardian.get(&own.key, &format!("/v1/x/sessions/{}", own.session)).await.report();
    assert_eq!((&read["user"], &read["status"]), (&json!(own.name), &json!(status)), "{read:#}");
    assert_eq!(read.get("workspace"), None, "where it lies is for administrators");
}

async fn spending(wardian: &Wardian, own: &User, other: &User) {
    let usage = async |query: &str| wardian.get(&own.key, &format!("/v1/x/usage{query}")).await;
    let cost = async |query: &str| usage(query).await.report()["data"][0]["cost_usd"].clone();
    for query in [String::new(), format!("?user={}", own.name), format!("?session={}", own.session)] {
        assert_eq!(cost(&query).await, json!(0.003), "{query}");
    }
    for query in [
        format!("?user={}", other.name),
        format!("?session={}", other.session),
        format!("?user={}&session={}", other.name, own.session),
        "?user=nobody".to_owned(),
    ] {
        assert_eq!(cost(&query).await, json!(0.0), "{query}");
    }
    for query in ["?group_by=user", "?group_by=user,session,model,day", "?group_by=session&from=2020-01-01"] {
        let reply = usage(query).await;
        assert!(reply.body.contains(&own.session) || reply.body.contains(own.name), "{query}: {reply:#?}");
        assert!(
            !reply.body.contains(&other.session) && !reply.body.contains(other.name),
            "{query}: {reply:#?}"
        );
        let rows = reply.report()["data"].as_array().unwrap().clone();
        let requests: u64 = rows.iter().filter_map(|row| row["requests"].as_u64()).sum();
        assert_eq!(requests, 2, "{query}: {reply:#?}");
    }
}

#[tokio::test]
async fn a_virtual_key_is_dead_when_its_run_has_ended() {
    let mut wardian = Wardian::start(REPLIES, Options::default()).await;
    let first = json!({"prompt": "x", "command": ["sh", "-c", "printf %s $ANTHROPIC_API_KEY"]});
    let first = wardian.run(&first).await.report();
    let key = first["stdout"].as_str().unwrap();
    assert!(key.starts_with("sk-wardian-"), "{first:#}");
    let asks = r#"
import json, os, sys, urllib.error, urllib.request
for key in (sys.argv[1], os.environ["ANTHROPIC_API_KEY"]):
    request = urllib.request.Request(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", json.dumps({"model":
        "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}).encode(),
        {"x-api-key": key, "anthropic-version": "2023-06-01", "content-type": "application/json"})
    try:
        print(urllib.request.urlopen(request).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"#;
    let again = json!({"prompt": key, "command": ["python3", "-c", asks, "$PROMPT"], "session_id": first["session_id"]});
    let again = wardian.run(&again).await.report();
    assert_eq!(again["stdout"], "401\n200\n", "{again:#}");
    // Nor is it a key of the server.
    let reply = wardian.get(key, "/v1/x/usage").await;
    assert_eq!((reply.status, reply.error_type().as_str()), (401, "authentication_error"), "{reply:#?}");
    wardian.stop().await;
}
