//! One open stream: what the registry knows of it, the ways to ask it to end, and its place.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::direct::{Mailbox, Posted};
use super::limits::{Holder, Keys};
use super::{Caller, ConnectionInfo, Registry};
use crate::auth::Principal;
use crate::client_addr;
use crate::close::CloseReason;
use crate::telemetry;

/// One open stream.
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) path: Arc<str>,
    holder: Option<Arc<Holder>>,
    pub(super) principal: Option<Principal>,
    address: Option<IpAddr>,
    pub(super) since: Instant,
    /// The place in [`CloseReason::ALL`] of the end that was asked for, plus one; zero is none.
    asked: AtomicU8,
    /// Of whoever looks for an end that was asked for, and for mail.
    waker: AtomicWaker,
    mail: Mailbox,
    ended: AtomicBool,
    /// Takes the stream from a client that takes nothing, or that may have ended and left something unsent.
    cut: OnceLock<Box<dyn Fn(Ended) + Send + Sync>>,
    was_cut: AtomicBool,
    pub(super) runtime: Option<Handle>,
}

/// Whether a stream that is cut has ended already, as far as the writer can tell.
pub(crate) struct Ended(pub(crate) bool);

impl Connection {
    pub(super) fn new(id: u64, path: &Arc<str>, caller: Caller<'_>) -> Arc<Self> {
        Arc::new(Self {
            id,
            path: path.clone(),
            holder: caller.principal.map(|who| Arc::new(Holder::of(who))),
            principal: caller.principal.cloned(),
            address: caller.address,
            since: Instant::now(),
            asked: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            mail: Mailbox::default(),
            ended: AtomicBool::new(false),
            cut: OnceLock::new(),
            was_cut: AtomicBool::new(false),
            runtime: Handle::try_current().ok(),
        })
    }

    pub(super) fn keys(&self) -> Keys<'_> {
        let place = self.address.map(client_addr::network_of);
        Keys { path: &self.path, holder: self.holder.as_ref(), place }
    }

    /// Asks the stream to go, unless it was asked before.
    pub(super) fn ask(&self, reason: CloseReason) {
        let asked = place_of(reason);
        let _ = self.asked.compare_exchange(0, asked, Ordering::AcqRel, Ordering::Acquire);
        self.waker.wake();
    }

    /// The same, whatever else it was asked for, but that who must not stay is not told to come back.
    pub(super) fn withdraw(&self, reason: CloseReason) {
        let stands = |asked: CloseReason| asked.is_withdrawal() && !asked.reconnect();
        let change = |place| (!reason_at(place).is_some_and(stands)).then_some(place_of(reason));
        let _ = self.asked.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        self.waker.wake();
    }

    /// Lets an event wait for the stream's next write. One that is about to end takes none.
    pub(super) fn post(&self, frame: &Bytes) -> Posted {
        if self.asked().is_some() {
            return Posted::Closed;
        }
        let posted = self.mail.post(frame);
        if posted == Posted::Accepted {
            self.waker.wake();
        }
        posted
    }

    fn asked(&self) -> Option<CloseReason> {
        reason_at(self.asked.load(Ordering::Acquire))
    }

    /// The time for a farewell is over.
    pub(super) fn cut(&self) {
        let ended = self.ended.load(Ordering::Acquire);
        if let Some(cut) = self.cut.get() {
            // Before, for whoever is dropped by it.
            self.was_cut.store(!ended, Ordering::Release);
            cut(Ended(ended));
        }
    }

    pub(super) fn info(&self) -> ConnectionInfo {
        let principal = self.principal.as_ref();
        ConnectionInfo {
            id: self.id,
            path: self.path.to_string(),
            subject: principal.map(Principal::subject).map(str::to_owned),
            tenant: principal.and_then(Principal::tenant).map(str::to_owned),
            issuer: principal.and_then(Principal::issuer).map(str::to_owned),
            address: self.address,
            age: self.since.elapsed(),
        }
    }
}

/// A reason's place in [`CloseReason::ALL`], plus one.
fn place_of(reason: CloseReason) -> u8 {
    u8::try_from(reason.index() + 1).unwrap_or(u8::MAX)
}

fn reason_at(place: u8) -> Option<CloseReason> {
    CloseReason::ALL.get(usize::from(place).checked_sub(1)?).copied()
}

/// A stream's place in the registry. Dropping it gives the place back and counts the end.
pub(crate) struct Slot {
    pub(super) registry: Arc<Registry>,
    pub(super) connection: Arc<Connection>,
    pub(super) key: usize,
    /// `None` when no stream came of it.
    pub(super) reason: Option<CloseReason>,
}

impl Slot {
    pub(crate) fn origin(&self) -> Attribution {
        Attribution { registry: self.registry.clone(), connection: self.connection.clone() }
    }

    /// The end that somebody asked for; the task is woken when one is.
    pub(crate) fn poll_asked(&self, cx: &Context<'_>) -> Option<CloseReason> {
        self.connection.waker.register(cx.waker());
        self.connection.asked()
    }

    /// Appends what was sent to the stream from elsewhere, a write's share of it at most. The task that
    /// asked for its end last is woken when more comes.
    pub(crate) fn collect(&self, out: &mut BytesMut) {
        self.connection.mail.collect(out);
    }

    /// What takes the stream from its client, if it has not taken a farewell in time.
    pub(crate) fn on_cut(&self, cut: impl Fn(Ended) + Send + Sync + 'static) {
        // A stream has one writer.
        let _ = self.connection.cut.set(Box::new(cut));
    }

    /// For what reason it was taken from its client, if it was.
    pub(crate) fn was_cut(&self) -> Option<CloseReason> {
        let cut = self.connection.was_cut.load(Ordering::Acquire);
        self.connection.asked().filter(|_| cut)
    }

    /// The stream begins.
    pub(crate) fn opened(&self) {
        let Connection { id, path, principal, .. } = &*self.connection;
        telemetry::opened(path, *id, principal.as_ref().map(Principal::subject));
    }

    /// Why the stream is over; without a word from here the client has gone.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        self.connection.mail.close();
        self.reason = Some(reason);
    }

    /// Gives the place back for a stream that never was: the answer is a refusal, not an end.
    pub(crate) fn withdraw(mut self) {
        self.reason = None;
    }
}

/// Whose code it is that runs: for the log and the counts.
#[derive(Clone)]
pub(crate) struct Attribution {
    registry: Arc<Registry>,
    connection: Arc<Connection>,
}

impl Attribution {
    pub(crate) fn path(&self) -> &str {
        &self.connection.path
    }

    pub(crate) fn id(&self) -> u64 {
        self.connection.id
    }

    /// A future of the application's, each of whose polls is timed.
    pub(crate) async fn timed<F: Future>(self, code: F) -> F::Output {
        self.registry.timed(self.path(), Some(self.id()), code).await
    }

    /// The client was told of a gap.
    pub(crate) fn gap(&self) {
        self.registry.gap(self.path(), self.id());
    }

    /// A piece of it, which began then, has come to its end or its next `await`.
    pub(crate) fn ran(&self, since: std::time::Instant) {
        self.registry.ran(self.path(), Some(self.id()), since);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Connection { id, path, since, .. } = &*self.connection;
        self.connection.ended.store(true, Ordering::Release);
        self.connection.mail.close();
        {
            let mut open = self.registry.lock();
            open.streams.try_remove(self.key);
            open.places.leave(&self.connection.keys());
        }
        telemetry::places(path, -1.0);
        if let Some(reason) = self.reason {
            self.registry.count(reason);
            telemetry::closed(path, *id, reason, since.elapsed());
        }
    }
}
