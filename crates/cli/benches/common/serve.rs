//! A server and a model as users have them, for what is measured.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use wardian_model::{Script, Server, ServerOptions};

use crate::table::cpu_of;

/// The real key, as far as the scripted model knows.
pub const KEY: &str = "sk-ant-bench-not-a-real-key";

pub fn model(runtime: &Runtime, replies: &Value) -> Server {
    let script = Script::parse(&json!({"replies": replies}).to_string()).expect("a script");
    let options =
        ServerOptions { expect_key: Some(KEY.to_owned()), keep_requests: 1, ..ServerOptions::default() };
    let address = "127.0.0.1:0".parse().expect("an address");
    runtime.block_on(Server::bind(script, address, options)).expect("a free port")
}

pub fn libexec_dir() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest");
    let folder = std::env::var_os("WARDIAN_LIBEXEC_DIR").map_or(default, PathBuf::from);
    assert!(
        folder.join("wardian-agent").is_file(),
        "no wardian-agent in {}: run `make guest`",
        folder.display()
    );
    folder.canonicalize().expect("it is there")
}

/// A `wardian serve` as users start it. Dropped early, it is asked to end all the same.
pub struct Serve {
    child: Child,
    pub address: SocketAddr,
    pub key: String,
}

impl Serve {
    /// Starts it with these settings, and makes a key.
    pub fn start(folder: &Path, libexec: &Path, upstream: &str, settings: &str) -> Self {
        let wardian = env!("CARGO_BIN_EXE_wardian");
        let (data, config) = (folder.join("data"), folder.join("wardian.toml"));
        fs::write(&config, format!("admin_listen = \"none\"\n{settings}")).expect("a file");
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
            .arg("--config")
            .arg(&config)
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

    /// Of the server and of its launcher, which waits for the sandboxes.
    pub fn cpu(&self) -> Duration {
        self.processes().into_iter().map(cpu_of).sum()
    }

    /// The server and its launcher.
    pub fn processes(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it lives");
        let children = children.split_whitespace().map(|child| child.parse().expect("a number"));
        std::iter::once(pid).chain(children).collect()
    }

    pub fn end(mut self) {
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
