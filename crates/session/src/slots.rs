//! Places for runs and turns: so many on the host, for an org, for a user, under a key; and the line before them.
//!
//! The line is fair by user: a place that comes free goes to the user who has had least of late (start-time fair queueing
//! with one unit a turn), so that a user with a thousand turns in line delays another's single one by a turn, not by a
//! thousand.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use wardian_protocol::{KeyId, OrgId, SessionId};

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
    orgs: HashMap<OrgId, usize>,
    users: HashMap<User, usize>,
    keys: HashMap<KeyId, usize>,
    line: Vec<Waiting>,
    /// Of those in line.
    waiting_of: HashMap<User, usize>,
    /// When each user's last turn was to end, in turns: who is behind goes first.
    finish: HashMap<User, u64>,
    /// The time of the line: the start of the turn that was let in last.
    time: u64,
    next_number: u64,
}

/// A user of an org; runs without a user count together.
type User = (OrgId, Option<String>);

#[derive(Debug)]
struct Waiting {
    number: u64,
    session: SessionId,
    user: User,
    start: u64,
    call: oneshot::Sender<Slot>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    user: User,
    key: Option<KeyId>,
}

/// A place in line until this is dropped.
#[derive(Debug)]
pub struct Ticket {
    slots: Arc<Slots>,
    number: u64,
    called: oneshot::Receiver<Slot>,
}

impl Slots {
    /// All free.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self { caps, taken: Mutex::default() }
    }

    /// Takes a place at once.
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
        let mut taken = self.lock();
        self.has_room(&taken, &user)?;
        if key.is_some_and(|key| count(&taken.keys, key) >= self.caps.runs_per_key) {
            return Err(Full::Key(self.caps.runs_per_key));
        }
        Ok(self.give(&mut taken, user, key.cloned()))
    }

    /// Gets in line; the place may be there at once.
    ///
    /// # Errors
    /// When the line is as long as it may be.
    pub fn queue(
        self: &Arc<Self>,
        org: &OrgId,
        user: Option<&str>,
        session: &SessionId,
    ) -> Result<Ticket, Full> {
        let user = (org.clone(), user.map(str::to_owned));
        let (call, called) = oneshot::channel();
        let number = {
            let mut taken = self.lock();
            self.check_line(&taken, &user)?;
            let start = taken.time.max(taken.finish.get(&user).copied().unwrap_or(0));
            taken.finish.insert(user.clone(), start + 1);
            *taken.waiting_of.entry(user.clone()).or_default() += 1;
            let number = taken.next_number;
            taken.next_number += 1;
            taken.line.push(Waiting { number, session: session.clone(), user, start, call });
            number
        };
        self.call();
        Ok(Ticket { slots: Arc::clone(self), number, called })
    }

    /// Whether one more may get in line.
    ///
    /// # Errors
    /// When not.
    pub fn may_queue(&self, org: &OrgId, user: Option<&str>) -> Result<(), Full> {
        self.check_line(&self.lock(), &(org.clone(), user.map(str::to_owned)))
    }

    /// How many are let in before the turn of this session if nobody else comes, and that one: 1 for the next; none where
    /// no turn of it is in line.
    pub fn position(&self, session: &SessionId) -> Option<usize> {
        let taken = self.lock();
        let own = taken.line.iter().find(|waiting| waiting.session == *session)?;
        let before = |waiting: &&Waiting| (waiting.start, waiting.number) <= (own.start, own.number);
        Some(taken.line.iter().filter(before).count())
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.lock().host
    }

    /// How many wait in line.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().line.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_line(&self, taken: &Taken, user: &User) -> Result<(), Full> {
        if taken.line.len() >= self.caps.queued_per_host {
            return Err(Full::Queue(self.caps.queued_per_host));
        }
        if count(&taken.waiting_of, user) >= self.caps.queued_per_user {
            return Err(Full::Queue(self.caps.queued_per_user));
        }
        Ok(())
    }

    fn has_room(&self, taken: &Taken, user: &User) -> Result<(), Full> {
        if taken.host >= self.caps.runs_per_host {
            return Err(Full::Host(self.caps.runs_per_host));
        }
        if count(&taken.orgs, &user.0) >= self.caps.runs_per_org {
            return Err(Full::Org(self.caps.runs_per_org));
        }
        if count(&taken.users, user) >= self.caps.runs_per_user {
            return Err(Full::User(self.caps.runs_per_user));
        }
        Ok(())
    }

    fn give(self: &Arc<Self>, taken: &mut Taken, user: User, key: Option<KeyId>) -> Slot {
        taken.host += 1;
        *taken.orgs.entry(user.0.clone()).or_default() += 1;
        *taken.users.entry(user.clone()).or_default() += 1;
        if let Some(key) = &key {
            *taken.keys.entry(key.clone()).or_default() += 1;
        }
        Slot { slots: Arc::clone(self), user, key }
    }

    /// Lets in who may go in.
    fn call(self: &Arc<Self>) {
        loop {
            let called = {
                let mut taken = self.lock();
                let Some(index) = self.next_in_line(&taken) else { return };
                let waiting = taken.line.remove(index);
                give_back(&mut taken.waiting_of, &waiting.user);
                taken.time = taken.time.max(waiting.start);
                if taken.line.is_empty() {
                    taken.finish.clear();
                    taken.time = 0;
                }
                (waiting.call, self.give(&mut taken, waiting.user, None))
            };
            // Outside of the lock: where nobody waits any more, the place is given back in here.
            let _gone = called.0.send(called.1);
        }
    }

    fn next_in_line(&self, taken: &Taken) -> Option<usize> {
        let may = |waiting: &Waiting| self.has_room(taken, &waiting.user).is_ok();
        let line = taken.line.iter().enumerate().filter(|(_, waiting)| may(waiting));
        line.min_by_key(|(_, waiting)| (waiting.start, waiting.number)).map(|(index, _)| index)
    }
}

