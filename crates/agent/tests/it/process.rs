//! `wardian-agent` as a process, driven over its pipes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use wardian_model::Server;

pub const STREAM: &[&str] = &["--output-format", "stream-json", "--verbose", "--input-format", "stream-json"];
/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The program with its pipes.
pub struct Agent {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    pub lines: Lines<BufReader<ChildStdout>>,
}

/// The program in a folder, with what it needs to reach the model.
pub fn command(server: &Server, cwd: &Path, args: &[&str]) -> Command {
    at(&server.base_url(), cwd, args)
}

/// The same for a model at an address.
pub fn at(base_url: &str, cwd: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wardian-agent"));
    command
        .args(args)
        .current_dir(cwd)
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("ANTHROPIC_API_KEY", "sk-ant-binary"), ("IS_SANDBOX", "1")])
        .env("ANTHROPIC_BASE_URL", base_url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Agent {
    pub fn start(server: &Server, cwd: &Path, more: &[&str]) -> Self {
        let args: Vec<&str> = STREAM.iter().chain(more).copied().collect();
        Self::spawn(command(server, cwd, &args))
    }

    /// One that keeps its conversations in `kept`, and takes interrupted turns up again.
    pub fn keeping(base_url: &str, cwd: &Path, kept: &Path, more: &[&str]) -> Self {
        let args: Vec<&str> = STREAM.iter().chain(more).copied().collect();
        let mut command = at(base_url, cwd, &args);
        command.env("CLAUDE_CONFIG_DIR", kept).env("CLAUDE_CODE_RESUME_INTERRUPTED_TURN", "1");
        Self::spawn(command)
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { stdin: child.stdin.take(), child, lines }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).await.unwrap();
    }

    pub async fn send(&mut self, frame: Value) {
        self.write(format!("{frame}\n").as_bytes()).await;
    }

    pub async fn prompt(&mut self, text: &str) {
        self.send(json!({"type": "user", "session_id": "", "parent_tool_use_id": null,
            "message": {"role": "user", "content": [{"type": "text", "text": text}]}}))
            .await;
    }

    pub async fn control(&mut self, id: &str, request: Value) {
        self.send(json!({"type": "control_request", "request_id": id, "request": request})).await;
    }

    /// Answers a question of the agent.
    pub async fn answer(&mut self, question: &Value, response: Value) {
        self.send(json!({"type": "control_response", "response": {"subtype": "success",
            "request_id": question["request_id"], "response": response}}))
            .await;
    }

    /// The next frame; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        let line =
            tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("a frame comes in time");
        line.unwrap().map(|line| serde_json::from_str(&line).unwrap())
    }

    /// The frames up to the first of this kind.
    pub async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            let found = kind_of(&frame) == kind;
            frames.push(frame);
            if found {
                return frames;
            }
        }
        panic!("no {kind} among {:?}", frames.iter().map(kind_of).collect::<Vec<_>>());
    }

    /// Ends the input and waits: the frames that were left, standard error, the exit code.
    pub async fn end(mut self) -> (Vec<Value>, String, Option<i32>) {
        self.stdin = None;
        self.wait().await
    }

    pub async fn wait(mut self) -> (Vec<Value>, String, Option<i32>) {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).await.unwrap();
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        (frames, stderr, status.code())
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

pub fn kind_of(frame: &Value) -> String {
    let part = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
    match part("type").as_str() {
        "system" if part("subtype") == "session_state_changed" => format!("state/{}", part("state")),
        "system" | "result" => format!("{}/{}", part("type"), part("subtype")),
        "control_request" => format!("asks/{}", frame["request"]["subtype"].as_str().unwrap_or_default()),
        "control_response" => {
            format!("answers/{}", frame["response"]["subtype"].as_str().unwrap_or_default())
        }
        kind => kind.to_owned(),
    }
}

pub fn kinds_of(frames: &[Value]) -> Vec<String> {
    frames.iter().map(kind_of).collect()
}
