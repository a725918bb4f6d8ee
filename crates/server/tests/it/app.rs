//! A server with everything real behind it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wardian_gateway::{Gateway, GatewayConfig};
use wardian_model::{Script, Server, ServerOptions};
use wardian_protocol::{KeyId, OrgId};
use wardian_sandbox::{Launcher, LauncherConfig};
use wardian_server::keys::{self, KeySpec};
use wardian_server::{ServerConfig, serve};
use wardian_session::{Engine, EngineConfig};
use wardian_store::{Scope, SqliteStore, Store};

use super::client::{Reply, request, send};

pub const REAL_KEY: &str = "sk-ant-real-key-of-the-server-tests";

pub struct App {
    pub address: SocketAddr,
    pub store: Arc<dyn Store>,
    pub model: Server,
    pub engine: Engine,
    pub org: OrgId,
    /// Scope `sessions`, no user.
    pub key: String,
    temp: TempDir,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl App {
    pub async fn new(script: &str) -> Self {
        Self::with(script, |_| ()).await
    }

    pub async fn with(script: &str, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&temp.path().join("store.db")).unwrap());
        let options = ServerOptions { expect_key: Some(REAL_KEY.to_owned()), ..ServerOptions::default() };
        let local = "127.0.0.1:0".parse().unwrap();
        let model = Server::bind(Script::parse(script).unwrap(), local, options).await.unwrap();
        let upstream = model.base_url().parse().unwrap();
        let gateway = GatewayConfig::new(upstream, SecretString::from(REAL_KEY), "server-tests");
        let gateway = Gateway::new(gateway, Arc::clone(&store)).unwrap();
        let launcher = LauncherConfig::new(libexec(), temp.path().join("sandboxes"));
        let launcher = Launcher::start(launcher).unwrap();
        let engine = EngineConfig::new(temp.path().join("data"), "server-tests");
        let engine = Engine::start(engine, Arc::clone(&store), gateway, launcher).await.unwrap();
        let org = store.default_org().await.unwrap();
        let mut config =
            ServerConfig { drain_timeout: Duration::from_millis(100), ..ServerConfig::default() };
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let serving =
            serve(listener, config, engine.clone(), Arc::clone(&store), stop.clone().cancelled_owned());
        tasks.spawn(async move { serving.await.unwrap() });
        let mut app = Self { address, store, model, engine, org, key: String::new(), temp, stop, tasks };
        app.key = app.new_key(&[Scope::Sessions], None).await;
        app
    }

    pub async fn new_key(&self, scopes: &[Scope], user: Option<&str>) -> String {
        self.new_key_with_id(scopes, user).await.1
    }

    pub async fn new_key_with_id(&self, scopes: &[Scope], user: Option<&str>) -> (KeyId, String) {
        let user = user.map(str::to_owned);
        let spec = KeySpec { name: "test".to_owned(), scopes: scopes.to_vec(), user };
        let at = jiff::Timestamp::UNIX_EPOCH;
        let (id, key) = keys::create(self.store.as_ref(), &self.org, spec, at).await.unwrap();
        (id, key.expose_secret().to_owned())
    }

    pub async fn get(&self, key: &str, path: &str) -> Reply {
        send(self.address, &request("GET", path, &[("x-api-key", key)], b""), false).await
    }

    pub async fn post(&self, key: &str, path: &str, body: &Value) -> Reply {
        let headers = [("x-api-key", key), ("content-type", "application/json")];
        send(self.address, &request("POST", path, &headers, body.to_string().as_bytes()), false).await
    }

    pub async fn run(&self, body: &Value) -> Reply {
        self.post(&self.key, "/v1/x/run", body).await
    }

    /// Starts another launcher in the place of one that died, which removes what that one left.
    pub fn sweep(&self) {
        let config = LauncherConfig::new(libexec(), self.temp.path().join("sandboxes"));
        drop(Launcher::start(config).unwrap());
    }

    /// Stops the server and waits until nothing of it is left.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        assert_eq!(self.engine.runs(), 0);
        assert_eq!(self.engine.sandboxes().await.unwrap(), [] as [String; 0]);
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
