//! The money of one door: what was spent, and what is reserved for requests under way.
//!
//! Invariant: `spent + reserved <= limit`, as long as no request costs more than the bound that was reserved for it, and
//! the limit is not lowered below what is there.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use wardian_protocol::NanoUsd;
use wardian_store::Tokens;

use crate::{ModelSpent, Spent};

/// Reserves and settles. Shared by all requests of a door.
#[derive(Debug)]
pub struct Budget {
    account: Mutex<Account>,
    changed: Notify,
}

/// Sums are wide, so that no bound, however large, can make them wrap or stick.
#[derive(Debug, Default)]
struct Account {
    limit: Option<NanoUsd>,
    spent: i128,
    reserved: i128,
    by_model: BTreeMap<String, ModelSpent>,
    refused: bool,
}

/// Why there is no room for a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The limit.
    pub limit: NanoUsd,
    /// What was spent.
    pub spent: NanoUsd,
    /// What other requests have reserved.
    pub reserved: NanoUsd,
    /// What was asked for.
    pub bound: NanoUsd,
}

impl Shortfall {
    /// What is neither spent nor reserved.
    pub fn available(&self) -> NanoUsd {
        (self.limit - self.spent - self.reserved).max(NanoUsd::ZERO)
    }

    /// Whether there would be room if no other request were under way.
    pub fn only_reservations_block(&self) -> bool {
        self.spent + self.bound <= self.limit
    }
}

impl Budget {
    /// A budget of which nothing is spent. `None` is no limit.
    pub fn new(limit: Option<NanoUsd>) -> Self {
        let account = Mutex::new(Account { limit, ..Account::default() });
        Self { account, changed: Notify::new() }
    }

    /// Changes the limit. What is reserved stays so; whoever waits for room tries again.
    pub fn set_limit(&self, limit: Option<NanoUsd>) {
        self.lock().limit = limit;
        self.changed.notify_waiters();
    }

    /// Reserves `bound`, if there is room now. Whoever reserved must [`Budget::settle`] once.
    pub fn reserve(&self, bound: NanoUsd) -> Result<(), Shortfall> {
        let mut account = self.lock();
        let amount = i128::from(bound.0.max(0));
        if let Some(limit) = account.limit
            && account.spent + account.reserved + amount > i128::from(limit.0)
        {
            let (spent, reserved) = (narrow(account.spent), narrow(account.reserved));
            return Err(Shortfall { limit, spent, reserved, bound });
        }
        account.reserved += amount;
        Ok(())
    }

