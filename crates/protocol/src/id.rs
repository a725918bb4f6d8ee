//! Ids: a prefix that says what it is, then 128 random bits.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest id accepted from outside, in bytes.
pub const MAX_ID_BYTES: usize = 64;

/// What an [`Id`] names; gives the prefix.
pub trait Kind {
    /// The text before the underscore: `sesn` in `sesn_0h3…`.
    const PREFIX: &'static str;
}

/// Marks the id of an organisation.
#[derive(Debug)]
pub enum Org {}
/// Marks the id of an API key.
#[derive(Debug)]
pub enum Key {}
/// Marks the id of a session.
#[derive(Debug)]
pub enum Session {}
/// Marks the id of a request, ours.
#[derive(Debug)]
pub enum Request {}
/// Marks the id of a session event.
#[derive(Debug)]
pub enum Event {}
/// Marks the id of an agent's definition.
#[derive(Debug)]
pub enum Agent {}
/// Marks the id of an environment.
#[derive(Debug)]
pub enum Environment {}
/// Marks the id of an uploaded file.
#[derive(Debug)]
pub enum File {}
/// Marks the id of a resource of a session.
#[derive(Debug)]
pub enum Resource {}

impl Kind for Org {
    const PREFIX: &'static str = "org";
}
impl Kind for Key {
    const PREFIX: &'static str = "key";
}
impl Kind for Session {
    const PREFIX: &'static str = "sesn";
}
impl Kind for Request {
    const PREFIX: &'static str = "req";
}
impl Kind for Event {
    const PREFIX: &'static str = "sevt";
}
impl Kind for Agent {
    const PREFIX: &'static str = "agent";
}
impl Kind for Environment {
    const PREFIX: &'static str = "env";
}
impl Kind for File {
    const PREFIX: &'static str = "file";
}
impl Kind for Resource {
    const PREFIX: &'static str = "sesrsc";
}

/// An organisation's id, `org_…`.
pub type OrgId = Id<Org>;
/// An API key's public id, `key_…`.
pub type KeyId = Id<Key>;
/// A session's id, `sesn_…`.
pub type SessionId = Id<Session>;
/// A request's id, `req_…`.
pub type RequestId = Id<Request>;
/// An event's id, `sevt_…`.
pub type EventId = Id<Event>;
/// An agent's id, `agent_…`.
pub type AgentId = Id<Agent>;
/// An environment's id, `env_…`.
pub type EnvironmentId = Id<Environment>;
/// A file's id, `file_…`.
pub type FileId = Id<File>;
/// A session resource's id, `sesrsc_…`.
pub type ResourceId = Id<Resource>;

/// An id of one kind. Ids of two kinds are two types and cannot be mixed up.
pub struct Id<K>(Box<str>, PhantomData<fn() -> K>);

impl<K: Kind> Id<K> {
    /// Makes an id from 128 random bits; the caller brings the randomness.
    #[must_use]
    pub fn from_random(bits: [u8; 16]) -> Self {
        // Crockford's alphabet in lower case: no letters that are read as digits, safe in a path or a host name.
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let number = u128::from_be_bytes(bits);
        let digits = (0..26).rev().map(|place| {
            let index = usize::try_from((number >> (place * 5)) & 31).expect("five bits fit");
            char::from(ALPHABET[index])
        });
        let text: String = K::PREFIX.chars().chain(['_']).chain(digits).collect();
        Self(text.into(), PhantomData)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not an id of the kind asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the id: expected `{prefix}_` and then letters and digits")]
pub struct IdError {
    prefix: &'static str,
}

impl<K: Kind> FromStr for Id<K> {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let rest = text.strip_prefix(K::PREFIX).and_then(|rest| rest.strip_prefix('_'));
        match rest {
            Some(rest)
                if !rest.is_empty()
                    && text.len() <= MAX_ID_BYTES
                    && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
            {
                Ok(Self(text.into(), PhantomData))
            }
            _ => Err(IdError { prefix: K::PREFIX }),
        }
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}
impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
impl<K> fmt::Display for Id<K> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
impl<'de, K: Kind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_kinds_do_not_mix() {
        let id = SessionId::from_random([7; 16]);
        assert_eq!(id.as_str(), "sesn_070w3ge1r70w3ge1r70w3ge1r7");
        assert_eq!(id.as_str().parse::<SessionId>().unwrap(), id);
        assert!(id.as_str().parse::<RequestId>().is_err());
    }

    #[test]
    fn hostile_ids_are_refused() {
        let long = format!("sesn_{}", "a".repeat(MAX_ID_BYTES));
        for text in
            ["", "sesn_", "sesn", "sesn_../x", "sesn_a b", "sesn_é", "SESN_a", "sesn_a\0", long.as_str()]
        {
            assert!(text.parse::<SessionId>().is_err(), "{text:?}");
        }
    }
}
