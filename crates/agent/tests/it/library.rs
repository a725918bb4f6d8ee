//! The library as its users write it: typed tools, closures, streams of prompts, and a query that is dropped.

use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use wardian_agent::{
    Error, Json, Options, OutputError, Permission, PermissionMode, Prompt, UserMessage, can_use_tool, query,
    query_as, tool, tool_with,
};

use crate::support::{call, kinds, messages, model, options, result, tool_results};

#[derive(Deserialize, JsonSchema)]
struct Add {
    /// The first number.
    a: i64,
    /// The second.
    b: i64,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Review {
    /// From 1 to 5.
    stars: u8,
    words: Vec<String>,
}

#[tokio::test]
async fn a_turn_ends_with_a_value_of_a_type() {
    let good = call("toolu_1", "StructuredOutput", json!({"stars": 4, "words": ["quick"]}));
    let server = model(&json!({"replies": [{"tool_use": [good]}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let (review, result) = query_as::<Review>("Rate it", options(&server, folder.path())).await.unwrap();
    assert_eq!(review, Review { stars: 4, words: vec!["quick".to_owned()] });
    assert_eq!(result.subtype, "success");

    let server = model(&json!({"replies": [{"text": "Four stars.", "repeat": true}]})).await;
    let without = query_as::<Review>("Rate it", options(&server, folder.path())).await;
    assert!(matches!(without, Err(OutputError::Missing(_))), "{without:?}");
    let nowhere = Options { cwd: "/nowhere".into(), ..options(&server, folder.path()) };
    assert!(matches!(query_as::<Review>("x", nowhere).await, Err(OutputError::Query(_))));
}

#[derive(Serialize)]
struct Sum {
    sum: i64,
}

#[tokio::test]
async fn a_typed_function_is_a_tool() {
    let calls = json!([
        call("toolu_1", "add", json!({"a": 1, "b": 2})),
        call("toolu_2", "add", json!({"a": "one"})),
        call("toolu_3", "add", json!({"a": i64::MAX, "b": 1})),
        call("toolu_4", "where", json!({})),
    ]);
    let model = model(&json!({"replies": [{"tool_use": calls}, {"text": "Done."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let add = tool("add", "Adds.", |input: Add| async move {
        let sum = input.a.checked_add(input.b).ok_or("the sum is too large")?;
        Ok::<_, &str>(Json(Sum { sum }))
    });
    let place = tool_with("where", "Says where.", |(), context| async move {
        format!("{} of {}", context.tool_use_id, context.cwd.display())
    });
    let options = Options {
        custom_tools: vec![add.read_only().into(), place.into()],
        allowed_tools: vec!["add".to_owned(), "where".to_owned()],
        ..options(&model, folder.path())
    };
    let messages = messages(query("hi", options)).await;
    let results = tool_results(&messages);
    assert_eq!(results[0], ("{\"sum\":3}".to_owned(), false));
    assert!(results[1].1 && results[1].0.contains("`b` is missing"), "{results:?}");
    assert_eq!(results[2], ("the sum is too large".to_owned(), true));
    assert!(results[3].0.starts_with("toolu_4 of /"), "{results:?}");
    let request = model.requests()[0].body.clone();
    let offered = request["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == "add").unwrap();
    assert_eq!(offered["input_schema"]["properties"]["a"]["description"], "The first number.");
}

#[tokio::test]
async fn a_closure_decides_about_calls() {
    let calls = json!([
        call("toolu_1", "Bash", json!({"command": "touch one"})),
        call("toolu_2", "Write", json!({"file_path": "two", "content": ""})),
    ]);
    let model = model(&json!({"replies": [{"tool_use": calls}, {"text": "Done."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let options = Options {
        can_use_tool: Some(can_use_tool(move |request| {
            log.lock().unwrap().push(request.tool_name.clone());
            async move {
                if request.tool_name == "Write" { Permission::allow() } else { Permission::deny("Not here.") }
            }
        })),
        ..options(&model, folder.path())
    };
    let messages = messages(query("hi", options)).await;
    assert_eq!(tool_results(&messages)[0], ("Not here.".to_owned(), true));
    assert_eq!(*asked.lock().unwrap(), ["Bash", "Write"]);
    assert!(folder.path().join("two").exists() && !folder.path().join("one").exists());
}

#[tokio::test]
async fn a_stream_of_prompts_is_a_turn_each() {
    let model = model(&json!({"replies": [{"text": "One."}, {"text": "Two."}, {"text": "Three."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let prompts = Prompt::stream(stream::iter(["first", "second", "third"]));
    let messages = messages(query(prompts, options(&model, folder.path()))).await;
    let results = kinds(&messages).into_iter().filter(|kind| kind == "result/success").count();
    assert_eq!(results, 3);
    assert_eq!(result(&messages).result.as_deref(), Some("Three."));
}

/// Far more than a query queues: the stream waits, and none is lost.
#[tokio::test]
async fn a_stream_that_is_faster_than_its_turns_waits() {
    let model = model(&json!({"replies": [{"text": "Yes.", "repeat": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let pulled = Arc::new(Mutex::new(0));
    let count = Arc::clone(&pulled);
    let endless = stream::repeat_with(move || {
        *count.lock().unwrap() += 1;
        UserMessage::from("again")
    });
    let mut query = query(Prompt::stream(endless), options(&model, folder.path()));
    while !matches!(query.next().await.unwrap().unwrap(), wardian_agent::Message::Result(_)) {}
    // The queue, one on its way, one that waits, and what was taken meanwhile.
    assert!(*pulled.lock().unwrap() < 1_100);
    query.close().await;
}

#[tokio::test]
async fn the_last_result_can_be_had_at_once() {
    let model = model(&json!({"replies": [{"text": "One."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let result = query("hi", options(&model, folder.path())).result().await.unwrap();
    assert_eq!(result.result.as_deref(), Some("One."));
    let nowhere = Options { cwd: "/nowhere".into(), ..options(&model, folder.path()) };
    assert!(matches!(query("hi", nowhere).result().await, Err(Error::Directory { .. })));
}

/// Not only the query's own future ends: what its tools started is gone, whether the runtime lives on or not.
#[test]
fn a_dropped_query_leaves_no_process() {
    for with_runtime in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let beside = "echo $$ > beside; sleep 600";
        let command = "until test -s beside; do :; done; sleep 600 & echo $! > part; cat beside >> part; echo $$ >> part; mv part pids; wait";
        let held = runtime.block_on(async {
            let calls = json!([
                call("toolu_0", "Bash", json!({"command": beside, "run_in_background": true})),
                call("toolu_1", "Bash", json!({"command": command})),
            ]);
            let script = json!({"replies": [{"tool_use": calls}]});
            let model = model(&script).await;
            let options = Options {
                permission_mode: PermissionMode::BypassPermissions,
                ..options(&model, folder.path())
            };
            let query = query("hi", options);
            while !pids.exists() {
                tokio::task::yield_now().await;
            }
            (query, model)
        });
        let started: Vec<i32> =
            std::fs::read_to_string(&pids).unwrap().lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(started.len(), 3);
        if with_runtime {
            // As in a `main` that returns.
            drop(held.0);
            drop(runtime);
        } else {
            runtime.block_on(async { drop(held.0) });
        }
        let deadline = std::time::Instant::now() + crate::process::PATIENCE;
        while started.iter().any(|pid| is_alive(*pid)) {
            assert!(std::time::Instant::now() < deadline, "left behind: {started:?}, {with_runtime}");
            std::thread::yield_now();
        }
    }
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}
