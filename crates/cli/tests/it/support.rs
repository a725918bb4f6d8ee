//! A `wardian serve` of its own for each test, a model behind it, and a client in front of it.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use wardian_model::{Script, Server, ServerOptions};

/// Nothing that a test waits for takes this long, however loaded the machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What differs from test to test.
#[derive(Default)]
pub struct Options {
    /// `--read-only`: folders of the host in every sandbox.
    pub read_only: Vec<PathBuf>,
    /// More arguments of `wardian serve`.
    pub args: Vec<String>,
    /// Where the models are, when not at this test's own model server.
    pub upstream: Option<String>,
    /// The data folder, when not one of its own.
    pub data_dir: Option<PathBuf>,
}

/// A running server with its data folder and the model behind it. Dropping it ends all of them.
pub struct Wardian {
    pub model: Server,
    /// The provider key, which only this server was given.
    pub real_key: String,
    /// A key of scope `sessions`, bound to nobody.
    pub key: String,
    pub address: SocketAddr,
    temp: TempDir,
    options: Options,
    process: Process,
    starts: u32,
}

/// The server's process.
struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// The launcher, which outlives a killed server for some milliseconds.
    launcher: Option<OwnedFd>,
    /// What it said when it was ready.
    ready: Value,
}

impl Wardian {
    /// Starts a model with this script and a server in front of it.
    pub async fn start(script: &str, options: Options) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let real_key = format!("sk-ant-api03-{}", random_word());
        let expect = ServerOptions { expect_key: Some(real_key.clone()), ..ServerOptions::default() };
        let local = "127.0.0.1:0".parse().unwrap();
        let model = Server::bind(Script::parse(script).unwrap(), local, expect).await.unwrap();
        let log = temp.path().join("log-1");
        let upstream = options.upstream.clone().unwrap_or_else(|| model.base_url());
        let data = options.data_dir.clone().unwrap_or_else(|| temp.path().join("data"));
        let (process, address) = Process::start(&data, &log, &upstream, &real_key, &options).await;
        let mut wardian =
            Self { model, real_key, key: String::new(), address, temp, options, process, starts: 1 };
        wardian.key = wardian.create_key(&["--scope", "sessions"]).await;
        wardian
    }

    pub fn data_dir(&self) -> PathBuf {
        self.options.data_dir.clone().unwrap_or_else(|| self.temp.path().join("data"))
    }

    /// The folder of everything: data and logs.
    pub fn folder(&self) -> &Path {
        self.temp.path()
    }

    pub fn session_dir(&self, session: &str) -> PathBuf {
        self.data_dir().join("sessions").join(session)
    }

    pub fn workspace(&self, session: &str) -> PathBuf {
        self.session_dir(session).join("workspace")
    }

    /// The server's process id.
    pub fn pid(&self) -> i32 {
        self.process.child.id().unwrap().cast_signed()
    }

    /// What the server said of itself when it was ready.
    pub fn ready(&self, name: &str) -> Value {
        self.process.ready[name].clone()
    }

    /// Where the server shows its metrics.
    pub fn admin(&self) -> SocketAddr {
        self.process.ready["admin"].as_str().expect("--admin-listen").parse().unwrap()
    }

    /// What a scrape of the server's metrics gives.
    pub async fn metrics(&self) -> String {
        let answer = self.send_to(self.admin(), "GET", "", "/metrics", &Value::Null).await.whole().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// How much isolation the server's sandboxes have.
    pub fn tier(&self) -> &str {
        self.process.ready["tier"].as_str().unwrap()
    }

    /// What this server, and those before it in this test, wrote to stderr.
    pub fn log(&self) -> String {
        let logs = (1..=self.starts).map(|start| self.temp.path().join(format!("log-{start}")));
        logs.map(|log| std::fs::read_to_string(log).unwrap_or_default()).collect()
    }

    /// `wardian keys create` beside the running server; the key is all that it prints.
    pub async fn create_key(&self, args: &[&str]) -> String {
        let mut command = wardian();
        command.args(["keys", "create", "--data-dir"]).arg(self.data_dir()).args(args);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        let key = String::from_utf8(output.stdout).unwrap();
        assert!(key.starts_with("sk-wardian-") && key.lines().count() == 1, "{key:?}");
        key.trim_end().to_owned()
    }

    pub async fn get(&self, key: &str, path: &str) -> Reply {
        self.send("GET", key, path, &Value::Null).await.whole().await
    }

    pub async fn post(&self, key: &str, path: &str, body: &Value) -> Reply {
        self.send("POST", key, path, body).await.whole().await
    }

    /// `POST /v1/x/run` with the key bound to nobody.
    pub async fn run(&self, body: &Value) -> Reply {
        self.post(&self.key, "/v1/x/run", body).await
    }

    /// `POST /v1/x/run` with `stream`.
    pub async fn stream(&self, key: &str, body: &Value) -> Events {
        let mut body = body.clone();
        body["stream"] = Value::Bool(true);
        self.send("POST", key, "/v1/x/run", &body).await
    }

    /// Any request; its answer is read as it comes.
    pub async fn send(&self, method: &str, key: &str, path: &str, body: &Value) -> Events {
        self.send_to(self.address, method, key, path, body).await
    }

    /// The same to another address of this server.
    async fn send_to(
        &self,
        address: SocketAddr,
        method: &str,
        key: &str,
        path: &str,
        body: &Value,
    ) -> Events {
        let asked = Asked { address, method, path, headers: &[("x-api-key", key)], body };
        asked.send().await.expect("an answer")
    }

    /// `kill -9`; returns when the server's process is gone, which is before all that it started is.
    pub async fn kill(&mut self) {
        self.process.child.start_kill().unwrap();
        self.process.child.wait().await.unwrap();
    }

    /// Starts another server with the same data folder.
    pub async fn restart(&mut self) {
        self.starts += 1;
        let log = self.temp.path().join(format!("log-{}", self.starts));
        let upstream = self.options.upstream.clone().unwrap_or_else(|| self.model.base_url());
        let (process, address) =
            Process::start(&self.data_dir(), &log, &upstream, &self.real_key, &self.options).await;
        self.process = process;
        self.address = address;
    }

    /// `SIGTERM`: the server has to end in order. Returns what it printed after its first line.
    pub async fn stop(&mut self) -> String {
        kill_process(Pid::from_raw(self.pid()).unwrap(), Signal::TERM).unwrap();
        let mut rest = String::new();
        let ended = async {
            self.process.stdout.read_to_string(&mut rest).await.unwrap();
            self.process.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(PATIENCE, ended).await.expect("the server ends at SIGTERM");
        assert!(status.success(), "{status}: {}", self.log());
        rest
    }
}

/// A request to anybody.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub address: SocketAddr,
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a Value,
}

