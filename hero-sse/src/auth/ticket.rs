//! Tickets: a credential for one opening of one stream, which may stand in a URL.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Write as _};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::extract::OriginalUri;
use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use super::principal::Inner;
use super::{AuthError, Principal};
use crate::secret::Secret;

const DEFAULT_TTL: Duration = Duration::from_secs(30);
const SHORTEST_TTL: Duration = Duration::from_secs(1);
const LONGEST_TTL: Duration = Duration::from_secs(10 * 60);

/// How far the clocks of the nodes that share a store may differ.
const SKEW: Duration = Duration::from_secs(30);

/// A store that does not answer for so long is taken for one that is down.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whatever is wrong with a ticket: which it was is nobody's business.
const NOT_ACCEPTED: AuthError = AuthError::invalid("the ticket is not accepted: ask for a new one");

/// Tickets for clients that cannot send headers, such as an `EventSource`: an opt-in of the
/// [builder](crate::server::Builder::tickets).
///
/// A page sends its token in a header to the route of [`Mount::tickets`](crate::server::Mount::tickets) and gets a
/// ticket, which opens one stream: `GET /api/v1/usage/stream?ticket=..`. So no token ever stands in a URL, and what a
/// log or a history keeps of the URL opens nothing. A ticket
///
/// * is 256 random bits, of which the store keeps a hash only;
/// * opens once, within its time to live, by whoever holds it. PendingDecision for another path than the one it
///   was made for spends it as well, and so does a request that is then refused or turned away;
/// * stands for the token that bought it: the stream has its principal, and ends when that token would;
/// * opens nothing once [`disconnect`](crate::connections::Connections::disconnect) has meant its caller, at the kit that made it.
///
/// Since the same URL cannot open twice, every `hero.close` in answer to a ticket says `"reconnect": false`:
/// the page asks for a new ticket and opens a new `EventSource` with its cursor, as the README shows.
///
/// ```
/// use hero_sse::prelude::*;
/// use hero_sse::JwtAuthenticator;
/// use hero_sse::auth::Tickets;
/// use hero_sse::axum::Router;
///
/// # fn run() -> Result<(), hero_sse::SetupErrors> {
/// # let jwt = JwtAuthenticator::hs256("a secret of at least thirty-two bytes").any_issuer().audience("usage");
/// let sse = HeroSse::builder().authenticator(jwt).tickets(Tickets::new().audience("usage")).build()?;
/// let app: Router = Router::new().merge(sse.at("/api/v1").tickets("/tickets")?);
/// # Ok(())
/// # }
/// # run().unwrap();
/// ```
#[derive(Clone)]
pub struct Tickets {
    audience: Option<String>,
    ttl: Duration,
    store: Arc<dyn TicketStore>,
}

impl Default for Tickets {
    fn default() -> Self {
        Self::new()
    }
}

impl Tickets {
    /// Tickets that are kept in this process's memory, for 30 s.
    pub fn new() -> Self {
        Self { audience: None, ttl: DEFAULT_TTL, store: Arc::new(MemoryTickets::default()) }
    }

    /// The service that they open: one of another audience is not accepted, though it came from the same
    /// store. Required.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// How long a ticket waits to be used: 1 s to 10 min. Default 30 s, enough for a slow network.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Keeps them elsewhere: where several nodes share a name, a ticket that one made must open at another.
    #[must_use]
    pub fn store(mut self, store: impl TicketStore) -> Self {
        self.store = Arc::new(store);
        self
    }

