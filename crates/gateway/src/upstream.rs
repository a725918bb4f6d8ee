//! The one host that requests go to: its address, the key for it, and the connections to it, which all doors share.

use std::error::Error as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use secrecy::ExposeSecret;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::headers;
use crate::{Error, GatewayConfig};

/// How long the other address family is waited for before both are tried.
const HAPPY_EYEBALLS: Duration = Duration::from_millis(300);

/// The upstream.
pub struct Upstream {
    scheme: Scheme,
    authority: Authority,
    prefix: String,
    key: HeaderValue,
    config: GatewayConfig,
    client: OnceLock<AnyClient>,
    /// Owns the tasks of the connections.
    connections: TaskTracker,
}

/// TLS takes milliseconds and memory to set up: only where it is used.
#[derive(Clone)]
enum AnyClient {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

/// A request on its way upstream.
pub struct Outgoing {
    /// Its method.
    pub method: Method,
    /// Its path and query, as the client sent them.
    pub target: PathAndQuery,
    /// The client's header lines.
    pub headers: Arc<HeaderMap>,
    /// The client's body, byte for byte.
    pub body: Bytes,
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// Nothing was sent.
    #[error("connect to the model API: {0}")]
    Connect(String),
    /// It was, maybe in part, and no reply came.
    #[error("get a reply from the model API: {0}")]
    Lost(String),
    /// It was, and no reply came in time.
    #[error("get a reply from the model API within {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl Upstream {
    /// Checks the configuration. Nothing is connected yet.
    pub fn new(config: GatewayConfig) -> Result<Self, Error> {
        let parts = config.upstream.clone().into_parts();
        let without_user =
            |authority: &Authority| authority.as_str().rsplit('@').next().unwrap_or_default().to_owned();
        let shown = format!(
            "{}://{}{}",
            parts.scheme.as_ref().map_or("?", Scheme::as_str),
            parts.authority.as_ref().map_or_else(|| "?".to_owned(), without_user),
            parts.path_and_query.as_ref().map_or("", PathAndQuery::path),
        );
        let bad = |why| Error::Upstream { uri: shown.clone(), why };
        let scheme = match parts.scheme {
            Some(scheme) if scheme == Scheme::HTTP || scheme == Scheme::HTTPS => scheme,
            Some(_) | None => return Err(bad("the scheme must be http or https")),
        };
        let authority = parts.authority.ok_or_else(|| bad("there is no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("user and password do not belong in it"));
        }
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return Err(bad("a query cannot be kept"));
        }
        let prefix = path.path().trim_end_matches('/').to_owned();
        let mut key = HeaderValue::from_str(config.api_key.expose_secret()).map_err(|_| Error::Key)?;
        if key.is_empty() {
            return Err(Error::Key);
        }
        key.set_sensitive(true);
        let connections = TaskTracker::new();
        Ok(Self { scheme, authority, prefix, key, config, client: OnceLock::new(), connections })
    }

    /// Sends a request and waits for the head of the reply, at most `patience`.
    ///
    /// Nothing is tried twice here: clients do that themselves, and two layers of it would multiply. The one exception is
    /// a kept connection that turns out to be closed before the request was written to it.
    pub async fn send(&self, outgoing: Outgoing, patience: Duration) -> Result<Response<Incoming>, Failed> {
        let request = self.request(outgoing)?;
        let reply = match self.client()? {
            AnyClient::Plain(client) => client.request(request),
            AnyClient::Tls(client) => client.request(request),
        };
        match timeout(patience, reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) if error.is_connect() => Err(Failed::Connect(cause(&error))),
            Ok(Err(error)) => Err(Failed::Lost(cause(&error))),
            Err(_) => Err(Failed::TimedOut(patience)),
        }
    }

    fn request(&self, outgoing: Outgoing) -> Result<Request<Full<Bytes>>, Failed> {
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{}", self.prefix, outgoing.target))
            .build()
            .map_err(|error| Failed::Connect(error.to_string()))?;
        let mut request = Request::new(Full::new(outgoing.body));
        *request.method_mut() = outgoing.method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers::upstream(&outgoing.headers, &self.key);
        Ok(request)
    }

    fn client(&self) -> Result<&AnyClient, Failed> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        // Two requests may both come here; the second client is dropped unused.
        let built = self.build()?;
        Ok(self.client.get_or_init(|| built))
    }

    fn build(&self) -> Result<AnyClient, Failed> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(self.config.timeouts.connect));
        connector.set_happy_eyeballs_timeout(Some(HAPPY_EYEBALLS));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let mut builder = Client::builder(Tracked(self.connections.clone()));
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.config.timeouts.pool_idle)
            .pool_max_idle_per_host(self.config.limits.pool_idle);
        if self.scheme == Scheme::HTTP {
            return Ok(AnyClient::Plain(builder.build(connector)));
        }
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| Failed::Connect(format!("read the system's certificates: {error}")))?
            .https_only()
            .enable_http1()
            .wrap_connector(connector);
        Ok(AnyClient::Tls(builder.build(tls)))
    }
}

/// Runs the connections' tasks under a tracker, so that they have an owner.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// The innermost cause says what happened; the outer ones only where.
fn cause(error: &hyper_util::client::legacy::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match error.source() {
        Some(_) => innermost.to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(uri: &str, key: &str) -> Result<Upstream, Error> {
        Upstream::new(GatewayConfig::new(uri.parse().unwrap(), key.into(), "test"))
    }

    #[test]
    fn the_host_is_fixed_and_a_prefix_is_kept() {
        let sent = |base: &str, target: &'static str| {
            let outgoing = Outgoing {
                method: Method::POST,
                target: PathAndQuery::from_static(target),
                headers: Arc::default(),
                body: Bytes::new(),
            };
            new(base, "sk").unwrap().request(outgoing).unwrap().uri().to_string()
        };
        assert_eq!(
            sent("https://api.anthropic.com", "/v1/messages?beta=true"),
            "https://api.anthropic.com/v1/messages?beta=true"
        );
        assert_eq!(sent("http://127.0.0.1:9/proxy/", "/v1/messages"), "http://127.0.0.1:9/proxy/v1/messages");
        assert_eq!(sent("http://h", "/@evil/v1"), "http://h/@evil/v1");
    }

    #[test]
    fn what_cannot_be_an_upstream_is_refused_without_showing_secrets() {
        for uri in ["/v1", "ftp://h/", "h:80", "https://user:hunter2@h/", "https://h/?key=hunter2"] {
            let Err(error) = new(uri, "sk") else { panic!("{uri}") };
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        for key in ["", "sk-hunter2\n"] {
            let Err(error) = new("http://h", key) else { panic!("{key:?}") };
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
