//! What the tests stand on: an upstream, a store, a gateway and doors.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};
use wardian_gateway::{Door, DoorSpec, Exchange, Gateway, GatewayConfig, Grant};
use wardian_model::{Script, Server, ServerOptions};
use wardian_protocol::{NanoUsd, OrgId, RequestId, SessionId};
use wardian_store::{GroupBy, SqliteStore, Store, UsageQuery, UsageRow};

use super::client::Client;

/// The real key. Nothing that a client sees may hold it.
pub const REAL_KEY: &str = "sk-ant-real-0123456789abcdef";

/// A gateway with what it needs.
pub struct Rig {
    pub gateway: Gateway,
    pub store: Arc<dyn Store>,
    pub org_id: OrgId,
    pub folder: tempfile::TempDir,
    doors: std::sync::atomic::AtomicU8,
}

impl Rig {
    /// A gateway before `upstream`.
    pub async fn new(upstream: &str) -> Self {
        Self::with(upstream, |_| ()).await
    }

    /// The same with another configuration.
    pub async fn with(upstream: &str, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open_in_memory().unwrap());
        Self::on(upstream, store, change).await
    }

    /// The same on another store.
    pub async fn on(upstream: &str, store: Arc<dyn Store>, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let mut config = GatewayConfig::new(upstream.parse().unwrap(), REAL_KEY.into(), "test-owner");
        config.timeouts.reservation = Duration::from_millis(200);
        change(&mut config);
        let org_id = store.default_org().await.unwrap();
        let gateway = Gateway::new(config, Arc::clone(&store)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { gateway, store, org_id, folder, doors: 0.into() }
    }

    /// What a new session may do.
    pub fn grant(&self, max_cost: Option<NanoUsd>) -> Grant {
        let number = self.doors.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Grant {
            org_id: self.org_id.clone(),
            user_id: Some("alice".to_owned()),
            session_id: SessionId::from_random([number; 16]),
            run_id: RequestId::from_random([number; 16]),
            max_cost,
            models: None,
        }
    }

    /// A door for a new session.
    pub fn open(&self, grant: Grant) -> TestDoor {
        self.open_with(grant, None)
    }

    /// A door whose requests are told.
    pub fn watched(&self, max_cost: Option<NanoUsd>, places: usize) -> (TestDoor, Receiver<Exchange>) {
        let (told, exchanges) = tokio::sync::mpsc::channel(places);
        (self.open_with(self.grant(max_cost), Some(told)), exchanges)
    }

    fn open_with(&self, grant: Grant, observer: Option<Sender<Exchange>>) -> TestDoor {
        let socket = self.folder.path().join(format!("{}.sock", grant.session_id));
        let door = self.gateway.open(DoorSpec { socket: socket.clone(), grant, observer }).unwrap();
        TestDoor { door, socket }
    }

    /// A door without a limit.
    pub fn door(&self) -> TestDoor {
        self.open(self.grant(None))
    }

    /// The recorded usage, added up.
    pub async fn usage(&self) -> UsageRow {
        let rows = self.store.usage(&self.org_id, UsageQuery::default()).await.unwrap();
        rows.into_iter().next().unwrap()
    }

    /// The recorded usage by model.
    pub async fn usage_by_model(&self) -> Vec<UsageRow> {
        let query = UsageQuery { group_by: vec![GroupBy::Model], ..UsageQuery::default() };
        self.store.usage(&self.org_id, query).await.unwrap()
    }
}

/// A door and where it is.
pub struct TestDoor {
    pub door: Door,
    pub socket: PathBuf,
}

impl TestDoor {
    pub fn key(&self) -> String {
        use secrecy::ExposeSecret;
        self.door.virtual_key().expose_secret().to_owned()
    }

    /// A connection that has said the opening line.
    pub async fn connect(&self) -> Client {
        Client::open(&self.socket, &self.key()).await
    }
}

/// A scripted model API that takes only the real key.
pub async fn model(script: &str) -> Server {
    let script = Script::parse(script).unwrap();
    let options = ServerOptions { expect_key: Some(REAL_KEY.to_owned()), ..ServerOptions::default() };
    Server::bind(script, "127.0.0.1:0".parse().unwrap(), options).await.unwrap()
}

/// The body of a request.
pub fn ask(stream: bool, max_tokens: u64) -> String {
    format!(
        r#"{{"model":"claude-sonnet-5-5","max_tokens":{max_tokens},"stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#
    )
}
