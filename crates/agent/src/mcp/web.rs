//! HTTP for servers at an address: rmcp's streamable HTTP over our own client, and the older way with server-sent events
//! ([`super::sse`]). Connections and TLS are made at the first request. Redirects are not followed: they would take the
//! headers, which hold keys, to whoever the server names.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT, WWW_AUTHENTICATE,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use serde_json::Value;
use sse_stream::Sse;
use tokio::time::timeout;
use wardian_protocol::sse::SseDecoder;

use super::wire::{MAX_MESSAGE_BYTES, Reader};
use crate::proxy::{Proxies, Proxy};

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of a refusal is waited for.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(5);
/// What is read of a refusal, in bytes.
const MAX_REFUSAL_BYTES: usize = 16 * 1024;
/// Characters of a refusal that are told.
const MAX_REFUSAL_CHARS: usize = 300;
/// Who we say we are.
const AGENT_NAME: &str = concat!("wardian-agent/", env!("CARGO_PKG_VERSION"));
/// Headers that say where a request ends, or that are for the next hop alone: not a server's to set.
const FRAMING: [HeaderName; 7] =
    [CONNECTION, CONTENT_LENGTH, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
/// The header of a session.
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// The header of the last event that came.
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
/// What a server may answer with.
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct WebError(pub(super) String);

/// An HTTP client for one server.
#[derive(Clone)]
pub(super) struct Web(Arc<Inner>);

struct Inner {
    uri: Uri,
    proxy: Option<Proxy>,
    headers: HeaderMap,
    transport: OnceLock<Transport>,
}

type Body = Full<Bytes>;

enum Transport {
    Tcp(legacy::Client<HttpConnector, Body>),
    Tls(legacy::Client<hyper_rustls::HttpsConnector<HttpConnector>, Body>),
    ProxiedTcp(legacy::Client<Proxy, Body>),
    ProxiedTls(legacy::Client<hyper_rustls::HttpsConnector<Proxy>, Body>),
}

impl Web {
    pub(super) fn new(url: &str, headers: &[(String, String)], proxies: &Proxies) -> Result<Self, String> {
        let uri = address(url)?;
        let proxy = proxies.to(&uri)?;
        let mut map = HeaderMap::new();
        map.insert(USER_AGENT, HeaderValue::from_static(AGENT_NAME));
        for (name, value) in headers {
            let broken = || format!("its header {name:?} cannot be sent");
            let mut value = HeaderValue::try_from(value).map_err(|_| broken())?;
            value.set_sensitive(true);
            let name = HeaderName::try_from(name).map_err(|_| broken())?;
            if FRAMING.contains(&name) {
                return Err(broken());
            }
            map.insert(name, value);
        }
        if let Some(authorization) = proxy.as_ref().and_then(|proxy| proxy.authorization(&uri)) {
            map.insert(PROXY_AUTHORIZATION, authorization);
        }
        Ok(Self(Arc::new(Inner { uri, proxy, headers: map, transport: OnceLock::new() })))
    }

    /// Where the server is.
    pub(super) fn uri(&self) -> &Uri {
        &self.0.uri
    }

    /// A request with the server's own headers.
    pub(super) fn request(&self, method: Method, uri: &Uri, body: Bytes) -> Request<Body> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.0.headers.clone();
        request
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, WebError> {
        if self.0.transport.get().is_none() {
            let made = self.connector()?;
            // Two first requests at once would make two; the second is dropped.
            let _ = self.0.transport.set(made);
        }
        let sent = match self.0.transport.get().expect("it was set above") {
            Transport::Tcp(client) => client.request(request).await,
            Transport::Tls(client) => client.request(request).await,
            Transport::ProxiedTcp(client) => client.request(request).await,
            Transport::ProxiedTls(client) => client.request(request).await,
        };
        sent.map_err(|error| WebError(crate::client::with_causes(&error)))
    }

    fn connector(&self) -> Result<Transport, WebError> {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(2);
        let is_tls = self.0.uri.scheme() != Some(&http::uri::Scheme::HTTP);
        let no_roots = |error| WebError(format!("there are no root certificates: {error}"));
        if let Some(proxy) = self.0.proxy.clone() {
            if !is_tls {
                return Ok(Transport::ProxiedTcp(builder.build(proxy)));
            }
            return Ok(Transport::ProxiedTls(builder.build(crate::client::tls(proxy).map_err(no_roots)?)));
        }
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_nodelay(true);
        if !is_tls {
            return Ok(Transport::Tcp(builder.build(http)));
        }
        Ok(Transport::Tls(builder.build(crate::client::https(http).map_err(no_roots)?)))
    }

    /// The request of rmcp's worker, with what the protocol adds.
    fn framed(&self, method: Method, body: Bytes, said: Said) -> Result<Request<Body>, Failed> {
        let mut request = self.request(method, &self.0.uri, body);
        let headers = request.headers_mut();
        headers.insert(ACCEPT, ACCEPTED);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(said.headers);
        let broken = |_| StreamableHttpError::Client(WebError("its session id cannot be sent".to_owned()));
        if let Some(session) = said.session {
            headers.insert(SESSION, HeaderValue::try_from(&*session).map_err(broken)?);
        }
        if let Some(event) = said.last_event {
            headers.insert(LAST_EVENT, HeaderValue::try_from(event).map_err(broken)?);
        }
        Ok(request)
    }
}

/// What rmcp says with a request.
#[derive(Default)]
struct Said {
    session: Option<Arc<str>>,
    last_event: Option<String>,
    headers: HashMap<HeaderName, HeaderValue>,
}

type Failed = StreamableHttpError<WebError>;
type Events = BoxStream<'static, Result<Sse, SseError>>;

impl StreamableHttpClient for Web {
    type Error = WebError;

    async fn post_message(
        &self,
        _uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _auth: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let mut reader = Reader::default();
        reader.note(&message);
        let body = serde_json::to_vec(&message)?.into();
        let had_session = session.is_some();
        let said = Said { session, headers, last_event: None };
        let response =
            self.send(self.framed(Method::POST, body, said)?).await.map_err(StreamableHttpError::Client)?;
        let status = response.status();
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        if status == StatusCode::NOT_FOUND && had_session {
            return Err(StreamableHttpError::SessionExpired);
        }
        if !status.is_success() {
            return Err(refusal(response).await);
        }
        let session = text_header(response.headers(), &SESSION);
        match kind(response.headers()) {
            Kind::Events => Ok(StreamableHttpPostResponse::Sse(events(response.into_body()), session)),
            Kind::Json => {
                let Some(answer) = json_body(response.into_body(), &reader).await? else {
                    return Ok(StreamableHttpPostResponse::Accepted);
                };
                Ok(StreamableHttpPostResponse::Json(answer, session))
            }
            // Answers to notifications need not have a type.
            Kind::Other(_) if !matches!(message, JsonRpcMessage::Request(_)) => {
                Ok(StreamableHttpPostResponse::Accepted)
            }
            Kind::Other(kind) => Err(StreamableHttpError::UnexpectedContentType(kind)),
        }
    }

    async fn delete_session(
        &self,
        _uri: Arc<str>,
        session: Arc<str>,
        _auth: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failed> {
        let said = Said { session: Some(session), headers, last_event: None };
        let request = self.framed(Method::DELETE, Bytes::new(), said)?;
        let response = self.send(request).await.map_err(StreamableHttpError::Client)?;
        if response.status() == StatusCode::METHOD_NOT_ALLOWED || response.status().is_success() {
            return Ok(());
        }
        Err(refusal(response).await)
    }

    async fn get_stream(
        &self,
        _uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        _auth: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<Events, Failed> {
        let request = self.framed(Method::GET, Bytes::new(), Said { session, last_event, headers })?;
        let response = self.send(request).await.map_err(StreamableHttpError::Client)?;
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        match kind(response.headers()) {
            Kind::Events => Ok(events(response.into_body())),
            Kind::Json => {
                Err(StreamableHttpError::UnexpectedContentType(Some("application/json".to_owned())))
            }
            Kind::Other(kind) => Err(StreamableHttpError::UnexpectedContentType(kind)),
        }
    }
}

enum Kind {
    Json,
    Events,
    Other(Option<String>),
}

fn kind(headers: &HeaderMap) -> Kind {
    let kind = text_header(headers, &CONTENT_TYPE);
    let essence =
        kind.as_deref().and_then(|kind| kind.split(';').next()).map(|kind| kind.trim().to_lowercase());
    match essence.as_deref() {
        Some("application/json") => Kind::Json,
        Some("text/event-stream") => Kind::Events,
        _ => Kind::Other(kind),
    }
}

fn text_header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.chars().take(1_000).collect())
}

/// Reads a JSON body; `None` where there is none.
async fn json_body(body: Incoming, reader: &Reader) -> Result<Option<ServerJsonRpcMessage>, Failed> {
    let bytes = match Limited::new(body, MAX_MESSAGE_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(StreamableHttpError::ResponseBodyTooLarge { max_size: MAX_MESSAGE_BYTES });
        }
        Err(error) => return Err(StreamableHttpError::Client(WebError(error.to_string()))),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    let message: Value = serde_json::from_slice(&bytes)?;
    let nonsense = || StreamableHttpError::UnexpectedServerResponse("its answer makes no sense".into());
    reader.read(message).map(Some).ok_or_else(nonsense)
}

/// What a server says that does not do what it is asked.
async fn refusal(response: Response<Incoming>) -> Failed {
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = text_header(response.headers(), &WWW_AUTHENTICATE).unwrap_or_default();
        return StreamableHttpError::AuthRequired(AuthRequiredError::new(challenge));
    }
    let text = refusal_text(response).await;
    StreamableHttpError::Client(WebError(format!("it answered {status}{text}")))
}

