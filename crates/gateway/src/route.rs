//! The routes. What is not listed does not exist: no request passes that is not metered or free.

use http::Method;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /v1/messages`: metered.
    Messages,
    /// `POST /v1/messages/count_tokens`: free.
    CountTokens,
    /// `GET /v1/models` and `GET /v1/models/{id}`: free.
    Models,
    /// `HEAD /api/hello`: the probe of the CLI, answered here.
    Hello,
    /// Anything else.
    Unknown,
}

impl Route {
    /// Reads the method and the path, which is taken literally: an escaped path is another path.
    pub fn of(method: &Method, path: &str) -> Self {
        match (method.as_str(), path) {
            ("POST", "/v1/messages") => Self::Messages,
            ("POST", "/v1/messages/count_tokens") => Self::CountTokens,
            ("GET", "/v1/models") => Self::Models,
            ("GET", path) if path.strip_prefix("/v1/models/").is_some_and(is_model_id) => Self::Models,
            ("HEAD", "/api/hello") => Self::Hello,
            _ => Self::Unknown,
        }
    }

    /// The route's name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Models => "models",
            Self::Hello => "hello",
            Self::Unknown => "unknown",
        }
    }
}

fn is_model_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'@');
    !id.is_empty() && id.bytes().all(allowed) && id.bytes().any(|byte| byte != b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_routes_exist() {
        let of = |method: &str, path| Route::of(&method.parse().unwrap(), path);
        assert_eq!(of("POST", "/v1/messages"), Route::Messages);
        assert_eq!(of("POST", "/v1/messages/count_tokens"), Route::CountTokens);
        assert_eq!(of("GET", "/v1/models"), Route::Models);
        assert_eq!(of("GET", "/v1/models/claude-sonnet-5-5"), Route::Models);
        assert_eq!(of("HEAD", "/api/hello"), Route::Hello);
        for (method, path) in [
            ("GET", "/v1/messages"),
            ("PUT", "/v1/messages"),
            ("POST", "/v1/messages/"),
            ("POST", "//v1/messages"),
            ("POST", "/v1/%6dessages"),
            ("POST", "/V1/messages"),
            ("POST", "/v1/messages/batches"),
            ("POST", "/v1/complete"),
            ("GET", "/v1/files"),
            ("GET", "/v1/organizations/me"),
            ("GET", "/v1/models/"),
            ("GET", "/v1/models/.."),
            ("GET", "/v1/models/../files"),
            ("GET", "/v1/models/%2e%2e"),
            ("GET", "/api/hello"),
            ("CONNECT", ""),
            ("OPTIONS", "*"),
            ("GET", "/"),
        ] {
            assert_eq!(of(method, path), Route::Unknown, "{method} {path}");
        }
    }
}