impl Ticket {
    /// Waits for the place. May be dropped and called again.
    pub async fn called(&mut self) -> Option<Slot> {
        (&mut self.called).await.ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        if let Some(index) = taken.line.iter().position(|waiting| waiting.number == self.number) {
            let waiting = taken.line.remove(index);
            give_back(&mut taken.waiting_of, &waiting.user);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut taken = self.slots.lock();
            taken.host -= 1;
            give_back(&mut taken.orgs, &self.user.0);
            give_back(&mut taken.users, &self.user);
            if let Some(key) = &self.key {
                give_back(&mut taken.keys, key);
            }
        }
        self.slots.call();
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
    use futures_util::FutureExt;

    use super::*;

    fn session(number: u8) -> SessionId {
        SessionId::from_random([number; 16])
    }

    fn caps() -> Caps {
        Caps { runs_per_host: 3, runs_per_user: 2, runs_per_key: 1, ..Caps::default() }
    }

    #[test]
    fn each_cap_holds_and_places_come_back() {
        let slots = Arc::new(Slots::new(caps()));
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
        let taken = slots.lock();
        assert!(taken.users.is_empty() && taken.keys.is_empty() && taken.orgs.is_empty());
    }

    #[test]
    fn an_org_has_its_share() {
        let slots = Arc::new(Slots::new(Caps { runs_per_org: 1, ..Caps::default() }));
        let (one, other) = (OrgId::from_random([1; 16]), OrgId::from_random([2; 16]));
        let first = slots.take(&one, Some("ann"), None).unwrap();
        assert_eq!(slots.take(&one, Some("bob"), None).unwrap_err(), Full::Org(1));
        slots.take(&other, None, None).unwrap();
        drop(first);
        slots.take(&one, Some("bob"), None).unwrap();
    }

    #[test]
    fn the_line_is_fair_by_user_and_in_order_for_each() {
        let slots = Arc::new(Slots::new(Caps { runs_per_host: 1, ..Caps::default() }));
        let org = OrgId::from_random([1; 16]);
        let place = slots.take(&org, None, None).unwrap();
        let mut line = Vec::new();
        for number in 0..4 {
            line.push(("ann", slots.queue(&org, Some("ann"), &session(number)).unwrap()));
        }
        line.push(("bob", slots.queue(&org, Some("bob"), &session(4)).unwrap()));
        let positions: Vec<_> = (0..6).map(|number| slots.position(&session(number))).collect();
        assert_eq!(positions, [Some(1), Some(3), Some(4), Some(5), Some(2), None]);
        drop(place);
        let mut order = Vec::new();
        while !line.is_empty() {
            let index = line.iter_mut().position(|(_, ticket)| ticket.called().now_or_never().is_some());
            order.push(line.remove(index.unwrap()).0);
        }
        assert_eq!(order, ["ann", "bob", "ann", "ann", "ann"]);
        assert_eq!((slots.taken(), slots.waiting()), (0, 0));
    }

    #[test]
    fn who_leaves_the_line_is_not_waited_for() {
        let slots = Arc::new(Slots::new(Caps { runs_per_host: 1, queued_per_user: 2, ..Caps::default() }));
        let org = OrgId::from_random([1; 16]);
        let place = slots.take(&org, None, None).unwrap();
        let first = slots.queue(&org, Some("ann"), &session(1)).unwrap();
        let mut second = slots.queue(&org, Some("ann"), &session(2)).unwrap();
        assert_eq!(slots.queue(&org, Some("ann"), &session(3)).unwrap_err(), Full::Queue(2));
        assert_eq!(slots.may_queue(&org, Some("ann")).unwrap_err(), Full::Queue(2));
        drop(first);
        assert_eq!((slots.position(&session(1)), slots.position(&session(2))), (None, Some(1)));
        slots.may_queue(&org, Some("ann")).unwrap();
        drop(place);
        let slot = second.called().now_or_never().unwrap();
        assert!(slot.is_some());
        // A place that nobody came for goes to the next.
        let gone = slots.queue(&org, Some("ann"), &session(4)).unwrap();
        let mut last = slots.queue(&org, Some("bob"), &session(5)).unwrap();
        drop(gone);
        drop(slot);
        assert!(last.called().now_or_never().unwrap().is_some());
        drop(last);
        assert_eq!((slots.taken(), slots.waiting()), (0, 0));
    }
}
