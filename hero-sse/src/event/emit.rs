//! A stream from an async block that sends its events: no macro, no task, no channel.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

/// A stream of what an async block sends, one event after another.
///
/// ```
/// use std::time::Duration;
/// use hero_sse::prelude::*;
/// use serde::Serialize;
///
/// #[derive(Serialize, SseEvent)]
/// struct Tick { left: u8 }
///
/// /// Counts down, a second apart.
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
/// The block runs as the stream is polled, at the client's pace, and nowhere else: [`send`](Emitter::send) hands
/// over one event and returns when it was taken. The stream ends with the block, and dropping the stream, as
/// when the client leaves, drops the block where it waits.
///
/// A block may also end with a `Result`: then so are the items, and `?` works in it. An error ends the
/// stream; as the `Err` of any other stream it is logged and never sent.
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
pub fn stream<E, F>(block: impl FnOnce(Emitter<E>) -> F) -> EmitterStream<E, F>
where
    E: Send + 'static,
    F: Future<Output: Outcome<E>> + Send + 'static,
{
    let exchange = Arc::new(Exchange::default());
    let block = block(Emitter { exchange: exchange.clone() });
    EmitterStream { block: Some(block), exchange }
}

/// What the block of a [`stream`] sends its events with.
///
/// It belongs to that block: where it is taken elsewhere, as into a task, and the stream is gone, `send`
/// waits for ever. For a task there are channels.
pub struct Emitter<E> {
    exchange: Arc<Exchange<E>>,
}

impl<E> Emitter<E> {
    /// Hands over one event, and returns when it was taken: events that follow each other without another
    /// `await` still leave as one write. An event whose `send` is dropped before it was taken is not sent.
    pub async fn send(&mut self, event: E) {
        let _withdrawn = Withdraw(&self.exchange);
        let mut event = Some(event);
        poll_fn(|cx| {
            let mut hand = self.exchange.lock();
            let event = event.take();
            if event.is_none() && hand.event.is_none() {
                return Poll::Ready(());
            }
            if event.is_some() {
                hand.event = event;
                hand.inside = hand.polling;
            }
            hand.sender = Some(cx.waker().clone());
            let stream = hand.stream.take();
            drop(hand);
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

/// Takes an event back that nobody has taken.
struct Withdraw<'a, E>(&'a Exchange<E>);

impl<E> Drop for Withdraw<'_, E> {
    fn drop(&mut self) {
        let event = self.0.lock().event.take();
        drop(event);
    }
}

/// How the block of a [`stream`] may end: with `()`, or with a `Result<(), X>`.
#[diagnostic::on_unimplemented(
    message = "the block of a stream cannot end with `{Self}`",
    label = "neither `()` nor a `Result<(), X>`",
    note = "end it with nothing, or with `Ok::<(), X>(())` if it uses `?`",
    note = "an endless `loop` has the type `!`: write `for n in 0..` instead"
)]
pub trait Outcome<E> {
    /// What the stream yields.
    type Item;

    /// An event that was sent.
    fn item(event: E) -> Self::Item;

    /// What comes last.
    fn last(self) -> Option<Self::Item>;
}

impl<E> Outcome<E> for () {
    type Item = E;

    fn item(event: E) -> E {
        event
    }

    fn last(self) -> Option<E> {
        None
    }
}

impl<E, X> Outcome<E> for Result<(), X> {
    type Item = Result<E, X>;

    fn item(event: E) -> Self::Item {
        Ok(event)
    }

    fn last(self) -> Option<Self::Item> {
        self.err().map(Err)
    }
}

/// Where an event passes from the block to the stream. Nobody contends for its lock: the stream polls
/// the block.
struct Exchange<E>(Mutex<Hand<E>>);

struct Hand<E> {
    event: Option<E>,
    sender: Option<Waker>,
    /// Whether it was placed while the stream polled the block.
    inside: bool,
    polling: bool,
    stream: Option<Waker>,
}

impl<E> Default for Exchange<E> {
    fn default() -> Self {
        let (event, sender, stream, inside, polling) = (None, None, None, false, false);
        Self(Mutex::new(Hand { event, sender, inside, polling, stream }))
    }
}

impl<E> Exchange<E> {
    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Hand<E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pin_project_lite::pin_project! {
    /// The stream that [`stream`] makes.
    #[must_use = "streams do nothing unless polled"]
    pub struct EmitterStream<E, F> {
        #[pin]
        block: Option<F>,
        exchange: Arc<Exchange<E>>,
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
            let mut hand = this.exchange.lock();
            hand.polling = true;
            hand.stream = None;
        }
        let outcome = block.poll(cx);
        let mut hand = this.exchange.lock();
        hand.polling = false;
        let event = hand.event.take();
        if let Poll::Ready(outcome) = outcome {
            drop(hand);
            this.block.set(None);
            return Poll::Ready(outcome.last());
        }
        let Some(event) = event else {
            hand.stream = Some(cx.waker().clone());
            return Poll::Pending;
        };
        // The block goes on when this is polled for more; only a part of it with a waker of its own, or a
        // sender elsewhere, must be told.
        let inside = hand.inside;
        let sender = hand.sender.take_if(|sender| !(inside && sender.will_wake(cx.waker())));
        drop(hand);
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

    /// All that is there without a wait, and how often the task was woken meanwhile.
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
    fn what_is_sent_comes_in_order_without_a_wait_and_the_end_after_it() {
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
    fn nobody_is_woken_for_what_is_sent_as_the_stream_is_polled() {
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
        go.send(()).expect("it waits");
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
        assert_eq!(Arc::strong_count(&made), 1, "the block goes with its stream");
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
    async fn whoever_polls_the_sending_it_goes_on() {
        let nested = stream(|mut tx| async move {
            let send = async {
                for n in 0..10 {
                    tx.send(n).await;
                    if n == 5 {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            };
            // Each of its futures is polled only when it is woken itself.
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

    /// In one task with the stream, and not in its block: the waker is the same, and must be used.
    #[tokio::test(start_paused = true)]
    async fn a_sender_beside_the_stream_is_told_too() {
        let (give, taken) = tokio::sync::oneshot::channel();
        let (done, finished) = tokio::sync::oneshot::channel();
        let mut events = Box::pin(stream(|tx| async move {
            give.send(tx).unwrap_or_else(|_| panic!("it waits"));
            future::pending::<()>().await;
        }));
        let send = async {
            let mut tx = taken.await.expect("an emitter");
            tx.send(1).await;
            tx.send(2).await;
            done.send(()).expect("it waits");
        };
        let read = async {
            assert_eq!(events.next().await, Some(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(events.next().await, Some(2));
            finished.await.expect("it was taken");
        };
        let start = tokio::time::Instant::now();
        let both = tokio::time::timeout(Duration::from_secs(9), future::join(send, read));
        both.await.expect("in time");
        assert_eq!(start.elapsed(), Duration::from_secs(1), "nobody told the sender");
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
