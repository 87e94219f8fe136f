//! A stream from an async block that sends its events: no macro, no task, no channel.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use crate::sealed;

/// Makes a stream of the events that an async block sends.
///
/// ```
/// use std::time::Duration;
/// use hero_sse::prelude::*;
/// use serde::Serialize;
///
/// #[derive(Serialize, SseEvent)]
/// struct Tick { left: u8 }
///
/// /// Counts down, once a second.
/// #[sse_endpoint("/countdown", public)]
/// async fn countdown() -> impl Stream<Item = Tick> {
///     hero_sse::stream(|mut tx| async move {
///         for left in (0..10).rev() {
///             tx.send(Tick { left }).await;
///             tokio::time::sleep(Duration::from_secs(1)).await;
///         }
///     })
/// }
/// ```
///
/// The block runs only while the stream is polled, so at the client's pace. [`send`](Emitter::send) returns when the
/// stream has taken the event. The stream ends when the block ends.
///
/// The response's head leaves before the block runs, and heartbeats leave meanwhile. So slow work in the block keeps no
/// proxy waiting. Where the function itself is slow, use the endpoint's key `early`.
///
/// # Cancellation
///
/// When the client leaves, the stream is dropped. That drops the block at the `await` where it is.
///
/// # Errors
///
/// A block may end with a `Result`, so that `?` works in it. The stream then yields a `Result` for each event. An error
/// ends the stream. It is logged and never sent, as the `Err` of any other stream.
///
/// ```
/// use hero_sse::Event;
///
/// let numbers = hero_sse::stream(|mut tx| async move {
///     for text in ["1", "2", "three"] {
///         let number: u8 = text.parse()?;
///         tx.send(Event::text(number.to_string())).await;
///     }
///     Ok::<(), std::num::ParseIntError>(())
/// });
/// ```
#[doc(alias = "channel")]
#[doc(alias = "generator")]
#[doc(alias = "yield")]
#[doc(alias = "async_stream")]
pub fn stream<E, F>(block: impl FnOnce(Emitter<E>) -> F) -> EmitterStream<E, F>
where
    E: Send + 'static,
    F: Future<Output: Outcome<E>> + Send + 'static,
{
    let handover = Arc::new(Handover::default());
    let block = block(Emitter { handover: handover.clone() });
    EmitterStream { block: Some(block), handover }
}

/// Sends events from the block of a [`stream`].
///
/// Use it in that block only. In a spawned task [`send`](Self::send) waits forever once the stream is dropped: use a
/// channel there.
#[doc(alias = "sender")]
pub struct Emitter<E> {
    handover: Arc<Handover<E>>,
}

impl<E> Emitter<E> {
    /// Sends an event, and returns when the stream has taken it. Events without another `await` between them leave in
    /// one write.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped before the stream has taken the event, the event is not sent.
    pub async fn send(&mut self, event: E) {
        let _withdraw = Withdraw(&self.handover);
        let mut event = Some(event);
        poll_fn(|cx| {
            let mut state = self.handover.lock();
            let event = event.take();
            if event.is_none() && state.event.is_none() {
                return Poll::Ready(());
            }
            if event.is_some() {
                state.event = event;
                state.sent_by_block = state.polling;
            }
            state.sender = Some(cx.waker().clone());
            let stream = state.stream.take();
            drop(state);
            stream.into_iter().for_each(Waker::wake);
            Poll::Pending
        })
        .await;
    }
}

impl<E> fmt::Debug for Emitter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter").finish_non_exhaustive()
    }
}

/// Removes an event that the stream has not taken.
struct Withdraw<'a, E>(&'a Handover<E>);

impl<E> Drop for Withdraw<'_, E> {
    fn drop(&mut self) {
        let event = self.0.lock().event.take();
        drop(event);
    }
}

/// What the block of a [`stream`] may end with: `()`, or a `Result<(), X>`.
#[diagnostic::on_unimplemented(
    message = "the block of a stream cannot end with `{Self}`",
    label = "neither `()` nor a `Result<(), X>`",
    note = "end it with nothing, or with `Ok::<(), X>(())` if it uses `?`",
    note = "an endless `loop` has the type `!`: write `for n in 0..` instead"
)]
pub trait Outcome<E> {
    #[doc(hidden)]
    fn sealed(_: sealed::Token);

