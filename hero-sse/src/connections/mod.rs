//! The registry of open streams: who is connected, and how to send to streams and end them.

mod connection;
mod direct;
mod extract;
mod filter;
mod hooks;
mod limits;
mod registry;
mod slot;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

pub use self::connection::ConnectionInfo;
pub(crate) use self::connection::{Caller, StreamPhase};
use self::direct::Pushed;
pub use self::extract::Connection;
pub use self::filter::ConnectionFilter;
pub use self::hooks::ClosedConnection;
use self::hooks::Hooks;
pub(crate) use self::hooks::{HOOK_TIMEOUT, HookList};
pub(crate) use self::limits::{AdmissionError, Limits};
use self::registry::{Observer, Registry};
pub(crate) use self::slot::{Attribution, Slot};
pub use crate::close::CloseReason;
use crate::event::SseEvent;
use crate::frame::{InvalidEvent, InvalidField, is_trap, name_of, write_body};
use crate::telemetry;

/// How long the client of a disconnected stream may take to receive the closing event.
const CLOSE_EVENT_TIMEOUT: Duration = Duration::from_millis(500);

/// The longest window of a drain, a year. A longer one is a mistake, and would overflow the clock.
const LONGEST_WINDOW: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The registry of open streams, which [`HeroSse::connections`](crate::HeroSse::connections) returns.
///
/// A stream is registered from its admission, before the endpoint's function runs, until everything that
/// belongs to it is dropped. It is then counted once, under its [`CloseReason`]. Clones share one registry.
///
/// All methods affect this `HeroSse` alone. With several nodes, call them on each node.
///
/// | task | method |
/// |---|---|
/// | list streams | [`snapshot`](Self::snapshot), [`matching`](Self::matching) |
/// | count streams | [`len`](Self::len), [`count`](Self::count), [`closed`](Self::closed), [`counts`](Self::counts) |
/// | send an event to a user, a tenant, a tab, everyone | [`send`](Self::send) |
/// | withdraw access now | [`disconnect`](Self::disconnect) |
/// | move clients to other nodes | [`drain`](Self::drain), [`drain_over`](Self::drain_over) |
/// | wait for hooks on open and close | [`hooks_finished`](Self::hooks_finished) |
/// | close an endpoint for a while | [`close_endpoint`](Self::close_endpoint), [`open_endpoint`](Self::open_endpoint) |
#[derive(Clone)]
pub struct Connections(Arc<Registry>);

/// How many streams queued an event, which [`Connections::send`] returns. Streams that are about to end are
/// not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendSummary {
    /// Number of streams that queued the event. Queued does not mean delivered: a stream may end before, and
    /// its client may never read it.
    pub accepted: usize,
    /// Number of streams whose queue was full, since their clients read too slowly. They will not receive the
    /// event.
    pub full: usize,
}

impl Default for Connections {
    fn default() -> Self {
        Self::new(HookList::default(), 0)
    }
}

impl Connection {
    /// Returns the registry of open streams that this stream belongs to, for instance to send to the others.
    pub fn connections(&self) -> Connections {
        Connections(self.registry.clone())
    }
}

impl Connections {
    /// `max_connections`: so many streams may end at once.
    pub(crate) fn new(hooks: HookList, max_connections: usize) -> Self {
        let hooks = Hooks::new(hooks, max_connections);
        let observer = hooks.map(|hooks| Arc::new(hooks) as Arc<dyn Observer>);
        Self(Arc::new(Registry::new(observer)))
    }

    /// Returns the number of open streams.
    pub fn len(&self) -> usize {
        self.0.lock().streams.len()
    }