impl Asked<'_> {
    /// The answer; none when nobody is there, or goes before the answer begins.
    pub async fn send(self) -> Option<Events> {
        let stream = TcpStream::connect(self.address).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { connection.await.unwrap_or_default() });
        let mut request = Request::builder().method(self.method).uri(self.path).header("host", "localhost");
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        let request = request.header("content-type", "application/json");
        let body = if self.body.is_null() { Bytes::new() } else { self.body.to_string().into() };
        let request = request.body(Full::new(body)).unwrap();
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("an answer");
        let (head, body) = answer.ok()?.into_parts();
        Some(Events {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            read: BytesMut::new(),
            is_cut: false,
            _sender: sender,
            _tasks: tasks,
        })
    }
}

impl Drop for Wardian {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

impl Process {
    async fn start(
        data: &Path,
        log: &Path,
        upstream: &str,
        real_key: &str,
        options: &Options,
    ) -> (Self, SocketAddr) {
        let mut command = wardian();
        command.args(["serve", "--listen", "127.0.0.1:0", "--upstream", upstream]);
        // The tests run without root, too.
        command.arg("--allow-no-cgroup");
        command.arg("--data-dir").arg(data).arg("--libexec-dir").arg(libexec_dir());
        for folder in &options.read_only {
            command.arg("--read-only").arg(folder);
        }
        command.args(&options.args).env("ANTHROPIC_API_KEY", real_key);
        command.stdout(Stdio::piped()).stderr(File::create(log).unwrap()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let read =
            tokio::time::timeout(PATIENCE, stdout.read_line(&mut line)).await.expect("the server starts");
        read.unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
            panic!("{error}: {line:?}: {}", std::fs::read_to_string(log).unwrap_or_default())
        });
        let address = ready["listening"].as_str().unwrap().parse().unwrap();
        let server = child.id().unwrap().cast_signed();
        let launcher = children(server).into_iter().find(|pid| comm(*pid) == "wardian-guest");
        let launcher =
            launcher.map(|pid| pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap());
        (Self { child, stdout, launcher, ready }, address)
    }
}

