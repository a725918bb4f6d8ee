//! Runtime `command`: programs as users write them, a Node one with the stock client and a Python one with none.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::support::{Options, Wardian};

/// Two rounds of the Node program: a tool, then the answer.
const SAVES_A_NOTE: &str = r#"{"replies": [
    {"match": {"last_text_contains": "milk"}, "tool_use": [{"name": "save", "input": {"text": "milk"}}],
     "usage": {"input_tokens": 1200, "output_tokens": 34, "cache_creation_input_tokens": 803}},
    {"match": {"tool_result_contains": "saved"}, "text": "Noted.",
     "usage": {"input_tokens": 57, "output_tokens": 12, "cache_read_input_tokens": 801}}
]}"#;

/// Whatever was asked, in pieces.
const ECHOES: &str = r#"{"replies": [
    {"echo": true, "repeat": true, "chunk_bytes": 5, "usage": {"input_tokens": 211, "output_tokens": 13}}
]}"#;

/// What a shell, `printf`, Python or Node would make something else of.
const METACHARACTERS: &str =
    "a  b'\"`id`; $(touch pwned) && $HOME ${PATH} $PROMPT | cat > pwned # %s \\n {{}}\n*?[a-z] ~ é🦀";

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// A program of `tests/programs`, as a request ships it.
fn shipped(name: &str) -> Value {
    let path = repository().join("tests/programs").join(name);
    json!({"path": name, "content": std::fs::read_to_string(path).unwrap()})
}

/// Where the stock clients for Node are installed.
fn node_modules() -> PathBuf {
    let folder = repository().join("tests/sdk/node_modules");
    let client = folder.join("@anthropic-ai/sdk/package.json");
    assert!(client.is_file(), "{} is missing: `tests/sdk/setup.sh` installs it", client.display());
    folder
}