    /// Returns whether no stream is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many streams have ended for this reason since the start.
    ///
    /// Rejected requests count as well: under [`CloseReason::OverLimit`] those over a limit, under
    /// [`CloseReason::Draining`] those during a shutdown or at a closed endpoint.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.0.closed(reason)
    }

    /// Returns what [`closed`](Self::closed) returns, for every reason, to print or export the counts.
    pub fn counts(&self) -> impl Iterator<Item = (CloseReason, u64)> {
        CloseReason::ALL.iter().map(|reason| (*reason, self.closed(*reason)))
    }

    /// Returns how often user code has blocked a worker thread for 100 ms or more since the start.
    ///
    /// User code is an endpoint's function, a stream, a filter, a hook and the like. It blocks a thread when it
    /// runs for long without an `await`; everything else on that thread has to wait. Move such work to
    /// `tokio::task::spawn_blocking`. Each occurrence is also logged at WARN. If the number grows without a
    /// cause in the code, the machine has too few processors.
    ///
    /// The time is measured on Tokio's clock. In a test with a paused clock, only `tokio::time::advance` moves it.
    pub fn blocking_polls(&self) -> u64 {
        self.0.blocking.load(Ordering::Relaxed)
    }

    /// Returns how often a client was told of missed events (`hero.gap`) since the start.
    ///
    /// A client misses events when it was away for longer than a topic retains them, or when it reads too slowly
    /// under an [`Overflow`](crate::options::Overflow) that drops events.
    pub fn gaps(&self) -> u64 {
        self.0.gaps.load(Ordering::Relaxed)
    }

    /// Returns how many calls of [`on_open`](crate::server::Builder::on_open) and
    /// [`on_close`](crate::server::Builder::on_close) were dropped since the start: they did not fit into the queue,
    /// took too long, or were unfinished at the end of a shutdown. A call that panicked does not count.
    pub fn dropped_hook_calls(&self) -> u64 {
        self.0.observer.as_ref().map_or(0, |observer| observer.dropped())
    }

    /// Resolves when no call of a hook waits or runs.
    ///
    /// [`serve`](crate::HeroSse::serve) waits for them by itself. Under another server, await it after the server has
    /// ended, with a timeout: what then is unfinished is lost with the runtime. It must be awaited on a Tokio runtime.
    ///
    /// ```
    /// use std::time::Duration;
    /// use hero_sse::HeroSse;
    ///
    /// # async fn run(sse: HeroSse) {
    /// // axum::serve(..).with_graceful_shutdown(..).await has returned.
    /// let hooks = sse.connections().hooks_finished();
    /// if tokio::time::timeout(Duration::from_secs(2), hooks).await.is_err() {
    ///     eprintln!("some hooks are unfinished");
    /// }
    /// # }
    /// ```
    pub fn hooks_finished(&self) -> impl Future<Output = ()> + Send + use<> {
        self.finish(None)
    }

    /// Waits for hooks, and drops what is unfinished at `until`.
    pub(crate) fn finish_hooks(&self, until: Instant) -> impl Future<Output = ()> + Send + use<> {
        self.finish(Some(until))
    }

    fn finish(&self, until: Option<Instant>) -> impl Future<Output = ()> + Send + use<> {
        let registry = self.0.clone();
        async move {
            if let Some(observer) = registry.observer.clone() {
                observer.finish(registry, until).await;
            }
        }
    }

    /// Returns all open streams, in no particular order.
    pub fn snapshot(&self) -> Vec<ConnectionInfo> {
        self.matching(&ConnectionFilter::all())
    }

    /// Returns the open streams that match `filter`, in no particular order. For example, a page can show a
    /// tenant its own streams only.
    pub fn matching(&self, filter: &ConnectionFilter) -> Vec<ConnectionInfo> {
        self.0.matching(filter).iter().map(|connection| connection.info()).collect()
    }

    /// Returns the number of open streams that match `filter`.
    pub fn count(&self, filter: &ConnectionFilter) -> usize {
        self.0.lock().select(filter).count()
    }

    /// Ends the streams that match `filter` at once, for instance to withdraw access, and returns their number.
    ///
    /// `reason` is mostly [`CloseReason::Revoked`]. First make sure that the caller is refused when it
    /// reconnects: the [`Authenticator`](crate::auth::Authenticator) must deny the token, or the
    /// [`Authorizer`](crate::auth::Authorizer) the permission. Then disconnect. Otherwise a client that
    /// reconnects is admitted again.
    ///
    /// * A stream sends what it has encoded already, then the closing event. A
    ///   [plain](crate::options::Profile::Plain) stream's body breaks off instead.
    /// * If the client does not take the closing event within half a second, its connection is reset: over
    ///   HTTP/2 the one stream, under a server without [`serve`](crate::HeroSse::serve) and
    ///   [`guard`](crate::HeroSse::guard) no connection. The application's stream is dropped and the slot
    ///   released in any case; only user code that blocks its thread delays this.
    /// * An endpoint's function that still runs is dropped, and the client refused: with `403` for
    ///   [`Revoked`](CloseReason::Revoked). The function of a `POST` may finish, unless the reason withdraws
    ///   access (`Revoked`, `TokenExpired`, `Unverified`).
    /// * A matching request that is being admitted at the same time is checked again, starting with its token.
    ///
    /// ```
    /// use hero_sse::{CloseReason, HeroSse};
    /// use hero_sse::connections::ConnectionFilter;
    ///
    /// # struct Users;
    /// # impl Users { async fn remove(&self, _: &str) -> Result<(), std::io::Error> { Ok(()) } }
    /// async fn remove(users: &Users, sse: &HeroSse, name: &str) -> Result<usize, std::io::Error> {
    ///     users.remove(name).await?; // from now on the authorizer denies
    ///     let streams = ConnectionFilter::all().subject(name);
    ///     Ok(sse.connections().disconnect(&streams, CloseReason::Revoked))
    /// }
    /// ```
    #[doc(alias = "kick")]
    #[doc(alias = "revoke")]
    #[doc(alias = "close")]
    pub fn disconnect(&self, filter: &ConnectionFilter, reason: CloseReason) -> usize {
        let streams = self.0.disconnect(filter);
        streams.iter().for_each(|connection| connection.force_end(reason));
        let count = streams.len();
        telemetry::disconnected(count, reason);
        // On a stream's runtime, since the caller's own may end before the timeout.
        if let Some(runtime) = streams.iter().find_map(|stream| stream.runtime.clone()) {
            runtime.spawn(async move {
                sleep(CLOSE_EVENT_TIMEOUT).await;
                for (index, connection) in streams.iter().enumerate() {
                    connection.cut();
                    if index % 64 == 63 {
                        yield_now().await;
                    }
                }
            });
        }
        count
    }

    /// Sends one event to every open stream that matches `filter`: to a user, a tenant, everyone.
    ///
    /// The event is encoded once, and the call never waits. Each stream queues up to 64 direct events and
    /// 64 KiB, or one larger event. Its writer sends them in order, between two of the stream's own events.
    ///
    /// * It reaches [plain](crate::options::Profile::Plain) streams only if their endpoint has `direct_events = true`.
    /// * A stream whose function still runs sends them once it is open.
    /// * Events that are still queued when the stream ends are dropped. Clients that connect later do not
    ///   receive them. For events that no client may miss, use a [`Topic`](crate::Topic).
    /// * The event's name is its own (`#[sse(event)]`, or its type's), since the streams may belong to different
    ///   endpoints. The endpoint's `event` does not apply.
    /// * The event's id is omitted. It would become the position from which each stream resumes.
    /// * A last event (`#[sse(last)]`) ends no stream. Use [`disconnect`](Self::disconnect) or
    ///   [`drain`](Self::drain).
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
    /// /// Returns how many of the tenant's streams queued the notice.
    /// fn notify(sse: &HeroSse, tenant: &str, text: String) -> Result<usize, InvalidEvent> {
    ///     let streams = ConnectionFilter::all().tenant(tenant);
    ///     let sent = sse.connections().send(&streams, Notice { text })?;
    ///     Ok(sent.accepted)
    /// }
    /// # let sse = HeroSse::builder().build().unwrap();
    /// # assert_eq!(notify(&sse, "t1", "a new version is out".to_owned()).unwrap(), 0);
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when the event cannot be encoded, or is called `error` or `open`, which an `EventSource` confuses with
    /// its own events. No stream receives it then.
    #[doc(alias = "broadcast")]
    #[doc(alias = "publish")]
    #[doc(alias = "push")]
    #[doc(alias = "fan-out")]
    pub fn send(
        &self,
        filter: &ConnectionFilter,
        event: impl SseEvent,
    ) -> Result<SendSummary, InvalidEvent> {
        let mut frame = BytesMut::new();
        write_body(&mut frame, None, |frame| event.encode(frame))?;
        // A native stream could not be sent it, and which streams match is known only one by one.
        if name_of(&frame).is_some_and(is_trap) {
            return Err(InvalidField::trap().into());
        }
        let frame = frame.freeze();
        let mut sent = SendSummary::default();
        for connection in self.0.matching(filter) {
            match connection.push_direct(&frame) {
                Pushed::Accepted => sent.accepted += 1,
                Pushed::Full => sent.full += 1,
                Pushed::Closed => {}
            }
        }
        telemetry::sent(sent.accepted, sent.full);
        Ok(sent)
    }

    /// Asks the streams that match `filter` to end with [`CloseReason::Draining`], as a shutdown does, and
    /// returns their number.
    ///
    /// Their clients reconnect, each after a random time (`DrainJitter`), to the node that the load balancer
    /// chooses. This may be the same server, which still admits streams; see
    /// [`close_endpoint`](Self::close_endpoint).
    ///
    /// A [plain](crate::options::Profile::Plain) stream may finish first. After `DrainTimeout` its body breaks off.
    ///
    /// A stream whose client has stalled ends by its write timeout. An endpoint's function that still runs is
    /// dropped, and its client sent away in the same way; the function of a `POST` may finish.
    pub fn drain(&self, filter: &ConnectionFilter) -> usize {
        let streams = self.0.matching(filter);
        streams.iter().for_each(|connection| connection.request_end(CloseReason::Draining));
        streams.len()
    }

    /// Drains the streams that match `filter` one after another, spread evenly over `window`, and returns their
    /// number. The nodes that take them over are not hit by all clients at once.
    ///
    /// The oldest stream is drained at once, the last one at the end of the window. The streams are those that
    /// match when the future is first polled. Dropping the future leaves the remaining streams open. Needs a
    /// Tokio runtime with its timer.
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
    /// println!("{count} streams were drained");
    /// # }
    /// ```
    pub fn drain_over(
        &self,
        filter: &ConnectionFilter,
        window: Duration,
    ) -> impl Future<Output = usize> + Send + use<> {
        let (connections, filter) = (self.clone(), filter.clone());
        async move {
            let (start, window) = (Instant::now(), window.min(LONGEST_WINDOW));
            let mut streams = connections.0.matching(&filter);
            streams.sort_by_key(|entry| entry.identity.id);
            let last = streams.len().saturating_sub(1).max(1) as f64;
            for (index, connection) in streams.iter().enumerate() {
                sleep_until(start + window.mul_f64(index as f64 / last)).await;
                connection.request_end(CloseReason::Draining);
            }
            streams.len()
        }
    }

    /// Closes the endpoint at `path` (with its prefix): it admits no more streams until
    /// [`open_endpoint`](Self::open_endpoint). Returns whether it was open.
    ///
    /// New clients are answered as by a server that is draining: they are asked to reconnect later, or refused
    /// (`OverLimit`). Open streams continue; [`drain`](Self::drain) ends them.
    ///
    /// The path is not checked: a path without an endpoint is remembered all the same.
    pub fn close_endpoint(&self, path: &str) -> bool {
        self.0.lock().closed_endpoints.insert(Arc::from(path))
    }

    /// Opens an endpoint that was [closed](Self::close_endpoint). Returns whether it was closed.
    pub fn open_endpoint(&self, path: &str) -> bool {
        self.0.lock().closed_endpoints.remove(path)
    }

    /// Returns the number of disconnects so far. A caller that is checked after that has them behind it.
    pub(crate) fn disconnects(&self) -> u64 {
        self.0.disconnects()
    }

    /// Runs a future of user code that belongs to no stream yet, and measures each of its polls.
    pub(crate) async fn timed<F: Future>(&self, path: &str, code: F) -> F::Output {
        self.0.timed(path, None, code).await
    }

    /// Takes a slot for a stream, or returns why there is none.
    pub(crate) fn admit(
        &self,
        path: &Arc<str>,
        caller: Caller<'_>,
        limits: &Limits,
    ) -> Result<Slot, AdmissionError> {
        let entry = self.0.admit(path, caller, limits)?;
        Ok(Slot::new(self.0.clone(), entry))
    }

    /// Returns what a stream of this caller will be for user code. Its id is for [`Caller::id`].
    pub(crate) fn reserve(&self, path: &Arc<str>, caller: Caller<'_>) -> Connection {
        Connection::new(caller.identity(self.0.next_id(), path), self.0.clone())
    }

    /// Counts a rejected request as the end of a stream that never began.
    pub(crate) fn count_rejected(&self, path: &str, error: AdmissionError) {
        self.0.count_rejected(path, error);
    }

    /// Call before the server cuts the streams that a drain has left.
    pub(crate) fn cut_drained(&self) {
        let streams = self.0.matching(&ConnectionFilter::all());
        streams.iter().for_each(|stream| stream.set_cut());
    }

    /// Admits no more streams, and asks every open one to end. Returns their number.
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

#[cfg(test)]
mod tests;
