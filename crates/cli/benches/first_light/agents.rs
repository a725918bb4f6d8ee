//! The first table: the agent alone.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::serve::{KEY, model};
use crate::table::{Series, cpu_fields, heading};
use crate::{BATCH, MODEL};

/// The stock CLI: median milliseconds from its start, CPU, MiB. source: npm `@anthropic-ai/claude-agent-sdk` 0.3.330 and
/// its native program on a quiet machine with two cores and a model without delay, 11 rounds. These are of that machine.
const STOCK: [Stock; 2] = [
    Stock { name: "one turn", initialize: 257, assistant: 341, result: 359, cpu: 441, peak_mib: 207 },
    Stock { name: "five tools", initialize: 268, assistant: 352, result: 560, cpu: 688, peak_mib: 236 },
];

struct Stock {
    name: &'static str,
    initialize: u32,
    assistant: u32,
    result: u32,
    cpu: u32,
    peak_mib: u32,
}

/// Measures and prints.
pub fn measure(runtime: &Runtime, folder: &Path, agent: &Path, batches: usize) {
    let text = model(runtime, &json!([{"text": "Hello.", "repeat": true}]));
    let tools = model(runtime, &five_tools((1 + batches) * BATCH));
    let mut limit = Series::new("the limit: wardian-agent --version, to its exit");
    let mut tables = [AgentTable::new("one turn"), AgentTable::new("five tools")];
    // The first batch is the warm-up.
    for batch in 0..=batches {
        let cpu = reaped_cpu();
        for _ in 0..BATCH {
            limit.add(batch > 0, only_start(agent));
        }
        limit.add_cpu(batch > 0, reaped_cpu() - cpu);
        for (server, table) in [&text, &tools].into_iter().zip(&mut tables) {
            let cpu = reaped_cpu();
            for _ in 0..BATCH {
                let cwd = tempfile::tempdir_in(folder).expect("a folder");
                fs::write(cwd.path().join("there.txt"), "one\ntwo\nthree\n").expect("a file");
                table.add(batch > 0, &one_agent(agent, &server.base_url(), cwd.path()));
            }
            table.result.add_cpu(batch > 0, reaped_cpu() - cpu);
        }
    }
    heading("wardian-agent, from its start (aim: result 30 ms)");
    limit.print();
    tables.iter_mut().for_each(AgentTable::print);
    println!("  reference, measured elsewhere: the stock CLI, p50 of 11");
    for Stock { name, initialize, assistant, result, cpu, peak_mib } in STOCK {
        println!("  {:<48} {:>8} {initialize:>8}", format!("  {name} → initialize reply"), "");
        println!("  {:<48} {:>8} {assistant:>8}", format!("  {name} → first assistant message"), "");
        let row = format!("  {name} → result");
        println!("  {row:<48} {:>8} {result:>8} {:>8} {cpu:>9} {peak_mib:>9}", "", "");
    }
    assert_eq!(tools.unused_replies(), 0, "every round took its six replies");
    runtime.block_on(async { tokio::join!(text.shutdown(), tools.shutdown()) });
}

/// CPU time of the children that have ended and been waited for, and theirs.
fn reaped_cpu() -> Duration {
    cpu_fields("self", 2)
}

/// The least that a program of this size takes to start and end here.
fn only_start(agent: &Path) -> Duration {
    let start = Instant::now();
    let status = Command::new(agent).arg("--version").env_clear().stdout(Stdio::null()).status();
    assert!(status.expect("it starts").success());
    start.elapsed()
}

/// What one agent took, and the most memory it had.
#[derive(Default)]
struct AgentRound {
    initialize: Duration,
    assistant: Duration,
    result: Duration,
    exit: Duration,
    peak_kib: u64,
}

struct AgentTable {
    initialize: Series,
    assistant: Series,
    result: Series,
    exit: Series,
}

