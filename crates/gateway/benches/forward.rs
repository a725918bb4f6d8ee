//! What the gateway adds: the same requests to the model server directly and through a door, in one run.
//!
//! `cargo bench -p wardian-gateway --bench forward`. Client, gateway and model server share the process and its two
//! threads, so the requests per second are those of all three together; compare the rows, not the machine.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use wardian_gateway::{Door, DoorSpec, Gateway, GatewayConfig, Grant, OPENING_LINE};
use wardian_model::{Script, Server, ServerOptions};
use wardian_protocol::{RequestId, SessionId};
use wardian_store::{SqliteStore, Store};

/// Requests one after the other, for the latencies.
const SEQUENTIAL: usize = 1500;
/// Connections at once, for the throughput.
const CONNECTIONS: usize = 32;
/// How long the throughput is measured.
const BURST: Duration = Duration::from_secs(2);

const REAL_KEY: &str = "sk-bench";

#[derive(Clone)]
enum Target {
    Direct(std::net::SocketAddr),
    Door(PathBuf, String),
}

impl Target {
    async fn connect(&self, tasks: &TaskTracker) -> SendRequest<Full<Bytes>> {
        match self {
            Self::Direct(address) => {
                let stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                speak(stream, tasks).await
            }
            Self::Door(socket, _) => {
                let mut stream = UnixStream::connect(socket).await.unwrap();
                stream.write_all(OPENING_LINE.as_bytes()).await.unwrap();
                speak(stream, tasks).await
            }
        }
    }

    fn key(&self) -> &str {
        match self {
            Self::Direct(_) => REAL_KEY,
            Self::Door(_, key) => key,
        }
    }
}

async fn speak<S>(stream: S, tasks: &TaskTracker) -> SendRequest<Full<Bytes>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tasks.spawn(async move { drop(connection.await) });
    sender
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, target: &Target, body: &Bytes) -> usize {
    let request = Request::post("/v1/messages?beta=true")
        .header("host", "localhost")
        .header("x-api-key", target.key())
        .header("anthropic-version", "2023-06-01")
        .header("content-type", "application/json")
        .body(Full::new(body.clone()))
        .unwrap();
    sender.ready().await.unwrap();
    let reply = sender.send_request(request).await.unwrap();
    assert_eq!(reply.status(), 200);
    reply.into_body().collect().await.unwrap().to_bytes().len()
}

async fn measure(name: &str, target: &Target, body: &Bytes) {
    let tasks = TaskTracker::new();
    let mut sender = target.connect(&tasks).await;
    for _ in 0..100 {
        ask(&mut sender, target, body).await;
    }
    let mut times = Vec::with_capacity(SEQUENTIAL);
    for _ in 0..SEQUENTIAL {
        let began = Instant::now();
        ask(&mut sender, target, body).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;

    let mut burst = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (target, body, mut sender) = (target.clone(), body.clone(), target.connect(&tasks).await);
        burst.spawn(async move {
            let (began, mut done) = (Instant::now(), 0_u32);
            while began.elapsed() < BURST {
                ask(&mut sender, &target, &body).await;
                done += 1;
            }
            done
        });
    }
    let (began, cpu_before) = (Instant::now(), cpu_ms());
    let done: u32 = burst.join_all().await.into_iter().sum();
    let rate = f64::from(done) / began.elapsed().as_secs_f64();
    let cpu = (cpu_ms() - cpu_before) * 1000.0 / f64::from(done);
    println!("{name:<42} {:>8.3} {:>8.3} {rate:>9.0} {cpu:>9.0}", at(50), at(99));
}

/// The processor time of the process so far; steadier than the clock on a machine that others use, too.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system time in ticks of 10 ms.
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() * 10.0).sum()
}

async fn door(url: &str, store: Arc<dyn Store>, socket: PathBuf) -> Door {
    let config = GatewayConfig::new(url.parse().unwrap(), REAL_KEY.into(), "bench");
    let org_id = store.default_org().await.unwrap();
    let gateway = Gateway::new(config, store).unwrap();
    let grant = Grant {
        org_id,
        user_id: None,
        session_id: SessionId::from_random([1; 16]),
        run_id: RequestId::from_random([1; 16]),
        max_cost: Some(wardian_protocol::NanoUsd::from_usd(100_000)),
        models: None,
    };
    gateway.open(DoorSpec { socket, grant, observer: None }).unwrap()
}

async fn run() {
    // 30 events: message_start, ping, a block of 25 pieces, message_delta, message_stop.
    let text = "twelve bytes".repeat(25);
    let script = format!(
        r#"{{"replies":[{{"text":"{text}","chunk_bytes":12,"repeat":true,"usage":{{"input_tokens":20,"output_tokens":75}}}}]}}"#
    );
    let options = ServerOptions { keep_requests: 1, ..ServerOptions::default() };
    let model =
        Server::bind(Script::parse(&script).unwrap(), "127.0.0.1:0".parse().unwrap(), options).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let memory: Arc<dyn Store> = Arc::new(SqliteStore::open_in_memory().unwrap());
    let disk: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.path().join("store.sqlite")).unwrap());
    let doors = [
        ("store in memory", door(&model.base_url(), memory, folder.path().join("m.sock")).await),
        ("store on disk", door(&model.base_url(), disk, folder.path().join("d.sock")).await),
    ];
    println!("{:<42} {:>8} {:>8} {:>9} {:>9}", "", "p50 ms", "p99 ms", "req/s", "CPU ms/1k");
    for (kind, stream) in [("JSON", false), ("SSE, 30 events", true)] {
        let body = Bytes::from(format!(
            r#"{{"model":"claude-sonnet-5-5","max_tokens":100,"stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#
        ));
        measure(&format!("{kind}, direct"), &Target::Direct(model.addr()), &body).await;
        for ((name, door), socket) in doors.iter().zip(["m.sock", "d.sock"]) {
            let key = door.virtual_key().expose_secret().to_owned();
            let target = Target::Door(folder.path().join(socket), key);
            measure(&format!("{kind}, gateway, {name}"), &target, &body).await;
        }
    }
    for (_, door) in doors {
        let spent = door.close().await;
        println!(
            "spent {} on {} requests",
            spent.cost,
            spent.by_model.values().map(|model| model.requests).sum::<u64>()
        );
    }
}

fn main() {
    // `cargo test --benches` and nextest only want to know that it builds and starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(Box::pin(run()));
}