    /// What is wrong with them: one sentence for each mistake.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.audience.as_deref().is_none_or(str::is_empty) {
            mistakes.push(
                "Tickets: no audience; add .audience(\"..\"), the name of this service".to_owned(),
            );
        }
        if !(SHORTEST_TTL..=LONGEST_TTL).contains(&self.ttl) {
            let ttl = self.ttl;
            mistakes.push(format!(
                "Tickets: a time to live of {ttl:?} is out of bounds: 1 s to 10 min"
            ));
        }
        mistakes
    }

    /// A ticket that opens `path` for this caller, who was looked at then, and for how long it waits.
    pub(crate) async fn issue(
        &self,
        principal: &Principal,
        looked_at: CheckedAt,
        path: &str,
    ) -> Result<(Secret<String>, Duration), AuthError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(AuthError::unavailable)?;
        let ticket = Secret::new(hex(&random));
        let now = SystemTime::now();
        let left = principal.expires_at().map(|end| end.duration_since(now).unwrap_or_default());
        let ttl = left.map_or(self.ttl, |left| left.min(self.ttl));
        let grant = Grant {
            audience: self.audience.clone().unwrap_or_default(),
            path: path.to_owned(),
            until: now + ttl,
            looked_at,
            principal: principal.inner().clone(),
        };
        let owner = (principal.issuer(), principal.subject());
        let texts = serde_json::to_string(&grant)
            .and_then(|text| Ok((text, serde_json::to_string(&owner)?)));
        let (text, owner) = texts.map_err(AuthError::unavailable)?;
        let grant = TicketGrant { text, owner };
        let key = key(&ticket);
        answered(async { self.store.put(&key, &grant, ttl).await }).await?;
        Ok((ticket, ttl))
    }

    /// Who holds this ticket, which is spent by asking, and when its token was looked at.
    pub(super) async fn redeem(
        &self,
        parts: &Parts,
        ticket: &Secret<String>,
    ) -> Result<(Principal, CheckedAt), AuthError> {
        if ticket.expose().len() != 64 {
            return Err(NOT_ACCEPTED);
        }
        let key = key(ticket);
        let grant = answered(async { self.store.take(&key).await }).await?.ok_or(NOT_ACCEPTED)?;
        let grant: Grant = serde_json::from_str(&grant).map_err(|_| NOT_ACCEPTED)?;
        let now = SystemTime::now();
        let principal = Principal::from(grant.principal);
        // A store should have forgotten what is too old; the token may have ended meanwhile.
        let until = grant.until.checked_add(SKEW).ok_or(NOT_ACCEPTED)?;
        let in_time = now <= until && principal.expires_at().is_none_or(|end| now < end);
        let meant = Some(grant.audience) == self.audience && grant.path == opened_path(parts);
        if in_time && meant { Ok((principal, grant.looked_at)) } else { Err(NOT_ACCEPTED) }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets")
            .field("audience", &self.audience)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// The path as the client wrote it: to the byte, and whole also in a nested router.
pub(crate) fn opened_path(parts: &Parts) -> &str {
    let original = parts.extensions.get::<OriginalUri>();
    original.map_or(parts.uri.path(), |OriginalUri(uri)| uri.path())
}

/// What a ticket stands for.
#[derive(Serialize, Deserialize)]
struct Grant {
    audience: String,
    path: String,
    until: SystemTime,
    looked_at: CheckedAt,
    principal: Inner,
}

/// When a caller's token was looked at, by the count of a kit's disconnects: who was meant by one of
/// those that came since must not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckedAt {
    /// Whose count it is; others of the same store have their own.
    pub(crate) instance: u64,
    pub(crate) disconnects: u64,
}

/// What a store keeps of a ticket: a text, and whose it is. It holds the caller's claims, which may be
/// personal data; there is nothing in it that opens a stream.
#[derive(Clone)]
pub struct TicketGrant {
    text: String,
    owner: String,
}

impl TicketGrant {
    /// What to keep, and to give back.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose it is: the same text for all tickets of one caller and for those of nobody else, for
    /// stores that bound how many one may have.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// A grant for tests of a store, which tells nothing.
    #[cfg(feature = "testing")]
    pub(crate) fn of(owner: &str, text: &str) -> Self {
        Self { text: text.to_owned(), owner: owner.to_owned() }
    }
}

/// Without the claims.
impl fmt::Debug for TicketGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketGrant").finish_non_exhaustive()
    }
}

