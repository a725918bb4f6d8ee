//! Where a request comes from: a browser that was led here by a foreign page or a foreign name is refused.

use std::net::IpAddr;

use http::{HeaderMap, Request, header};

use crate::config::ServerConfig;
use crate::error::Error;

/// Checks `Host` and `Origin`. The routes of health are asked by probes under any name; they still refuse browsers.
pub fn check<B>(config: &ServerConfig, request: &Request<B>) -> Result<(), Error> {
    check_origin(config, request.headers())?;
    if matches!(request.uri().path(), "/livez" | "/readyz") {
        return Ok(());
    }
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map_err(|_| Error::invalid("expected a readable Host header"))?,
        _ => return Err(Error::invalid("expected one Host header")),
    };
    for name in [Some(host), authority].into_iter().flatten() {
        if !is_allowed(config, name) {
            return Err(Error::forbidden("this server is not known under the name in the Host header"));
        }
    }
    Ok(())
}

fn check_origin(config: &ServerConfig, headers: &HeaderMap) -> Result<(), Error> {
    for origin in headers.get_all(header::ORIGIN) {
        let known = origin.to_str().is_ok_and(|origin| config.origins.iter().any(|known| known == origin));
        if !known {
            return Err(Error::forbidden("requests of web pages from this Origin are not allowed"));
        }
    }
    Ok(())
}

fn is_allowed(config: &ServerConfig, authority: &str) -> bool {
    let name = without_port(authority);
    let listed = config.hosts.iter().any(|host| host.eq_ignore_ascii_case(name) || host == authority);
    listed || is_loopback(name)
}

fn without_port(authority: &str) -> &str {
    if let Some(end) = authority.find(']') {
        return &authority[..=end];
    }
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}

fn is_loopback(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_and_listed_ones_pass() {
        let config = ServerConfig { hosts: vec!["agents.example.com".to_owned()], ..ServerConfig::default() };
        for name in
            ["localhost", "LocalHost:80", "127.0.0.1:8080", "127.9.9.9", "[::1]:1", "agents.example.com:443"]
        {
            assert!(is_allowed(&config, name), "{name}");
        }
        for name in [
            "",
            "evil.com",
            "localhost.evil.com",
            "127.0.0.1.evil.com",
            "10.0.0.1",
            "[::2]",
            "localhost:x",
            "0.0.0.0",
        ] {
            assert!(!is_allowed(&config, name), "{name}");
        }
    }
}
