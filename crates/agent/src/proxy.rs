//! The way through a proxy: every connection goes to it, with a tunnel for TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use futures_util::future::BoxFuture;
use http::Uri;
use http::header::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Options;

/// The longest answer of a proxy to CONNECT, in bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// How long the proxy may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Which proxy leads where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    /// For addresses with TLS.
    https: Option<String>,
    /// For those without.
    http: Option<String>,
    /// What is reached without one.
    direct: Vec<String>,
}

impl Proxies {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            https: options.web_proxy.clone(),
            http: options.http_proxy.clone(),
            direct: options.no_proxy.clone(),
        }
    }

    /// The proxy that leads to an address; none: it is reached directly, as this machine always is.
    ///
    /// # Errors
    /// Its own address cannot be used: then nothing goes another way.
    pub(crate) fn to(&self, url: &Uri) -> Result<Option<Proxy>, String> {
        let is_tls = url.scheme_str() == Some("https");
        let proxy = if is_tls { &self.https } else { &self.http };
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let is_here = host == "localhost"
            || host.ends_with(".localhost")
            || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
        match proxy {
            Some(proxy) if !is_here && !self.direct.iter().any(|rule| spares(rule, &host, port)) => {
                Proxy::new(proxy).map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }
}

/// Whether an entry of `NO_PROXY` is about a host: `*`, a name with what is below it, maybe a port.
fn spares(rule: &str, host: &str, port: u16) -> bool {
    let rule = rule.trim().to_ascii_lowercase();
    let (name, wanted) = match rule.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') && digits.parse::<u16>().is_ok() => {
            (name.to_owned(), digits.parse::<u16>().ok())
        }
        Some(_) | None => (rule, None),
    };
    let name = name.trim_start_matches("*.").trim_start_matches('.').trim_matches(['[', ']']);
    let fits = name == "*" || host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    !name.is_empty() && fits && wanted.is_none_or(|wanted| wanted == port)
}

/// A proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    address: Arc<str>,
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// A proxy by its address: `http://user:password@host:port`.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
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

    /// What a request without TLS tells the proxy of who asks; with TLS the tunnel was told.
    pub(crate) fn authorization(&self, url: &Uri) -> Option<HeaderValue> {
        self.authorization.clone().filter(|_| url.scheme_str() == Some("http"))
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
pub(crate) struct Way {
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
    fn the_way_to_an_address() {
        let proxies = Proxies {
            https: Some("http://tls:1".to_owned()),
            http: Some("http://plain:2".to_owned()),
            direct: ["near.example", ".inner.example:8443", "10.0.0.1", "", " "].map(str::to_owned).to_vec(),
        };
        for (url, expected) in [
            ("https://far.example/x", Some("tls:1")),
            ("http://far.example/x", Some("plain:2")),
            ("https://NEAR.example/x", None),
            ("https://a.near.example/x", None),
            ("https://verynear.example/x", Some("tls:1")),
            ("https://a.inner.example:8443/x", None),
            ("https://a.inner.example/x", Some("tls:1")),
            ("http://10.0.0.1/x", None),
            ("http://10.0.0.10/x", Some("plain:2")),
            ("https://localhost/x", None),
            ("https://127.0.0.9:1/x", None),
            ("https://[::1]:1/x", None),
            ("https://[2001:db8::1]/x", Some("tls:1")),
        ] {
            let proxy = proxies.to(&url.parse().unwrap()).unwrap();
            assert_eq!(proxy.as_ref().map(|proxy| &*proxy.address), expected, "{url}");
        }
        let all = Proxies { direct: vec!["*".to_owned()], ..proxies.clone() };
        assert!(all.to(&"https://far.example/".parse().unwrap()).unwrap().is_none());
        let broken = Proxies { https: Some("socks5://x".to_owned()), ..proxies };
        assert!(broken.to(&"https://far.example/".parse().unwrap()).is_err(), "never directly instead");
    }

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
}
