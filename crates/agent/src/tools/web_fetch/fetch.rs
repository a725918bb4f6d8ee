//! Pages of the web, through the proxy.

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue, LOCATION, PROXY_AUTHORIZATION, USER_AGENT,
};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;

use crate::proxy::Proxy;

/// The largest page that is read, in bytes.
const MAX_PAGE_BYTES: usize = 10 * 1024 * 1024;
/// Redirects that are followed, within the same host.
const MAX_REDIRECTS: usize = 5;
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

/// Fetches a page.
pub async fn get(proxy: &Proxy, mut url: Uri) -> Result<Fetched, String> {
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
        .map_err(|error| format!("no root certificates: {error}"))?
        .https_or_http()
        .enable_http1()
        .wrap_connector(proxy.clone());
    let client = legacy::Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(https);
    for _ in 0..=MAX_REDIRECTS {
        let response = client.request(request(proxy, &url)?).await;
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

fn request(proxy: &Proxy, url: &Uri) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = url.clone();
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT_NAME));
    headers.insert(ACCEPT, HeaderValue::from_static("text/markdown, text/html, */*;q=0.5"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(authorization) = proxy.authorization(url) {
        headers.insert(PROXY_AUTHORIZATION, authorization);
    }
    Ok(request)
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

#[cfg(test)]
mod tests {
    use super::*;

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
