//! Who is connected: admission under limits, one slot a stream, and the way to ask streams to end.

mod direct;
mod filter;
mod limits;
mod slot;

use std::collections::{HashSet, VecDeque};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use slab::Slab;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use self::direct::Posted;
pub use self::filter::ConnectionFilter;
pub(crate) use self::limits::{AdmissionError, Limits};
use self::limits::{Holder, Keys, Places};
use self::slot::Connection;
pub(crate) use self::slot::{Attribution, Ended, Slot};
use crate::auth::Principal;
pub use crate::close::CloseReason;
use crate::event::SseEvent;
use crate::frame::{InvalidEvent, write_body};
use crate::telemetry;
use crate::throttle::{LogThrottle, RateLimiter};

/// Code that keeps a thread busy for so long holds up what else was to run there.
const BLOCKING: Duration = Duration::from_millis(100);

/// Whoever is disconnected has this long to take the farewell.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// So many of the last disconnects are known to requests on their way in; one on its way for longer is
/// looked at again.
const RECENT: usize = 256;

/// The registry of a kit: [`HeroSse::connections`](crate::HeroSse::connections).
///
/// A stream is in it from its admission, before the application's function runs, until its last
/// trace is gone, whichever way that comes about; then it is counted once, under its
/// [`CloseReason`]. Cheap to clone; all clones are one registry.
#[derive(Clone, Default)]
pub struct Connections(Arc<Registry>);

#[derive(Default)]
struct Registry {
    open: Mutex<Open>,
    next_id: AtomicU64,
    /// How many disconnects there were; changed under the lock.
    disconnects: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
    blocking: AtomicU64,
    gaps: AtomicU64,
}

#[derive(Default)]
struct Open {
    streams: Slab<Arc<Connection>>,
    places: Places,
    limiter: RateLimiter<Arc<Holder>>,
    said: LogThrottle<(Arc<str>, &'static str)>,
    /// The endpoints that are closed.
    closed: HashSet<Arc<str>>,
    draining: bool,
    /// Whom the last disconnects meant.
    recent: VecDeque<ConnectionFilter>,
}

/// One open stream, as [`Connections::snapshot`] shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its number, unique within the process.
    pub id: u64,
    /// The endpoint's path.
    pub path: String,
    /// Who holds it; `None` on a public endpoint without token.
    pub subject: Option<String>,
    /// For which tenant.
    pub tenant: Option<String>,
    /// Who made the token (`iss`).
    pub issuer: Option<String>,
    /// From where: the socket's other end, or the client that a
    /// [trusted proxy](crate::SseOptions::trusted_proxies) names; `None` where sockets have no
    /// address.
    pub address: Option<IpAddr>,
    /// For how long.
    pub age: Duration,
}

/// What became of an event that was [sent](Connections::send) to streams. Those that are about to end
/// are in neither count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendSummary {
    /// So many streams have it waiting for their next write. That is not delivered: a stream may end
    /// before, and a client may never read it.
    pub accepted: usize,
    /// So many have not taken it: their clients are behind, with as much waiting as may wait.
    pub full: usize,
}

impl Connections {
    /// How many streams are open.
    pub fn len(&self) -> usize {
        self.0.lock().streams.len()
    }

    /// Whether no stream is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many streams have ended for this reason since the start. Those turned away by a limit count
    /// under [`CloseReason::OverLimit`], those turned away by a shutdown or a closed endpoint under
    /// [`CloseReason::Draining`].
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.0.closed.get(reason.index()).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// The same for every reason at once, for those who print or export counts.
    pub fn counts(&self) -> impl Iterator<Item = (CloseReason, u64)> {
        CloseReason::ALL.iter().map(|reason| (*reason, self.closed(*reason)))
    }

    /// How often since the start the application's code, a function's or a stream's, kept a worker
    /// thread busy for 100 ms or more by the clock without awaiting; each is a WARN line as well. The
    /// other workers go on, but what was about to run on that one waits: such work belongs in
    /// `tokio::task::spawn_blocking`. A rise of these without a cause in the code is a machine short
    /// of processors.
    pub fn blocking_polls(&self) -> u64 {
        self.0.blocking.load(Ordering::Relaxed)
    }

