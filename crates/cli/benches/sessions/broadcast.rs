//! The limit of fanning out: a program that sends the same bytes to as many connections at the same times, and does
//! nothing else. A process of its own, so that its CPU time is known.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::reader::micros;
use crate::table::cpu_of;

/// What this program is told to be it; the file with its [`Orders`] follows.
pub const COMMAND: &str = "raw-broadcast";

/// What to send.
#[derive(Serialize, Deserialize)]
pub struct Orders {
    /// To how many.
    pub readers: usize,
    /// Each with the time at which it is sent, in microseconds from the first.
    pub frames: Vec<(u64, String)>,
}

/// The program as others see it.
pub struct Broadcaster {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub address: SocketAddr,
}

impl Broadcaster {
    pub fn start(folder: &Path, orders: &Orders) -> Self {
        let file = folder.join("frames.json");
        fs::write(&file, serde_json::to_string(orders).expect("JSON")).expect("a file");
        let own = std::env::current_exe().expect("this program");
        let mut command = Command::new(own);
        command.arg(COMMAND).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its address");
        Self { child, stdout, address: line.trim().parse().expect("an address") }
    }

    /// Lets it send.
    pub fn go(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"go\n").expect("it reads");
    }

    /// When it sent each frame, and its CPU time so far.
    pub fn end(mut self) -> (Vec<u64>, Duration) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("its times");
        let cpu = cpu_of(self.child.id());
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("it ends").success());
        (serde_json::from_str(&line).expect("times"), cpu)
    }
}

/// Is it.
pub fn run(orders: &Path) {
    let orders = fs::read_to_string(orders).expect("its orders");
    let orders: Orders = serde_json::from_str(&orders).expect("its orders");
    Runtime::new().expect("a runtime").block_on(send(orders));
}

async fn send(orders: Orders) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let sender = broadcast::Sender::new(orders.frames.len() + 1);
    let mut writers = JoinSet::new();
    for _ in 0..orders.readers {
        let (mut stream, _) = listener.accept().await.expect("a reader");
        stream.set_nodelay(true).expect("an option");
        let mut frames: broadcast::Receiver<Bytes> = sender.subscribe();
        writers.spawn(async move {
            while let Ok(frame) = frames.recv().await {
                stream.write_all(&frame).await.expect("the reader reads");
            }
            stream
        });
    }
    tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await.expect("a word");
    let begun = Instant::now();
    let mut times = Vec::new();
    for (after, frame) in orders.frames {
        tokio::time::sleep_until(begun + Duration::from_micros(after)).await;
        times.push(micros());
        sender.send(frame.into()).expect("somebody listens");
    }
    drop(sender);
    let streams = writers.join_all().await;
    println!("{}", serde_json::to_string(&times).expect("JSON"));
    // Until the other side has read it all.
    tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await.expect("the end");
    drop(streams);
}
