//! The second table: a prompt to a server.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::table::{Series, cpu_of, heading};
use crate::{BATCH, KEY, MODEL, model};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Measures and prints.
pub fn measure(runtime: &Runtime, folder: &Path, libexec: &Path, batches: usize) {
    let model = model(runtime, &json!([{"text": "Hello.", "repeat": true}]));
    let server = Serve::start(folder, libexec, &model.base_url());
    let mut tables = ["new session", "session goes on"].map(RunTable::new);
    let mut cpu = Duration::ZERO;
    for round in 0..(1 + batches) * BATCH {
        if round == BATCH {
            cpu = server.cpu();
        }
        let [new, goes_on] = &mut tables;
        let first = server.run(None);
        let session = first.session_id.clone();
        new.add(round >= BATCH, &first);
        goes_on.add(round >= BATCH, &server.run(Some(&session)));
    }
    let cpu = server.cpu() - cpu;
    server.end();
    heading("POST /v1/x/run (aim: first message 50 ms)");
    tables.iter_mut().for_each(RunTable::print);
    let cpu = cpu.as_secs_f64() * 1e3 / (2 * batches * BATCH) as f64;
    let row = "a run of either kind, all processes";
    println!("  {row:<48} {:>8} {:>8} {:>8} {cpu:>9.2}", "", "", "");
    runtime.block_on(model.shutdown());
}

/// What one request took.
#[derive(Default)]
struct RunRound {
    message: Duration,
    assistant: Duration,
    result: Duration,
    session_id: String,
}

struct RunTable([Series; 3]);

impl RunTable {
    fn new(name: &str) -> Self {
        let points = ["first message", "first assistant message", "result"];
        Self(points.map(|point| Series::new(&format!("{name} → {point}"))))
    }

    fn add(&mut self, keep: bool, round: &RunRound) {
        let [message, assistant, result] = &mut self.0;
        message.add(keep, round.message);
        assistant.add(keep, round.assistant);
        result.add(keep, round.result);
    }

    fn print(&mut self) {
        self.0.iter_mut().for_each(Series::print);
    }
}

/// A `wardian serve` as users start it. Dropped early, it is asked to end all the same.
struct Serve {
    child: Child,
    address: SocketAddr,
    key: String,
}

impl Serve {
    fn start(folder: &Path, libexec: &Path, upstream: &str) -> Self {
        let wardian = env!("CARGO_BIN_EXE_wardian");
        let data = folder.join("data");
        let log = File::create(folder.join("serve.log")).expect("a log");
        let mut child = Command::new(wardian)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--upstream",
                upstream,
                "--allow-no-cgroup",
                "--data-dir",
            ])
            .arg(&data)
            .arg("--libexec-dir")
            .arg(libexec)
            .env("ANTHROPIC_API_KEY", KEY)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line when it is ready");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("not ready: {}", fs::read_to_string(folder.join("serve.log")).unwrap_or_default())
        });
        let address = ready["listening"].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let mut keys = Command::new(wardian);
        keys.args(["keys", "create", "--name", "bench", "--scope", "sessions", "--data-dir"]).arg(&data);
        let key = keys.output().expect("it starts");
        assert!(key.status.success(), "{}", String::from_utf8_lossy(&key.stderr));
        let key = String::from_utf8(key.stdout).expect("a key").trim().to_owned();
        Self { child, address, key }
    }

    /// One prompt, its events timed as they come.
    fn run(&self, session_id: Option<&str>) -> RunRound {
        let mut body = json!({"prompt": "Go.", "model": MODEL, "stream": true, "user": "bench"});
        if let Some(session_id) = session_id {
            body["session_id"] = json!(session_id);
        }
        let body = body.to_string();
        let request = format!(
            "POST /v1/x/run HTTP/1.1\r\nhost: {}\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            self.key,
            body.len(),
        );
        let mut round = RunRound::default();
        let start = Instant::now();
        let mut stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.write_all(request.as_bytes()).expect("the server reads");
        let mut events = Events::of(stream);
        loop {
            let (name, data) = events.next();
            let at = start.elapsed();
            if name == "message" && round.message.is_zero() {
                round.message = at;
            }
            if name == "message" && data["type"] == "assistant" && round.assistant.is_zero() {
                round.assistant = at;
            }
            assert_ne!(name, "error", "{data}");
            if name == "run_result" {
                assert_eq!(data["status"], "completed", "{data}");
                round.result = at;
                round.session_id = data["session_id"].as_str().expect("an id").to_owned();
                return round;
            }
        }
    }

    /// Of the server and of its launcher, which waits for the sandboxes.
    fn cpu(&self) -> Duration {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it lives");
        let children = children.split_whitespace().map(|child| child.parse().expect("a number"));
        cpu_of(pid) + children.map(cpu_of).sum::<Duration>()
    }

    fn end(mut self) {
        self.terminate();
        assert!(self.child.wait().expect("it ends").success(), "the server ends in order");
    }

    fn terminate(&self) {
        if let Some(pid) = self.child.id().try_into().ok().and_then(Pid::from_raw) {
            // When it has ended already there is nothing to end.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.terminate();
            let _ = self.child.wait();
        }
    }
}

/// Server-sent events of a chunked answer.
struct Events {
    stream: BufReader<TcpStream>,
    text: String,
}

impl Events {
    /// Reads the head, which must be a 200.
    fn of(stream: TcpStream) -> Self {
        let mut events = Self { stream: BufReader::new(stream), text: String::new() };
        let status = events.line();
        assert!(status.starts_with("HTTP/1.1 200"), "{status}{}", events.rest());
        while !events.line().trim().is_empty() {}
        events
    }

    /// The next event's name and data; comments are passed over.
    fn next(&mut self) -> (String, Value) {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let found = field("event: ").map(str::to_owned).zip(field("data: ").map(str::to_owned));
                self.text = rest.to_owned();
                if let Some((name, data)) = found {
                    return (name, serde_json::from_str(&data).expect("JSON"));
                }
            }
            self.read_chunk();
        }
    }

    fn read_chunk(&mut self) {
        let size = usize::from_str_radix(self.line().trim(), 16).expect("a chunk's size");
        assert_ne!(size, 0, "the stream ended without a result");
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).expect("the chunk");
        self.text.push_str(std::str::from_utf8(&chunk[..size]).expect("text"));
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line in time");
        line
    }

    fn rest(&mut self) -> String {
        let mut rest = String::new();
        let _ = self.stream.read_to_string(&mut rest);
        rest
    }
}