    /// The stream's item.
    type Item;

    /// Returns the item for an event that the block sent.
    fn item(event: E) -> Self::Item;

    /// Returns the item for the end of the block, if there is one.
    fn last(self) -> Option<Self::Item>;
}

impl<E> Outcome<E> for () {
    type Item = E;

    fn sealed(_: sealed::Token) {}

    fn item(event: E) -> E {
        event
    }

    fn last(self) -> Option<E> {
        None
    }
}

impl<E, X> Outcome<E> for Result<(), X> {
    type Item = Result<E, X>;

    fn sealed(_: sealed::Token) {}

    fn item(event: E) -> Self::Item {
        Ok(event)
    }

    fn last(self) -> Option<Self::Item> {
        self.err().map(Err)
    }
}

/// Passes one event at a time from the block to the stream. Its lock is hardly ever contended, since the stream
/// polls the block.
struct Handover<E>(Mutex<State<E>>);

struct State<E> {
    event: Option<E>,
    sender: Option<Waker>,
    /// Whether the event was sent while the stream polled the block.
    sent_by_block: bool,
    polling: bool,
    stream: Option<Waker>,
}

impl<E> Default for Handover<E> {
    fn default() -> Self {
        let (event, sender, stream) = (None, None, None);
        Self(Mutex::new(State { event, sender, sent_by_block: false, polling: false, stream }))
    }
}

impl<E> Handover<E> {
    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pin_project_lite::pin_project! {
    /// The stream that [`stream`] returns.
    #[must_use = "streams do nothing unless polled"]
    pub struct EmitterStream<E, F> {
        #[pin]
        block: Option<F>,
        handover: Arc<Handover<E>>,
    }
}

impl<E, F> fmt::Debug for EmitterStream<E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmitterStream")
            .field("ended", &self.block.is_none())
            .finish_non_exhaustive()
    }
}

