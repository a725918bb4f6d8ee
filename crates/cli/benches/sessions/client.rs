//! Clients that wait for each answer, and what they work on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::serve::Serve;
use crate::sse::PATIENCE;

/// One kept connection.
pub struct Client {
    stream: BufReader<TcpStream>,
    head: String,
}

impl Client {
    pub fn new(server: &Serve) -> Self {
        let stream = TcpStream::connect(server.address).expect("the server listens");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let head = format!("host: {}\r\nx-api-key: {}\r\n", server.address, server.key);
        Self { stream: BufReader::new(stream), head }
    }

    pub fn get(&mut self, path: &str) -> Value {
        let request = format!("GET {path} HTTP/1.1\r\n{}\r\n", self.head);
        self.call(&request)
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let (head, length) = (&self.head, body.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\n{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.call(&request)
    }

    /// The answer to a request, which must be a 200 of known length.
    fn call(&mut self, request: &str) -> Value {
        self.stream.get_mut().write_all(request.as_bytes()).expect("the server reads");
        let mut length = 0;
        let status = self.line();
        loop {
            let line = self.line().to_ascii_lowercase();
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("a body");
        assert!(status.starts_with("HTTP/1.1 200"), "{status}{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line in time");
        line
    }
}

/// The body of a session without anything but an agent and an environment, which are made.
pub fn new_session(client: &mut Client) -> Value {
    let agent = json!({"name": "helper", "model": "haiku", "tools": [{"type": "agent_toolset_20260401"}]});
    let agent = client.post("/v1/agents", &agent)["id"].take();
    let environment = client.post("/v1/environments", &json!({"name": "bench"}))["id"].take();
    json!({"agent": agent, "environment_id": environment})
}

/// Makes a session; its path.
pub fn create(client: &mut Client, body: &Value) -> String {
    let made = client.post("/v1/sessions", body);
    format!("/v1/sessions/{}", made["id"].as_str().expect("an id"))
}

/// What some clients took together.
pub struct Together<T> {
    pub walls: Vec<Duration>,
    pub all: Duration,
    pub given: Vec<T>,
}

impl<T> Together<T> {
    pub fn per_second(&self) -> f64 {
        self.walls.len() as f64 / self.all.as_secs_f64()
    }
}

/// Has so many clients do so many tasks at the same time, each one after the other.
pub fn together<T: Send>(
    server: &Serve,
    clients: usize,
    tasks: usize,
    task: impl Fn(&mut Client, usize) -> T + Sync,
) -> Together<T> {
    let begun = Instant::now();
    let done: Vec<(Duration, T)> = std::thread::scope(|scope| {
        let one = |first: usize| {
            let (task, mut client) = (&task, Client::new(server));
            scope.spawn(move || {
                let numbers = (first..tasks).step_by(clients);
                let timed = numbers.map(|number| {
                    let asked = Instant::now();
                    let given = task(&mut client, number);
                    (asked.elapsed(), given)
                });
                timed.collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..clients).map(one).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a client ends")).collect()
    });
    let all = begun.elapsed();
    let (walls, given) = done.into_iter().unzip();
    Together { walls, all, given }
}
