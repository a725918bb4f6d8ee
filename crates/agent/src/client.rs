//! The Messages API over HTTP/1.1: one attempt at one streamed request. When to try again is decided in [`retry`].

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use secrecy::ExposeSecret;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};
use wardian_protocol::ApiError;
use wardian_protocol::sse::{SseDecoder, SseEvent};

use crate::request::BETA_HEADER;
use crate::{ApiConfig, ApiKey, Endpoint, Error};

pub(crate) mod failure;
pub(crate) mod retry;

pub(crate) use failure::{Failure, FailureKind};

/// The version of the API that requests are written for.
const API_VERSION: &str = "2023-06-01";
/// Who we say we are.
const AGENT_NAME: &str = concat!("wardian-agent/", env!("CARGO_PKG_VERSION"));
/// The longest error body that is read.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// How long an error body may take.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest reply that is read; the longest that models write is some 0.5 MB of text.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// Reaches the Messages API. Connections are kept between requests.
pub(crate) struct Client {
    uri: Uri,
    socket: Option<PathBuf>,
    headers: HeaderMap,
    lacks_key: bool,
    connect_timeout: Duration,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
    /// Made at the first request: TLS costs milliseconds, and not every client needs it.
    transport: OnceLock<Transport>,
}

type Body = Full<Bytes>;

enum Transport {
    Tcp(legacy::Client<HttpConnector, Body>),
    Tls(legacy::Client<hyper_rustls::HttpsConnector<HttpConnector>, Body>),
    Unix(legacy::Client<UnixConnector, Body>),
}

impl Client {
    pub(crate) fn new(config: &ApiConfig) -> Result<Self, Error> {
        let (base, socket) = match &config.endpoint {
            Endpoint::Url(url) => (url, None),
            Endpoint::Unix { path, base_url } => (base_url, Some(path.clone())),
        };
        Ok(Self {
            uri: messages_uri(base)?,
            socket,
            headers: headers(config)?,
            lacks_key: matches!(config.key, ApiKey::Missing),
            connect_timeout: config.connect_timeout,
            first_byte_timeout: config.first_byte_timeout,
            idle_timeout: config.idle_timeout,
            transport: OnceLock::new(),
        })
    }

    /// Sends a request, with more headers, and waits for the reply to begin.
    pub(crate) async fn post(&self, body: Bytes, more: &HeaderMap) -> Result<Reply, Box<Failure>> {
        if self.lacks_key {
            return Err(Failure::not_logged_in());
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = with(&self.headers, more);
        let response = timeout(self.first_byte_timeout, self.send(request))
            .await
            .map_err(|_| Failure::lost("the API did not begin to answer in time"))??;
        let request_id = header(response.headers(), "request-id");
        if !response.status().is_success() {
            return Err(Box::new(refusal(response, request_id).await));
        }
        Ok(Reply {
            request_id,
            body: response.into_body(),
            decoder: Some(SseDecoder::default()),
            ready: VecDeque::new(),
            bytes: 0,
            idle_timeout: self.idle_timeout,
            idle_until: Instant::now() + self.idle_timeout,
        })
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Box<Failure>> {
        if self.transport.get().is_none() {
            let made = self.connector()?;
            // Two first requests at once would make two; the second is dropped.
            let _ = self.transport.set(made);
        }
        let sent = match self.transport.get().expect("it was set above") {
            Transport::Tcp(client) => client.request(request).await,
            Transport::Tls(client) => client.request(request).await,
            Transport::Unix(client) => client.request(request).await,
        };
        sent.map_err(|error| Failure::lost(with_causes(&error)))
    }

    fn connector(&self) -> Result<Transport, Box<Failure>> {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(1);
        if let Some(path) = &self.socket {
            return Ok(Transport::Unix(builder.build(UnixConnector(path.as_path().into()))));
        }
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(self.connect_timeout));
        http.set_nodelay(true);
        if self.uri.scheme() == Some(&http::uri::Scheme::HTTP) {
            return Ok(Transport::Tcp(builder.build(http)));
        }
        let https = https(http).map_err(|error| Failure::local(format!("no root certificates: {error}")))?;
        Ok(Transport::Tls(builder.build(https)))
    }
}

/// Headers with more of them, which go before; betas add up.
fn with(headers: &HeaderMap, more: &HeaderMap) -> HeaderMap {
    let mut all = headers.clone();
    all.extend(more.clone());
    let betas = [headers, more].map(|headers| headers.get(BETA_HEADER).and_then(|betas| betas.to_str().ok()));
    if let [Some(betas), Some(another)] = betas
        && let Ok(both) = HeaderValue::from_str(&format!("{betas},{another}"))
    {
        all.insert(BETA_HEADER, both);
    }
    all
}

/// Puts TLS on connections, with the system's root certificates.
pub(crate) fn https(mut http: HttpConnector) -> std::io::Result<hyper_rustls::HttpsConnector<HttpConnector>> {
    http.enforce_http(false);
    tls(http)
}

/// TLS over any connection.
pub(crate) fn tls<Inner>(inner: Inner) -> std::io::Result<hyper_rustls::HttpsConnector<Inner>> {
    let builder = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?;
    Ok(builder.https_only().enable_http1().wrap_connector(inner))
}

/// A reply under way.
pub(crate) struct Reply {
    /// The API's id for the request.
    pub(crate) request_id: Option<String>,
    body: Incoming,
    decoder: Option<SseDecoder>,
    ready: VecDeque<SseEvent>,
    bytes: usize,
    idle_timeout: Duration,
    idle_until: Instant,
}

impl Reply {
    /// The next event, `None` at the end of the stream. Can be dropped while it waits without losing anything.
    pub(crate) async fn next(&mut self) -> Result<Option<SseEvent>, Box<Failure>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(decoder) = self.decoder.as_mut() else { return Ok(None) };
            let frame = timeout_at(self.idle_until, self.body.frame())
                .await
                .map_err(|_| Failure::lost("the reply paused for too long"))?;
            match frame {
                None => self.ready.extend(self.decoder.take().and_then(SseDecoder::finish)),
                Some(Err(error)) => return Err(Failure::lost(with_causes(&error))),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.idle_until = Instant::now() + self.idle_timeout;
                    self.bytes = self.bytes.saturating_add(data.len());
                    if self.bytes > MAX_REPLY_BYTES {
                        return Err(Failure::malformed(format!("the reply is over {MAX_REPLY_BYTES} bytes")));
                    }
                    let mut events = Vec::new();
                    decoder
                        .feed(&data, &mut events)
                        .map_err(|error| Failure::malformed(error.to_string()))?;
                    self.ready.extend(events);
                }
            }
        }
    }
}