impl<E, F> Stream for EmitterStream<E, F>
where
    F: Future<Output: Outcome<E>>,
{
    type Item = <F::Output as Outcome<E>>::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        let Some(block) = this.block.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        {
            let mut state = this.handover.lock();
            state.polling = true;
            state.stream = None;
        }
        let outcome = block.poll(cx);
        let mut state = this.handover.lock();
        state.polling = false;
        let event = state.event.take();
        if let Poll::Ready(outcome) = outcome {
            drop(state);
            this.block.set(None);
            return Poll::Ready(outcome.last());
        }
        let Some(event) = event else {
            state.stream = Some(cx.waker().clone());
            return Poll::Pending;
        };
        // The next poll of this stream continues the block. A wake is needed only for a part of the block with a
        // waker of its own, and for a sender outside of it.
        let by_block = state.sent_by_block;
        let sender = state.sender.take_if(|sender| !(by_block && sender.will_wake(cx.waker())));
        drop(state);
        sender.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(<F::Output as Outcome<E>>::item(event)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::stream::FuturesUnordered;
    use futures_util::{FutureExt, StreamExt, future};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl std::task::Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The items that are ready without waiting, and how often the task was woken meanwhile.
    fn ready<S: Stream>(stream: S) -> (Vec<S::Item>, usize) {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut stream = std::pin::pin!(stream);
        let mut items = Vec::new();
        while let Poll::Ready(Some(item)) =
            stream.as_mut().poll_next(&mut Context::from_waker(&waker))
        {
            items.push(item);
        }
        (items, wakes.0.load(Ordering::SeqCst))
    }

    #[test]
    fn events_come_in_order_without_a_wait_and_then_the_end() {
        let events = stream(|mut tx| async move {
            for n in 0..100 {
                tx.send(n).await;
            }
        });
        assert_eq!(ready(events), ((0..100).collect(), 0));
        let mut none = Box::pin(stream(|_: Emitter<u8>| async {}));
        assert_eq!(none.next().now_or_never(), Some(None));
        assert_eq!(none.next().now_or_never(), Some(None));
    }

    #[test]
    fn sending_while_the_stream_is_polled_wakes_no_task() {
        let (go, gone) = tokio::sync::oneshot::channel();
        let mut events = Box::pin(stream(|mut tx| async move {
            gone.await.expect("a sender");
            for n in 0..9 {
                tx.send(n).await;
            }
        }));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut poll = || events.as_mut().poll_next(&mut Context::from_waker(&waker));
        assert!(poll().is_pending());
        go.send(()).expect("the other side is there");
        for n in 0..9 {
            assert_eq!(poll(), Poll::Ready(Some(n)));
        }
        assert_eq!(poll(), Poll::Ready(None));
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1, "by the channel");
    }

    #[test]
    fn the_block_waits_until_its_event_is_taken() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let mut events = Box::pin(stream(|mut tx| async move {
            for n in 1.. {
                count.store(n, Ordering::SeqCst);
                tx.send(n).await;
            }
        }));
        assert_eq!(made.load(Ordering::SeqCst), 0);
        for n in 1..5 {
            assert_eq!(events.next().now_or_never(), Some(Some(n)));
            assert_eq!(made.load(Ordering::SeqCst), n);
        }
        drop(events);
        assert_eq!(Arc::strong_count(&made), 1, "dropping the stream drops the block");
    }

    #[test]
    fn an_error_is_the_last_item() {
        let events = stream(|mut tx| async move {
            for text in ["1", "2", "three", "4"] {
                let n: u8 = text.parse()?;
                tx.send(n).await;
            }
            Ok::<_, std::num::ParseIntError>(())
        });
        let (items, _) = ready(events);
        assert!(matches!(items.as_slice(), [Ok(1), Ok(2), Err(_)]), "{items:?}");
        let fine = stream(|mut tx| async move {
            tx.send(1).await;
            Ok::<_, std::fmt::Error>(())
        });
        assert_eq!(ready(fine).0, [Ok(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn sending_works_within_other_futures_and_tasks() {
        let nested = stream(|mut tx| async move {
            let send = async {
                for n in 0..10 {
                    tx.send(n).await;
                    if n == 5 {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            };
            // It polls a future only when that future is woken.
            let mut all: FuturesUnordered<_> = [send].into_iter().collect();
            while all.next().await.is_some() {}
        });
        let all = tokio::time::timeout(Duration::from_secs(60), nested.collect::<Vec<_>>()).await;
        assert_eq!(all, Ok((0..10).collect()));
        let elsewhere = stream(|mut tx| async move {
            let task = tokio::spawn(async move {
                for n in 0..10 {
                    tokio::time::sleep(Duration::from_secs(n % 3)).await;
                    tx.send(n).await;
                }
            });
            task.await.expect("no panic");
        });
        let all =
            tokio::time::timeout(Duration::from_secs(60), elsewhere.collect::<Vec<_>>()).await;
        assert_eq!(all, Ok((0..10).collect()));
    }

    /// A sender in the same task as the stream and outside of its block has the same waker, which must be woken.
    #[tokio::test(start_paused = true)]
    async fn a_sender_outside_of_the_block_is_woken() {
        let (give, taken) = tokio::sync::oneshot::channel();
        let (done, finished) = tokio::sync::oneshot::channel();
        let mut events = Box::pin(stream(|tx| async move {
            give.send(tx).unwrap_or_else(|_| panic!("the other side is there"));
            future::pending::<()>().await;
        }));
        let send = async {
            let mut tx = taken.await.expect("an emitter");
            tx.send(1).await;
            tx.send(2).await;
            done.send(()).expect("the other side is there");
        };
        let read = async {
            assert_eq!(events.next().await, Some(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(events.next().await, Some(2));
            finished.await.expect("the stream took the event");
        };
        let start = tokio::time::Instant::now();
        let both = tokio::time::timeout(Duration::from_secs(9), future::join(send, read));
        both.await.expect("in time");
        assert_eq!(start.elapsed(), Duration::from_secs(1), "the sender was not woken");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_whose_send_is_dropped_is_not_sent() {
        let events = stream(|mut tx| async move {
            tx.send(1).await;
            assert!(tx.send(2).now_or_never().is_none());
            tokio::task::yield_now().await;
            tx.send(3).await;
            assert!(tx.send(4).now_or_never().is_none());
        });
        assert_eq!(events.collect::<Vec<_>>().await, [1, 3]);
    }
}