/// Where [`Tickets`] are kept until they are used.
///
/// # Contract
///
/// * `take` is atomic: of any number of takes of one key at the same time, on whichever node, one gets
///   the grant and the others `None`. In Redis that is `GETDEL`; a `GET` and a `DEL` are not enough.
/// * After `ttl` a grant is gone.
/// * What `put` was told is taken on every node from then on.
/// * Keys are 64 hexadecimal digits: a ticket's hash, from which no ticket can be made. Whoever can
///   write to the store lets in whom he likes, so it is as trusted as the authenticator.
/// * When it cannot be told, it is an error, [`AuthError::unavailable`]: the caller is refused and asked
///   to come back. One that does not answer within 5 s is taken for unavailable, too.
///
/// Methods run from many tasks at a time, and may be cancelled at any await point; a ticket whose
/// `take` is cancelled may be lost.
/// [`testing::ticket_store_contract`](crate::testing::ticket_store_contract) checks what a test can see
/// of this.
///
/// ```
/// use std::time::Duration;
/// use hero_sse::futures_core::future::BoxFuture;
/// use hero_sse::auth::{AuthError, TicketGrant, TicketStore};
/// # #[derive(Clone)] struct Redis;
/// # impl Redis {
/// #     async fn set(&self, _: String, _: &str, _: Duration) -> Result<(), std::io::Error> { Ok(()) }
/// #     async fn getdel(&self, _: String) -> Result<Option<String>, std::io::Error> { Ok(None) }
/// # }
///
/// struct Shared(Redis);
///
/// impl TicketStore for Shared {
///     fn put<'a>(&'a self, key: &'a str, grant: &'a TicketGrant, ttl: Duration) -> BoxFuture<'a, Result<(), AuthError>> {
///         Box::pin(async move {
///             // SET ticket:<key> <grant> PX <ttl>
///             self.0.set(format!("ticket:{key}"), grant.as_str(), ttl).await.map_err(AuthError::unavailable)
///         })
///     }
///
///     fn take<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, AuthError>> {
///         Box::pin(async move { self.0.getdel(format!("ticket:{key}")).await.map_err(AuthError::unavailable) })
///     }
/// }
/// ```
pub trait TicketStore: Send + Sync + 'static {
    /// Keeps `grant` under `key` for `ttl`.
    ///
    /// # Errors
    ///
    /// When it cannot be kept.
    fn put<'a>(
        &'a self,
        key: &'a str,
        grant: &'a TicketGrant,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), AuthError>>;

    /// Gives away what is kept under `key`: the text of its grant, once.
    ///
    /// # Errors
    ///
    /// When that cannot be told.
    fn take<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, AuthError>>;
}

/// The answer of a store: whatever goes wrong there, the caller cannot be verified.
async fn answered<T>(asking: impl Future<Output = Result<T, AuthError>>) -> Result<T, AuthError> {
    let asked = AssertUnwindSafe(timeout(STORE_TIMEOUT, asking)).catch_unwind().await;
    match asked {
        Ok(Ok(answer)) => {
            answer.map_err(|error| AuthError::unavailable(format!("ticket store: {error}")))
        }
        Ok(Err(_)) => Err(AuthError::unavailable("the ticket store does not answer")),
        Err(_) => Err(AuthError::unavailable("the ticket store panicked")),
    }
}

