//! The demo: its script and its project through the API, and `demo/demo.py` as `make demo` calls it.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use super::support::{Options, Wardian, wardian};

fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("demo")
}

fn script(name: &str) -> String {
    std::fs::read_to_string(demo().join(name)).unwrap()
}

/// The paths of a folder's files in it, without what Python compiled.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().unwrap() != "__pycache__" {
                folders.push(path);
            } else if path.is_file() {
                found.push(path.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn project_files() -> Vec<Value> {
    let project = demo().join("project");
    let shipped = |path: &PathBuf| json!({"path": path, "content": std::fs::read_to_string(project.join(path)).unwrap()});
    files_in(&project).iter().map(shipped).collect()
}

/// Runs the project's tests, as shipped, on the code of `source`: in a copy, by `wardian sandbox exec`.
async fn project_tests(source: &Path) -> Output {
    let scratch = tempfile::tempdir().unwrap();
    for (root, paths) in [(source, files_in(source)), (&demo().join("project"), tests_only())] {
        for path in paths {
            let copy = scratch.path().join(&path);
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(root.join(&path), copy).unwrap();
        }
    }
    let mut command = wardian();
    command.args(["sandbox", "exec", "--timeout", "60", "--workspace"]).arg(scratch.path());
    command.args(["--", "python3", "-m", "unittest"]).output().await.unwrap()
}

fn tests_only() -> Vec<PathBuf> {
    files_in(&demo().join("project")).into_iter().filter(|path| path.starts_with("tests")).collect()
}

const PROMPT: &str =
    "A test of this project fails. Find out why and fix the code, then run the tests again and report.";

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_fixes_the_project_and_every_nano_dollar_of_it_is_accounted_for() {
    assert!(script("demo.py").contains(PROMPT), "what is tested here is the demo's own prompt");
    assert_eq!(
        project_tests(&demo().join("project")).await.status.code(),
        Some(1),
        "there is something to fix"
    );
    let mut wardian = Wardian::start(&script("fix.json"), Options::default()).await;
    let body = json!({"prompt": PROMPT, "files": project_files(), "user": "demo"});
    let report = wardian.run(&body).await.report();
    assert_eq!((&report["status"], &report["is_error"]), (&json!("completed"), &json!(false)), "{report:#}");
    assert_eq!(report["files_changed"], json!([{"path": "durations/reading.py", "kind": "modified"}]));
    assert!(report["result"].as_str().unwrap().starts_with("All tests pass."), "{report:#}");
    assert_eq!(wardian.model.unused_replies(), 0, "the script was played to its end");

    // What demo/fix.json says, request by request, at the prices of Claude Sonnet 5.5 since 2026-10-07 in dollars a
    // million tokens, which is thousands of nano-dollars a token:
    //   input       1840 +  412 +  388 +  203 +   97 =  2_940 × $2.00 =  5_880_000 n$
    //   output        96 +  131 +  174 +   71 +   88 =    560 × $10.00 =  5_600_000 n$
    //   cache write 2100 +  640 +  905 +  310 +    0 =  3_955 × $2.50 =  9_887_500 n$
    //   cache read     0 + 2100 + 2740 + 3645 + 3955 = 12_440 × $0.10 =  1_244_000 n$
    //                                                                   22_611_500 n$
    let cost = json!(0.022611500);
    let tokens = json!({
        "input_tokens": 2_940, "output_tokens": 560, "cache_creation_input_tokens": 3_955,
        "cache_read_input_tokens": 12_440,
    });
    // The agent counts one turn, and one more for each tool result: five, two of them from one reply.
    assert_eq!((&report["cost_usd"], &report["num_turns"]), (&cost, &json!(6)));
    let session = report["session_id"].as_str().unwrap();
    for query in [format!("session={session}"), "user=demo".to_owned(), "model=claude-sonnet-5-5".to_owned()]
    {
        let path = format!("/v1/x/usage?{query}&group_by=user,session,model");
        let usage = wardian.get(&wardian.key, &path).await.json();
        let [row] = usage["data"].as_array().unwrap().as_slice() else { panic!("{usage}") };
        assert_eq!((&row["cost_usd"], &row["requests"]), (&cost, &json!(5)), "{usage}");
        assert_eq!((&row["reserved_usd"], &row["inexact_requests"]), (&json!(0.0), &json!(0)), "{usage}");
        for (class, count) in tokens.as_object().unwrap() {
            assert_eq!((&row[class], &report["usage"][class]), (count, count), "{class} of {usage}");
        }
    }
    let after = project_tests(&wardian.session_dir(session).join("workspace")).await;
    assert_eq!(after.status.code(), Some(0), "{after:?}");
    wardian.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_changes_the_test_instead_has_fixed_nothing() {
    let mut wardian = Wardian::start(&script("wrong-fix.json"), Options::default()).await;
    let body = json!({"prompt": PROMPT, "files": project_files(), "user": "demo"});
    let report = wardian.run(&body).await.report();
    assert_eq!((&report["status"], &report["result"]), (&json!("completed"), &json!("All tests pass now.")));
    assert_eq!(report["files_changed"], json!([{"path": "tests/test_reading.py", "kind": "modified"}]));
    let workspace = wardian.session_dir(report["session_id"].as_str().unwrap()).join("workspace");
    let after = project_tests(&workspace).await;
    assert_eq!(after.status.code(), Some(1), "{after:?}");
    wardian.stop().await;
}

/// `demo/demo.py` with nothing of this process's environment but what it needs.
async fn run_demo(script: Option<&str>) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let from = wardian();
    let mut command = tokio::process::Command::new("python3");
    command.arg(demo().join("demo.py")).env_clear().kill_on_drop(true);
    command.envs(from.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("WARDIAN", from.as_std().get_program()).env("DEMO_DIR", folder.path().join("demo"));
    if let Some(script) = script {
        command.env("SCRIPT", script);
    }
    command.output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn make_demo_ends_well_and_shows_what_happened_and_what_it_cost() {
    let output = run_demo(None).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "FAILED (failures=1)",
        "POST http://127.0.0.1:",
        "so far $0.00989: 1840 in, 2100 written, 96 out",
        "Bash python3 -B -m unittest",
        "Read /workspace/durations/reading.py",
        "Edit /workspace/durations/reading.py",
        "completed in 6 turns, $0.0226115",
        "modified  durations/reading.py",
        "claude-sonnet-5-5: 5 requests, 2940 in, 12440 cached, 3955 written, 560 out, $0.0226115",
        "/server/sessions/sesn_",
        "The agent fixed the project.",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn make_demo_fails_when_the_project_is_not_fixed_whatever_the_agent_says() {
    let output = run_demo(Some("wrong-fix")).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("All tests pass now."), "{text}");
    assert!(text.ends_with("The tests still fail: the agent did not fix the project.\n"), "{text}");
}