impl AgentTable {
    fn new(name: &str) -> Self {
        let series = |point| Series::new(&format!("{name} → {point}"));
        Self {
            initialize: series("initialize reply"),
            assistant: series("first assistant message"),
            result: series("result"),
            exit: series("exit"),
        }
    }

    fn add(&mut self, keep: bool, round: &AgentRound) {
        self.initialize.add(keep, round.initialize);
        self.assistant.add(keep, round.assistant);
        self.result.add(keep, round.result);
        if keep {
            self.result.peaks_kib.push(round.peak_kib);
        }
        self.exit.add(keep, round.exit);
    }

    fn print(&mut self) {
        for series in [&mut self.initialize, &mut self.assistant, &mut self.result, &mut self.exit] {
            series.print();
        }
    }
}

/// Starts an agent, gives it one prompt, and lets it end once its memory was read.
fn one_agent(agent: &Path, base_url: &str, cwd: &Path) -> AgentRound {
    let mut round = AgentRound::default();
    let start = Instant::now();
    let mut agent = Agent::start(agent, base_url, cwd);
    agent.send(&json!({"type": "control_request", "request_id": "1", "request": {"subtype": "initialize"}}));
    agent.send(&json!({"type": "user", "session_id": "", "parent_tool_use_id": null,
        "message": {"role": "user", "content": [{"type": "text", "text": "Go."}]}}));
    loop {
        let (frame, at) = (agent.next(), start.elapsed());
        match frame["type"].as_str().unwrap_or_default() {
            "control_response" => round.initialize = at,
            "assistant" if round.assistant.is_zero() => round.assistant = at,
            "user" => assert_ne!(frame["message"]["content"][0]["is_error"], true, "{frame}"),
            "result" => {
                assert_eq!(frame["subtype"], "success", "{frame}");
                round.result = at;
                break;
            }
            _ => (),
        }
    }
    round.peak_kib = agent.peak_kib();
    let before_exit = Instant::now();
    agent.end();
    round.exit = round.result + before_exit.elapsed();
    round
}

struct Agent {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Agent {
    fn start(program: &Path, base_url: &str, cwd: &Path) -> Self {
        let mut child = Command::new(program)
            .args(["--output-format", "stream-json", "--verbose", "--input-format", "stream-json"])
            .args(["--model", MODEL, "--permission-mode", "acceptEdits", "--allowedTools", "Bash"])
            .arg("--setting-sources=")
            .current_dir(cwd)
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("ANTHROPIC_API_KEY", KEY), ("ANTHROPIC_BASE_URL", base_url)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, stdin, stdout }
    }

    fn send(&mut self, frame: &Value) {
        self.stdin.write_all(format!("{frame}\n").as_bytes()).expect("the agent reads");
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line).expect("the agent writes");
        assert!(read > 0, "the agent ended before its result");
        serde_json::from_str(&line).expect("a frame")
    }

    fn peak_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("it waits for more");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn end(mut self) {
        drop(self.stdin);
        self.stdout.read_to_end(&mut Vec::new()).expect("the rest");
        assert!(self.child.wait().expect("it ends").success());
    }
}

/// Read, Bash, Write, Edit, Bash, then text, for each round: six requests, as in the stock CLI's measurement.
fn five_tools(rounds: usize) -> Value {
    let calls = [
        json!({"name": "Read", "input": {"file_path": "there.txt"}}),
        json!({"name": "Bash", "input": {"command": "ls"}}),
        json!({"name": "Write", "input": {"file_path": "new.txt", "content": "one\n"}}),
        json!({"name": "Edit", "input": {"file_path": "new.txt", "old_string": "one", "new_string": "two"}}),
        json!({"name": "Bash", "input": {"command": "cat new.txt"}}),
    ];
    let last = json!({"text": "Done."});
    let one_round = calls.into_iter().map(|call| json!({"tool_use": [call]})).chain([last]);
    let replies: Vec<Value> = one_round.collect();
    Value::Array(std::iter::repeat_n(replies, rounds).flatten().collect())
}