    /// How often since the start a client was told of events that it cannot have any more (`hero.gap`): it was
    /// away for longer than a topic keeps them, or read too slowly under an
    /// [`Overflow`](crate::options::Overflow) that leaves events out.
    pub fn gaps(&self) -> u64 {
        self.0.gaps.load(Ordering::Relaxed)
    }

    /// The open streams at this moment, in no particular order.
    pub fn snapshot(&self) -> Vec<ConnectionInfo> {
        self.matching(&ConnectionFilter::all())
    }

    /// Those of the open streams that `filter` means, in no particular order: what a page that shows one
    /// tenant its own streams, and nobody else's, is made of.
    pub fn matching(&self, filter: &ConnectionFilter) -> Vec<ConnectionInfo> {
        self.meant(filter).iter().map(|connection| connection.info()).collect()
    }

    /// How many of the open streams `filter` means.
    pub fn count(&self, filter: &ConnectionFilter) -> usize {
        let now = Instant::now();
        let open = self.0.lock();
        open.streams.iter().filter(|(_, connection)| filter.matches(connection, now)).count()
    }

    /// Ends the streams that `filter` means, at once and for this `reason`, mostly
    /// [`CloseReason::Revoked`], and returns how many there are.
    ///
    /// Nothing more is sent but what had left the application, and the farewell. Within a second the client knows, or, if it
    /// takes nothing, the application's stream is dropped, its place free and its connection reset (under HTTP/2 the one
    /// stream; under a server that is neither [`serve`](crate::HeroSse::serve) nor
    /// [guarded](crate::HeroSse::guard) the connection stays). A function that still runs is dropped and the client refused, `403` for
    /// [`Revoked`](CloseReason::Revoked); one of a `POST` may finish first, unless access is withdrawn
    /// (`Revoked`, `TokenExpired`, `Unverified`). Only code that blocks its thread is waited for.
    ///
    /// First make sure that the caller is refused when it comes back, then disconnect it: the token denied by the
    /// [`Authenticator`](crate::auth::Authenticator), the permission gone from what the
    /// [`Authorizer`](crate::auth::Authorizer) reads. Else a client that reconnects is in again. A request that is on its
    /// way in meanwhile is looked at again from the start, token and all, if the filter means it.
    ///
    /// This kit alone knows of it: with several nodes, tell each.
    ///
    /// ```
    /// use hero_sse::{CloseReason, HeroSse};
    /// use hero_sse::connections::ConnectionFilter;
    ///
    /// # struct Users;
    /// # impl Users { async fn remove(&self, _: &str) -> Result<(), std::io::Error> { Ok(()) } }
    /// async fn remove(users: &Users, sse: &HeroSse, name: &str) -> Result<usize, std::io::Error> {
    ///     users.remove(name).await?;      // the authorizer says no from now on
    ///     let hers = ConnectionFilter::all().subject(name);
    ///     Ok(sse.connections().disconnect(&hers, CloseReason::Revoked))
    /// }
    /// ```
    pub fn disconnect(&self, filter: &ConnectionFilter, reason: CloseReason) -> usize {
        let now = Instant::now();
        let streams: Vec<_> = {
            let mut open = self.0.lock();
            self.0.disconnects.fetch_add(1, Ordering::AcqRel);
            if open.recent.len() == RECENT {
                open.recent.pop_front();
            }
            open.recent.push_back(filter.clone());
            let streams = open.streams.iter().map(|(_, connection)| connection);
            streams.filter(|connection| filter.matches(connection, now)).cloned().collect()
        };
        streams.iter().for_each(|connection| connection.withdraw(reason));
        let count = streams.len();
        telemetry::disconnected(count, reason);
        // The caller's own runtime may be gone before the time is over.
        if let Some(runtime) = streams.iter().find_map(|stream| stream.runtime.clone()) {
            runtime.spawn(async move {
                sleep(LAST_WORDS).await;
                for (place, connection) in streams.iter().enumerate() {
                    connection.cut();
                    if place % 64 == 63 {
                        yield_now().await;
                    }
                }
            });
        }
        count
    }

