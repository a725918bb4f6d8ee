//! What errors must not repeat.

use std::sync::Arc;

use super::McpTransport;

/// What a server was sent to prove who asks: what it says in an error may repeat it, and we do not.
#[derive(Clone)]
pub(super) struct Secrets(Arc<[String]>);

/// Shorter ones are no secrets, and are in many words.
const MIN_SECRET_BYTES: usize = 6;

impl Secrets {
    pub(super) fn of(transport: &McpTransport) -> Self {
        let headers = match transport {
            McpTransport::Http { headers, .. } | McpTransport::Sse { headers, .. } => headers.as_slice(),
            McpTransport::Stdio { .. } | McpTransport::Host { .. } => &[],
        };
        // Also the token of `Bearer token` by itself.
        let parts = headers
            .iter()
            .flat_map(|(_, value)| [Some(value.as_str()), value.split_once(' ').map(|(_, rest)| rest)]);
        let mut all: Vec<String> = parts
            .flatten()
            .map(str::trim)
            .filter(|part| part.len() >= MIN_SECRET_BYTES)
            .map(str::to_owned)
            .collect();
        all.sort_by_key(|part| std::cmp::Reverse(part.len()));
        Self(all.into())
    }

    pub(super) fn hidden(&self, text: String) -> String {
        self.0
            .iter()
            .fold(text, |text, secret| if text.contains(secret) { text.replace(secret, "…") } else { text })
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Secrets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proves_who_asks_is_not_repeated() {
        let headers =
            [("Authorization", "Bearer tok-12345"), ("X-Key", "tok-12345-long"), ("X-Version", "1")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let secrets = Secrets::of(&McpTransport::Http { url: "http://x".to_owned(), headers });
        for (text, hidden) in [
            ("no 1 Bearer tok-12345!", "no 1 …!"),
            ("bad token tok-12345", "bad token …"),
            ("bad tok-12345-long and tok-12345", "bad … and …"),
            ("", ""),
        ] {
            assert_eq!(secrets.hidden(text.to_owned()), hidden);
        }
        assert_eq!(format!("{secrets:?}"), "Secrets");
    }
}
