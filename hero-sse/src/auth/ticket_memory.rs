//! The ticket store in the memory of one process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

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
    /// Expiry and number of each owner's tickets, oldest first. At most [`MAX_PER_OWNER`].
    by_owner: HashMap<String, VecDeque<(Instant, u64)>>,
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
            own.retain(|ticket| *ticket != expiry);
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
        let oldest = own.and_then(VecDeque::front);
        let key = oldest.and_then(|oldest| self.by_expiry.get(oldest).cloned());
        key.is_some_and(|key| self.remove(&key).is_some())
    }

    fn put(&mut self, key: &str, owner: &str, grant: &str, expiry: Instant) {
        self.remove(key);
        let expiry = (expiry, self.next);
        self.next += 1;
        let (grant, owner) = (grant.to_owned(), owner.to_owned());
        self.by_expiry.insert(expiry, key.to_owned());
        self.by_owner.entry(owner.clone()).or_default().push_back(expiry);
        self.tickets.insert(key.to_owned(), StoredTicket { grant, owner, expiry });
    }
}

impl MemoryTickets {
    /// Stores a grant. Returns whether there was room.
    pub(super) fn put(&self, key: &str, owner: &str, grant: &str, ttl: Duration) -> bool {
        let now = Instant::now();
        let mut table = self.lock();
        table.remove_expired(now);
        let has_room = table.make_room(owner);
        if has_room {
            table.put(key, owner, grant, now + ttl);
        }
        has_room
    }

    /// Removes the grant under `key` and returns it.
    pub(super) fn take(&self, key: &str) -> Option<String> {
        let mut table = self.lock();
        table.remove_expired(Instant::now());
        table.remove(key)
    }

    /// No code under the lock can panic, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn at_its_limit_a_callers_own_oldest_ticket_is_evicted() {
        let store = MemoryTickets::default();
        let ttl = Duration::from_secs(30);
        assert!(store.put("bob's", "bob", "b", ttl));
        for n in 0..1000 {
            let ttl = Duration::from_secs(if n % 2 == 0 { 60 } else { 30 });
            assert!(store.put(&format!("a{n}"), "ann", "a", ttl));
        }
        let stored = store.lock().tickets.len();
        assert_eq!(stored, MAX_PER_OWNER + 1);
        for n in 0..1000 - MAX_PER_OWNER {
            assert_eq!(store.take(&format!("a{n}")), None, "{n}");
        }
        for n in 1000 - MAX_PER_OWNER..1000 {
            assert_eq!(store.take(&format!("a{n}")).as_deref(), Some("a"), "{n}");
        }
        assert_eq!(store.take("bob's").as_deref(), Some("b"));
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
            assert!(store.put(&n.to_string(), &n.to_string(), "", ttl));
        }
        assert!(!store.put("x", "ann", "", ttl), "full");
        assert!(store.put("y", "7", "7", ttl), "its own ticket is replaced");
        assert_eq!(store.take("7"), None);
        assert_eq!(store.take("y").as_deref(), Some("7"));
        tokio::time::advance(ttl).await;
        assert_eq!(store.take("8"), None);
        let table = store.lock();
        assert!(
            table.tickets.is_empty() && table.by_expiry.is_empty() && table.by_owner.is_empty()
        );
    }
}