    /// Sends one event to every open stream that `filter` means, besides what the streams have of their own: to a
    /// user, a tenant, everyone. It is encoded once, and never waits.
    ///
    /// Each stream has a mailbox of 64 events and 64 KiB (or one larger event), from which its writer takes them in order,
    /// between two of the stream's own events: at once, or, for a client that has not taken what came before, when it
    /// has. One whose function still runs gets them when it opens. What waits when a stream ends goes
    /// with it, and who connects later does not get it: what must not be missed belongs in what the stream itself is made of.
    ///
    /// The event comes under its own name (`#[sse(event)]`, or its type's): the streams may be of different endpoints,
    /// so an endpoint's `event` does not apply. Its id is left out, since it would become the place at which each of the
    /// streams resumes; and a last event (`#[sse(last)]`) ends none of them: that is what
    /// [`disconnect`](Self::disconnect) and [`drain`](Self::drain) are for.
    ///
    /// This kit alone knows of it: with several nodes, tell each.
    ///
    /// ```
    /// use hero_sse::HeroSse;
    /// use hero_sse::connections::ConnectionFilter;
    /// use hero_sse::event::InvalidEvent;
    /// use hero_sse::prelude::*;
    /// use serde::Serialize;
    ///
    /// #[derive(Serialize, SseEvent)]
    /// #[sse(event = "notice")]
    /// struct Notice {
    ///     text: String,
    /// }
    ///
    /// /// Returns how many of the tenant's streams have it on its way.
    /// fn tell(sse: &HeroSse, tenant: &str, text: String) -> Result<usize, InvalidEvent> {
    ///     let theirs = ConnectionFilter::all().tenant(tenant);
    ///     let sent = sse.connections().send(&theirs, Notice { text })?;
    ///     Ok(sent.accepted)
    /// }
    /// # let sse = HeroSse::builder().build().unwrap();
    /// # assert_eq!(tell(&sse, "t1", "a new version is out".to_owned()).unwrap(), 0);
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when the event cannot be written; then nobody got it.
    pub fn send(
        &self,
        filter: &ConnectionFilter,
        event: impl SseEvent,
    ) -> Result<SendSummary, InvalidEvent> {
        let mut frame = BytesMut::new();
        write_body(&mut frame, None, |frame| event.encode(frame))?;
        let frame = frame.freeze();
        let mut sent = SendSummary::default();
        for connection in self.meant(filter) {
            match connection.post(&frame) {
                Posted::Accepted => sent.accepted += 1,
                Posted::Full => sent.full += 1,
                Posted::Closed => {}
            }
        }
        telemetry::sent(sent.accepted, sent.full);
        Ok(sent)
    }

    /// How many disconnects there were: a caller who is looked at after that has them behind it.
    pub(crate) fn disconnects(&self) -> u64 {
        self.0.disconnects.load(Ordering::Acquire)
    }

    /// A future of the application's that belongs to no stream yet, each of whose polls is timed.
    pub(crate) async fn timed<F: Future>(&self, path: &str, code: F) -> F::Output {
        self.0.timed(path, None, code).await
    }

    /// Asks the streams that `filter` means to say farewell, as in a shutdown
    /// ([`CloseReason::Draining`]), and returns how many there are. Their clients come back, each at a
    /// time of its own (`DrainJitter`): to wherever a balancer sends them then, or to this server, which
    /// goes on admitting; but see [`close_endpoint`](Self::close_endpoint).
    ///
    /// Asking is all it does: a stream whose client stalls ends by its write timeout. A function that
    /// still runs is dropped, and its client told the same; one of a `POST` may finish first.
    pub fn drain(&self, filter: &ConnectionFilter) -> usize {
        let streams = self.meant(filter);
        streams.iter().for_each(|connection| connection.ask(CloseReason::Draining));
        streams.len()
    }

