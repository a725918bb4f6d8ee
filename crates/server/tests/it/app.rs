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
        Self::with_engine(script, change, |_| ()).await
    }

    pub async fn with_engine(
        script: &str,
        change: impl FnOnce(&mut ServerConfig),
        change_engine: impl FnOnce(&mut EngineConfig),
    ) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&temp.path().join("store.db")).unwrap());
        let options = ServerOptions { expect_key: Some(REAL_KEY.to_owned()), ..ServerOptions::default() };
        let local = "127.0.0.1:0".parse().unwrap();
        let model = Server::bind(Script::parse(script).unwrap(), local, options).await.unwrap();
        let upstream = model.base_url().parse().unwrap();
        let mut config =
            ServerConfig { drain_timeout: Duration::from_millis(100), ..ServerConfig::default() };
        change(&mut config);
        let mut gateway = GatewayConfig::new(upstream, SecretString::from(REAL_KEY), "server-tests");
        gateway.clock = config.clock;
        let gateway = Gateway::new(gateway, Arc::clone(&store)).unwrap();
        let launcher = LauncherConfig::new(libexec(), temp.path().join("sandboxes"));
        let launcher = Launcher::start(launcher).unwrap();
        let mut engine = EngineConfig {
            clock: config.clock,
            ..EngineConfig::new(temp.path().join("data"), "server-tests")
        };
        change_engine(&mut engine);
        let engine = Engine::start(engine, Arc::clone(&store), gateway, launcher).await.unwrap();
        let org = store.default_org().await.unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let address = ([127, 0, 0, 1], 0).into();
        let mut app = Self { address, store, model, engine, org, key: String::new(), temp, stop, tasks };
        app.listen(config).await;
        app.key = app.new_key(&[Scope::Sessions], None).await;
        app
    }

    async fn listen(&mut self, config: ServerConfig) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (engine, store) = (self.engine.clone(), Arc::clone(&self.store));
        let serving = serve(listener, config, engine, store, self.stop.clone().cancelled_owned());
        self.tasks.spawn(async move { serving.await.unwrap() });
    }

    /// Serves again after a stop, from the same folder and store. There can be no more runs.
    pub async fn serve_again(mut self) -> Self {
        (self.stop, self.tasks) = (CancellationToken::new(), TaskTracker::new());
        self.listen(ServerConfig::default()).await;
        self
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

    /// A key of an organisation of its own.
    pub async fn foreign_key(&self) -> String {
        let org: OrgId = "org_another".parse().unwrap();
        self.store.ensure_org(&org, "another").await.unwrap();
        let spec = KeySpec { name: "test".to_owned(), scopes: vec![Scope::Admin], user: None };
        let made = keys::create(self.store.as_ref(), &org, spec, jiff::Timestamp::UNIX_EPOCH).await;
        made.unwrap().1.expose_secret().to_owned()
    }

    /// Where the store lies.
    pub fn database(&self) -> PathBuf {
        self.temp.path().join("store.db")
    }

    /// Where the bytes of the organisation's files lie.
    pub fn files(&self) -> PathBuf {
        self.engine.files().join(self.org.as_str())
    }

    /// Sends a request with a body of JSON, and more headers.
    pub async fn call(
        &self,
        key: &str,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: &Value,
    ) -> Reply {
        let mut headers = vec![("x-api-key", key), ("content-type", "application/json")];
        headers.extend_from_slice(more);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        send(self.address, &request(method, path, &headers, body.as_bytes()), false).await
    }

    pub async fn delete(&self, key: &str, path: &str) -> Reply {
        self.call(key, "DELETE", path, &[], &Value::Null).await
    }

    /// Uploads a file, with more headers.
    pub async fn upload(&self, key: &str, more: &[(&str, &str)], form: &str) -> Reply {
        let kind = "multipart/form-data; boundary=XX";
        let mut headers = vec![("x-api-key", key), ("content-type", kind)];
        headers.extend_from_slice(more);
        send(self.address, &request("POST", "/v1/files", &headers, form.as_bytes()), false).await
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

/// A form with a file, for [`App::upload`].
pub fn form(filename: &str, kind: &str, content: &str) -> String {
    format!(
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\nContent-Type: {kind}\r\n\r\n\
         {content}\r\n--XX--\r\n"
    )
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