/// What `/v1/x/usage` has of a session, which is one row.
async fn usage(wardian: &Wardian, session: &Value) -> Value {
    let path = format!("/v1/x/usage?group_by=session,model&session={}", session.as_str().unwrap());
    let usage = wardian.get(&wardian.key, &path).await.json();
    assert_eq!(usage["data"].as_array().unwrap().len(), 1, "{usage}");
    usage["data"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_program_uses_the_stock_client_from_a_read_only_folder() {
    let modules = node_modules();
    let options = Options { read_only: vec![modules.clone()], ..Options::default() };
    let mut wardian = Wardian::start(SAVES_A_NOTE, options).await;
    let report = wardian
        .run(&json!({
            "prompt": "Note that we need milk.", "model": "claude-haiku-4-5", "user": "ann", "runtime": "command",
            "command": ["node", "agent.mjs", &modules, "$PROMPT"], "files": [shipped("agent.mjs")],
        }))
        .await
        .report();
    assert_eq!((&report["status"], &report["exit_code"]), (&json!("completed"), &json!(0)), "{report:#}");
    assert_eq!((&report["stdout"], &report["stderr"]), (&json!("Noted.\n"), &json!("saved 4 characters\n")));
    assert_eq!((&report["result"], &report["is_error"]), (&json!("Noted."), &json!(false)));
    assert_eq!(report["files_changed"], json!([{"path": "note.txt", "kind": "added"}]));
    let note = wardian.session_dir(report["session_id"].as_str().unwrap()).join("workspace/note.txt");
    assert_eq!(std::fs::read_to_string(note).unwrap(), "milk");

    // Claude Haiku 4.5, dollars a million tokens = nano-dollars a thousandth of a token:
    //   input         (1200 + 57) × $1.00 = 1_257_000 n$
    //   output          (34 + 12) × $5.00 =   230_000 n$
    //   cache write           803 × $1.25 = 1_003_750 n$
    //   cache read            801 × $0.10 =    80_100 n$
    //                                       2_570_850 n$
    let cost = json!(0.002570850);
    assert_eq!((&report["cost_usd"], &report["num_turns"]), (&cost, &json!(2)));
    assert_eq!(report["model_usage"]["claude-haiku-4-5"]["cost_usd"], cost);
    let row = usage(&wardian, &report["session_id"]).await;
    assert_eq!((&row["cost_usd"], &row["requests"]), (&cost, &json!(2)), "{row}");
    assert_eq!((&row["model"], &row["reserved_usd"]), (&json!("claude-haiku-4-5"), &json!(0.0)), "{row}");

    let requests = wardian.model.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert!(request.key_accepted, "the real key is put in on the way");
        assert_eq!(request.headers["x-stainless-lang"], "js", "it is the stock client");
    }
    wardian.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_configured_read_only_is_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tool"), "before").unwrap();
    let options = Options { read_only: vec![folder.path().to_owned()], ..Options::default() };
    let mut wardian = Wardian::start(ECHOES, options).await;
    let attempt = "cat \"$1/tool\"; (echo after > \"$1/tool\") || (touch \"$1/new\") || rm \"$1/tool\"";
    let report = wardian
        .run(&json!({"prompt": "x", "command": ["sh", "-c", attempt, "sh", folder.path()]}))
        .await
        .report();
    assert_eq!((&report["status"], &report["stdout"]), (&json!("failed"), &json!("before")), "{report:#}");
    let refused = report["stderr"].as_str().unwrap().matches("Read-only file system").count();
    assert_eq!(refused, 3, "{report:#}");
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["tool"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("tool")).unwrap(), "before");
    wardian.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_program_streams_with_the_standard_library_alone() {
    let mut wardian = Wardian::start(ECHOES, Options::default()).await;
    let body = json!({
        "prompt": "One line,\nanother line.", "model": "claude-haiku-4-5", "runtime": "command",
        "command": ["python3", "agent.py", "$PROMPT"], "files": [shipped("agent.py")],
    });
    let mut events = wardian.stream(&wardian.key, &body).await;
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        told.push(event);
    }
    let names: Vec<_> = told.iter().map(|event| event.name.as_str()).collect();
    assert_eq!((names.first(), names.last()), (Some(&"run_started"), Some(&"run_result")), "{names:?}");
    let output = |stream: &str| -> String {
        let said = told.iter().filter(|event| event.name == "output" && event.data["stream"] == stream);
        said.map(|event| event.data["text"].as_str().unwrap()).collect()
    };
    assert_eq!(output("stdout"), "One line,\nanother line.\n");
    assert_eq!(output("stderr"), "13 tokens\n");
    let report = &told.last().unwrap().data;
    assert_eq!((&report["status"], &report["exit_code"]), (&json!("completed"), &json!(0)), "{report:#}");
    assert_eq!(report["stdout"], output("stdout"));
    assert_eq!(report["stderr"], output("stderr"));
    assert_eq!(report["session_id"], told[0].data["session_id"]);
    assert_eq!(report["files_changed"], json!([]));
    // 211 × $1 + 13 × $5 a million tokens.
    let cost = json!(0.000276);
    assert_eq!(report["cost_usd"], cost);
    assert_eq!(usage(&wardian, &report["session_id"]).await["cost_usd"], cost);
    wardian.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_fails_tells_why_and_the_next_one_works() {
    let script = r#"{"replies": [
        {"error": {"status": 400, "message": "as scripted"}},
        {"text": "Better.", "usage": {"input_tokens": 7, "output_tokens": 1}}
    ]}"#;
    let mut wardian = Wardian::start(script, Options::default()).await;
    let mut body = json!({
        "prompt": "Try.", "model": "claude-haiku-4-5", "command": ["python3", "agent.py", "$PROMPT"],
        "files": [shipped("agent.py")],
    });
    let failed = wardian.run(&body).await.report();
    assert_eq!((&failed["status"], &failed["is_error"]), (&json!("failed"), &json!(true)), "{failed:#}");
    assert_eq!((&failed["exit_code"], &failed["stdout"]), (&json!(3), &json!("")));
    assert_eq!(failed["stderr"], "refused with 400: invalid_request_error\n");
    assert_eq!(failed["cost_usd"], json!(0.0), "a refusal costs nothing");
    // In the same workspace: the program is still there.
    body["session_id"] = failed["session_id"].clone();
    body["files"] = json!([]);
    let next = wardian.run(&body).await.report();
    assert_eq!((&next["status"], &next["stdout"]), (&json!("completed"), &json!("Better.\n")), "{next:#}");
    // 7 × $1 + 1 × $5 a million tokens.
    assert_eq!(next["cost_usd"], json!(0.000012));
    assert_eq!(usage(&wardian, &next["session_id"]).await["cost_usd"], json!(0.000012));
    wardian.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_one_argument_from_the_request_to_the_model_and_back() {
    let mut wardian = Wardian::start(ECHOES, Options::default()).await;
    let body = json!({
        "prompt": METACHARACTERS, "command": ["python3", "agent.py", "$PROMPT"], "files": [shipped("agent.py")],
    });
    let report = wardian.run(&body).await.report();
    assert_eq!(report["stdout"], format!("{METACHARACTERS}\n"), "{report:#}");
    assert_eq!(report["files_changed"], json!([]));
    assert_eq!(wardian.model.requests()[0].body["messages"][0]["content"], METACHARACTERS);

    // Only an element that is exactly `$PROMPT` is replaced, and nothing is replaced in what it became.
    let shows = "import json, sys; print(json.dumps(sys.argv[1:]))";
    let body = json!({
        "prompt": METACHARACTERS, "command": ["python3", "-c", shows, "$PROMPT", "x$PROMPT", "${PROMPT}", "$HOME", ""],
    });
    let report = wardian.run(&body).await.report();
    let arguments: Value = serde_json::from_str(report["stdout"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!([METACHARACTERS, "x$PROMPT", "${PROMPT}", "$HOME", ""]));
    wardian.stop().await;
}
