//! The ticket store in the memory of one process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_core::future::BoxFuture;
use tokio::time::Instant;

use super::{AuthError, TicketGrant, TicketStore};

/// Maximum number of unused tickets of one caller, who has a few pages open with a few streams each.
const MAX_PER_OWNER: usize = 64;

/// Maximum number of unused tickets: about 64 MB if the claims of a token have a kilobyte.
const MAX_TICKETS: usize = 65_536;

/// The store in the memory of one process.
///
/// When a limit is reached, a new ticket replaces the caller's own oldest one, never another caller's. A caller
/// without tickets is then refused. Every call first removes expired tickets.
#[derive(Default)]
pub(super) struct MemoryTickets(Mutex<Table>);

#[derive(Default)]
struct Table {
    tickets: HashMap<String, StoredTicket>,
    /// Keys by expiry and number.
    by_expiry: BTreeMap<(Instant, u64), String>,
    /// Number and expiry of each owner's tickets, oldest first.
    by_owner: HashMap<String, BTreeSet<(u64, Instant)>>,
    /// Number of the next ticket.
    next: u64,
}

struct StoredTicket {
    grant: String,
    owner: String,
    /// Expiry and number.
    expiry: (Instant, u64),
}

impl Table {
    fn remove_expired(&mut self, now: Instant) {
        while let Some(first) = self.by_expiry.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.get().clone();
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &str) -> Option<String> {
        let StoredTicket { grant, owner, expiry } = self.tickets.remove(key)?;
        self.by_expiry.remove(&expiry);
        if let Some(own) = self.by_owner.get_mut(&owner) {
            own.remove(&(expiry.1, expiry.0));
            if own.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
        Some(grant)
    }

    /// Makes room for another ticket of this owner, if a limit is reached. Returns whether there is room.
    fn make_room(&mut self, owner: &str) -> bool {
        let own = self.by_owner.get(owner);
        let full =
            self.tickets.len() >= MAX_TICKETS || own.is_some_and(|own| own.len() >= MAX_PER_OWNER);
        if !full {
            return true;
        }
        let oldest = own.and_then(BTreeSet::first).map(|(number, expiry)| (*expiry, *number));
        let key = oldest.and_then(|oldest| self.by_expiry.get(&oldest).cloned());
        key.is_some_and(|key| self.remove(&key).is_some())
    }

    fn put(&mut self, key: &str, grant: &TicketGrant, expiry: Instant) {
        self.remove(key);
        let expiry = (expiry, self.next);
        self.next += 1;
        let (grant, owner) = (grant.as_str().to_owned(), grant.owner().to_owned());
        self.by_expiry.insert(expiry, key.to_owned());
        self.by_owner.entry(owner.clone()).or_default().insert((expiry.1, expiry.0));
        self.tickets.insert(key.to_owned(), StoredTicket { grant, owner, expiry });
    }
}

impl MemoryTickets {
    /// No code under the lock can panic, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TicketStore for MemoryTickets {
    fn put<'a>(
        &'a self,
        key: &'a str,
        grant: &'a TicketGrant,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        let now = Instant::now();
        let mut table = self.lock();
        table.remove_expired(now);
        let has_room = table.make_room(grant.owner());
        if has_room {
            table.put(key, grant, now + ttl);
        }
        let full = || AuthError::unavailable("too many unused tickets");
        Box::pin(std::future::ready(has_room.then_some(()).ok_or_else(full)))
    }

    fn take<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, AuthError>> {
        let mut table = self.lock();
        table.remove_expired(Instant::now());
        Box::pin(std::future::ready(Ok(table.remove(key))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(owner: &str, text: &str) -> TicketGrant {
        TicketGrant::new(owner, text)
    }

    #[cfg(feature = "testing")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_store_in_memory_fulfils_the_contract() {
        let store = MemoryTickets::default();
        crate::testing::ticket_store_contract(store).await.expect("the contract");
    }

    #[tokio::test(start_paused = true)]
    async fn at_its_limit_a_callers_own_oldest_ticket_is_evicted() {
        let store = MemoryTickets::default();
        let ttl = Duration::from_secs(30);
        store.put("bob's", &grant("bob", "b"), ttl).await.expect("room");
        for n in 0..1000 {
            let ttl = Duration::from_secs(if n % 2 == 0 { 60 } else { 30 });
            store.put(&format!("a{n}"), &grant("ann", "a"), ttl).await.expect("room");
        }
        let stored = store.lock().tickets.len();
        assert_eq!(stored, MAX_PER_OWNER + 1);
        for n in 0..1000 - MAX_PER_OWNER {
            assert_eq!(store.take(&format!("a{n}")).await, Ok(None), "{n}");
        }
        for n in 1000 - MAX_PER_OWNER..1000 {
            assert_eq!(store.take(&format!("a{n}")).await, Ok(Some("a".to_owned())), "{n}");
        }
        assert_eq!(store.take("bob's").await, Ok(Some("b".to_owned())));
        let table = store.lock();
        assert!(
            table.tickets.is_empty() && table.by_expiry.is_empty() && table.by_owner.is_empty()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_evicts_no_other_callers_ticket_and_expires_all() {
        let store = MemoryTickets::default();
        let ttl = Duration::from_secs(30);
        for n in 0..MAX_TICKETS {
            store.put(&n.to_string(), &grant(&n.to_string(), ""), ttl).await.expect("room");
        }
        let error = store.put("x", &grant("ann", ""), ttl).await.expect_err("full");
        assert!(matches!(error, AuthError::Unavailable(_)), "{error}");
        store.put("y", &grant("7", "7"), ttl).await.expect("its own ticket is replaced");
        assert_eq!(store.take("7").await, Ok(None));
        assert_eq!(store.take("y").await, Ok(Some("7".to_owned())));
        tokio::time::advance(ttl).await;
        assert_eq!(store.take("8").await, Ok(None));
        let table = store.lock();
        assert!(
            table.tickets.is_empty() && table.by_expiry.is_empty() && table.by_owner.is_empty()
        );
    }
}
