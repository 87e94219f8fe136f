//! Tickets: one-time credentials that may be part of a URL.

use std::fmt::{self, Write as _};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::OriginalUri;
use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use hmac_sha256::Hash as Sha256;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::principal::Inner;
use super::ticket_memory::MemoryTickets;
use super::{AuthError, Principal};
use crate::secret::Secret;
use crate::setup::SetupError;

const DEFAULT_TTL: Duration = Duration::from_secs(30);
const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(10 * 60);

/// How far the clocks of nodes that share a store may differ.
const MAX_SKEW: Duration = Duration::from_secs(30);

/// Timeout of a call to the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// The same error for everything that can be wrong with a ticket: a client must not learn which it was.
const NOT_ACCEPTED: AuthError = AuthError::invalid("the ticket is not accepted: ask for a new one");

/// Configures tickets, with which clients that cannot send headers authenticate, such as `EventSource`. Pass it
/// to the [builder](crate::server::Builder::tickets).
///
/// A page sends its token in a header to the route of [`Mount::tickets`](crate::server::Mount::tickets) and receives
/// a ticket. The ticket opens one stream: `GET /api/v1/usage/stream?ticket=..`. No token is part of a URL, and a
/// URL in a log or a browser's history opens nothing. A ticket
///
/// * has 256 random bits, of which the store has a hash only;
/// * opens the path that it was made for, once, before it expires, for whoever has it. A request for another path
///   spends it as well, and so does a request that is then refused or rejected;
/// * stands for the token it was bought with: the stream has the same principal and ends when the token expires;
/// * opens nothing after [`disconnect`](crate::connections::Connections::disconnect) of its caller on the server
///   that made it.
///
/// The same URL cannot open a second stream. So `hero.close` of such a stream always has `"reconnect": false`: the page
/// gets a new ticket and opens a new `EventSource` with its cursor, as the guide
/// [`access`](crate::guide::access) shows.
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
    public_prefix: Option<String>,
    store: Arc<dyn TicketStore>,
}

impl Default for Tickets {
    fn default() -> Self {
        Self::new()
    }
}

impl Tickets {
    /// Creates tickets that are stored in memory and expire after 30 s.
    pub fn new() -> Self {
        let store = Arc::new(MemoryTickets::default());
        Self { audience: None, ttl: DEFAULT_TTL, public_prefix: None, store }
    }

    /// Sets the name of the service that the tickets are for. Required.
    ///
    /// A ticket of another audience is not accepted, even from the same store.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Sets the time to live, 1 s to 10 min. Default: 30 s, which is enough for a slow network.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets the prefix that a proxy strips from the path of each URL, such as `"/billing"`. Default: none.
    ///
    /// Pages ask for tickets by the path that they see, `/billing/usage/stream`, and the server sees `/usage/stream`.
    /// The ticket opens the latter. A path without the prefix is taken as the server sees it.
    #[must_use]
    pub fn public_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.public_prefix = Some(prefix.into());
        self
    }

    /// Returns the path that the server sees, of that which a page sees.
    pub(crate) fn served_path<'a>(&self, path: &'a str) -> &'a str {
        let inner = self.public_prefix.as_deref().and_then(|prefix| path.strip_prefix(prefix));
        inner.filter(|inner| inner.starts_with('/')).unwrap_or(path)
    }

    /// Sets the store. Several servers behind one name need a shared one, since any of them may receive the
    /// ticket. Default: in memory, 65,536 tickets in all and 64 of one caller.
    #[must_use]
    pub fn store(mut self, store: impl TicketStore) -> Self {
        self.store = Arc::new(store);
        self
    }

    /// Returns the mistakes in the settings.
    pub(crate) fn mistakes(&self) -> Vec<SetupError> {
        let mut mistakes = Vec::new();
        if self.audience.as_deref().is_none_or(str::is_empty) {
            mistakes.push(SetupError::auth(
                "Tickets: no audience; add .audience(\"..\"), the name of this service",
            ));
        }
        let odd = |prefix: &&str| !prefix.starts_with('/') || prefix.ends_with('/');
        if let Some(prefix) = self.public_prefix.as_deref().filter(odd) {
            mistakes.push(SetupError::auth(format_args!(
                "Tickets: the public prefix {prefix:?} must start with a slash and not end with one: \"/billing\""
            )));
        }
        if !(MIN_TTL..=MAX_TTL).contains(&self.ttl) {
            let ttl = self.ttl;
            mistakes.push(SetupError::auth(format_args!(
                "Tickets: a time to live of {ttl:?} is out of bounds: 1 s to 10 min"
            )));
        }
        mistakes
    }

    /// Makes a ticket that opens `path` for this caller, whose token was checked at that point. Returns it with its
    /// time to live.
    pub(crate) async fn issue(
        &self,
        principal: &Principal,
        checked_at: CheckedAt,
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
            checked_at,
            principal: principal.inner().clone(),
        };
        let owner = (principal.issuer(), principal.subject());
        let texts = serde_json::to_string(&grant)
            .and_then(|text| Ok((text, serde_json::to_string(&owner)?)));
        let (text, owner) = texts.map_err(AuthError::unavailable)?;
        let grant = TicketGrant { text, owner };
        let key = key(&ticket);
        call_store(async { self.store.put(&key, &grant, ttl).await }).await?;
        Ok((ticket, ttl))
    }

    /// Spends this ticket. Returns its caller, and when the caller's token was checked.
    pub(super) async fn redeem(
        &self,
        parts: &Parts,
        ticket: &Secret<String>,
    ) -> Result<(Principal, CheckedAt), AuthError> {
        if ticket.expose().len() != 64 {
            return Err(NOT_ACCEPTED);
        }
        let key = key(ticket);
        let grant = call_store(async { self.store.take(&key).await }).await?.ok_or(NOT_ACCEPTED)?;
        let grant: Grant = serde_json::from_str(&grant).map_err(|_| NOT_ACCEPTED)?;
        let now = SystemTime::now();
        let principal = Principal::from(grant.principal);
        // The store should have dropped an expired grant. The token may have expired since.
        let until = grant.until.checked_add(MAX_SKEW).ok_or(NOT_ACCEPTED)?;
        let in_time = now <= until && principal.expires_at().is_none_or(|end| now < end);
        let matches = Some(grant.audience) == self.audience && grant.path == opened_path(parts);
        if in_time && matches { Ok((principal, grant.checked_at)) } else { Err(NOT_ACCEPTED) }
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

/// Returns the path exactly as the client sent it, even inside a nested router.
fn opened_path(parts: &Parts) -> &str {
    let original = parts.extensions.get::<OriginalUri>();
    original.map_or(parts.uri.path(), |OriginalUri(uri)| uri.path())
}

/// What a ticket stands for.
#[derive(Serialize, Deserialize)]
struct Grant {
    audience: String,
    path: String,
    until: SystemTime,
    checked_at: CheckedAt,
    principal: Inner,
}

/// When a caller's token was checked, as a number of disconnects. Admission refuses a caller whom a later
/// disconnect has hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckedAt {
    /// The server that counted. Others that share the store have counts of their own.
    pub(crate) instance: u64,
    pub(crate) disconnects: u64,
}

