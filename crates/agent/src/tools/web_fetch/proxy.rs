//! The way to the web: every connection goes to the proxy, with a tunnel for TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue, LOCATION, PROXY_AUTHORIZATION, USER_AGENT,
};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest page that is read, in bytes.
const MAX_PAGE_BYTES: usize = 10 * 1024 * 1024;
/// The longest answer of a proxy to CONNECT, in bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Redirects that are followed, within the same host.
const MAX_REDIRECTS: usize = 5;
/// How long the proxy may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Who we say we are.
const AGENT_NAME: &str = concat!("wardian-agent/", env!("CARGO_PKG_VERSION"));

/// What came.
pub enum Fetched {
    Page(Page),
    /// The page is on another host.
    Elsewhere {
        status: StatusCode,
        url: String,
    },
}

/// A page.
pub struct Page {
    pub status: StatusCode,
    pub content_type: String,
    pub bytes: Bytes,
}

/// The proxy.
#[derive(Clone)]
pub struct Proxy {
    address: Arc<str>,
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// A proxy by its address: `http://user:password@host:port`.
    pub fn new(url: &str) -> Result<Self, String> {
        let broken = || "the address of the proxy cannot be used: it must be http://host:port".to_owned();
        let rest = url.strip_prefix("http://").unwrap_or(url);
        if rest.contains("://") {
            return Err(broken());
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, host) =
            authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let parsed: http::uri::Authority = host.parse().map_err(|_| broken())?;
        if parsed.host().is_empty() {
            return Err(broken());
        }
        let authorization = match user {
            None => None,
            Some(user) => {
                let user = base64::engine::general_purpose::STANDARD.encode(unescaped(user));
                let mut value = HeaderValue::try_from(format!("Basic {user}")).map_err(|_| broken())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let address = format!("{}:{}", parsed.host(), parsed.port_u16().unwrap_or(80));
        Ok(Self { address: address.into(), authorization })
    }

    /// Fetches a page.
    pub async fn get(&self, mut url: Uri) -> Result<Fetched, String> {
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| format!("no root certificates: {error}"))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(self.clone());
        let client = legacy::Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(https);
        for _ in 0..=MAX_REDIRECTS {
            let response = client.request(self.request(&url)?).await;
            let response = response.map_err(|error| crate::client::with_causes(&error))?;
            let status = response.status();
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            if let Some(target) = header(LOCATION).filter(|_| status.is_redirection()) {
                let next = resolved(&url, target).ok_or("it leads to what is no address")?;
                if !is_same_host(&url, &next) {
                    return Ok(Fetched::Elsewhere {
                        status,
                        url: next.to_string().chars().take(2_000).collect(),
                    });
                }
                url = next;
                continue;
            }
            let content_type = header(CONTENT_TYPE).unwrap_or_default().to_owned();
            let body = Limited::new(response.into_body(), MAX_PAGE_BYTES).collect().await;
            let bytes = body.map_err(|error| error.to_string())?.to_bytes();
            return Ok(Fetched::Page(Page { status, content_type, bytes }));
        }
        Err(format!("it leads on more than {MAX_REDIRECTS} times"))
    }

    fn request(&self, url: &Uri) -> Result<Request<Empty<Bytes>>, String> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT_NAME));
        headers.insert(ACCEPT, HeaderValue::from_static("text/markdown, text/html, */*;q=0.5"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        // Over TLS the proxy sees only the tunnel.
        if let Some(authorization) = self.authorization.clone().filter(|_| url.scheme_str() == Some("http")) {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }
        Ok(request)
    }

    async fn connect(self, url: Uri) -> io::Result<Way> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&*self.address));
        let mut stream = stream.await.map_err(|_| io::Error::other("the proxy did not answer in time"))??;
        let tunnel = url.scheme_str() == Some("https");
        if tunnel {
            let host = url.host().unwrap_or_default();
            let target = format!("{host}:{}", url.port_u16().unwrap_or(443));
            let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
            if let Some(authorization) = self.authorization.as_ref().and_then(|value| value.to_str().ok()) {
                head.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
            }
            head.push_str("\r\n");
            stream.write_all(head.as_bytes()).await?;
            answered(&mut stream).await?;
        }
        Ok(Way { stream: TokioIo::new(stream), is_forwarded: !tunnel })
    }
}