    /// Reserves `bound`, waiting up to `patience` while only other reservations are in the way.
    pub async fn reserve_or_wait(&self, bound: NanoUsd, patience: Duration) -> Result<(), Shortfall> {
        let deadline = Instant::now() + patience;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.reserve(bound) {
                Ok(()) => return Ok(()),
                Err(shortfall) if !shortfall.only_reservations_block() => return Err(shortfall),
                Err(shortfall) => timeout_at(deadline, changed).await.map_err(|_| shortfall)?,
            }
        }
    }

    /// Ends a reservation of `bound` at what the request did cost.
    pub fn settle(&self, bound: NanoUsd, cost: NanoUsd, model: &str, tokens: Tokens) {
        let mut account = self.lock();
        account.reserved -= i128::from(bound.0.max(0));
        account.spent += i128::from(cost.0);
        let entry = account.by_model.entry(model.to_owned()).or_default();
        entry.requests += 1;
        entry.tokens = entry.tokens.plus(tokens);
        entry.cost += cost;
        drop(account);
        self.changed.notify_waiters();
    }

    /// Ends a reservation of a request that was never sent.
    pub fn release(&self, bound: NanoUsd) {
        self.lock().reserved -= i128::from(bound.0.max(0));
        self.changed.notify_waiters();
    }

    /// Notes that a request was refused for money.
    pub fn note_refusal(&self) {
        self.lock().refused = true;
    }

    /// What was spent so far.
    pub fn spent(&self) -> Spent {
        let account = self.lock();
        Spent {
            cost: narrow(account.spent),
            by_model: account.by_model.clone(),
            budget_refused: account.refused,
        }
    }

    /// What is reserved now.
    pub fn reserved(&self) -> NanoUsd {
        narrow(self.lock().reserved)
    }

    /// The account, even if a thread panicked with it: every change above is whole before anything can panic.
    fn lock(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn narrow(amount: i128) -> NanoUsd {
    NanoUsd(i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn settle(budget: &Budget, bound: i64, cost: i64) {
        budget.settle(NanoUsd(bound), NanoUsd(cost), "m", Tokens::default());
    }

    #[test]
    fn a_bound_fits_up_to_the_last_nano_dollar() {
        let budget = Budget::new(Some(NanoUsd(100)));
        budget.reserve(NanoUsd(60)).unwrap();
        let shortfall = budget.reserve(NanoUsd(41)).unwrap_err();
        assert_eq!(shortfall.available(), NanoUsd(40));
        assert!(shortfall.only_reservations_block());
        budget.reserve(NanoUsd(40)).unwrap();
        settle(&budget, 60, 30);
        settle(&budget, 40, 0);
        assert_eq!((budget.spent().cost, budget.reserved()), (NanoUsd(30), NanoUsd(0)));
        assert!(!budget.reserve(NanoUsd(71)).unwrap_err().only_reservations_block());
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_limit_wakes_who_waits() {
        let budget = Budget::new(Some(NanoUsd(100)));
        budget.reserve(NanoUsd(60)).unwrap();
        let ages = Duration::from_secs(1 << 30);
        for (limit, is_room) in
            [(Some(NanoUsd(99)), None), (Some(NanoUsd(120)), Some(true)), (None, Some(true))]
        {
            let mut waiting = std::pin::pin!(budget.reserve_or_wait(NanoUsd(60), ages));
            assert!(poll_once(waiting.as_mut()).await.is_none());
            budget.set_limit(limit);
            let woken = poll_once(waiting.as_mut()).await;
            assert_eq!(woken.map(|reserved| reserved.is_ok()), is_room);
            if is_room.is_some() {
                budget.release(NanoUsd(60));
                budget.set_limit(Some(NanoUsd(100)));
            }
        }
        let mut waiting = std::pin::pin!(budget.reserve_or_wait(NanoUsd(60), ages));
        assert!(poll_once(waiting.as_mut()).await.is_none());
        budget.set_limit(Some(NanoUsd(59)));
        assert!(!waiting.await.unwrap_err().only_reservations_block(), "it never fits any more");
    }

    /// What a future is ready with, if it is.
    async fn poll_once<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }

    #[test]
    fn huge_bounds_neither_wrap_nor_stick() {
        let open = Budget::new(None);
        for _ in 0..3 {
            open.reserve(NanoUsd(i64::MAX)).unwrap();
        }
        (0..3).for_each(|_| settle(&open, i64::MAX, 1));
        assert_eq!((open.spent().cost, open.reserved()), (NanoUsd(3), NanoUsd(0)));
        let tight = Budget::new(Some(NanoUsd(i64::MAX)));
        tight.reserve(NanoUsd(1)).unwrap();
        tight.reserve(NanoUsd(i64::MAX)).unwrap_err();
        // A negative bound is nonsense of the price table: it frees nothing.
        tight.reserve(NanoUsd(-5)).unwrap();
        assert_eq!(tight.reserved(), NanoUsd(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_reservations_but_not_for_ever() {
        let budget = Arc::new(Budget::new(Some(NanoUsd(100))));
        budget.reserve(NanoUsd(80)).unwrap();
        let second = Duration::from_secs(1);
        budget.reserve_or_wait(NanoUsd(50), second).await.unwrap_err();
        let waiting = budget.reserve_or_wait(NanoUsd(50), second);
        let other = async { settle(&budget, 80, 10) };
        let (reserved, ()) = tokio::join!(waiting, other);
        reserved.unwrap();
        assert_eq!(budget.reserved(), NanoUsd(50));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Reserve(i64),
        Settle(usize, i64),
        Release(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..400_i64).prop_map(Step::Reserve),
            2 => (any::<usize>(), 0..=100_i64).prop_map(|(which, percent)| Step::Settle(which, percent)),
            1 => any::<usize>().prop_map(Step::Release),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whatever comes in whatever order: never over the limit, nothing lost, nothing left.
        #[test]
        fn spent_and_reserved_stay_within_the_limit(limit in 0..2000_i64, steps in steps()) {
            let budget = Budget::new(Some(NanoUsd(limit)));
            let mut held: Vec<i64> = Vec::new();
            let mut spent = 0;
            for step in steps {
                match step {
                    Step::Reserve(bound) => {
                        let room = limit - spent - held.iter().sum::<i64>();
                        let reserved = budget.reserve(NanoUsd(bound));
                        prop_assert_eq!(reserved.is_ok(), bound <= room);
                        if let Err(shortfall) = reserved {
                            prop_assert_eq!(shortfall.available(), NanoUsd(room));
                        } else {
                            held.push(bound);
                        }
                    }
                    Step::Settle(which, percent) if !held.is_empty() => {
                        let bound = held.swap_remove(which % held.len());
                        let cost = bound * percent / 100;
                        settle(&budget, bound, cost);
                        spent += cost;
                    }
                    Step::Release(which) if !held.is_empty() => {
                        budget.release(NanoUsd(held.swap_remove(which % held.len())));
                    }
                    Step::Settle(..) | Step::Release(_) => (),
                }
                prop_assert_eq!(budget.spent().cost, NanoUsd(spent));
                prop_assert_eq!(budget.reserved(), NanoUsd(held.iter().sum()));
                prop_assert!(budget.spent().cost + budget.reserved() <= NanoUsd(limit));
            }
            held.into_iter().for_each(|bound| budget.release(NanoUsd(bound)));
            prop_assert_eq!(budget.reserved(), NanoUsd::ZERO);
        }
    }
}