fn key(ticket: &Secret<String>) -> String {
    hex(&Sha256::digest(ticket.expose().as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Tickets that one caller may have waiting: a page opens few streams, and a few pages at a time.
const MOST_OF_OWNER: usize = 64;

/// Tickets that may wait in all: about 64 MB where a token's claims are a kilobyte.
const MOST: usize = 65_536;

/// The store of one process.
///
/// It holds 65,536 tickets, 64 of one caller; then the oldest of the same caller goes, never another's,
/// and where that caller has none, none is added. Those whose time is over are swept whenever it is used.
#[derive(Default)]
struct MemoryTickets(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    tickets: HashMap<String, Waiting>,
    /// In the order of their ends, and in that of their making.
    ends: BTreeMap<(Instant, u64), String>,
    of_owner: HashMap<String, BTreeSet<(u64, Instant)>>,
    made: u64,
}

struct Waiting {
    grant: String,
    owner: String,
    end: (Instant, u64),
}

impl Kept {
    fn sweep(&mut self, now: Instant) {
        while let Some(first) = self.ends.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.get().clone();
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &str) -> Option<String> {
        let Waiting { grant, owner, end } = self.tickets.remove(key)?;
        self.ends.remove(&end);
        if let Some(own) = self.of_owner.get_mut(&owner) {
            own.remove(&(end.1, end.0));
            if own.is_empty() {
                self.of_owner.remove(&owner);
            }
        }
        Some(grant)
    }

    /// Makes room for one more of this holder's, if there may be one.
    fn make_room(&mut self, owner: &str, most: usize, most_of_owner: usize) -> bool {
        let own = self.of_owner.get(owner);
        let full = self.tickets.len() >= most || own.is_some_and(|own| own.len() >= most_of_owner);
        if !full {
            return true;
        }
        let oldest = own.and_then(BTreeSet::first).map(|(made, at)| (*at, *made));
        let key = oldest.and_then(|oldest| self.ends.get(&oldest).cloned());
        key.is_some_and(|key| self.remove(&key).is_some())
    }

    fn put(&mut self, key: &str, grant: &TicketGrant, end: Instant) {
        self.remove(key);
        let end = (end, self.made);
        self.made += 1;
        let TicketGrant { text, owner } = grant.clone();
        self.ends.insert(end, key.to_owned());
        self.of_owner.entry(owner.clone()).or_default().insert((end.1, end.0));
        self.tickets.insert(key.to_owned(), Waiting { grant: text, owner, end });
    }
}

impl MemoryTickets {
    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Kept> {
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
        let mut kept = self.lock();
        kept.sweep(now);
        let put = kept.make_room(grant.owner(), MOST, MOST_OF_OWNER);
        if put {
            kept.put(key, grant, now + ttl);
        }
        let full = || AuthError::unavailable("too many tickets wait to be used");
        Box::pin(std::future::ready(put.then_some(()).ok_or_else(full)))
    }

    fn take<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, AuthError>> {
        let mut kept = self.lock();
        kept.sweep(Instant::now());
        Box::pin(std::future::ready(Ok(kept.remove(key))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODYS: CheckedAt = CheckedAt { instance: 0, disconnects: 0 };

    fn grant(owner: &str, text: &str) -> TicketGrant {
        TicketGrant { text: text.to_owned(), owner: owner.to_owned() }
    }

    #[test]
    fn a_key_is_the_hash_of_a_ticket_and_no_ticket() {
        // FIPS 180-2, appendix B.1.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(key(&Secret::new("abc".to_owned())), hash);
        assert_ne!(key(&Secret::new(hash.to_owned())), hash);
    }

    #[cfg(feature = "testing")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_store_in_memory_keeps_the_contract() {
        let store = MemoryTickets::default();
        crate::testing::ticket_store_contract(store).await.expect("the contract");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_with_many_tickets_loses_its_own_oldest_and_nobody_elses() {
        let store = MemoryTickets::default();
        let ttl = Duration::from_secs(30);
        store.put("bob's", &grant("bob", "b"), ttl).await.expect("room");
        for n in 0..1000 {
            let ttl = Duration::from_secs(if n % 2 == 0 { 60 } else { 30 });
            store.put(&format!("a{n}"), &grant("ann", "a"), ttl).await.expect("room");
        }
        let kept = store.lock().tickets.len();
        assert_eq!(kept, MOST_OF_OWNER + 1);
        for n in 0..1000 - MOST_OF_OWNER {
            assert_eq!(store.take(&format!("a{n}")).await, Ok(None), "{n}");
        }
        for n in 1000 - MOST_OF_OWNER..1000 {
            assert_eq!(store.take(&format!("a{n}")).await, Ok(Some("a".to_owned())), "{n}");
        }
        assert_eq!(store.take("bob's").await, Ok(Some("b".to_owned())));
        let kept = store.lock();
        assert!(kept.tickets.is_empty() && kept.ends.is_empty() && kept.of_owner.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_takes_nobody_elses_place_and_is_empty_again_after_the_time() {
        let store = MemoryTickets::default();
        let ttl = Duration::from_secs(30);
        for n in 0..MOST {
            store.put(&n.to_string(), &grant(&n.to_string(), ""), ttl).await.expect("room");
        }
        let error = store.put("x", &grant("ann", ""), ttl).await.expect_err("full");
        assert!(matches!(error, AuthError::Unavailable(_)), "{error}");
        store.put("y", &grant("7", "7"), ttl).await.expect("its own place");
        assert_eq!(store.take("7").await, Ok(None));
        assert_eq!(store.take("y").await, Ok(Some("7".to_owned())));
        tokio::time::advance(ttl).await;
        assert_eq!(store.take("8").await, Ok(None));
        let kept = store.lock();
        assert!(kept.tickets.is_empty() && kept.ends.is_empty() && kept.of_owner.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_panics_or_says_nonsense_lets_nobody_in() {
        struct Broken(fn() -> BoxFuture<'static, Result<Option<String>, AuthError>>);
        impl TicketStore for Broken {
            fn put<'a>(
                &'a self,
                _: &'a str,
                _: &'a TicketGrant,
                _: Duration,
            ) -> BoxFuture<'a, Result<(), AuthError>> {
                async { (self.0)().await.map(|_| ()) }.boxed()
            }

            fn take<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<String>, AuthError>> {
                (self.0)()
            }
        }
        let parts = http::Request::new(()).into_parts().0;
        let some = Secret::new("a".repeat(64));
        let ask = async |broken| {
            let tickets = Tickets::new().audience("a").store(Broken(broken));
            let issued = tickets.issue(&Principal::new("ann"), NOBODYS, "/").await.map(|_| ());
            (issued, tickets.redeem(&parts, &some).await.map(|_| ()))
        };
        let unavailable =
            |result: &Result<(), AuthError>| matches!(result, Err(AuthError::Unavailable(_)));
        let broken: [fn() -> BoxFuture<'static, _>; 4] = [
            || std::future::pending().boxed(),
            || panic!("on purpose"),
            || async { Err(AuthError::unavailable("down")) }.boxed(),
            || async { Err(AuthError::invalid("not a store's to say")) }.boxed(),
        ];
        for broken in broken {
            let tickets = Tickets::new().audience("a").store(Broken(broken));
            let none = tickets.redeem(&parts, &Secret::new("a".repeat(63))).await;
            assert_eq!(none.map(|_| ()), Err(NOT_ACCEPTED), "what is no ticket is not looked for");
            let (issued, redeemed) = ask(broken).await;
            assert!(unavailable(&issued) && unavailable(&redeemed), "{issued:?} {redeemed:?}");
        }
        for text in
            ["", "{}", "null", "[]", r#"{"audience":"a","path":"/","until":0,"principal":{}}"#]
        {
            let tickets = Tickets::new().audience("a").store(Saying(text));
            assert_eq!(
                tickets.redeem(&parts, &some).await.map(|_| ()),
                Err(NOT_ACCEPTED),
                "{text}"
            );
        }

        struct Saying(&'static str);
        impl TicketStore for Saying {
            fn put<'a>(
                &'a self,
                _: &'a str,
                _: &'a TicketGrant,
                _: Duration,
            ) -> BoxFuture<'a, Result<(), AuthError>> {
                async { Ok(()) }.boxed()
            }

            fn take<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<String>, AuthError>> {
                async { Ok(Some(self.0.to_owned())) }.boxed()
            }
        }
    }

    #[tokio::test]
    async fn a_ticket_whose_token_ended_is_none_though_a_store_kept_it() {
        #[derive(Default)]
        struct Keeps(Mutex<HashMap<String, String>>);
        impl TicketStore for Keeps {
            fn put<'a>(
                &'a self,
                key: &'a str,
                grant: &'a TicketGrant,
                _: Duration,
            ) -> BoxFuture<'a, Result<(), AuthError>> {
                let grant = grant.as_str().to_owned();
                self.0.lock().expect("no panic").insert(key.to_owned(), grant);
                std::future::ready(Ok(())).boxed()
            }

            fn take<'a>(
                &'a self,
                key: &'a str,
            ) -> BoxFuture<'a, Result<Option<String>, AuthError>> {
                std::future::ready(Ok(self.0.lock().expect("no panic").remove(key))).boxed()
            }
        }
        let tickets = Tickets::new().audience("a").store(Keeps::default());
        let parts = http::Request::new(()).into_parts().0;
        for (life, accepted) in [(Duration::from_millis(20), false), (STORE_TIMEOUT, true)] {
            let who = Principal::new("ann").valid_until(SystemTime::now() + life);
            let (ticket, _) = tickets.issue(&who, NOBODYS, "/").await.expect("a ticket");
            std::thread::sleep(Duration::from_millis(50));
            // Well within the skew that is granted to the clocks of nodes.
            let redeemed = tickets.redeem(&parts, &ticket).await;
            assert_eq!(redeemed.is_ok(), accepted, "{life:?}");
        }
    }
}
