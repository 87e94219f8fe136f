use std::sync::atomic::{AtomicUsize, Ordering};

use futures_core::future::BoxFuture;
use futures_util::{FutureExt, stream};
use proptest::prelude::*;

use super::*;
use crate::auth::{
    Access, AccessControl, AccessRequest, AuthError, Authorizer, Decision, PendingDecision,
    Principal,
};
use crate::connections::{Caller, ConnectionFilter, Connections, Limits};
use crate::delivery::{PIECE, Sweeper};
use crate::endpoint::EventStream;
use crate::event::Event;
use crate::options::SseOptions;
use crate::permission::PermissionRule;
use crate::policy::Profile;

const SECOND: Duration = Duration::from_secs(1);

fn writer(events: impl Stream<Item = Event> + Send + 'static) -> Writer {
    writer_in(&Connections::default(), SseOptions::default(), events)
}

fn writer_in(
    connections: &Connections,
    options: SseOptions,
    events: impl Stream<Item = Event> + Send + 'static,
) -> Writer {
    let (path, caller) = (Arc::from("/s"), Caller::default());
    let slot = connections.admit(&path, caller, &Limits::NONE);
    let slot = slot.unwrap_or_else(|_| panic!("a slot"));
    let policy = options.general_policies().private;
    let lifetime =
        Lifetime { end: None, reauthorization: None, drain_timeout: None, can_reopen: true };
    let delivery = LiveDelivery::default();
    Writer::new(EventStream::new(events), None, policy, slot, delivery, lifetime)
}

/// Denies every request, and counts them.
#[derive(Default)]
struct DenyAll(AtomicUsize);

impl Authorizer for DenyAll {
    fn authorize<'a>(&'a self, _: &'a Access<'a>) -> BoxFuture<'a, Result<Decision, AuthError>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(Decision::denied()) })
    }
}

fn reauthorization(writer: &Writer, access: AccessControl) -> Box<Reauthorization> {
    let principal = Principal::new("ann");
    let asked =
        Arc::new(AccessRequest { principal, rule: PermissionRule::any_token(), target: None });
    let (attribution, interval) = (writer.slot.attribution(), Duration::from_secs(30));
    Box::new(Reauthorization::new(access, asked, attribution, interval, Instant::now()))
}

fn poll(writer: &mut Writer) -> Bytes {
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    match Pin::new(writer).poll_next(cx) {
        Poll::Ready(Some(Ok(bytes))) => bytes,
        Poll::Ready(Some(Err(broken))) => panic!("{broken}"),
        Poll::Ready(None) => panic!("the stream has ended"),
        Poll::Pending => panic!("nothing is ready"),
    }
}

/// The stream never waits, so the start of a turn is the only time for the check.
#[tokio::test]
async fn a_due_permission_check_precedes_the_events_of_an_always_ready_stream() {
    let deny = Arc::new(DenyAll::default());
    let access =
        AccessControl { authorizer: Some(deny.clone()), timeout: None, failures: Arc::default() };
    let mut writer = writer(stream::repeat_with(|| Event::text("x")));
    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
    writer.lifetime.reauthorization = Some(reauthorization(&writer, access));
    assert!(text(poll(&mut writer)).contains("data: x"));
    assert_eq!(deny.0.load(Ordering::SeqCst), 0);
    writer.lifetime.reauthorization.as_mut().expect("a check").start_now();
    let text = text(poll(&mut writer));
    assert!(text.contains("\"revoked\"") && !text.contains("data: x"), "{text}");
    assert_eq!(deny.0.load(Ordering::SeqCst), 1);
}

