//! An engine with everything real around it, and a scripted model behind its gateway.

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wardian_gateway::{Gateway, GatewayConfig};
use wardian_model::{Script, Server, ServerOptions};
use wardian_protocol::{OrgId, RequestId, SessionId};
use wardian_sandbox::{Launcher, LauncherConfig};
use wardian_session::{
    Caller, Engine, EngineConfig, RunError, RunEvent, RunReport, RunRequest, RunSink, RunStatus, Runtime,
};
use wardian_store::{EventRecord, SessionStatus, SqliteStore, Store};

pub const REAL_KEY: &str = "sk-ant-real-key-of-the-session-tests";

pub struct World {
    pub engine: Engine,
    pub store: Arc<dyn Store>,
    pub model: Server,
    pub org: OrgId,
    pub temp: TempDir,
}

impl World {
    pub async fn new(script: &str) -> Self {
        Self::with(script, |_| ()).await
    }

    pub async fn with(script: &str, change: impl FnOnce(&mut EngineConfig)) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&temp.path().join("store.db")).unwrap());
        let options = ServerOptions { expect_key: Some(REAL_KEY.to_owned()), ..ServerOptions::default() };
        let address = "127.0.0.1:0".parse().unwrap();
        let model = Server::bind(Script::parse(script).unwrap(), address, options).await.unwrap();
        let engine = start(&temp, &store, &model.base_url(), change).await.unwrap();
        let org = store.default_org().await.unwrap();
        Self { engine, store, model, org, temp }
    }

    pub fn caller(&self, user: Option<&str>) -> Caller {
        Caller { org_id: self.org.clone(), user_id: user.map(str::to_owned), key_id: None }
    }

    /// Runs and returns the report and everything that a caller saw.
    pub async fn run(&self, request: RunRequest) -> (Result<RunReport, RunError>, Vec<RunEvent>) {
        let (sink, mut events) = mpsc::channel(4);
        let run = self.engine.run(self.caller(None), request, sink, CancellationToken::new());
        let seen = async {
            let mut seen = Vec::new();
            while let Some(event) = events.recv().await {
                seen.push(event);
            }
            seen
        };
        tokio::join!(run, seen)
    }

    pub async fn report(&self, request: RunRequest) -> RunReport {
        self.run(request).await.0.unwrap()
    }

    /// The rows of a session's log.
    pub async fn log(&self, session: &SessionId) -> Vec<EventRecord> {
        let mut log: Vec<EventRecord> = Vec::new();
        loop {
            let after = log.last().map_or(0, |row| row.seq);
            let page = self.store.events(&self.org, session, after, 1000).await.unwrap();
            if page.is_empty() {
                return log;
            }
            log.extend(page);
        }
    }

    /// Nothing is left of any run: the session is idle, no sandbox, no door.
    pub async fn assert_clean(&self, session: &SessionId) {
        let record = self.store.session(&self.org, session).await.unwrap().unwrap();
        assert_eq!((record.status, record.active_run), (SessionStatus::Idle, None));
        assert_eq!(self.engine.sandboxes().await.unwrap(), [] as [String; 0]);
        let doors: Vec<_> = std::fs::read_dir(self.temp.path().join("data/doors")).unwrap().collect();
        assert!(doors.is_empty(), "{doors:?}");
        assert_eq!(self.engine.runs(), 0);
    }
}

pub async fn start(
    temp: &TempDir,
    store: &Arc<dyn Store>,
    upstream: &str,
    change: impl FnOnce(&mut EngineConfig),
) -> Result<Engine, wardian_session::StartError> {
    let owner = request_id().to_string();
    let mut config = EngineConfig::new(temp.path().join("data"), owner.clone());
    change(&mut config);
    // One clock for all.
    let gateway = GatewayConfig {
        clock: config.clock,
        ..GatewayConfig::new(upstream.parse().unwrap(), SecretString::from(REAL_KEY), owner.clone())
    };
    let gateway = Gateway::new(gateway, Arc::clone(store)).unwrap();
    let state = temp.path().join(format!("sandboxes-{owner}"));
    let launcher = Launcher::start(LauncherConfig::new(libexec(), state)).unwrap();
    Engine::start(config, Arc::clone(store), gateway, launcher).await
}

/// Starts another engine on the same folder once the one before has let go of it.
pub async fn restart(temp: &TempDir, store: &Arc<dyn Store>, upstream: &str) -> Engine {
    loop {
        match start(temp, store, upstream, |_| ()).await {
            Err(wardian_session::StartError::Owned(_)) => tokio::task::yield_now().await,
            started => return started.unwrap(),
        }
    }
}

/// Where the static binaries are: beside the folder of this test's own binary.
fn libexec() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.ancestors().nth(3).unwrap().join("guest");
    for program in ["wardian-guest", "wardian-agent"] {
        let path = folder.join(program);
        assert!(path.is_file(), "{} is missing: `make guest` builds it", path.display());
    }
    folder
}

pub fn request_id() -> RequestId {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).unwrap();
    RequestId::from_random(bits)
}

pub fn prompt(text: &str) -> RunRequest {
    RunRequest::new(request_id(), text)
}

pub fn command(argv: &[&str]) -> RunRequest {
    let mut request = prompt("say hello");
    request.runtime = Runtime::Command(argv.iter().map(|&element| element.to_owned()).collect());
    request
}

pub fn python(program: &str) -> RunRequest {
    command(&["python3", "-c", program])
}

/// A sink that nobody reads.
pub fn deaf() -> RunSink {
    mpsc::channel(1).0
}

pub fn messages(events: &[RunEvent]) -> Vec<&Value> {
    events
        .iter()
        .filter_map(|event| match event {
            RunEvent::Message(message) => Some(message),
            RunEvent::Started { .. } | RunEvent::Output { .. } => None,
        })
        .collect()
}

pub fn assert_completed(report: &RunReport) {
    assert_eq!(report.status, RunStatus::Completed, "{report:#?}");
}