/// The beginning of what a refusal says.
pub(super) async fn refusal_text(response: Response<Incoming>) -> String {
    let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES).collect();
    let Ok(Ok(body)) = timeout(REFUSAL_PATIENCE, body).await else { return String::new() };
    let text: String =
        String::from_utf8_lossy(&body.to_bytes()).trim().chars().take(MAX_REFUSAL_CHARS).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

/// The events of a body, each held to the limit of a message.
pub(super) fn events(body: Incoming) -> Events {
    let state =
        (body.into_data_stream(), Some(SseDecoder::with_limit(MAX_MESSAGE_BYTES)), Vec::new().into_iter());
    let next = |(mut body, mut decoder, mut ready): (_, Option<SseDecoder>, std::vec::IntoIter<_>)| async move {
        loop {
            if let Some(event) = ready.next() {
                return Some((Ok(sse(event)), (body, decoder, ready)));
            }
            let mut open = decoder.take()?;
            let mut decoded = Vec::new();
            match http_body_util::BodyDataStream::<Incoming>::next(&mut body).await {
                None => decoded.extend(open.finish()),
                Some(Err(error)) => {
                    return Some((Err(SseError::Body(Box::new(error))), (body, None, ready)));
                }
                Some(Ok(data)) => {
                    if let Err(error) = open.feed(&data, &mut decoded) {
                        return Some((Err(SseError::Body(Box::new(error))), (body, None, ready)));
                    }
                    decoder = Some(open);
                }
            }
            ready = decoded.into_iter();
        }
    };
    stream::unfold(state, next).boxed()
}

fn sse(event: wardian_protocol::sse::SseEvent) -> Sse {
    let wardian_protocol::sse::SseEvent { event, data, id } = event;
    Sse { event: Some(event).filter(|event| !event.is_empty()), data: Some(data), id, retry: None }
}

fn address(url: &str) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|_| "its address is no URL".to_owned())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
        return Err("its address must be http:// or https:// and a host".to_owned());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("user and password do not belong in its address".to_owned());
    }
    Ok(uri)
}
