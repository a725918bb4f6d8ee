//! `wardian run` and `wardian sandbox exec`: no server.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use wardian_model::{Script, Server, ServerOptions};

use super::support::{PATIENCE, wardian};

const EDIT: &str = r#"{"replies": [
    {"text": "Writing.", "tool_use": [{"name": "Bash", "input": {"command": "echo made > made.txt; pwd"}}]},
    {"text": "Done."}
]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_works_in_the_callers_folder_at_its_own_path() {
    let local = Local::start(EDIT).await;
    let output = local.run(&["--allow-all", "--output-format", "json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!((&report["status"], &report["result"]), (&"completed".into(), &"Done.".into()));
    assert_eq!(report["files_changed"][0]["path"], "made.txt");
    assert_eq!(fs::read_to_string(local.folder().join("made.txt")).unwrap(), "made\n");
    let told = local.model.requests()[1].body.to_string();
    assert!(told.contains(local.folder().to_str().unwrap()), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_be_asked_it_is_denied() {
    let local = Local::start(EDIT).await;
    let output = local.run(&["--output-format", "stream-json"]).await;
    let lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    assert!(!local.folder().join("made.txt").exists());
    assert!(String::from_utf8_lossy(&output.stderr).contains("denied: Bash echo made"), "{output:?}");
    let result = lines.iter().find(|line| line["type"] == "result").unwrap();
    assert_eq!(result["permission_denials"][0]["tool_name"], "Bash");
    assert_eq!(lines.last().unwrap()["type"], "run_result");
    assert_eq!(lines[0]["type"], "run_started");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_as_documented() {
    let failed = Local::start(
        r#"{"replies": [{"error": {"status": 400, "type": "invalid_request_error", "message": "no"}}]}"#,
    )
    .await;
    assert_eq!(failed.run(&[]).await.status.code(), Some(1));
    let turns = Local::start(EDIT).await;
    assert_eq!(turns.run(&["--allow-all", "--max-turns", "1"]).await.status.code(), Some(4));
    let poor = Local::start(EDIT).await;
    assert_eq!(poor.run(&["--max-cost-usd", "0.000001"]).await.status.code(), Some(4));
    assert_eq!(poor.model.requests().iter().filter(|request| request.path.ends_with("/messages")).count(), 0);
    let slow = Local::start(r#"{"replies": [{"hold": true, "text": "x"}]}"#).await;
    assert_eq!(slow.run(&["--timeout", "1"]).await.status.code(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_passes_streams_environment_and_status_through() {
    let folder = tempfile::tempdir().unwrap();
    let script = "cat; echo \"$GREETING from $PWD\" >&2; env | sort; exit 7";
    let mut child = exec(folder.path(), &["--env", "GREETING=hello"], &["sh", "-c", script])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(7), "{err}");
    assert!(out.starts_with("through\n"), "{out}");
    assert_eq!(err, format!("hello from {}\n", folder.path().canonicalize().unwrap().display()));
    let names: Vec<&str> = out.lines().skip(1).map(|line| line.split('=').next().unwrap()).collect();
    assert!(
        names.iter().all(|name| [
            "GREETING", "HOME", "LANG", "OLDPWD", "PATH", "PWD", "SHLVL", "TMPDIR", "USER", "_"
        ]
        .contains(name)),
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_reads_what_it_may_and_writes_the_workspace_alone() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(other.path().join("data"), "read me").unwrap();
    let path = other.path().to_str().unwrap();
    let script = format!("cat {path}/data > copy; ! touch {path}/new && ! ls /root && ! cat /etc/shadow");
    let output = exec(folder.path(), &["--read-only", path], &["sh", "-c", &script]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fs::read_to_string(folder.path().join("copy")).unwrap(), "read me");
    assert!(!other.path().join("new").exists());
    let hidden = exec(folder.path(), &[], &["cat", &format!("{path}/data")]).output().await.unwrap();
    assert_ne!(hidden.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_ends_everything_at_the_timeout_with_124() {
    let folder = tempfile::tempdir().unwrap();
    let script = "(setsid sh -c 'touch alive; exec tail -f /dev/null' &) ; exec tail -f /dev/null";
    let output = exec(folder.path(), &["--timeout", "1"], &["sh", "-c", script]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(124), "{output:?}");
    assert!(folder.path().join("alive").exists(), "the detached child never lived");
    let marker = folder.path().canonicalize().unwrap();
    let left = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == marker));
    assert!(!left, "a process still works in {}", marker.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_of_no_program_is_127_and_of_no_executable_126() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data"), "no program").unwrap();
    let missing = exec(folder.path(), &[], &["no-such-program"]).output().await.unwrap();
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
    let data = exec(folder.path(), &[], &["./data"]).output().await.unwrap();
    assert_eq!(data.status.code(), Some(126), "{data:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_without_its_guest_is_125_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let arguments = ["--libexec-dir", empty.path().to_str().unwrap()];
    let output = exec(folder.path(), &arguments, &["true"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(125));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("wardian-guest") && error.contains("hint: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_asked_and_yes_lets_the_tool_run() {
    let local = Local::start(EDIT).await;
    let (mut child, mut person) = local.at_a_terminal(&[]);
    person.read_until("Allow Bash?").await;
    person.write(b"y\n").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    assert!(local.folder().join("made.txt").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn anything_but_yes_at_the_terminal_is_no() {
    let local = Local::start(EDIT).await;
    let (mut child, mut person) = local.at_a_terminal(&[]);
    person.read_until("Allow Bash?").await;
    person.write(b"yess\n").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    assert!(!local.folder().join("made.txt").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_nobody_answers_does_not_outlive_the_run() {
    let local = Local::start(EDIT).await;
    let (mut child, mut person) = local.at_a_terminal(&["--timeout", "2"]);
    person.read_until("Allow Bash?").await;
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it hangs on the question");
    assert_eq!(status.unwrap().code(), Some(4));
}

fn exec(workspace: &Path, arguments: &[&str], command: &[&str]) -> tokio::process::Command {
    let mut exec = wardian();
    exec.args(["sandbox", "exec", "--workspace"]).arg(workspace).args(arguments).arg("--").args(command);
    exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    exec
}

/// A model, a folder to work in, and a data folder.
struct Local {
    model: Server,
    temp: TempDir,
}

impl Local {
    async fn start(script: &str) -> Self {
        let options =
            ServerOptions { expect_key: Some("sk-ant-local".to_owned()), ..ServerOptions::default() };
        let address = "127.0.0.1:0".parse().unwrap();
        let model = Server::bind(Script::parse(script).unwrap(), address, options).await.unwrap();
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("project")).unwrap();
        Self { model, temp }
    }

    fn folder(&self) -> std::path::PathBuf {
        self.temp.path().join("project").canonicalize().unwrap()
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut run = wardian();
        run.args(["run", "Make it.", "--upstream", &self.model.base_url(), "--cwd"]).arg(self.folder());
        run.arg("--data-dir").arg(self.temp.path().join("data")).args(arguments);
        run.env("ANTHROPIC_API_KEY", "sk-ant-local").stdin(Stdio::null()).kill_on_drop(true);
        run
    }

    /// Starts a run whose standard input and error are a terminal, and gives the other end of it.
    fn at_a_terminal(&self, arguments: &[&str]) -> (Child, Person) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let mut command = self.command(arguments);
        command.stdin(slave.try_clone().unwrap()).stderr(slave).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        (child, Person(tokio::fs::File::from_std(fs::File::from(master))))
    }
}

/// Who sits at the terminal.
struct Person(tokio::fs::File);

impl Person {
    async fn read_until(&mut self, text: &str) {
        let mut shown = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&shown).contains(text) {
                let mut piece = [0; 4096];
                let read = self.0.read(&mut piece).await.unwrap();
                shown.extend_from_slice(&piece[..read]);
            }
        };
        let done = tokio::time::timeout(PATIENCE, reading).await;
        assert!(done.is_ok(), "{}", String::from_utf8_lossy(&shown));
    }

    async fn write(&mut self, keys: &[u8]) {
        self.0.write_all(keys).await.unwrap();
        self.0.flush().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_standard_output_is_an_error_and_no_panic() {
    let scratch = tempfile::tempdir().unwrap();
    for arguments in
        [&["config"][..], &["doctor"], &["keys", "create"], &["serve", "--listen", "127.0.0.1:0"]]
    {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = wardian();
        command.args(arguments).env("ANTHROPIC_API_KEY", "sk-ant-local").stdout(full).stderr(Stdio::piped());
        let child = command.env("WARDIAN_DATA_DIR", scratch.path().join("data")).spawn().unwrap();
        let output = child.wait_with_output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {error}");
        assert!(error.contains("write to the standard output") && !error.contains("panicked"), "{error}");
    }
}
