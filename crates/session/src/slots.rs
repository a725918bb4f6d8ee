//! Places for runs: so many on the host, for a user, under a key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use wardian_protocol::{KeyId, OrgId};

use crate::config::Caps;
use crate::error::Full;

/// The places of an engine.
#[derive(Debug)]
pub struct Slots {
    caps: Caps,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    host: usize,
    users: HashMap<User, usize>,
    keys: HashMap<KeyId, usize>,
}

/// A user of an org; runs without a user count together.
type User = (OrgId, Option<String>);

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    user: User,
    key: Option<KeyId>,
}

impl Slots {
    /// All free.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self { caps, taken: Mutex::default() }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// Which cap has no room.
    pub fn take(
        self: &Arc<Self>,
        org: &OrgId,
        user: Option<&str>,
        key: Option<&KeyId>,
    ) -> Result<Slot, Full> {
        let user = (org.clone(), user.map(str::to_owned));
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.host >= self.caps.runs_per_host {
            return Err(Full::Host(self.caps.runs_per_host));
        }
        if count(&taken.users, &user) >= self.caps.runs_per_user {
            return Err(Full::User(self.caps.runs_per_user));
        }
        if key.is_some_and(|key| count(&taken.keys, key) >= self.caps.runs_per_key) {
            return Err(Full::Key(self.caps.runs_per_key));
        }
        taken.host += 1;
        *taken.users.entry(user.clone()).or_default() += 1;
        if let Some(key) = key {
            *taken.keys.entry(key.clone()).or_default() += 1;
        }
        Ok(Slot { slots: Arc::clone(self), user, key: key.cloned() })
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).host
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.host -= 1;
        give_back(&mut taken.users, &self.user);
        if let Some(key) = &self.key {
            give_back(&mut taken.keys, key);
        }
    }
}

fn count<K: Eq + Hash>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or(0)
}

/// Counts one less; nobody with a count of zero stays in memory.
fn give_back<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cap_holds_and_places_come_back() {
        let slots = Arc::new(Slots::new(Caps { runs_per_host: 3, runs_per_user: 2, runs_per_key: 1 }));
        let org = OrgId::from_random([1; 16]);
        let key = KeyId::from_random([2; 16]);
        let first = slots.take(&org, Some("ann"), Some(&key)).unwrap();
        assert_eq!(slots.take(&org, Some("ann"), Some(&key)).unwrap_err(), Full::Key(1));
        let second = slots.take(&org, Some("ann"), None).unwrap();
        assert_eq!(slots.take(&org, Some("ann"), None).unwrap_err(), Full::User(2));
        let third = slots.take(&org, Some("bob"), None).unwrap();
        assert_eq!(slots.take(&org, None, None).unwrap_err(), Full::Host(3));
        drop((first, second, third));
        assert_eq!(slots.taken(), 0);
        let taken = slots.taken.lock().unwrap();
        assert!(taken.users.is_empty() && taken.keys.is_empty());
    }
}