impl Drop for Process {
    /// The data folder can be removed once nobody works in it.
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        if let Some(launcher) = &self.launcher {
            let end = Timespec { tv_sec: 10, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(launcher, PollFlags::IN)], Some(&end));
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    pub fn error_type(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["error"]["type"].as_str().unwrap_or_default().to_owned()
    }

    /// The report of a run that ended well.
    pub fn report(&self) -> Value {
        assert_eq!(self.status, 200, "{self:#?}");
        self.json()
    }
}

/// An answer that is still coming.
pub struct Events {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    read: BytesMut,
    is_cut: bool,
    _sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    _tasks: tokio::task::JoinSet<()>,
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    /// Its place in a session's log.
    pub seq: Option<u64>,
    pub data: Value,
}

impl Events {
    /// The next event; `None` at the end, and when the connection broke.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.read.windows(2).position(|bytes| bytes == b"\n\n") {
                let event = self.read.split_to(end + 2);
                if let Some(event) = parse(std::str::from_utf8(&event).unwrap()) {
                    return Some(event);
                }
            } else if !self.more().await {
                return None;
            }
        }
    }

    /// The next event for which this holds.
    pub async fn wait_for(&mut self, holds: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if holds(&event) {
                return event;
            }
        }
    }

    /// Everything to the end.
    pub async fn whole(mut self) -> Reply {
        while self.more().await {}
        let body = String::from_utf8(self.read.to_vec()).unwrap();
        Reply { status: self.status, headers: self.headers, body }
    }

    /// Everything to the end, unless the connection broke before.
    pub async fn unbroken(mut self) -> Option<Reply> {
        while self.more().await {}
        if self.is_cut { None } else { Some(self.whole().await) }
    }

    async fn more(&mut self) -> bool {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("the answer goes on");
        let Some(Ok(frame)) = frame else {
            self.is_cut |= frame.is_some();
            return false;
        };
        if let Some(data) = frame.data_ref() {
            self.read.extend_from_slice(data);
        }
        true
    }
}

fn parse(text: &str) -> Option<Event> {
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
    let data = serde_json::from_str(field("data: ")?).unwrap();
    let seq = field("id: ").map(|seq| seq.parse().unwrap());
    Some(Event { name: field("event: ")?.to_owned(), seq, data })
}

/// The binary, with nothing of this process's environment but the path.
pub fn wardian() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wardian"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("WARDIAN_LIBEXEC_DIR", libexec_dir()).stdin(Stdio::null());
    command
}

/// Where the static binaries are: `WARDIAN_LIBEXEC_DIR`, or `guest` beside the folder of this test's own binary.
pub fn libexec_dir() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let default = own.ancestors().nth(3).unwrap().join("guest");
    let folder = std::env::var_os("WARDIAN_LIBEXEC_DIR").map_or(default, PathBuf::from);
    for program in ["wardian-guest", "wardian-agent"] {
        let path = folder.join(program);
        assert!(path.is_file(), "{} is missing: `make guest` builds it", path.display());
    }
    folder
}

/// Letters and digits that nobody else has.
pub fn random_word() -> String {
    let mut bytes = [0; 40];
    getrandom::fill(&mut bytes).unwrap();
    bytes.iter().map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyzABCDEF"[usize::from(byte % 32)])).collect()
}

/// The processes that this one started.
pub fn children(parent: i32) -> Vec<i32> {
    processes().into_iter().filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// Every process of the host.
pub fn processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Every process below this one.
pub fn descendants(root: i32) -> Vec<i32> {
    let mut found = children(root);
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children(pid));
        next += 1;
    }
    found
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The short name of a process.
pub fn comm(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Waits for what no event tells: a file, a process. Returns what `look` found.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}