/// What a [`TicketStore`] stores of a ticket. It holds the caller's claims, which may be personal data. It
/// cannot open a stream.
#[derive(Clone)]
pub struct TicketGrant {
    text: String,
    owner: String,
}

impl TicketGrant {
    /// Returns the text to store, and to return from `take`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns an identifier of the caller, for stores that limit the tickets of one caller.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Creates a grant for tests of a store.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn new(owner: &str, text: &str) -> Self {
        Self { text: text.to_owned(), owner: owner.to_owned() }
    }
}

/// Omits the claims, which may be personal data.
impl fmt::Debug for TicketGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketGrant").finish_non_exhaustive()
    }
}

/// Stores [`Tickets`] until they are used. Implement it to share tickets between several servers.
///
/// # Contract
///
/// * `take` is atomic: of several calls with the same key at the same time, on any node, one gets the grant and
///   the others get `None`. In Redis, that is `GETDEL`. A `GET` and a `DEL` are not enough.
/// * A grant is gone after its `ttl`.
/// * As soon as `put` has returned `Ok`, every node can `take` the grant.
/// * A key is 64 hexadecimal digits, the hash of a ticket. The ticket cannot be computed from it. But whoever can
///   write to the store can open streams as any caller, so protect it like the authenticator's data.
/// * If the store fails, it returns [`AuthError::unavailable`]. The caller is refused and asked to try again. No
///   answer within 5 s counts as a failure.
///
/// Methods are called from many tasks at the same time and may be cancelled at any `.await`. A cancelled `take`
/// may lose the ticket. [`testing::ticket_store_contract`](crate::testing::ticket_store_contract) tests most of this.
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
    /// Stores `grant` under `key` for `ttl`.
    ///
    /// # Errors
    ///
    /// If it cannot be stored.
    fn put<'a>(
        &'a self,
        key: &'a str,
        grant: &'a TicketGrant,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), AuthError>>;

    /// Removes the grant under `key` and returns its text. `None`: there is none.
    ///
    /// # Errors
    ///
    /// If the store cannot be reached.
    fn take<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, AuthError>>;
}

impl TicketStore for MemoryTickets {
    fn put<'a>(
        &'a self,
        key: &'a str,
        grant: &'a TicketGrant,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        let stored = self.put(key, grant.owner(), grant.as_str(), ttl);
        let full = || AuthError::unavailable("too many unused tickets");
        Box::pin(std::future::ready(stored.then_some(()).ok_or_else(full)))
    }

    fn take<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, AuthError>> {
        Box::pin(std::future::ready(Ok(self.take(key))))
    }
}