    /// As [`drain`](Self::drain), but one stream after another, the oldest at once and the last when
    /// `window` is over (a single one at once), so that whoever takes them over is not met by all at once. The streams are
    /// those of the moment when it is first polled.
    ///
    /// It asks while it is awaited; once it is dropped the remaining streams go on. Needs a Tokio
    /// runtime with its timer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use hero_sse::HeroSse;
    /// use hero_sse::connections::ConnectionFilter;
    ///
    /// # async fn run(sse: HeroSse) {
    /// let connections = sse.connections();
    /// connections.close_endpoint("/api/usage");
    /// let usage = ConnectionFilter::all().endpoint("/api/usage");
    /// let count = connections.drain_over(&usage, Duration::from_secs(30)).await;
    /// println!("{count} streams were asked to go elsewhere");
    /// # }
    /// ```
    pub fn drain_over(
        &self,
        filter: &ConnectionFilter,
        window: Duration,
    ) -> impl Future<Output = usize> + Send + use<> {
        let (connections, filter) = (self.clone(), filter.clone());
        async move {
            let (start, window) = (Instant::now(), window.min(LONGEST));
            let mut streams = connections.meant(&filter);
            streams.sort_by_key(|connection| connection.id);
            let last = streams.len().saturating_sub(1).max(1) as f64;
            for (place, connection) in streams.iter().enumerate() {
                sleep_until(start + window.mul_f64(place as f64 / last)).await;
                connection.ask(CloseReason::Draining);
            }
            streams.len()
        }
    }

    /// Admits no more streams at the endpoint at `path`, prefix included: who comes is asked to come
    /// back, or refused (`OverLimit`), as by a server that is draining. The streams that are open go
    /// on; [`drain`](Self::drain) ends them. Returns whether it was open.
    ///
    /// A path that no endpoint is at is remembered all the same.
    pub fn close_endpoint(&self, path: &str) -> bool {
        self.0.lock().closed.insert(Arc::from(path))
    }

    /// Admits streams again at an endpoint that was [closed](Self::close_endpoint). Returns whether it
    /// was.
    pub fn open_endpoint(&self, path: &str) -> bool {
        self.0.lock().closed.remove(path)
    }

    fn meant(&self, filter: &ConnectionFilter) -> Vec<Arc<Connection>> {
        let now = Instant::now();
        let open = self.0.lock();
        let streams = open.streams.iter().map(|(_, connection)| connection);
        streams.filter(|connection| filter.matches(connection, now)).cloned().collect()
    }

    /// Takes a place for a stream, or says why there is none.
    pub(crate) fn admit(
        &self,
        path: &Arc<str>,
        caller: Caller<'_>,
        limits: &Limits,
    ) -> Result<Slot, AdmissionError> {
        let now = Instant::now();
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let connection = Connection::new(id, path, caller);
        let mut open = self.0.lock();
        // Under the lock: a disconnect has come before, or finds the stream in the table.
        let missed = self.disconnects().saturating_sub(caller.looked_at);
        if open.changed(&connection, missed, now) {
            return Err(AdmissionError::Changed);
        }
        if let Err(no_place) = open.check(&connection.keys(), limits, now) {
            let said = open.said.say((path.clone(), no_place.as_str()), now);
            drop(open);
            self.count_turned_away(path, no_place);
            match no_place {
                AdmissionError::Draining | AdmissionError::Closed => {
                    telemetry::late(path, no_place.as_str())
                }
                _ => said.into_iter().for_each(|kept_back| {
                    telemetry::over_limit(path, no_place.as_str(), kept_back);
                }),
            }
            return Err(no_place);
        }
        open.places.enter(&connection.keys());
        let key = open.streams.insert(connection.clone());
        drop(open);
        telemetry::places(path, 1.0);
        let reason = Some(CloseReason::ClientGone);
        Ok(Slot { registry: self.0.clone(), connection, key, reason })
    }

    /// A request was turned away: that counts as the end of a stream which never began.
    pub(crate) fn count_turned_away(&self, path: &str, no_place: AdmissionError) {
        self.0.count(no_place.reason());
        telemetry::turned_away(path, no_place.reason(), no_place.as_str());
    }

    /// Admits nobody any more and asks every stream to say farewell; how many there are.
    pub(crate) fn shut_down(&self) -> usize {
        self.0.lock().draining = true;
        self.drain(&ConnectionFilter::all())
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A drain over more than a year is a mistake, and would overflow the clock.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Who wants a stream, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Caller<'a> {
    pub(crate) principal: Option<&'a Principal>,
    pub(crate) address: Option<IpAddr>,
    /// The [disconnects](Connections::disconnects) that there were before.
    pub(crate) looked_at: u64,
}

impl Open {
    /// Whether one of the last `missed` disconnects meant a stream like this one.
    fn changed(&self, connection: &Connection, missed: u64, now: Instant) -> bool {
        let missed = usize::try_from(missed).unwrap_or(usize::MAX);
        let mut filters = self.recent.iter().rev().take(missed);
        missed > self.recent.len() || filters.any(|filter| filter.matches(connection, now))
    }

