//! A response body that can be taken back from a server that keeps it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use super::BrokenOff;
use crate::close::CloseReason;

/// A body around a writer. Revoking it drops the writer and everything that the writer holds; the server is
/// left with a body that breaks off.
pub(super) struct RevocableBody<W>(Arc<Mutex<Option<W>>>);

/// Revokes a [`RevocableBody`].
pub(super) struct Revoker<W>(Weak<Mutex<Option<W>>>);

impl<W> RevocableBody<W> {
    /// A body without a writer yet, so that the writer can be made after its revoker.
    pub(super) fn new() -> (Self, Revoker<W>) {
        let writer = Arc::new(Mutex::new(None));
        let revoker = Revoker(Arc::downgrade(&writer));
        (Self(writer), revoker)
    }

    pub(super) fn fill(&self, writer: W) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
    }
}

impl<W> Clone for Revoker<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: Send + 'static> Revoker<W> {
    /// Drops the writer. Returns `false` if it is gone already, or is being polled: then the client has not
    /// stalled.
    pub(super) fn revoke(&self) -> bool {
        let writer = self.0.upgrade().and_then(|writer| writer.try_lock().ok()?.take());
        // Dropping the application's stream runs user code, which may take long.
        writer.map(|writer| tokio::spawn(async move { drop(writer) })).is_some()
    }
}

impl<W> Stream for RevocableBody<W>
where
    W: Stream<Item = Result<Bytes, BrokenOff>> + Unpin,
{
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(writer) = writer.as_mut() else {
            return Poll::Ready(Some(Err(BrokenOff(CloseReason::WriteTimeout))));
        };
        Pin::new(writer).poll_next(cx)
    }
}