/// Reads the proxy's answer to CONNECT, and not a byte more.
async fn answered(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD_BYTES {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).unwrap_or_default();
    if status.starts_with('2') {
        return Ok(());
    }
    let line: String = line.chars().filter(|c| !c.is_control()).take(120).collect();
    Err(io::Error::other(format!("the proxy refused: {line}")))
}

/// `%40` as the byte that it stands for.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex =
            tail.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match hex.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

/// Where a redirect leads.
fn resolved(base: &Uri, target: &str) -> Option<Uri> {
    if target.contains("://") {
        return target.parse().ok();
    }
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if let Some(rest) = target.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    let path = match target.strip_prefix('/') {
        Some(_) => target.to_owned(),
        None => {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{target}")
        }
    };
    format!("{scheme}://{authority}{path}").parse().ok()
}

fn is_same_host(one: &Uri, other: &Uri) -> bool {
    let host = |url: &Uri| url.host().map(|host| host.trim_start_matches("www.").to_ascii_lowercase());
    let is_web = matches!(other.scheme_str(), Some("http" | "https"));
    // Never from TLS to none.
    let is_down = one.scheme_str() == Some("https") && other.scheme_str() == Some("http");
    let credentials = other.authority().is_some_and(|authority| authority.as_str().contains('@'));
    is_web
        && !is_down
        && !credentials
        && host(one) == host(other)
        && (one.port_u16() == other.port_u16() || one.scheme() != other.scheme())
}

impl tower::Service<Uri> for Proxy {
    type Response = Way;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Way>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        Box::pin(self.clone().connect(url))
    }
}

/// A connection through the proxy.
pub struct Way {
    stream: TokioIo<TcpStream>,
    /// The proxy reads the requests, and gets whole addresses.
    is_forwarded: bool,
}

impl Connection for Way {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_forwarded)
    }
}

impl Read for Way {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Way {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_proxies() {
        for (url, expected) in [
            ("http://127.0.0.1:3128", Some("127.0.0.1:3128")),
            ("http://proxy", Some("proxy:80")),
            ("proxy:8080/", Some("proxy:8080")),
            ("http://u%40x:p@proxy:1", Some("proxy:1")),
            ("https://proxy:1", None),
            ("socks5://proxy:1", None),
            ("", None),
            ("http://a b", None),
        ] {
            let proxy = Proxy::new(url).ok();
            assert_eq!(proxy.as_ref().map(|proxy| &*proxy.address), expected, "{url}");
        }
        let authorization = Proxy::new("http://u%40x:p@proxy:1").unwrap().authorization.unwrap();
        assert_eq!(authorization, "Basic dUB4OnA=");
        assert!(!format!("{authorization:?}").contains("dUB4"));
    }

    #[test]
    fn redirects_stay_on_their_host() {
        let base: Uri = "https://example.com/a/b?x".parse().unwrap();
        for (target, same) in [
            ("/c", true),
            ("c", true),
            ("https://www.example.com/", true),
            ("//example.com/x", true),
            ("http://example.com/", false),
            ("https://example.com:8443/", false),
            ("https://evil.com/", false),
            ("//evil.com/", false),
            ("https://user@example.com/", false),
            ("file:///etc/passwd", false),
        ] {
            let next = resolved(&base, target);
            assert_eq!(next.is_some_and(|next| is_same_host(&base, &next)), same, "{target}");
        }
        assert_eq!(resolved(&base, "c").unwrap(), "https://example.com/a/c");
    }
}
