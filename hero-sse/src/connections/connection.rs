//! One open stream, as the registry knows it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::direct::{DirectQueue, Pushed};
use super::limits::{CallerKey, Keys};
use crate::auth::Principal;
use crate::client_addr;
use crate::close::CloseReason;

/// One open stream, as [`Connections::snapshot`](crate::connections::Connections::snapshot) returns it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The stream's number, as in [`Connection::id`](super::Connection::id).
    pub id: u64,
    /// The endpoint's path, with its prefix, and with captures as declared.
    pub path: String,
    /// The caller's subject. `None` on a public endpoint without a token.
    pub subject: Option<String>,
    /// The caller's tenant.
    pub tenant: Option<String>,
    /// The issuer of the caller's token (`iss`).
    pub issuer: Option<String>,
    /// The client's address: the socket's peer, or the client that a
    /// [trusted proxy](crate::SseOptions::trusted_proxies) names. `None` for sockets without addresses.
    pub address: Option<IpAddr>,
    /// Time since the stream was admitted.
    pub age: Duration,
}

/// What stays the same of a stream: which one it is, and whose.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) id: u64,
    pub(super) endpoint: Arc<str>,
    pub(super) principal: Option<Principal>,
    pub(super) address: Option<IpAddr>,
}

/// Who asks for a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Caller<'a> {
    pub(crate) principal: Option<&'a Principal>,
    pub(crate) address: Option<IpAddr>,
    /// The number of [disconnects](super::Connections::disconnects) before the caller was checked.
    pub(crate) disconnects_before: u64,
    /// The id that the stream was promised before its admission. `None`: the next one.
    pub(crate) id: Option<u64>,
}

impl Caller<'_> {
    /// Returns the identity of the caller's stream with this id.
    pub(super) fn identity(&self, id: u64, path: &Arc<str>) -> Identity {
        let (principal, address) = (self.principal.cloned(), self.address);
        Identity { id, endpoint: path.clone(), principal, address }
    }
}

/// Whether a stream's writer still exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamPhase {
    Live,
    Ended,
}

/// One open stream. The registry, its slot and its direct queue share it.
pub(super) struct Entry {
    pub(super) identity: Identity,
    caller_key: Option<Arc<CallerKey>>,
    pub(super) since: Instant,
    /// The requested end: its index in [`CloseReason::ALL`] plus one, or zero for none.
    end_request: AtomicU8,
    /// When its drain began, if it is only to be drained: a plain stream may then finish.
    drained: OnceLock<Instant>,
    /// Whether it must end at once.
    forced: AtomicBool,
    /// Wakes the stream's task for a requested end and for direct events.
    waker: AtomicWaker,
    direct: DirectQueue,
    ended: AtomicBool,
    /// Cuts the stream off, whether its client reads or not.
    cut: OnceLock<Box<dyn Fn(StreamPhase) + Send + Sync>>,
    was_cut: AtomicBool,
    gaps: AtomicU64,
    pub(super) runtime: Option<Handle>,
}

impl Entry {
    pub(super) fn new(id: u64, path: &Arc<str>, caller: Caller<'_>) -> Arc<Self> {
        Arc::new(Self {
            identity: caller.identity(id, path),
            caller_key: caller.principal.map(|caller| Arc::new(CallerKey::of(caller))),
            since: Instant::now(),
            end_request: AtomicU8::new(0),
            drained: OnceLock::new(),
            forced: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            direct: DirectQueue::default(),
            ended: AtomicBool::new(false),
            cut: OnceLock::new(),
            was_cut: AtomicBool::new(false),
            gaps: AtomicU64::new(0),
            runtime: Handle::try_current().ok(),
        })
    }

