//! The real key is nowhere but in the server's own process: not inside a sandbox, not in what the server writes, not in
//! the memory of what it starts.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use wardian_model::{Recorded, Server};

use super::search::{Needles, plant};
use super::support::{
    Options, PATIENCE, Wardian, comm, descendants, random_word, until, wardian as wardian_command,
};

const SEARCH: &str = include_str!("search.py");

/// What the programs ask, and how the model fails them.
const ANSWERS: &str = r#"
    {"match": {"last_text_contains": "an error, please"}, "repeat": true,
     "error": {"status": 500, "message": "Internal server error", "headers": {"x-should-retry": "false"}}},
    {"match": {"last_text_contains": "break off"}, "repeat": true, "text": "It breaks off.", "cut_after_bytes": 300},
    {"match": {"last_text_contains": "search"}, "repeat": true, "text": "ok"}"#;

/// Says that it is ready, and waits until it may end.
const WAITS: &str = "touch ready; while ! test -e go; do sleep 0.05; done; echo woken";

fn files(wardian: &Wardian, needles: &Needles) -> Value {
    let since = std::fs::metadata(wardian.folder().join("log-1")).unwrap().ctime().unsigned_abs() - 60;
    json!([{"path": "search.py", "content": SEARCH},
        {"path": "needles.json", "content": needles.masked(since).to_string()}])
}

/// What `search.py` printed: nothing but what it planted itself.
fn assert_only_planted(output: &str, needles: &Needles, workspace: &Path) {
    let line = output.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{output}"));
    let seen: Value = serde_json::from_str(line).unwrap();
    assert_eq!(seen["found"], json!([]), "{seen:#}");
    let planted = seen["planted"].to_string();
    for (form, _) in needles.forms() {
        let path = workspace.join(format!("planted-{form}"));
        assert!(planted.contains(&format!("{form} in {}", path.display())), "{form}: {planted}");
    }
    assert!(planted.contains("/environ") && planted.contains("raw in memory of"), "{planted}");
    let looked = |what: &str| seen["looked"][what].as_u64().unwrap();
    assert!(looked("files") > 10 && looked("processes") >= 2 && looked("answers") > 20, "{seen:#}");
    assert!(looked("sockets") >= 1, "{seen:#}");
}

/// The model server takes this key only, and it came with every request.
fn assert_received(wardian: &Wardian) {
    let got = wardian.model.requests();
    assert!(!got.is_empty());
    for request in got {
        assert!(request.key_accepted);
        assert_eq!(request.header("x-api-key"), Some(wardian.real_key.as_str()));
        assert_eq!(request.header("authorization"), None);
    }
}

