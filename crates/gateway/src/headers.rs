//! Which header lines pass, in both directions. The lists are open: what is not named here goes through as it came.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Lines that belong to one connection and not to the message (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Lines of a request that the gateway sets itself, or that say who asks.
const OWN: [&str; 8] = [
    "accept-encoding",
    "authorization",
    "content-length",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "x-api-key",
];

/// Lines of a request that choose on whose account within the operator's it runs.
const ACCOUNT: [&str; 2] = ["anthropic-workspace-id", "anthropic-user-profile-id"];

/// Why a request's head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHead {
    /// A header that chooses the account.
    Account(&'static str),
    /// The body is not plain.
    Encoding,
    /// The body is not UTF-8.
    Charset,
}

impl BadHead {
    /// The reason, for people.
    pub fn reason(self) -> String {
        match self {
            Self::Account(name) => format!("{name} is not allowed in this environment: the account is fixed"),
            Self::Encoding => "content-encoding is not allowed: send the body as it is".to_owned(),
            Self::Charset => "content-type: the charset must be utf-8".to_owned(),
        }
    }
}

/// Checks that the upstream can only read the body as the gateway reads it, on the gateway's account.
pub fn check(headers: &HeaderMap) -> Result<(), BadHead> {
    if let Some(name) = ACCOUNT.into_iter().find(|name| headers.contains_key(*name)) {
        return Err(BadHead::Account(name));
    }
    let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Err(BadHead::Encoding);
    }
    let readable = |value: &HeaderValue| {
        let lower = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        lower.split_once("charset").is_none_or(|(_, charset)| {
            let name = charset.trim_start().strip_prefix('=').unwrap_or_default();
            let name = name.split(';').next().unwrap_or_default().trim().trim_matches('"');
            matches!(name, "utf-8" | "utf8" | "us-ascii")
        })
    };
    if !headers.get_all(header::CONTENT_TYPE).iter().all(readable) {
        return Err(BadHead::Charset);
    }
    Ok(())
}

/// The head of the request to the upstream. The key is set last, so that nothing can take its place.
pub fn upstream(client: &HeaderMap, key: &HeaderValue) -> HeaderMap {
    let mut headers = without_hops(client);
    for name in OWN {
        headers.remove(name);
    }
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert("x-api-key", key.clone());
    headers
}

/// The head of the reply to the client: without the lines that tell about the operator's whole account.
pub fn reply(upstream: &HeaderMap) -> HeaderMap {
    let mut headers = without_hops(upstream);
    headers.remove(header::SET_COOKIE);
    let limits: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("anthropic-ratelimit-")).cloned().collect();
    for name in limits {
        headers.remove(name);
    }
    headers
}

fn without_hops(headers: &HeaderMap) -> HeaderMap {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let mut kept = headers.clone();
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    for name in listed {
        kept.remove(name);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_request_keeps_what_is_unknown_and_loses_what_says_who_asks() {
        let client = map(&[
            ("host", "127.0.0.1:4000"),
            ("connection", "keep-alive, X-Drop-Me,x-api-key"),
            ("x-drop-me", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("content-length", "5"),
            ("accept-encoding", "gzip, br"),
            ("x-api-key", "sk-wardian-virtual"),
            ("authorization", "Bearer sk-wardian-virtual"),
            ("cookie", "a=b"),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "claude-code-20250219,future-2031-01-01"),
            ("anthropic-new-thing", "x"),
            ("x-stainless-retry-count", "0"),
            ("user-agent", "claude-cli/2.1.330"),
        ]);
        let sent = upstream(&client, &HeaderValue::from_static("sk-real"));
        assert_eq!(
            lines(&sent),
            [
                "accept-encoding: identity",
                "anthropic-beta: claude-code-20250219,future-2031-01-01",
                "anthropic-new-thing: x",
                "anthropic-version: 2023-06-01",
                "user-agent: claude-cli/2.1.330",
                "x-api-key: sk-real",
                "x-stainless-retry-count: 0",
            ]
        );
    }

    #[test]
    fn a_reply_loses_what_tells_about_the_account() {
        let upstream = map(&[
            ("content-type", "text/event-stream"),
            ("transfer-encoding", "chunked"),
            ("connection", "close"),
            ("request-id", "req_1"),
            ("retry-after", "3"),
            ("x-should-retry", "true"),
            ("set-cookie", "__cf_bm=1"),
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-unified-status", "allowed"),
            ("x-new", "1"),
        ]);
        assert_eq!(
            lines(&reply(&upstream)),
            [
                "content-type: text/event-stream",
                "request-id: req_1",
                "retry-after: 3",
                "x-new: 1",
                "x-should-retry: true"
            ]
        );
    }

    #[test]
    fn a_body_that_the_upstream_could_read_differently_is_refused() {
        check(&map(&[("content-type", "application/json; charset=UTF-8"), ("content-encoding", "identity")]))
            .unwrap();
        check(&map(&[("content-type", "application/json")])).unwrap();
        for value in ["application/json; charset=utf-7", "application/json;charset =utf-16", "a/b; charset"] {
            assert_eq!(check(&map(&[("content-type", value)])), Err(BadHead::Charset), "{value}");
        }
        assert_eq!(check(&map(&[("content-encoding", "gzip")])), Err(BadHead::Encoding));
        let account = map(&[("anthropic-workspace-id", "wrkspc_1")]);
        assert_eq!(check(&account), Err(BadHead::Account("anthropic-workspace-id")));
    }
}