/// The rest of the batch is still sent, but the application's stream and a running check are dropped first.
#[tokio::test]
async fn a_stream_that_ends_amid_a_batch_drops_the_applications_stream_at_once() {
    let (held, asking) = (Arc::new(()), Arc::new(()));
    let kept = held.clone();
    let events = stream::iter([Event::text("x".repeat(3 * PIECE))]);
    let events = futures_util::StreamExt::chain(events, stream::pending());
    let mut writer = writer(futures_util::StreamExt::inspect(events, move |_| drop(kept.clone())));
    writer.delivery = LiveDelivery::in_pieces(&Sweeper::default(), Duration::from_secs(9));
    let piece = poll(&mut writer);
    assert!(piece.len() == PIECE && !writer.batch.is_empty());
    let access = AccessControl { authorizer: None, timeout: None, failures: Arc::default() };
    let mut check = reauthorization(&writer, access);
    let question = asking.clone();
    check.set_running(PendingDecision::new(async move {
        let _question = question;
        std::future::pending().await
    }));
    writer.lifetime.reauthorization = Some(check);
    assert_eq!((Arc::strong_count(&held), Arc::strong_count(&asking)), (2, 2));
    writer.lifetime.end =
        Some(ScheduledEnd { at: Instant::now(), reason: CloseReason::TokenExpired });
    let piece = poll(&mut writer);
    assert!(piece.iter().all(|byte| *byte == b'x'));
    assert_eq!((Arc::strong_count(&held), Arc::strong_count(&asking)), (1, 1));
}

/// A client that takes one large event slowly: no heartbeat, nor any end, tears the event.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_between_two_pieces_of_an_event() {
    for plain in [false, true] {
        let profile = if plain { Profile::Plain } else { Profile::Native };
        let options = SseOptions::default().profile(profile).max_age(Duration::from_secs(20));
        let options = options.heartbeat_interval(Duration::from_secs(1));
        let events = stream::iter([Event::text("x".repeat(9 * PIECE))]);
        let events = futures_util::StreamExt::chain(events, stream::pending());
        let mut writer = writer_in(&Connections::default(), options, events);
        writer.delivery = LiveDelivery::in_pieces(&Sweeper::default(), Duration::from_secs(9));
        let reason = CloseReason::MaxAge;
        writer.lifetime.end = Some(ScheduledEnd { at: Instant::now() + 20 * SECOND, reason });
        let (mut body, mut broken) = (Vec::new(), false);
        while let Some(piece) = futures_util::StreamExt::next(&mut writer).await {
            match piece {
                Ok(piece) => body.extend_from_slice(&piece),
                Err(_) => broken = true,
            }
            tokio::time::advance(3 * SECOND).await;
        }
        let body = String::from_utf8(body).expect("UTF-8");
        let event = format!("data: {}\n\n", "x".repeat(9 * PIECE));
        assert!(body.contains(&event), "torn");
        assert_eq!((broken, body.contains("hero.close")), (plain, !plain));
    }
}

#[test]
fn a_batch_uses_little_more_memory_than_its_size() {
    for size in [10, 1000, 1025, 3000, 10_000, 16_400, 100_000] {
        for capacity in [size, size + size / 8, 2 * size] {
            let mut out = BytesMut::with_capacity(capacity);
            out.resize(size, b'x');
            let batch = take_all(&mut out);
            assert_eq!(batch.len(), size);
            assert!(out.is_empty() && out.capacity() <= 2 * KEPT_BUFFER, "{}", out.capacity());
            let Ok(taken) = batch.try_into_mut() else { continue };
            assert!(size <= KEPT_BUFFER || taken.capacity() <= size * 5 / 4 + 16, "{size}");
        }
    }
}

#[tokio::test]
async fn an_idle_stream_does_not_keep_the_memory_of_its_largest_batch() {
    let events = stream::iter([Event::text("x".repeat(1 << 20))]);
    let mut writer = writer(futures_util::StreamExt::chain(events, stream::pending()));
    let batch = next_of(&mut writer).await;
    assert!(batch.len() > 1 << 20);
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    assert!(Pin::new(&mut writer).poll_next(cx).is_pending());
    assert!(writer.gathered.capacity() <= KEPT_BUFFER, "{}", writer.gathered.capacity());
}

async fn next_of(writer: &mut Writer) -> Bytes {
    let next = futures_util::StreamExt::next(writer);
    let next = tokio::time::timeout(Duration::from_secs(20), next).await.expect("in time");
    next.expect("no end").unwrap_or_else(|broken| panic!("{broken}"))
}

