//! What a gateway is told: where the upstream is, the key for it, and every limit.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use jiff::Timestamp;
use opentelemetry::global::BoxedTracer;
use secrecy::SecretString;

/// The largest request body: what the Messages API itself takes.
pub const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// How a gateway works. [`GatewayConfig::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The upstream's base address, `http` or `https`. A path prefix is kept: `/v1/messages` is appended to it.
    pub upstream: Uri,
    /// The real key. It leaves the gateway only in the `x-api-key` header to the upstream.
    pub api_key: SecretString,
    /// Names this process, and no other ever, in the records that it opens.
    pub owner: String,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How much there may be of things.
    pub limits: Limits,
    /// What is counted.
    pub metrics: crate::Metrics,
    /// Writes a span for each model request; `None` writes none.
    pub tracer: Option<Arc<BoxedTracer>>,
    /// Tells the time.
    pub clock: fn() -> Timestamp,
}

impl GatewayConfig {
    /// A configuration with the default timeouts and limits.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the default of a parameter: the system's clock")]
    pub fn new(upstream: Uri, api_key: SecretString, owner: impl Into<String>) -> Self {
        let (timeouts, limits, metrics, tracer) = Default::default();
        let (owner, clock) = (owner.into(), Timestamp::now);
        Self { upstream, api_key, owner, timeouts, limits, metrics, tracer, clock }
    }
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From the connection to the end of the opening line. The guest sends it at once.
    pub opening: Duration,
    /// For the head of a request, and so also the time that a kept connection may be idle.
    pub request_head: Duration,
    /// For the body of a request, from its head to its last byte.
    pub request_body: Duration,
    /// For a new connection to the upstream: name, TCP and TLS.
    pub connect: Duration,
    /// From the request to the head of the reply. A reply in one piece has no head until the model is done: stock clients
    /// wait ten minutes.
    pub response_head: Duration,
    /// Between two pieces of the reply, pings included. Longer than the 300 s after which stock clients give up.
    pub response_idle: Duration,
    /// For a piece of the reply that the client does not take.
    pub client_idle: Duration,
    /// For the free call that counts the tokens of a request.
    pub count_tokens: Duration,
    /// How long a request waits when only the reservations of other requests are in its way.
    pub reservation: Duration,
    /// How long settling a record is tried again. What is not settled then, a later start of the server settles at its
    /// bound.
    pub settle: Duration,
    /// How long an idle connection to the upstream is kept.
    pub pool_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            opening: Duration::from_secs(10),
            request_head: Duration::from_secs(120),
            request_body: Duration::from_secs(60),
            connect: Duration::from_secs(10),
            response_head: Duration::from_secs(600),
            response_idle: Duration::from_secs(600),
            client_idle: Duration::from_secs(300),
            count_tokens: Duration::from_secs(10),
            reservation: Duration::from_secs(2),
            settle: Duration::from_secs(10),
            pool_idle: Duration::from_secs(60),
        }
    }
}

/// How much there may be of things.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest request body; over it the answer is 413.
    pub body_bytes: usize,
    /// Request bodies in memory at one time, for one door. Every body reserves the length that it announces.
    pub buffered_bytes: usize,
    /// Connections open at one time, for one door; each takes up to two file descriptors. More wait in the listener's
    /// queue.
    pub connections: usize,
    /// The head of a request, all header lines together.
    pub head_bytes: usize,
    /// Header lines of a request.
    pub headers: usize,
    /// The largest reply in one piece that is metered. Over it the request is settled at its bound.
    pub metered_bytes: usize,
    /// Idle connections to the upstream that are kept.
    pub pool_idle: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: MAX_BODY_BYTES,
            buffered_bytes: 4 * MAX_BODY_BYTES,
            connections: 128,
            head_bytes: 64 * 1024,
            headers: 100,
            metered_bytes: 16 * 1024 * 1024,
            pool_idle: 32,
        }
    }
}
