//! Tokens and tickets that were not accepted, counted by the address they came from.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use http::request::Parts;
use tokio::time::Instant;

use crate::peer::{self, TrustedProxies};
use crate::refusal::Refusal;
use crate::telemetry;
use crate::throttle::{Churn, Said};

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
    failed: Churn<IpAddr>,
    said: Said<IpAddr>,
}

impl Attempts {
    /// `None` a minute is any number.
    pub(crate) fn new(proxies: TrustedProxies, per_minute: Option<usize>) -> Self {
        let book = Book { failed: Churn::of_at_most(MOST), said: Said::default() };
        Self { proxies, per_minute, book: Mutex::new(book), unnamed_proxy: Once::new() }
    }

    /// Whether a token from there is to be looked at.
    pub(super) fn check(&self, parts: &Parts) -> Result<(), Refusal> {
        let Some((place, per_minute)) = self.counted(parts) else { return Ok(()) };
        let now = Instant::now();
        let mut book = self.lock();
        let Err(wait) = book.failed.room(&place, per_minute, now) else { return Ok(()) };
        let said = book.said.say(place, now);
        drop(book);
        if let Some(kept_back) = said {
            telemetry::failed_attempts(place, kept_back);
        }
        Err(Refusal::too_many_failures(wait))
    }

    /// A token from there was not accepted.
    pub(super) fn failed(&self, parts: &Parts) {
        if let Some((place, per_minute)) = self.counted(parts) {
            // Many may be looked at at once, each with room when it came: all of them count.
            self.lock().failed.happened(&place, per_minute, Instant::now());
        }
    }

    /// By what the request is counted, if it is.
    fn counted(&self, parts: &Parts) -> Option<(IpAddr, usize)> {
        let per_minute = self.per_minute?;
        let client = self.proxies.client_of(parts)?;
        if let Some(proxy) = self.proxies.unnamed(parts) {
            self.unnamed_proxy.call_once(|| telemetry::unnamed_proxy(proxy));
            return None;
        }
        Some((peer::place(client), per_minute))
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
