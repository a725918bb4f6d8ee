//! The virtual key of a door: 256 random bits, known to the sandbox, useless on any other socket.

use http::{HeaderMap, header};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::Error;

/// What a virtual key begins with.
const PREFIX: &str = "sk-wardian-";

/// What the listener keeps of a key.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Whether a request carries the key, as `x-api-key` or as a bearer token. Where it carries several, one is enough:
    /// some clients send a placeholder in the other header.
    pub fn opens(&self, headers: &HeaderMap) -> bool {
        let api_keys = headers.get_all("x-api-key").iter().map(http::HeaderValue::as_bytes);
        let bearers =
            headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
        api_keys.chain(bearers).fold(false, |found, key| found | self.matches(key))
    }

    fn matches(&self, key: &[u8]) -> bool {
        Self::of(key).0.ct_eq(&self.0).into()
    }
}

/// Makes a key and the hash of it.
pub fn generate() -> Result<(SecretString, KeyHash), Error> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(Error::Random)?;
    let digits: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = format!("{PREFIX}{digits}");
    let hash = KeyHash::of(key.as_bytes());
    Ok((key.into(), hash))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn only_the_key_itself_opens() {
        let (key, hash) = generate().unwrap();
        let (other, _) = generate().unwrap();
        assert!(key.expose_secret().starts_with("sk-wardian-"));
        assert_ne!(key.expose_secret(), other.expose_secret());
        let opens = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
            hash.opens(&headers)
        };
        let key = key.expose_secret();
        assert!(opens("x-api-key", key));
        assert!(opens("authorization", &format!("Bearer {key}")));
        assert!(opens("authorization", &format!("bearer  {key}")));
        assert!(!opens("authorization", key));
        assert!(!opens("authorization", &format!("Basic {key}")));
        assert!(!opens("x-api-key", other.expose_secret()));
        assert!(!opens("x-api-key", ""));
        assert!(!opens("x-api-key", &key[..key.len() - 1]));
        assert!(!opens("cookie", key));
        assert!(!hash.opens(&HeaderMap::new()));
    }

    #[test]
    fn a_placeholder_in_one_header_does_not_hide_the_key_in_the_other() {
        let (key, hash) = generate().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", HeaderValue::from_static("placeholder"));
        let bearer = format!("Bearer {}", key.expose_secret());
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&bearer).unwrap());
        assert!(hash.opens(&headers));
    }
}