/// Calls the store. Every error, timeout or panic means that the caller cannot be verified at the moment.
async fn call_store<T>(call: impl Future<Output = Result<T, AuthError>>) -> Result<T, AuthError> {
    let called = AssertUnwindSafe(timeout(STORE_TIMEOUT, call)).catch_unwind().await;
    match called {
        Ok(Ok(answer)) => {
            answer.map_err(|error| AuthError::unavailable(format!("ticket store: {error}")))
        }
        Ok(Err(_)) => Err(AuthError::unavailable("the ticket store does not answer")),
        Err(_) => Err(AuthError::unavailable("the ticket store panicked")),
    }
}

/// Returns the key of a ticket in the store.
fn key(ticket: &Secret<String>) -> String {
    hex(&Sha256::hash(ticket.expose().as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use super::*;

    #[cfg(feature = "testing")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_store_in_memory_fulfils_the_contract() {
        let store = MemoryTickets::default();
        crate::testing::ticket_store_contract(store).await.expect("the contract");
    }

    #[tokio::test]
    async fn a_full_store_in_memory_makes_the_caller_unverified_for_now() {
        let (store, ttl) = (MemoryTickets::default(), Duration::from_secs(30));
        let put = async |n: u32, owner: &str| {
            TicketStore::put(&store, &n.to_string(), &TicketGrant::new(owner, ""), ttl).await
        };
        for n in 0..65_536 {
            put(n, &n.to_string()).await.expect("room");
        }
        let error = put(65_536, "ann").await.expect_err("full");
        assert!(matches!(error, AuthError::Unavailable(_)), "{error}");
    }

    const NEVER_DISCONNECTED: CheckedAt = CheckedAt { instance: 0, disconnects: 0 };

    #[test]
    fn a_key_is_the_hash_of_a_ticket_and_not_a_ticket() {
        // FIPS 180-2, appendix B.1.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(key(&Secret::new("abc".to_owned())), hash);
        assert_ne!(key(&Secret::new(hash.to_owned())), hash);
    }

    #[tokio::test(start_paused = true)]
    async fn no_caller_is_accepted_if_the_store_hangs_panics_or_returns_nonsense() {
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
        let call = async |broken| {
            let tickets = Tickets::new().audience("a").store(Broken(broken));
            let issued =
                tickets.issue(&Principal::new("ann"), NEVER_DISCONNECTED, "/").await.map(|_| ());
            (issued, tickets.redeem(&parts, &some).await.map(|_| ()))
        };
        let unavailable =
            |result: &Result<(), AuthError>| matches!(result, Err(AuthError::Unavailable(_)));
        let broken: [fn() -> BoxFuture<'static, _>; 4] = [
            || std::future::pending().boxed(),
            || panic!("on purpose"),
            || async { Err(AuthError::unavailable("down")) }.boxed(),
            || async { Err(AuthError::invalid("not for a store to decide")) }.boxed(),
        ];
        for broken in broken {
            let tickets = Tickets::new().audience("a").store(Broken(broken));
            let none = tickets.redeem(&parts, &Secret::new("a".repeat(63))).await;
            assert_eq!(none.map(|_| ()), Err(NOT_ACCEPTED), "a malformed ticket is not looked up");
            let (issued, redeemed) = call(broken).await;
            assert!(unavailable(&issued) && unavailable(&redeemed), "{issued:?} {redeemed:?}");
        }
        for text in
            ["", "{}", "null", "[]", r#"{"audience":"a","path":"/","until":0,"principal":{}}"#]
        {
            let tickets = Tickets::new().audience("a").store(Fixed(text));
            assert_eq!(
                tickets.redeem(&parts, &some).await.map(|_| ()),
                Err(NOT_ACCEPTED),
                "{text}"
            );
        }

        struct Fixed(&'static str);
        impl TicketStore for Fixed {
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
    async fn a_ticket_whose_token_has_expired_is_refused_even_if_the_store_still_has_it() {
        #[derive(Default)]
        struct NeverExpires(Mutex<HashMap<String, String>>);
        impl TicketStore for NeverExpires {
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
        let tickets = Tickets::new().audience("a").store(NeverExpires::default());
        let parts = http::Request::new(()).into_parts().0;
        for (lifetime, accepted) in [(Duration::from_millis(20), false), (STORE_TIMEOUT, true)] {
            let who = Principal::new("ann").valid_until(SystemTime::now() + lifetime);
            let (ticket, _) = tickets.issue(&who, NEVER_DISCONNECTED, "/").await.expect("a ticket");
            std::thread::sleep(Duration::from_millis(50));
            // Far less than the clock skew that is allowed between nodes.
            let redeemed = tickets.redeem(&parts, &ticket).await;
            assert_eq!(redeemed.is_ok(), accepted, "{lifetime:?}");
        }
    }
}