    fn check(
        &mut self,
        keys: &Keys<'_>,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), AdmissionError> {
        if self.draining {
            return Err(AdmissionError::Draining);
        }
        if self.closed.contains(keys.path) {
            return Err(AdmissionError::Closed);
        }
        // First: an attempt counts whatever comes of it.
        if let Some((holder, per_minute)) = keys.holder.zip(limits.connects_per_minute) {
            self.limiter.attempt(holder, per_minute, now).map_err(AdmissionError::RateLimited)?;
        }
        self.places.check(self.streams.len(), keys, limits)
    }
}

impl Registry {
    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A future of the application's, each of whose polls is timed.
    async fn timed<F: Future>(&self, path: &str, id: Option<u64>, code: F) -> F::Output {
        let mut code = pin!(code);
        poll_fn(|cx| {
            let start = std::time::Instant::now();
            let output = code.as_mut().poll(cx);
            self.ran(path, id, start);
            output
        })
        .await
    }

    /// A client was told of events that it cannot have any more.
    fn gap(&self, path: &str, connection: u64) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
        telemetry::gap(path, connection);
    }

    /// A piece of the application's code, which began then, has come to its end or its next `await`.
    /// The machine's clock: that of tests stands still while a thread is blocked.
    fn ran(&self, path: &str, id: Option<u64>, since: std::time::Instant) {
        let took = since.elapsed();
        if took >= BLOCKING {
            self.blocking.fetch_add(1, Ordering::Relaxed);
            telemetry::blocking(path, id, took);
        }
    }

