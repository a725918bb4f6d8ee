//! HTTP with server-sent events, as servers spoke before streamable HTTP: what the server says comes as a stream of events,
//! the first of which names the address that takes what is said to it.
//!
//! source: the Model Context Protocol, 2024-11-05, "HTTP with SSE".

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Uri};
use rmcp::RoleClient;
use rmcp::transport::Transport;
use rmcp::transport::streamable_http_client::SseError;
use sse_stream::Sse;
use tokio::time::timeout;

use super::web::{Web, WebError, events, refusal_text};
use super::wire::{Incoming, MAX_UNASKED, Outgoing, Reader};

/// How long a server may take to take a message.
const POST_PATIENCE: Duration = Duration::from_secs(30);

/// The stream of a server, and where messages to it go.
pub(super) struct SseTransport {
    web: Web,
    endpoint: Uri,
    events: Option<BoxStream<'static, Result<Sse, SseError>>>,
    reader: Reader,
}

/// Why there is no stream.
pub(super) enum NoStream {
    /// The server wants to know who asks.
    Unauthorized,
    Failed(String),
}

impl SseTransport {
    /// Opens the stream and waits for the address.
    pub(super) async fn open(web: Web) -> Result<Self, NoStream> {
        let failed = |error: WebError| NoStream::Failed(error.0);
        let mut request = web.request(Method::GET, web.uri(), Bytes::new());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let response = web.send(request).await.map_err(failed)?;
        let status = response.status();
        if status == http::StatusCode::UNAUTHORIZED {
            return Err(NoStream::Unauthorized);
        }
        if !status.is_success() {
            return Err(NoStream::Failed(format!("it answered {status}{}", refusal_text(response).await)));
        }
        let mut events = events(response.into_body());
        while let Some(Ok(event)) = events.next().await {
            if event.event.as_deref() == Some("endpoint") {
                let endpoint = endpoint(web.uri(), event.data.as_deref().unwrap_or_default().trim());
                let endpoint = endpoint.map_err(NoStream::Failed)?;
                return Ok(Self { web, endpoint, events: Some(events), reader: Reader::default() });
            }
        }
        Err(NoStream::Failed("its stream ended before it named an address".to_owned()))
    }
}

/// The address that takes messages: one of the same host, for the headers go there.
fn endpoint(base: &Uri, given: &str) -> Result<Uri, String> {
    let broken = || "the address that it named cannot be used".to_owned();
    let given: Uri = match given.parse::<Uri>() {
        Ok(uri) if uri.scheme().is_some() => uri,
        Ok(_) | Err(_) => {
            let path = match given.strip_prefix('/') {
                Some(_) => given.to_owned(),
                None => {
                    let (folder, _) = base.path().rsplit_once('/').unwrap_or_default();
                    format!("{folder}/{given}")
                }
            };
            let mut parts = base.clone().into_parts();
            parts.path_and_query = Some(path.parse().map_err(|_| broken())?);
            Uri::from_parts(parts).map_err(|_| broken())?
        }
    };
    if given.scheme() == base.scheme() && given.authority() == base.authority() {
        return Ok(given);
    }
    Err("the address that it named is another server's".to_owned())
}

impl Transport<RoleClient> for SseTransport {
    type Error = WebError;

    fn send(&mut self, item: Outgoing) -> impl Future<Output = Result<(), WebError>> + Send + 'static {
        self.reader.note(&item);
        let (web, endpoint) = (self.web.clone(), self.endpoint.clone());
        async move {
            let body = serde_json::to_vec(&item).map_err(|error| WebError(error.to_string()))?;
            let mut request = web.request(Method::POST, &endpoint, body.into());
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let sent = timeout(POST_PATIENCE, web.send(request)).await;
            let response = sent.map_err(|_| WebError("it takes no message".to_owned()))??;
            let status = response.status();
            if status.is_success() {
                return Ok(());
            }
            Err(WebError(format!("it answered {status}{}", refusal_text(response).await)))
        }
    }

    async fn receive(&mut self) -> Option<Incoming> {
        let mut nonsense = 0;
        while nonsense <= MAX_UNASKED {
            let event = self.events.as_mut()?.next().await?.ok()?;
            let data = event.data.unwrap_or_default();
            let message = serde_json::from_str(&data).ok().and_then(|message| self.reader.read(message));
            if message.is_some() {
                return message;
            }
            nonsense += 1;
        }
        None
    }

    async fn close(&mut self) -> Result<(), WebError> {
        self.events = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_to_the_same_host_only() {
        let base: Uri = "https://host:8443/a/sse?x=1".parse().unwrap();
        for (given, expected) in [
            ("/messages?id=1", Some("https://host:8443/messages?id=1")),
            ("messages", Some("https://host:8443/a/messages")),
            ("https://host:8443/m", Some("https://host:8443/m")),
            ("http://host:8443/m", None),
            ("https://host/m", None),
            ("https://evil.example/m", None),
            ("https://host:8443@evil.example/m", None),
            ("//evil.example/m", Some("https://host:8443//evil.example/m")),
            ("/a b", None),
        ] {
            let endpoint = endpoint(&base, given).ok().map(|uri| uri.to_string());
            assert_eq!(endpoint.as_deref(), expected, "{given}");
        }
    }
}