/// A line alone is the reconnection time, or a heartbeat.
fn write_of_whole_frames(write: &[u8]) -> bool {
    let is_line = memchr::memchr(b'\n', write) == Some(write.len() - 1);
    if is_line && (write.starts_with(b"retry: ") || write == HEARTBEAT) {
        return true;
    }
    let frames = memchr::memmem::find_iter(write, b"\n\n").count();
    write.ends_with(b"\n\n") && (write.len() <= BATCH || frames == 1)
}

/// The numbers at the start of the data of all events of this name.
fn numbers(body: &str, name: &str) -> Vec<usize> {
    let number = |frame: &str| frame.strip_prefix(name)?.split_once(' ')?.0.parse().ok();
    // The first block also has the reconnection time.
    let retry = |frame: &str| frame.strip_prefix("retry: ").is_some();
    let own = |frame| match retry(frame) {
        true => frame.split_once('\n').map_or("", |(_, own)| own),
        false => frame,
    };
    body.split("\n\n").map(own).filter_map(number).collect()
}

/// Sizes close to zero, close to a batch, and larger.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0..400usize,
        3 => 0..9_000usize,
        2 => BATCH - 60..BATCH + 60,
        1 => 0..50_000usize,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The stream's own events and directly sent ones, of any sizes: each write is whole frames of up to a batch,
    /// or one longer frame. No event is missed, and each of the two sources keeps its order.
    #[test]
    fn every_write_is_whole_frames_of_a_batch_or_one_longer_frame(
        own in proptest::collection::vec((size(), any::<bool>(), 0..9u8), 0..60),
        direct in proptest::collection::vec((size(), 0..5usize), 0..30),
        buffered in any::<bool>(),
        heartbeat_event in any::<bool>(),
    ) {
        let text = |n: usize, size: usize, lines: bool| {
            let line = if lines { "y\n\n" } else { "yyy" };
            Event::text(format!("{n} {}", line.repeat(size / 3)))
        };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let mut options = SseOptions::default().heartbeat_event(heartbeat_event);
            if buffered {
                options = options.buffer(1000);
            }
            let (connections, (end, ended)) =
                (Connections::default(), tokio::sync::oneshot::channel::<()>());
            let made: Vec<_> = own.iter().enumerate().map(|(n, (size, lines, pause))| {
                (text(n, *size, *lines), *pause == 0)
            }).collect();
            let events = futures_util::StreamExt::then(stream::iter(made), |(event, pause)| async move {
                if pause {
                    tokio::task::yield_now().await;
                }
                event
            });
            let tail = stream::once(async move { let _ = ended.await; Event::text("last").last() });
            let mut writer =
                writer_in(&connections, options, futures_util::StreamExt::chain(events, tail));
            let (mut body, mut accepted) = (String::new(), Vec::new());
            let mut take = |write: Bytes| {
                assert!(write_of_whole_frames(&write), "{} bytes", write.len());
                body.push_str(std::str::from_utf8(&write).expect("text"));
            };
            for (n, (size, writes)) in direct.iter().enumerate() {
                let event = text(n, *size, n % 2 == 0).named("m").expect("a name");
                let sent = connections.send(&ConnectionFilter::all(), event).expect("an event");
                assert_eq!(sent.accepted + sent.full, 1);
                accepted.extend((sent.accepted == 1).then_some(n));
                for _ in 0..*writes {
                    // There may be nothing to say.
                    let wait = tokio::time::timeout(Duration::from_millis(1), next_of(&mut writer));
                    wait.await.into_iter().for_each(&mut take);
                }
            }
            while let Ok(write) =
                tokio::time::timeout(Duration::from_millis(20), next_of(&mut writer)).await
            {
                take(write);
            }
            end.send(()).expect("a stream that waits");
            while let Some(Ok(write)) = futures_util::StreamExt::next(&mut writer).await {
                take(write);
            }
            assert_eq!(numbers(&body, "data: "), (0..own.len()).collect::<Vec<_>>());
            assert_eq!(numbers(&body, "event: m\ndata: "), accepted);
            assert_eq!(body.matches("event: hero.close").count(), 1);
            assert!(body.contains("data: last\n"));
        });
    }
}

/// A stream of what `send` sends, and `send` itself.
fn channel() -> (tokio::sync::mpsc::UnboundedSender<Event>, impl Stream<Item = Event> + Send) {
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    let receive =
        stream::unfold(receive, async |mut receive| Some((receive.recv().await?, receive)));
    (send, receive)
}