async fn refusal(response: Response<Incoming>, request_id: Option<String>) -> Failure {
    let status = response.status().as_u16();
    let retry_after = header(response.headers(), "retry-after");
    let should_retry = match header(response.headers(), "x-should-retry").as_deref() {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    };
    let body = Limited::new(response.into_body(), MAX_ERROR_BYTES).collect();
    let body = match timeout(ERROR_BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) | Err(_) => Bytes::new(),
    };
    let (kind, message, details) = match serde_json::from_slice::<ApiError>(&body) {
        Ok(envelope) => (Some(envelope.error.kind), envelope.error.message, envelope.error.details),
        Err(_) => {
            let text = String::from_utf8_lossy(&body);
            let text: String = text.trim().chars().take(400).collect();
            (None, if text.is_empty() { "no explanation".to_owned() } else { text }, None)
        }
    };
    Failure {
        kind: FailureKind::Status { status, kind },
        message,
        retry_after,
        should_retry,
        details,
        request_id,
    }
}

fn messages_uri(base: &str) -> Result<Uri, Error> {
    let broken = |message: String| Error::Endpoint { address: without_credentials(base), message };
    let uri: Uri = format!("{}/v1/messages", base.trim_end_matches('/'))
        .parse()
        .map_err(|error: http::uri::InvalidUri| broken(error.to_string()))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
        return Err(broken("expected http:// or https:// and a host".to_owned()));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(broken("user and password do not belong in it".to_owned()));
    }
    if uri.query().is_some() {
        return Err(broken("a query does not belong in it".to_owned()));
    }
    Ok(uri)
}

/// The address without what stands before an `@`, for messages.
fn without_credentials(address: &str) -> String {
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => address.to_owned(),
    }
}

fn headers(config: &ApiConfig) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("anthropic-version", HeaderValue::from_static(API_VERSION));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT_NAME));
    for (name, value) in &config.headers {
        let broken = || Error::Header(name.clone());
        let name = HeaderName::try_from(name).map_err(|_| broken())?;
        headers.append(name, HeaderValue::try_from(value).map_err(|_| broken())?);
    }
    let secret = |name: HeaderName, text: String| {
        HeaderValue::try_from(text)
            .map(|mut value| {
                value.set_sensitive(true);
                value
            })
            .map_err(|_| Error::Header(name.to_string()))
    };
    match &config.key {
        ApiKey::None | ApiKey::Missing => (),
        ApiKey::Key(key) => {
            let name = HeaderName::from_static("x-api-key");
            headers.insert(name.clone(), secret(name, key.expose_secret().to_owned())?);
        }
        ApiKey::Bearer(token) => {
            let value = format!("Bearer {}", token.expose_secret());
            headers.insert(AUTHORIZATION, secret(AUTHORIZATION, value)?);
        }
    }
    Ok(headers)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(|value| value.chars().take(200).collect())
}

/// An error with all that caused it, on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Connects every request to one socket.
#[derive(Clone)]
struct UnixConnector(std::sync::Arc<Path>);

impl tower::Service<Uri> for UnixConnector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = futures_util::future::BoxFuture<'static, std::io::Result<TokioIo<UnixStream>>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = std::sync::Arc::clone(&self.0);
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_prefix_is_kept() {
        for (base, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/messages"),
            ("https://api.anthropic.com/", "https://api.anthropic.com/v1/messages"),
            ("http://host/a/b/", "http://host/a/b/v1/messages"),
        ] {
            assert_eq!(messages_uri(base).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn addresses_that_cannot_be_used_are_named_without_their_password() {
        for base in ["", "localhost", "ftp://host", "/v1", "http://", "http://h?x=1", "http://a b"] {
            assert!(messages_uri(base).is_err(), "{base}");
        }
        let error = messages_uri("http://user:hunter2@host").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn keys_are_sent_and_never_shown() {
        let config = ApiConfig { key: ApiKey::key("sk-secret-1"), ..ApiConfig::default() };
        let headers = headers(&config).unwrap();
        assert_eq!(headers["x-api-key"].to_str().unwrap(), "sk-secret-1");
        assert!(!format!("{headers:?} {config:?}").contains("sk-secret-1"));
        let config = ApiConfig { key: ApiKey::key("sk-\nsecret"), ..ApiConfig::default() };
        let error = super::headers(&config).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}
