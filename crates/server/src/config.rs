//! What the server is told once, when it starts.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::global::BoxedTracer;

use crate::readers::ReaderLimits;

/// How the server behaves towards its clients.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Names that a request's `Host` may have, beside the loopback names. A browser that was led here by a foreign name
    /// (DNS rebinding) is refused.
    pub hosts: Vec<String>,
    /// Origins that a browser may come from, such as `https://console.example.com`. None: a request with an `Origin` is
    /// refused, so that no web page can use this server.
    pub origins: Vec<String>,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// For the head of a request, and so also the time that a kept connection may be idle.
    pub head_timeout: Duration,
    /// For the body of a request, from its head to its last byte.
    pub body_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// Connections at one time; more wait in the listener's queue.
    pub max_connections: usize,
    /// Readers of event streams at one time.
    pub readers: ReaderLimits,
    /// How often a quiet stream says that it lives. Proxies close what is silent for longer than 15 s.
    pub keep_alive: Duration,
    /// How long runs may go on after the server was told to stop.
    pub drain_timeout: Duration,
    /// Failed logins from one address in a minute, after which it has to wait.
    pub failed_logins_per_minute: u32,
    /// What is counted.
    pub metrics: crate::Metrics,
    /// Writes a span for each request; `None` writes none.
    pub tracer: Option<Arc<BoxedTracer>>,
    /// Where metrics and health are shown without a key, if anywhere but on the routes of health.
    pub admin: Option<crate::Admin>,
    /// What environments may reach at most. One that asks for more gets this, and its answer says so.
    pub max_networking: MaxNetworking,
    /// The largest uploaded file, in bytes.
    pub max_file_bytes: u64,
    /// All uploaded files of an organisation together, in bytes.
    pub max_org_file_bytes: u64,
    /// For an upload as a whole; a client that sends nothing is cut off after `body_timeout`.
    pub upload_timeout: Duration,
    /// A tiny run from time to time that shows whether the whole way works; `None` makes none.
    pub canary: Option<crate::CanaryConfig>,
    /// How long data is kept; by default for ever.
    pub retention: wardian_session::Retention,
    /// How often is looked for what was kept for long enough.
    pub retention_every: Duration,
    /// Reads the wall clock.
    pub clock: fn() -> jiff::Timestamp,
}

/// How far sandboxes may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaxNetworking {
    /// Nowhere, but to the model through the gateway.
    #[default]
    None,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            origins: Vec::new(),
            max_body_bytes: 32 * 1024 * 1024,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            max_connections: 1024,
            readers: ReaderLimits::of(1024),
            keep_alive: Duration::from_secs(8),
            drain_timeout: Duration::from_secs(30),
            failed_logins_per_minute: 20,
            metrics: crate::Metrics::default(),
            tracer: None,
            admin: None,
            max_networking: MaxNetworking::None,
            // What the stock API takes.
            max_file_bytes: 500 * 1000 * 1000,
            max_org_file_bytes: 10 * 1024 * 1024 * 1024,
            upload_timeout: Duration::from_secs(15 * 60),
            canary: None,
            retention: wardian_session::Retention::default(),
            retention_every: Duration::from_secs(3600),
            clock: system_clock,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the server's one clock, replaced by `ServerConfig::clock`")]
fn system_clock() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
