//! Who asks: API keys, their scopes, and the patience with wrong ones.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Request, header};
use jiff::Timestamp;
use subtle::ConstantTimeEq;
use wardian_protocol::KeyId;
use wardian_session::Caller;
use wardian_store::{KeyRecord, Scope};

use crate::App;
use crate::error::Error;
use crate::keys;
use crate::serve::Peer;

/// Addresses whose failed logins are counted; over it, the oldest are forgotten.
const MAX_ADDRESSES: usize = 10_000;
/// How long failed logins count.
const WINDOW: Duration = Duration::from_secs(60);
/// Keys that an address has logged in with, each; they are not locked out by what others behind the same proxy do.
const MAX_KNOWN_KEYS: usize = 64;

/// A caller whose key was right.
#[derive(Clone, Debug)]
pub struct Identity {
    key: KeyRecord,
}

impl Identity {
    /// The caller, as the engine knows it.
    pub fn caller(&self) -> Caller {
        Caller {
            org_id: self.key.org_id.clone(),
            user_id: self.key.user_id.clone(),
            key_id: Some(self.key.id.clone()),
        }
    }

    /// The user that the key is bound to.
    pub fn user(&self) -> Option<&str> {
        self.key.user_id.as_deref()
    }

    /// The key's public id.
    pub const fn key_id(&self) -> &KeyId {
        &self.key.id
    }

    /// The key's organisation.
    pub const fn org(&self) -> &wardian_protocol::OrgId {
        &self.key.org_id
    }

    /// Whether the key has the scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.key.scopes.contains(&scope)
    }

    /// Demands one of some scopes.
    pub fn require(&self, scopes: &[Scope]) -> Result<(), Error> {
        if scopes.iter().any(|scope| self.has(*scope)) {
            return Ok(());
        }
        let names: Vec<_> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
        Err(Error::forbidden(format!("this key lacks the scope {}", names.join(" or "))))
    }
}

/// The caller of a request that only looks.
pub fn reader<'a, B>(
    app: &'a App,
    request: &'a Request<B>,
) -> impl Future<Output = Result<Identity, Error>> + Send + 'a {
    allowed(app, request.headers(), request.extensions().get(), &[Scope::Read, Scope::Sessions, Scope::Admin])
}

/// The caller of a request that changes something.
pub fn writer<'a, B>(
    app: &'a App,
    request: &'a Request<B>,
) -> impl Future<Output = Result<Identity, Error>> + Send + 'a {
    allowed(app, request.headers(), request.extensions().get(), &[Scope::Sessions, Scope::Admin])
}

async fn allowed(
    app: &App,
    headers: &HeaderMap,
    peer: Option<&Peer>,
    scopes: &[Scope],
) -> Result<Identity, Error> {
    let identity = authenticate(app, headers, peer).await?;
    identity.require(scopes)?;
    Ok(identity)
}

/// Finds the caller of a request. No, malformed, unknown, wrong and revoked keys are answered alike.
pub async fn authenticate(app: &App, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Identity, Error> {
    let now = (app.config.clock)();
    let address = peer.map(|peer| peer.0.ip());
    let text = presented(headers);
    let id = text.and_then(keys::id_of);
    if let Some(address) = address {
        app.logins.check(address, id.as_ref(), now)?;
    }
    let found = match &id {
        Some(id) => app.store.key(id).await?,
        None => None,
    };
    // A key that does not exist is compared too: both cases take the same time.
    let expected = found.as_ref().map_or([0; 32], |key| key.secret_sha256);
    let right: bool = keys::hash(text.unwrap_or_default()).ct_eq(&expected).into();
    match found {
        Some(key) if right && key.revoked_at.is_none() => {
            if let Some(address) = address {
                app.logins.succeeded(address, &key.id, now);
            }
            Ok(Identity { key })
        }
        Some(_) | None => {
            if let Some(address) = address {
                app.logins.failed(address, now);
            }
            Err(Error::unauthenticated())
        }
    }
}

/// The key of a request. Stock clients may send a placeholder in the other header.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let api_keys = headers.get_all("x-api-key").iter().filter_map(|value| value.to_str().ok());
    let bearers =
        headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| bearer(value.to_str().ok()?));
    api_keys.chain(bearers).find(|text| text.starts_with(keys::PREFIX))
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Failed logins by address, in a table of bounded size.
#[derive(Debug)]
pub struct Logins {
    failures_per_window: u32,
    addresses: Mutex<HashMap<IpAddr, Address>>,
}