fn buffered(on: bool) -> SseOptions {
    let options = SseOptions::default();
    if on { options.buffer(100) } else { options }
}

fn count_of_frames(write: &[u8]) -> usize {
    memchr::memmem::find_iter(write, b"\n\n").count()
}

#[tokio::test(start_paused = true)]
async fn a_burst_leaves_as_one_write_and_a_lone_event_at_once() {
    for buffer in [false, true] {
        let (send, events) = channel();
        let mut writer = writer_in(&Connections::default(), buffered(buffer), events);
        assert!(next_of(&mut writer).await.starts_with(b"retry"));
        for count in [50, 1, 20] {
            (0..count).for_each(|n| send.send(Event::text(n.to_string())).expect("open"));
            let write = next_of(&mut writer).await;
            assert_eq!(count_of_frames(&write), count, "buffered: {buffer}");
        }
    }
}

/// Each event takes 0.4 ms, so that three of them exceed the time slice of 1 ms.
#[tokio::test(start_paused = true)]
async fn events_that_take_time_leave_at_the_end_of_a_time_slice() {
    for buffer in [false, true] {
        let events = futures_util::StreamExt::map(stream::iter(0..9), |n| {
            tokio::time::advance(Duration::from_micros(400)).now_or_never();
            Event::text(format!("{n} x"))
        });
        let events = futures_util::StreamExt::chain(events, stream::pending());
        let mut writer = writer_in(&Connections::default(), buffered(buffer), events);
        let (mut writes, mut pauses) = (Vec::new(), 0);
        while writes.len() < 3 {
            assert!(pauses < 20, "{writes:?}");
            match futures_util::StreamExt::next(&mut writer).now_or_never() {
                Some(Some(Ok(write))) => {
                    let text = String::from_utf8(write.to_vec()).expect("UTF-8");
                    writes.extend(
                        Some(numbers(&text, "data: ")).filter(|numbers| !numbers.is_empty()),
                    );
                }
                // The server may send what it has, and other tasks may run.
                None => pauses += 1,
                _ => panic!("the end"),
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(writes, [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7, 8]], "buffered: {buffer}");
        assert!(buffer || pauses == 2, "{pauses}");
    }
}

/// Both sources are always ready, whatever their events' sizes.
#[tokio::test(start_paused = true)]
async fn of_any_two_writes_one_has_direct_events_and_one_the_streams_own() {
    for (own, sent) in
        [(100, 100), (10_000, 10_000), (20_000, 20_000), (100, 20_000), (20_000, 100)]
    {
        let connections = Connections::default();
        let events = stream::repeat_with(move || Event::text("x".repeat(own)));
        let mut writer = writer_in(&connections, SseOptions::default(), events);
        let event = Event::text("z".repeat(sent));
        let mut writes = Vec::new();
        for _ in 0..100 {
            while connections.send(&ConnectionFilter::all(), &event).expect("sent").full == 0 {}
            let write = next_of(&mut writer).await;
            writes.push((write.contains(&b'x'), write.contains(&b'z')));
        }
        // The first may be the preamble alone.
        for pair in writes[1..].windows(2) {
            let (own, direct) = (pair[0].0 || pair[1].0, pair[0].1 || pair[1].1);
            assert!(own && direct, "{writes:?}");
        }
    }
}

#[tokio::test]
async fn direct_events_left_when_a_stream_ends_are_dropped_and_later_ones_are_not_accepted() {
    let connections = Connections::default();
    let mut writer = writer_in(&connections, SseOptions::default(), stream::empty());
    let event = Event::text("y".repeat(10_000));
    let send = || connections.send(&ConnectionFilter::all(), &event).expect("an event").accepted;
    assert_eq!((send(), send()), (1, 1));
    let write = next_of(&mut writer).await;
    assert!(write.contains(&b'y'));
    assert_eq!(send(), 0, "the closing event is written");
    let mut remaining = Vec::new();
    while let Some(Ok(write)) = futures_util::StreamExt::next(&mut writer).await {
        remaining.extend_from_slice(&write);
    }
    assert!(!remaining.contains(&b'y'), "{remaining:?}");
}
