//! Two users at once: neither sees anything of the other, through any route or from inside.

use serde_json::{Value, json};
use wardian_store::Scope;

use super::app::App;
use super::client::Reply;

/// Looks around for whatever is not its own.
const LOOKS_AROUND: &str = r#"
import glob, os, time
open("secret-of-" + os.environ["PROMPT"], "w").write("x")
deadline = time.time() + 1.0
seen = set()
while time.time() < deadline:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ", "cwd"):
            try:
                path = f"/proc/{pid}/{name}"
                seen.add(os.readlink(path) if name == "cwd" else open(path, errors="replace").read())
            except OSError:
                pass
    for pattern in ("/workspace/*", "/workspace/../*/*", "/home/*/*", "/tmp/*", "/run/wardian/*", "/var/lib/*/sessions/*"):
        seen.update(glob.glob(pattern))
    time.sleep(0.05)
print("\n".join(sorted(seen)))
"#;

struct Side {
    name: &'static str,
    key: String,
    reply: Reply,
}

impl Side {
    fn report(&self) -> Value {
        assert_eq!(self.reply.status, 200, "{:#?}", self.reply);
        self.reply.json()
    }

    fn session(&self) -> String {
        self.report()["session_id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_sees_the_other() {
    let script = r#"{"replies": [{"repeat": true, "model": "claude-haiku-4-5", "text": "ok", "usage": {"input_tokens": 1000, "output_tokens": 100}}]}"#;
    let app = App::new(script).await;
    let (ann_key, bob_key) = (
        app.new_key(&[Scope::Sessions], Some("ann")).await,
        app.new_key(&[Scope::Sessions], Some("bob")).await,
    );
    let look = |prompt: &str| json!({"prompt": prompt, "command": ["python3", "-c", LOOKS_AROUND]});
    let (ann, bob) = (look("ann"), look("bob"));
    let (ann, bob) =
        tokio::join!(app.post(&ann_key, "/v1/x/run", &ann), app.post(&bob_key, "/v1/x/run", &bob));
    let ann = Side { name: "ann", key: ann_key, reply: ann };
    let bob = Side { name: "bob", key: bob_key, reply: bob };
    for (own, other) in [(&ann, &bob), (&bob, &ann)] {
        from_inside(own, other);
        through_routes(&app, own, other).await;
    }
    spending(&app, &ann, &bob).await;
    app.stop().await;
}

fn from_inside(own: &Side, other: &Side) {
    let seen = own.report()["stdout"].as_str().unwrap().to_owned();
    // It does see its own, so it would see the other's.
    assert!(seen.contains(&format!("secret-of-{}", own.name)), "{seen}");
    assert!(seen.contains(&format!("PROMPT={}", own.name)), "{seen}");
    assert!(!seen.contains(&format!("secret-of-{}", other.name)), "{seen}");
    assert!(!seen.contains(&format!("PROMPT={}", other.name)), "{seen}");
    assert!(!seen.contains(&other.session()), "{seen}");
}

async fn through_routes(app: &App, own: &Side, other: &Side) {
    let theirs = other.session();
    let unknown = "sesn_00000000000000000000000000";
    // Each route answers the other's session exactly like one that does not exist.
    for session in [theirs.as_str(), unknown] {
        let read = app.get(&own.key, &format!("/v1/x/sessions/{session}")).await;
        assert_eq!((read.status, read.error_type().as_str()), (404, "not_found_error"), "{read:#?}");
        let body = json!({"prompt": "x", "command": ["true"], "session_id": session});
        let run = app.post(&own.key, "/v1/x/run", &body).await;
        assert_eq!((run.status, run.error_type().as_str()), (404, "not_found_error"), "{run:#?}");
        let message = run.json()["error"]["message"].as_str().unwrap().replace(session, "");
        assert_eq!(message, "no session \"\"");
    }
    let body = json!({"prompt": "x", "command": ["true"], "user": other.name});
    let posing = app.post(&own.key, "/v1/x/run", &body).await;
    assert_eq!((posing.status, posing.error_type().as_str()), (400, "invalid_request_error"), "{posing:#?}");
    let own_read = app.get(&own.key, &format!("/v1/x/sessions/{}", own.session())).await;
    assert_eq!(own_read.json()["user"], own.name);
}

async fn spending(app: &App, ann: &Side, bob: &Side) {
    let run = app.post(&ann.key, "/v1/x/run", &json!({"prompt": "hi", "model": "haiku"})).await;
    let cost = run.json()["cost_usd"].clone();
    assert_eq!(cost, json!(0.0015), "{run:#?}");
    let session = run.json()["session_id"].as_str().unwrap().to_owned();
    let total = |reply: Reply| -> Value { reply.json()["data"][0]["cost_usd"].clone() };
    for query in ["", "?user=ann", &format!("?session={session}")] {
        assert_eq!(total(app.get(&ann.key, &format!("/v1/x/usage{query}")).await), cost, "{query}");
    }
    for query in ["", "?user=ann", "?user=nobody", &format!("?session={session}")] {
        let seen = app.get(&bob.key, &format!("/v1/x/usage{query}")).await;
        assert_eq!(total(seen), json!(0.0), "{query}");
    }
    let grouped = app.get(&bob.key, "/v1/x/usage?group_by=user,session").await;
    assert!(!grouped.body.contains("ann") && !grouped.body.contains(&session), "{grouped:#?}");
}