#[derive(Debug)]
struct Address {
    since: Timestamp,
    failures: u32,
    known: Vec<KeyId>,
}

impl Logins {
    /// Nobody has failed yet.
    pub fn new(failures_per_window: u32) -> Self {
        Self { failures_per_window, addresses: Mutex::default() }
    }

    /// Refuses an address that has failed too often, unless it has logged in with this key before.
    fn check(&self, address: IpAddr, id: Option<&KeyId>, now: Timestamp) -> Result<(), Error> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = addresses.get(&address) else { return Ok(()) };
        let wait = left(known.since, now);
        if known.failures < self.failures_per_window
            || wait.is_zero()
            || id.is_some_and(|id| known.known.contains(id))
        {
            return Ok(());
        }
        Err(Error::slow_down("too many failed logins from this address", wait))
    }

    fn failed(&self, address: IpAddr, now: Timestamp) {
        self.change(address, now, |address| address.failures = address.failures.saturating_add(1));
    }

    fn succeeded(&self, address: IpAddr, key: &KeyId, now: Timestamp) {
        self.change(address, now, |address| {
            if !address.known.contains(key) {
                if address.known.len() >= MAX_KNOWN_KEYS {
                    address.known.remove(0);
                }
                address.known.push(key.clone());
            }
        });
    }

    fn change(&self, address: IpAddr, now: Timestamp, change: impl FnOnce(&mut Address)) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&address) {
            make_room(&mut addresses, now);
        }
        let entry = addresses.entry(address).or_insert_with(|| Address {
            since: now,
            failures: 0,
            known: Vec::new(),
        });
        if left(entry.since, now).is_zero() {
            entry.since = now;
            entry.failures = 0;
        }
        change(entry);
    }
}

/// Forgets the addresses whose window is over, and if there are none, the oldest tenth.
fn make_room(addresses: &mut HashMap<IpAddr, Address>, now: Timestamp) {
    addresses.retain(|_, address| !left(address.since, now).is_zero());
    if addresses.len() >= MAX_ADDRESSES {
        let mut since: Vec<Timestamp> = addresses.values().map(|address| address.since).collect();
        since.sort_unstable();
        let until = since[MAX_ADDRESSES / 10];
        addresses.retain(|_, address| address.since > until);
    }
}

/// What is left of the window that began at `since`.
fn left(since: Timestamp, now: Timestamp) -> Duration {
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
    WINDOW.saturating_sub(passed)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn an_address_waits_after_too_many_failures_but_not_with_a_key_it_used_before() {
        let logins = Logins::new(2);
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let known = KeyId::from_random([1; 16]);
        let other = KeyId::from_random([2; 16]);
        logins.succeeded(address, &known, at(0));
        logins.failed(address, at(0));
        assert!(logins.check(address, None, at(1)).is_ok());
        logins.failed(address, at(1));
        assert!(logins.check(address, None, at(2)).is_err());
        assert!(logins.check(address, Some(&other), at(2)).is_err());
        assert!(logins.check(address, Some(&known), at(2)).is_ok());
        assert!(logins.check(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), None, at(2)).is_ok());
        assert!(logins.check(address, None, at(61)).is_ok());
    }

    #[test]
    fn the_table_stays_bounded() {
        let logins = Logins::new(2);
        for number in 0..25_000u32 {
            logins.failed(IpAddr::V4(Ipv4Addr::from_bits(number)), at(i64::from(number / 1000)));
        }
        assert!(logins.addresses.lock().unwrap().len() <= MAX_ADDRESSES);
    }

    #[test]
    fn a_placeholder_in_one_header_does_not_hide_the_key_in_the_other() {
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", "placeholder".parse().unwrap());
        assert_eq!(presented(&headers), None);
        headers.insert("authorization", "bearer sk-wardian-x".parse().unwrap());
        assert_eq!(presented(&headers), Some("sk-wardian-x"));
        headers.insert("authorization", "Basic sk-wardian-x".parse().unwrap());
        assert_eq!(presented(&headers), None);
    }
}