    pub(super) fn keys(&self) -> Keys<'_> {
        let network = self.identity.address.map(client_addr::network_of);
        Keys { path: &self.identity.endpoint, caller: self.caller_key.as_ref(), network }
    }

    /// Requests the stream's end, unless one was requested before.
    pub(super) fn request_end(&self, reason: CloseReason) {
        let request = code_of(reason);
        // Set first: the stream's task reads it once it sees the request.
        let _ = self.drained.set(Instant::now());
        let _ = self.end_request.compare_exchange(0, request, Ordering::AcqRel, Ordering::Acquire);
        self.waker.wake();
    }

    /// Requests the stream's end, in place of an earlier request. Only a request after which the client must not
    /// reconnect stays.
    pub(super) fn force_end(&self, reason: CloseReason) {
        self.forced.store(true, Ordering::Release);
        let stays = |earlier: CloseReason| earlier.is_withdrawal() && !earlier.reconnect();
        let change = |code| (!reason_of(code).is_some_and(stays)).then_some(code_of(reason));
        let _ = self.end_request.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        self.waker.wake();
    }

    /// Returns the requested end, and registers the task to wake for one.
    pub(super) fn poll_end_request(&self, cx: &Context<'_>) -> Option<CloseReason> {
        self.waker.register(cx.waker());
        self.end_request()
    }

    /// Returns since when the stream is drained, unless it must end at once.
    pub(super) fn drained_since(&self) -> Option<Instant> {
        let drained = self.end_request() == Some(CloseReason::Draining);
        let may_finish = drained && !self.forced.load(Ordering::Acquire);
        self.drained.get().copied().filter(|_| may_finish)
    }

    fn end_request(&self) -> Option<CloseReason> {
        reason_of(self.end_request.load(Ordering::Acquire))
    }

    /// Queues an event for the stream's next write. A stream that is about to end accepts none.
    pub(super) fn push_direct(&self, frame: &Bytes) -> Pushed {
        if self.end_request().is_some() {
            return Pushed::Closed;
        }
        let pushed = self.direct.push(frame);
        if pushed == Pushed::Accepted {
            self.waker.wake();
        }
        pushed
    }

    pub(super) fn take_direct(&self, out: &mut BytesMut) {
        self.direct.take(out);
    }

    pub(super) fn close_direct(&self) {
        self.direct.close();
    }

    pub(super) fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn on_cut(&self, cut: impl Fn(StreamPhase) + Send + Sync + 'static) {
        // Set once: a stream has one writer.
        let _ = self.cut.set(Box::new(cut));
    }

    /// Cuts the stream off: the time for its closing event is over.
    pub(super) fn cut(&self) {
        let ended = self.ended.load(Ordering::Acquire);
        if let Some(cut) = self.cut.get() {
            // Set first: cutting the stream may drop its writer, which reads it.
            self.was_cut.store(!ended, Ordering::Release);
            cut(if ended { StreamPhase::Ended } else { StreamPhase::Live });
        }
    }

    /// Records that the server cuts a stream that was asked to end and has not ended.
    pub(super) fn set_cut(&self) {
        let ended = self.ended.load(Ordering::Acquire);
        self.was_cut.store(!ended, Ordering::Release);
    }

    /// Returns why the stream was cut off, if it was.
    pub(super) fn was_cut(&self) -> Option<CloseReason> {
        let cut = self.was_cut.load(Ordering::Acquire);
        self.end_request().filter(|_| cut)
    }

    pub(super) fn count_gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    /// The runtimes that may run a task for this stream: its own, and the current one.
    pub(super) fn runtimes(&self) -> impl Iterator<Item = Handle> {
        self.runtime.clone().into_iter().chain(Handle::try_current())
    }

    pub(super) fn info(&self) -> ConnectionInfo {
        let Identity { id, endpoint, principal, address } = &self.identity;
        let principal = principal.as_ref();
        ConnectionInfo {
            id: *id,
            path: endpoint.to_string(),
            subject: principal.map(Principal::subject).map(str::to_owned),
            tenant: principal.and_then(Principal::tenant).map(str::to_owned),
            issuer: principal.and_then(Principal::issuer).map(str::to_owned),
            address: *address,
            age: self.since.elapsed(),
        }
    }
}

fn code_of(reason: CloseReason) -> u8 {
    u8::try_from(reason.index() + 1).unwrap_or(u8::MAX)
}

fn reason_of(code: u8) -> Option<CloseReason> {
    CloseReason::ALL.get(usize::from(code).checked_sub(1)?).copied()
}