    fn count(&self, reason: CloseReason) {
        if let Some(count) = self.closed.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::IpAddr;
    use std::sync::atomic::AtomicBool;
    use std::task::Context;

    use super::*;
    use crate::client_addr;

    const LIMITS: Limits = Limits {
        total: 4,
        on_path: Some(3),
        of_subject: 2,
        of_address: Some(1),
        connects_per_minute: None,
    };

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn every_limit_is_kept_and_every_place_comes_back() {
        let connections = Connections::default();
        let (a, b) = (Arc::from("/a"), Arc::from("/b"));
        let ann = Principal::new("ann");
        let admit = |path, who: Option<&Principal>, from: Option<&str>| {
            let caller = Caller { principal: who, address: from.map(address), ..Caller::default() };
            connections.admit(path, caller, &LIMITS)
        };
        let first = admit(&a, Some(&ann), Some("2001:db8::1")).ok();
        assert_eq!(admit(&b, None, Some("2001:db8::2")).err(), Some(AdmissionError::Address));
        let second = admit(&a, Some(&ann), Some("2001:db8:0:1::1")).ok();
        assert_eq!(admit(&b, Some(&ann), None).err(), Some(AdmissionError::Subject));
        let third = admit(&a, None, Some("192.0.2.1")).ok();
        assert_eq!(admit(&a, None, None).err(), Some(AdmissionError::Path));
        assert_eq!(admit(&b, None, Some("::ffff:192.0.2.1")).err(), Some(AdmissionError::Address));
        let fourth = admit(&b, None, None).ok();
        assert_eq!(admit(&b, None, None).err(), Some(AdmissionError::Total));
        assert_eq!((connections.len(), connections.closed(CloseReason::OverLimit)), (4, 5));
        drop((first, second, third, fourth));
        assert!(connections.is_empty());
        assert_eq!(connections.closed(CloseReason::ClientGone), 4);
        assert!(connections.0.lock().places.is_empty());
        assert!(admit(&a, Some(&ann), Some("192.0.2.1")).is_ok());
    }

    #[test]
    fn a_subject_is_one_among_those_of_its_issuer() {
        let connections = Connections::default();
        let path = Arc::from("/a");
        let limits = Limits { of_subject: 1, connects_per_minute: Some(2), ..Limits::NONE };
        let admit = |who: &Principal| {
            connections.admit(&path, Caller { principal: Some(who), ..Caller::default() }, &limits)
        };
        // Concatenated, the first two would be one.
        let people = [
            Principal::new("b\0ann").issued_by("a"),
            Principal::new("ann").issued_by("a\0b"),
            Principal::new("ann").issued_by("c"),
            Principal::new("ann").issued_by(""),
            Principal::new("ann"),
        ];
        let held: Vec<_> = people.iter().map(|who| admit(who).expect("a place")).collect();
        assert!(people.iter().all(|who| admit(who).err() == Some(AdmissionError::Subject)));
        assert!(
            people
                .iter()
                .all(|who| matches!(admit(who).err(), Some(AdmissionError::RateLimited(_))))
        );
        drop(held);
        assert!(connections.0.lock().places.is_empty());
    }

    #[test]
    fn attempts_count_whatever_comes_of_them_and_only_those_of_somebody() {
        let connections = Connections::default();
        let (path, ann) = (Arc::from("/a"), Principal::new("ann"));
        let limits = Limits { total: 1, connects_per_minute: Some(3), ..Limits::NONE };
        let admit = |principal| {
            let address = Some(address("192.0.2.1"));
            let caller = Caller { principal, address, ..Caller::default() };
            connections.admit(&path, caller, &limits)
        };
        let held = admit(Some(&ann)).expect("a place");
        assert_eq!(admit(Some(&ann)).err(), Some(AdmissionError::Total));
        held.withdraw();
        admit(Some(&ann)).expect("a place").withdraw();
        let Err(AdmissionError::RateLimited(wait)) = admit(Some(&ann)) else { panic!("too many") };
        assert!(wait > Duration::from_secs(19) && wait <= Duration::from_secs(20), "{wait:?}");
        for _ in 0..100 {
            admit(None).expect("a place").withdraw();
        }
        assert_eq!(connections.closed(CloseReason::OverLimit), 2);
    }

    /// Many threads come, go, are turned away and panic, and look whether it is right all the while.
    #[test]
    fn whatever_happens_no_limit_is_passed_and_every_place_comes_back_once() {
        let connections = Connections::default();
        let limits = Limits {
            total: 40,
            on_path: Some(15),
            of_subject: 7,
            of_address: Some(6),
            connects_per_minute: None,
        };
        let paths: Vec<Arc<str>> = ["/a", "/b", "/c", "/d"].map(Arc::from).to_vec();
        let people: Vec<_> = (0..8).map(|n| Principal::new(format!("p{n}"))).collect();
        let (mut closed, mut turned_away) = (0u64, 0u64);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8u64)
                .map(|seed| {
                    let (connections, paths, people) = (&connections, &paths, &people);
                    scope.spawn(move || work(connections, paths, people, &limits, seed))
                })
                .collect();
            for worker in workers {
                let (ended, refused) = worker.join().expect("no panic");
                closed += ended;
                turned_away += refused;
            }
        });
        let count = |reason| connections.closed(reason);
        assert_eq!(count(CloseReason::OverLimit), turned_away);
        assert_eq!(connections.counts().map(|(_, count)| count).sum::<u64>(), closed + turned_away);
        assert!(closed > 1000 && turned_away > 1000, "{closed} {turned_away}");
        let open = connections.0.lock();
        assert!(open.places.is_empty() && open.streams.is_empty());
    }

    fn look(connections: &Connections) {
        let all = connections.snapshot();
        let most = |key: &dyn Fn(&ConnectionInfo) -> Option<String>| {
            let mut counts = HashMap::<_, usize>::new();
            for key in all.iter().filter_map(key) {
                *counts.entry(key).or_default() += 1;
            }
            counts.into_values().max().unwrap_or(0)
        };
        assert!(all.len() <= 40, "{}", all.len());
        assert!(most(&|info| Some(info.path.clone())) <= 15);
        assert!(most(&|info| info.subject.clone()) <= 7);
        assert!(most(&|info| Some(client_addr::network_of(info.address?).to_string())) <= 6);
    }

    fn work(
        connections: &Connections,
        paths: &[Arc<str>],
        people: &[Principal],
        limits: &Limits,
        seed: u64,
    ) -> (u64, u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut held, mut closed, mut turned_away) = (Vec::new(), 0, 0);
        for step in 0..5_000 {
            if step % 50 == 0 {
                look(connections);
            }
            if random.u8(..) < 140 {
                let person = random.usize(..people.len() + 2);
                let place = random.u16(..8);
                let address = match random.u8(..4) {
                    0 => None,
                    1 => Some(IpAddr::from([192, 0, 2, place as u8])),
                    _ => Some(IpAddr::from([0x2001, 0xdb8, 0, place, 0, 0, 0, random.u16(..)])),
                };
                let caller = Caller { principal: people.get(person), address, ..Caller::default() };
                match connections.admit(&paths[random.usize(..paths.len())], caller, limits) {
                    Ok(slot) => held.push(slot),
                    Err(_) => turned_away += 1,
                }
            } else if !held.is_empty() {
                let mut slot = held.swap_remove(random.usize(..held.len()));
                match random.u8(..4) {
                    0 => slot.withdraw(),
                    1 => {
                        slot.close(CloseReason::Ended);
                        drop(slot);
                        closed += 1;
                    }
                    2 => {
                        let panicking = std::panic::AssertUnwindSafe(move || {
                            let _slot = slot;
                            std::panic::resume_unwind(Box::new("on purpose"));
                        });
                        assert!(std::panic::catch_unwind(panicking).is_err());
                        closed += 1;
                    }
                    _ => {
                        drop(slot);
                        closed += 1;
                    }
                }
            }
        }
        closed += held.len() as u64;
        (closed, turned_away)
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_shutdown_asks_everybody_and_admits_nobody() {
        let connections = Connections::default();
        let path = Arc::from("/a");
        let admit = || connections.admit(&path, Caller::default(), &LIMITS);
        let slot = admit().unwrap_or_else(|_| panic!("a place"));
        let cx = Context::from_waker(std::task::Waker::noop());
        assert_eq!(slot.poll_asked(&cx), None);
        let woken = Arc::new(Woken::default());
        let waker = std::task::Waker::from(woken.clone());
        assert_eq!(slot.poll_asked(&Context::from_waker(&waker)), None);
        assert_eq!(connections.shut_down(), 1);
        assert!(woken.0.load(Ordering::SeqCst), "an idle stream must be woken");
        assert_eq!(slot.poll_asked(&cx), Some(CloseReason::Draining));
        assert_eq!(admit().err(), Some(AdmissionError::Draining));
    }

    /// Whoever is woken may take its mail, look at the registry and leave, there and then.
    #[test]
    fn no_lock_is_held_while_streams_are_woken_for_their_mail() {
        struct Leaving(Connections, Mutex<Option<Slot>>, AtomicU64);
        impl std::task::Wake for Leaving {
            fn wake(self: Arc<Self>) {
                let mut mail = BytesMut::new();
                let slot = self.1.lock().ok().and_then(|mut slot| slot.take());
                slot.inspect(|slot| slot.collect(&mut mail));
                self.2.fetch_add(mail.len() as u64 + self.0.len() as u64, Ordering::SeqCst);
            }
        }
        let connections = Connections::default();
        let path = Arc::from("/a");
        let slots: Vec<_> = (0..10_000)
            .map(|_| {
                let slot = connections.admit(&path, Caller::default(), &Limits::NONE);
                let slot = slot.unwrap_or_else(|_| panic!("a place"));
                let leaving = Arc::new(Leaving(connections.clone(), Mutex::default(), 0.into()));
                let waker = std::task::Waker::from(leaving.clone());
                assert_eq!(slot.poll_asked(&Context::from_waker(&waker)), None);
                *leaving.1.lock().expect("no panic") = Some(slot);
                leaving
            })
            .collect();
        let (done, finished) = std::sync::mpsc::channel();
        let all = connections.clone();
        std::thread::spawn(move || {
            let event = crate::event::Event::text("x");
            done.send(all.send(&ConnectionFilter::all(), &event))
        });
        let sent = finished.recv_timeout(Duration::from_secs(20)).expect("no deadlock");
        let sent = sent.expect("an event");
        assert_eq!((sent.accepted, sent.full), (10_000, 0));
        let heard = slots.iter().map(|slot| slot.2.load(Ordering::SeqCst));
        let left: u64 = (0..10_000).sum();
        assert_eq!(heard.sum::<u64>(), 10_000 * "data: x\n\n".len() as u64 + left);
        assert!(connections.is_empty());
    }

    /// Whoever looks for streams may find one that leaves meanwhile.
    #[test]
    fn a_stream_that_has_gone_takes_no_mail() {
        let connections = Connections::default();
        let slot = connections.admit(&Arc::from("/a"), Caller::default(), &LIMITS);
        let found = connections.meant(&ConnectionFilter::all());
        let frame = bytes::Bytes::from_static(b"data: x\n\n");
        assert_eq!(found[0].post(&frame), Posted::Accepted);
        drop(slot);
        assert_eq!(found[0].post(&frame), Posted::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_means_what_meets_all_of_it() {
        let connections = Connections::default();
        let person = |name: &str, tenant: &str| Principal::new(name).with_tenant(tenant);
        let admit = |path: &str, principal: Option<Principal>| {
            let caller = Caller { principal: principal.as_ref(), ..Caller::default() };
            connections.admit(&Arc::from(path), caller, &Limits::NONE).expect("a place")
        };
        let old = [admit("/a", Some(person("ann", "t1"))), admit("/a", None)];
        tokio::time::advance(Duration::from_secs(60)).await;
        let young = [
            admit("/a", Some(person("ann", "t2"))),
            admit("/b", Some(person("ann", "t1"))),
            admit("/b", Some(person("bob", "t1"))),
        ];
        let all = ConnectionFilter::all;
        let meant = |filter: ConnectionFilter| {
            let mut ids: Vec<_> = connections.meant(&filter).iter().map(|one| one.id).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(meant(all()), [0, 1, 2, 3, 4]);
        assert_eq!(meant(all().endpoint("/a")), [0, 1, 2]);
        assert_eq!(meant(all().subject("ann")), [0, 2, 3]);
        assert_eq!(meant(all().tenant("t1")), [0, 3, 4]);
        assert_eq!(meant(all().older_than(Duration::from_secs(60))), [0, 1]);
        assert!(meant(all().older_than(Duration::from_secs(61))).is_empty());
        assert_eq!(meant(all().endpoint("/b").subject("ann")), [3]);
        assert!(meant(all().endpoint("/c")).is_empty());
        let cx = Context::from_waker(std::task::Waker::noop());
        assert_eq!(connections.drain(&all().tenant("t1")), 3);
        let asked = old.iter().chain(&young).map(|slot| slot.poll_asked(&cx).is_some());
        assert_eq!(asked.collect::<Vec<_>>(), [true, false, false, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_over_a_window_asks_the_oldest_first_and_stops_when_dropped() {
        let connections = Connections::default();
        let admit = |_| {
            let admitted = connections.admit(&Arc::from("/a"), Caller::default(), &Limits::NONE);
            admitted.expect("a place")
        };
        let mut slots: Vec<_> = (0..11).map(admit).collect();
        // Places of the table are used again: the order is not the table's.
        slots.remove(3);
        slots.push(admit(11));
        let cx = Context::from_waker(std::task::Waker::noop());
        let asked = || slots.iter().map(|slot| slot.poll_asked(&cx).is_some()).collect::<Vec<_>>();
        let window = Duration::from_secs(10);
        let all = ConnectionFilter::all();
        let some =
            tokio::time::timeout(window * 9 / 20, connections.drain_over(&all, window)).await;
        assert!(some.is_err());
        tokio::time::sleep(2 * window).await;
        let expected: Vec<_> = (0..11).map(|n| n < 5).collect();
        assert_eq!(asked(), expected);
        let start = Instant::now();
        assert_eq!(connections.drain_over(&all, window).await, 11);
        assert_eq!((start.elapsed(), asked().iter().all(|asked| *asked)), (window, true));
        drop(slots);
        assert_eq!(connections.drain_over(&all, window).await, 0);
    }

    #[test]
    fn a_closed_endpoint_admits_nobody_until_it_is_opened() {
        let connections = Connections::default();
        let admit = |path: &str| {
            connections.admit(&Arc::from(path), Caller::default(), &Limits::NONE).err()
        };
        assert!(connections.close_endpoint("/a"));
        assert!(!connections.close_endpoint("/a"));
        assert_eq!((admit("/a"), admit("/b")), (Some(AdmissionError::Closed), None));
        assert!(connections.open_endpoint("/a"));
        assert!(!connections.open_endpoint("/a"));
        assert_eq!(admit("/a"), None);
    }
}