/// The data folder with the store and its journal, the workspaces, and the log.
fn assert_not_in_files(wardian: &Wardian, needles: &Needles) {
    assert!(!wardian.log().is_empty());
    assert_eq!(needles.in_folder(wardian.folder()), [] as [String; 0]);
    // The same search finds it there when it is there.
    let planted = plant(needles, &wardian.data_dir());
    let found = needles.in_folder(wardian.folder());
    for ((form, _), path) in needles.forms().zip(&planted) {
        assert!(found.contains(&format!("{form} in {}", path.display())), "{form}: {found:#?}");
        std::fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn a_program_finds_it_nowhere() {
    let mut wardian = Wardian::start(&format!(r#"{{"replies": [{ANSWERS}]}}"#), Options::default()).await;
    let needles = Needles::of(&wardian.real_key);
    let body = json!({"prompt": "search", "command": ["python3", "search.py", "needles.json"],
        "files": files(&wardian, &needles)});
    let reply = wardian.run(&body).await;
    assert_eq!(needles.in_bytes(reply.body.as_bytes()).len(), 0, "{reply:#?}");
    let report = reply.report();
    assert_eq!(report["exit_code"], 0, "{report:#}");
    assert_only_planted(report["stdout"].as_str().unwrap(), &needles, Path::new("/workspace"));
    assert_received(&wardian);
    // What the program planted is what a search of the host finds, and all that it finds.
    let workspace = wardian.workspace(report["session_id"].as_str().unwrap());
    let found = needles.in_folder(wardian.folder());
    assert!(found.len() >= needles.forms().count(), "{found:#?}");
    let planted = workspace.join("planted-").display().to_string();
    assert!(found.iter().all(|found| found.contains(&planted)), "{found:#?}");
    for (form, _) in needles.forms() {
        std::fs::remove_file(workspace.join(format!("planted-{form}"))).unwrap();
    }
    assert_not_in_files(&wardian, &needles);
    let printed = wardian.stop().await;
    assert_eq!(needles.in_bytes(printed.as_bytes()).len(), 0, "{printed}");
    assert_not_in_files(&wardian, &needles);
}

/// A script with which an agent searches, by its Bash tool.
fn looks_around() -> String {
    format!(
        r#"{{"replies": [
        {{"match": {{"last_text_contains": "look around"}}, "tool_use": [{{"name": "Bash", "input": {{"command":
           "env; python3 search.py needles.json"}}}}]}},
        {{"match": {{"tool_result_contains": "planted"}}, "text": "That is all."}}, {ANSWERS}]}}"#
    )
}

#[tokio::test]
async fn an_agent_and_its_tools_find_it_nowhere() {
    let mut wardian = Wardian::start(&looks_around(), Options::default()).await;
    let needles = Needles::of(&wardian.real_key);
    let body = json!({"prompt": "look around", "files": files(&wardian, &needles)});
    let whole = wardian.stream(&wardian.key, &body).await.whole().await;
    assert_eq!(needles.in_bytes(whole.body.as_bytes()).len(), 0, "{whole:#?}");
    assert!(whole.body.contains("That is all."), "{whole:#?}");
    let told = tool_result(&wardian.model);
    assert_only_planted(&told, &needles, Path::new("/workspace"));
    assert_received(&wardian);
    wardian.stop().await;
}

/// `wardian run`: the gateway is in the process that the user started, and the key in its environment.
#[tokio::test]
async fn a_local_run_finds_it_nowhere() {
    let wardian = Wardian::start(&looks_around(), Options::default()).await;
    let needles = Needles::of(&wardian.real_key);
    let folder = tempfile::tempdir().unwrap();
    let (work, data) = (folder.path().join("work"), folder.path().join("data"));
    std::fs::create_dir(&work).unwrap();
    for file in files(&wardian, &needles).as_array().unwrap() {
        std::fs::write(work.join(file["path"].as_str().unwrap()), file["content"].as_str().unwrap()).unwrap();
    }
    let mut command = wardian_command();
    command.args(["run", "look around", "--allow-all", "--output-format", "stream-json", "--upstream"]);
    command.arg(wardian.model.base_url()).arg("--cwd").arg(&work).arg("--data-dir").arg(&data);
    command.env("ANTHROPIC_API_KEY", &wardian.real_key).env("HOME", folder.path());
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("the run ends").unwrap();
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{printed}");
    assert_eq!(needles.in_bytes(printed.as_bytes()).len(), 0, "{printed}");
    assert_only_planted(&tool_result(&wardian.model), &needles, &work);
    assert_received(&wardian);
    assert!(std::fs::read_dir(&data).unwrap().count() > 0);
    assert_eq!(needles.in_folder(&data), [] as [String; 0]);
}

/// What the agent told the model about its first tool call.
fn tool_result(model: &Server) -> String {
    let result = |request: &Recorded| {
        let messages = request.body["messages"].as_array()?;
        let mut blocks = messages.iter().filter_map(|message| message["content"].as_array()).flatten();
        let result = blocks.find(|block| block["type"] == "tool_result")?;
        let text = result["content"].as_str().or_else(|| result["content"][0]["text"].as_str());
        Some(text?.to_owned())
    };
    model.requests().iter().find_map(result).unwrap()
}

#[tokio::test]
async fn no_process_that_the_server_starts_holds_it() {
    let script = format!(
        r#"{{"replies": [
        {{"match": {{"last_text_contains": "wait a little"}}, "tool_use": [{{"name": "Bash", "input": {{"command":
           "{WAITS}"}}}}]}},
        {{"match": {{"tool_result_contains": "woken"}}, "text": "I waited."}}, {ANSWERS}]}}"#
    );
    let mut wardian = Wardian::start(&script, Options::default()).await;
    let needles = Needles::of(&wardian.real_key);
    let mut events = wardian.stream(&wardian.key, &json!({"prompt": "wait a little"})).await;
    let started = events.next().await.unwrap();
    let workspace = wardian.workspace(started.data["session_id"].as_str().unwrap());
    until("Bash begins", || workspace.join("ready").exists().then_some(())).await;

    let (server, below) = (wardian.pid(), descendants(wardian.pid()));
    let names: Vec<_> = below.iter().map(|pid| comm(*pid)).collect();
    let count = |name: &str| names.iter().filter(|found| *found == name).count();
    assert!(count("wardian-guest") >= 2 && count("wardian-agent") >= 1 && names.len() >= 4, "{names:?}");
    // In a core of any of them it would be found as it is in the server's own memory, which has to have it. Without root
    // nobody can read any of these, and there is no core.
    let root = rustix::process::geteuid().is_root();
    let (found, read) = needles.in_memory(server);
    assert_eq!(found.iter().any(|found| found.starts_with("raw in")), root, "{found:?}");
    assert!(root || read == 0, "{read} bytes");
    for pid in below {
        let (found, read) = needles.in_memory(pid);
        assert_eq!(found, [] as [String; 0]);
        // A `sleep` of the shell may be over.
        assert!(read > 100_000 || !root || comm(pid).is_empty(), "{} is read: {read} bytes", comm(pid));
        assert_eq!(needles.in_start(pid), [] as [String; 0]);
    }
    let limits = std::fs::read_to_string(format!("/proc/{server}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "the server leaves no core: {core}");
    assert_eq!(needles.in_bytes(&std::fs::read(format!("/proc/{server}/cmdline")).unwrap()).len(), 0);

    // A process that does have it, in its environment, is found out.
    let mut holds = wardian_sleep(&wardian.real_key);
    let pid = holds.id().unwrap().cast_signed();
    assert_eq!(needles.in_start(pid), [format!("raw in /proc/{pid}/environ")]);
    assert!(!needles.in_memory(pid).0.is_empty());
    holds.kill().await.unwrap();

    std::fs::write(workspace.join("go"), "").unwrap();
    let rest = events.whole().await;
    assert!(rest.body.contains("I waited."), "{rest:#?}");
    assert_received(&wardian);
    assert_not_in_files(&wardian, &needles);
    wardian.stop().await;
}

fn wardian_sleep(key: &str) -> tokio::process::Child {
    let mut command = tokio::process::Command::new("sleep");
    command.arg("600").env_clear().env("KEY", key).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test]
async fn no_answer_of_the_server_has_it() {
    // Nobody listens there: what the gateway says about that is looked through, too.
    let nowhere = Options { upstream: Some("http://127.0.0.1:1".to_owned()), ..Options::default() };
    let mut wardian = Wardian::start(r#"{"replies": []}"#, nowhere).await;
    let needles = Needles::of(&wardian.real_key);
    let admin = wardian.create_key(&["--scope", "admin"]).await;
    let run = |body: Value| ("POST", "/v1/x/run".to_owned(), body);
    let mut asked = vec![
        run(json!({"prompt": "hi", "limits": {"timeout_seconds": 3}})),
        run(json!({"prompt": "hi", "limits": {"max_cost_usd": 0.000001}})),
        run(json!({"prompt": 1, "promt": 2, "files": [3]})),
        run(json!({"prompt": "x", "command": ["no-such-program"]})),
        run(json!({"prompt": "x", "command": ["sh", "-c", "env; cat /proc/*/environ; exit 3"]})),
        run(json!({"prompt": "x", "session_id": "sesn_00000000000000000000000000"})),
        run(
            json!({"prompt": "x", "command": ["true"], "files": [{"path": "../../wardian.db", "content": ""}]}),
        ),
    ];
    for path in [
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/v1/x/usage?group_by=session",
        "/v1/x/keys",
        "/debug",
        "/v1/x/sessions/x",
        "/v1/x/usage?user=%00",
        "/v1/models",
        "/..%2f..%2fproc/self/environ",
    ] {
        asked.push(("GET", path.to_owned(), Value::Null));
        asked.push(("DELETE", path.to_owned(), json!({})));
    }
    for key in [&wardian.key, &admin, &wardian.real_key, &String::new()] {
        for (method, path, body) in &asked {
            let reply = wardian.send(method, key, path, body).await.whole().await;
            let text = format!("{:?}\n{}", reply.headers, reply.body);
            assert_eq!(needles.in_bytes(text.as_bytes()).len(), 0, "{method} {path} {body}: {text}");
        }
    }
    assert_not_in_files(&wardian, &needles);
    wardian.stop().await;
}

#[tokio::test]
async fn nothing_that_the_command_line_prints_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let lines: &[&[&str]] = &[
        &["--help"],
        &["--version"],
        &["serve", "--help"],
        &["run", "--help"],
        &["config"],
        &["doctor"],
        &["serve", "--listen", "nonsense"],
        &["serve", "--listen", "0.0.0.0:0", "--data-dir", data],
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", data, "--upstream", "not a url"],
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", file],
        &["serve", "--no-such-option"],
        &["run", "hello", "--upstream", "http://127.0.0.1:1", "--cwd", file],
        &["sandbox", "exec", "--workspace", file, "--", "env"],
        &["usage", "--data-dir", data],
    ];
    // Keys that a header cannot carry are errors, and the error does not say them.
    let real_key = format!("sk-ant-api03-{}", random_word());
    let needles = Needles::of(&real_key);
    for key in [real_key.clone(), format!("{real_key}\n{real_key}"), format!("{real_key}\u{e9}")] {
        for arguments in lines {
            let mut command = wardian_command();
            command.args(*arguments).env("ANTHROPIC_API_KEY", &key).env("RUST_BACKTRACE", "full");
            command.env("HOME", folder.path()).env("XDG_DATA_HOME", folder.path().join("xdg"));
            let output = tokio::time::timeout(PATIENCE, command.output()).await;
            let output = format!("{:?}", output.unwrap_or_else(|_| panic!("{arguments:?} ends")).unwrap());
            assert_eq!(needles.in_bytes(output.as_bytes()).len(), 0, "{arguments:?}: {output}");
        }
    }
    // Where it cannot say that it is ready, it fails or panics, and that text does not have it either.
    let mut command = wardian_command();
    command.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data,
        "--upstream",
        "http://127.0.0.1:1",
    ]);
    command.env("ANTHROPIC_API_KEY", &real_key).env("RUST_BACKTRACE", "full").kill_on_drop(true);
    command.stdout(File::options().write(true).open("/dev/full").unwrap()).stderr(Stdio::piped());
    let ended = tokio::time::timeout(PATIENCE, command.spawn().unwrap().wait_with_output()).await;
    let ended = ended.expect("it does not serve unheard").unwrap();
    assert!(!ended.status.success() && !ended.stderr.is_empty(), "{ended:?}");
    assert_eq!(needles.in_bytes(&ended.stderr).len(), 0, "{ended:?}");
    assert_eq!(needles.in_folder(folder.path()), [] as [String; 0]);
}
