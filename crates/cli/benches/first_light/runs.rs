//! The second table: a prompt to a server.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Runtime;

use crate::serve::{Serve, model};
use crate::sse::{Events, PATIENCE};
use crate::table::{Series, heading};
use crate::{BATCH, MODEL};

/// Measures and prints.
pub fn measure(runtime: &Runtime, folder: &Path, libexec: &Path, batches: usize) {
    let model = model(runtime, &json!([{"text": "Hello.", "repeat": true}]));
    let server = Serve::start(folder, libexec, &model.base_url(), "");
    let mut tables = ["new session", "session goes on"].map(RunTable::new);
    let mut cpu = Duration::ZERO;
    for round in 0..(1 + batches) * BATCH {
        if round == BATCH {
            cpu = server.cpu();
        }
        let [new, goes_on] = &mut tables;
        let first = run(&server, None);
        let session = first.session_id.clone();
        new.add(round >= BATCH, &first);
        goes_on.add(round >= BATCH, &run(&server, Some(&session)));
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

/// One prompt, its events timed as they come.
fn run(server: &Serve, session_id: Option<&str>) -> RunRound {
    let mut body = json!({"prompt": "Go.", "model": MODEL, "stream": true, "user": "bench"});
    if let Some(session_id) = session_id {
        body["session_id"] = json!(session_id);
    }
    let body = body.to_string();
    let request = format!(
        "POST /v1/x/run HTTP/1.1\r\nhost: {}\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        server.address,
        server.key,
        body.len(),
    );
    let mut round = RunRound::default();
    let start = Instant::now();
    let mut stream = TcpStream::connect(server.address).expect("the server listens");
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
