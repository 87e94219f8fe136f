//! Tokens and tickets that were not accepted, counted by the address they came from.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use http::request::Parts;
use tokio::time::Instant;

use crate::client_addr::{self, TrustedProxies};
use crate::origin;
use crate::refusal::Refusal;
use crate::telemetry;
use crate::throttle::{LogThrottle, RateLimiter};

/// Who holds a large IPv6 network has any number of addresses. What they take here is bounded: about
/// 4 MiB, at worst, for two turns of a minute.
const MOST: usize = 32 * 1024;

/// What a kit's gates count together.
pub(crate) struct Attempts {
    proxies: TrustedProxies,
    per_minute: Option<usize>,
    book: Mutex<Book>,
    unnamed_proxy: Once,
}

struct Book {
    failed: RateLimiter<Visitors>,
    said: LogThrottle<Visitors>,
}

/// Whose attempts count together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Visitors {
    place: IpAddr,
    /// Whether a browser says that a page of another site sent them there. Any page can have its visitors'
    /// browsers bring bad tokens: it must not shut them out of the application's own pages. Whoever makes
    /// the header up has twice the attempts, and no more.
    by_others: bool,
}

impl Attempts {
    /// `None` a minute is any number.
    pub(crate) fn new(proxies: TrustedProxies, per_minute: Option<usize>) -> Self {
        let book = Book { failed: RateLimiter::of_at_most(MOST), said: LogThrottle::default() };
        Self { proxies, per_minute, book: Mutex::new(book), unnamed_proxy: Once::new() }
    }

    /// Whether a token from there is to be looked at.
    pub(super) fn check(&self, parts: &Parts) -> Result<(), Refusal> {
        let Some((visitors, per_minute)) = self.counted(parts) else { return Ok(()) };
        let now = Instant::now();
        let mut book = self.lock();
        let Err(wait) = book.failed.room(&visitors, per_minute, now) else { return Ok(()) };
        let said = book.said.say(visitors, now);
        drop(book);
        if let Some(kept_back) = said {
            telemetry::failed_attempts(visitors.place, kept_back);
        }
        Err(Refusal::too_many_failures(wait))
    }

    /// A token from there was not accepted.
    pub(super) fn failed(&self, parts: &Parts) {
        if let Some((visitors, per_minute)) = self.counted(parts) {
            // Many may be looked at at once, each with room when it came: all of them count.
            self.lock().failed.happened(&visitors, per_minute, Instant::now());
        }
    }

    /// By what the request is counted, if it is.
    fn counted(&self, parts: &Parts) -> Option<(Visitors, usize)> {
        let per_minute = self.per_minute?;
        let client = self.proxies.client_of(parts)?;
        if let Some(proxy) = self.proxies.unlisted_proxy(parts) {
            self.unnamed_proxy.call_once(|| telemetry::unnamed_proxy(proxy));
            return None;
        }
        let by_others = origin::is_cross_origin(parts) == Some(true);
        Some((Visitors { place: client_addr::network_of(client), by_others }, per_minute))
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
