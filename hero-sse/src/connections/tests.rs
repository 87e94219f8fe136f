use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::Context;

use futures_util::FutureExt;

use super::registry::{BLOCKING, REMEMBERED_DISCONNECTS};
use super::*;
use crate::auth::Principal;
use crate::client_addr;

const LIMITS: Limits = Limits {
    total: 4,
    per_path: Some(3),
    per_principal: 2,
    per_address: Some(1),
    connects_per_minute: None,
};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn every_limit_holds_and_every_slot_is_released() {
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
    assert_eq!(admit(&b, Some(&ann), None).err(), Some(AdmissionError::Principal));
    let third = admit(&a, None, Some("192.0.2.1")).ok();
    assert_eq!(admit(&a, None, None).err(), Some(AdmissionError::Path));
    assert_eq!(admit(&b, None, Some("::ffff:192.0.2.1")).err(), Some(AdmissionError::Address));
    let fourth = admit(&b, None, None).ok();
    assert_eq!(admit(&b, None, None).err(), Some(AdmissionError::Total));
    assert_eq!((connections.len(), connections.closed(CloseReason::OverLimit)), (4, 5));
    drop((first, second, third, fourth));
    assert!(connections.is_empty());
    assert_eq!(connections.closed(CloseReason::ClientGone), 4);
    assert!(connections.0.lock().counts.is_empty());
    assert!(admit(&a, Some(&ann), Some("192.0.2.1")).is_ok());
}

#[test]
fn equal_subjects_of_different_issuers_are_counted_apart() {
    let connections = Connections::default();
    let path = Arc::from("/a");
    let limits = Limits { per_principal: 1, connects_per_minute: Some(2), ..Limits::NONE };
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
    let held: Vec<_> = people.iter().map(|who| admit(who).expect("a slot")).collect();
    assert!(people.iter().all(|who| admit(who).err() == Some(AdmissionError::Principal)));
    assert!(
        people.iter().all(|who| matches!(admit(who).err(), Some(AdmissionError::RateLimited(_))))
    );
    drop(held);
    assert!(connections.0.lock().counts.is_empty());
}

#[test]
fn the_rate_limit_counts_rejected_attempts_and_ignores_anonymous_callers() {
    let connections = Connections::default();
    let (path, ann) = (Arc::from("/a"), Principal::new("ann"));
    let limits = Limits { total: 1, connects_per_minute: Some(3), ..Limits::NONE };
    let admit = |principal| {
        let address = Some(address("192.0.2.1"));
        let caller = Caller { principal, address, ..Caller::default() };
        connections.admit(&path, caller, &limits)
    };
    let held = admit(Some(&ann)).expect("a slot");
    assert_eq!(admit(Some(&ann)).err(), Some(AdmissionError::Total));
    held.release_unused();
    admit(Some(&ann)).expect("a slot").release_unused();
    let Err(AdmissionError::RateLimited(wait)) = admit(Some(&ann)) else { panic!("too many") };
    assert!(wait > Duration::from_secs(19) && wait <= Duration::from_secs(20), "{wait:?}");
    for _ in 0..100 {
        admit(None).expect("a slot").release_unused();
    }
    assert_eq!(connections.closed(CloseReason::OverLimit), 2);
}

/// Many threads open and close streams, are rejected and panic, while the counts are checked.
#[test]
fn concurrent_streams_never_exceed_a_limit_and_release_each_slot_once() {
    let connections = Connections::default();
    let limits = Limits {
        total: 40,
        per_path: Some(15),
        per_principal: 7,
        per_address: Some(6),
        connects_per_minute: None,
    };
    let paths: Vec<Arc<str>> = ["/a", "/b", "/c", "/d"].map(Arc::from).to_vec();
    let people: Vec<_> = (0..8).map(|n| Principal::new(format!("p{n}"))).collect();
    let (mut closed, mut rejected) = (0u64, 0u64);
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
            rejected += refused;
        }
    });
    let count = |reason| connections.closed(reason);
    assert_eq!(count(CloseReason::OverLimit), rejected);
    assert_eq!(connections.counts().map(|(_, count)| count).sum::<u64>(), closed + rejected);
    assert!(closed > 1000 && rejected > 1000, "{closed} {rejected}");
    let open = connections.0.lock();
    assert!(open.counts.is_empty() && open.streams.is_empty());
}

fn check_limits(connections: &Connections) {
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
    let (mut held, mut closed, mut rejected) = (Vec::new(), 0, 0);
    for step in 0..5_000 {
        if step % 50 == 0 {
            check_limits(connections);
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
                Err(_) => rejected += 1,
            }
        } else if !held.is_empty() {
            let mut slot = held.swap_remove(random.usize(..held.len()));
            match random.u8(..4) {
                0 => slot.release_unused(),
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
    (closed, rejected)
}

#[derive(Default)]
struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_shutdown_ends_every_stream_and_admits_no_more() {
    let connections = Connections::default();
    let path = Arc::from("/a");
    let admit = || connections.admit(&path, Caller::default(), &LIMITS);
    let slot = admit().unwrap_or_else(|_| panic!("a slot"));
    let cx = Context::from_waker(std::task::Waker::noop());
    assert_eq!(slot.poll_end_request(&cx), None);
    let woken = Arc::new(Woken::default());
    let waker = std::task::Waker::from(woken.clone());
    assert_eq!(slot.poll_end_request(&Context::from_waker(&waker)), None);
    assert_eq!(connections.shut_down(), 1);
    assert!(woken.0.load(Ordering::SeqCst), "an idle stream must be woken");
    assert_eq!(slot.poll_end_request(&cx), Some(CloseReason::Draining));
    assert_eq!(admit().err(), Some(AdmissionError::Draining));
}

/// A woken task may take its direct events, read the registry and drop its stream within the wake.
#[test]
fn no_lock_is_held_while_streams_are_woken_for_direct_events() {
    struct Leaving(Connections, Mutex<Option<Slot>>, AtomicU64);
    impl std::task::Wake for Leaving {
        fn wake(self: Arc<Self>) {
            let mut direct = BytesMut::new();
            let slot = self.1.lock().ok().and_then(|mut slot| slot.take());
            slot.inspect(|slot| slot.take_direct_events(&mut direct));
            self.2.fetch_add(direct.len() as u64 + self.0.len() as u64, Ordering::SeqCst);
        }
    }
    let connections = Connections::default();
    let path = Arc::from("/a");
    let slots: Vec<_> = (0..10_000)
        .map(|_| {
            let slot = connections.admit(&path, Caller::default(), &Limits::NONE);
            let slot = slot.unwrap_or_else(|_| panic!("a slot"));
            let leaving = Arc::new(Leaving(connections.clone(), Mutex::default(), 0.into()));
            let waker = std::task::Waker::from(leaving.clone());
            assert_eq!(slot.poll_end_request(&Context::from_waker(&waker)), None);
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
    let received = slots.iter().map(|slot| slot.2.load(Ordering::SeqCst));
    let remaining: u64 = (0..10_000).sum();
    assert_eq!(received.sum::<u64>(), 10_000 * "data: x\n\n".len() as u64 + remaining);
    assert!(connections.is_empty());
}

/// A stream may end between being found and being sent to.
#[test]
fn a_stream_that_has_ended_accepts_no_direct_event() {
    let connections = Connections::default();
    let slot = connections.admit(&Arc::from("/a"), Caller::default(), &LIMITS);
    let found = connections.0.matching(&ConnectionFilter::all());
    let frame = bytes::Bytes::from_static(b"data: x\n\n");
    assert_eq!(found[0].push_direct(&frame), Pushed::Accepted);
    drop(slot);
    assert_eq!(found[0].push_direct(&frame), Pushed::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_filter_selects_the_streams_that_meet_all_conditions() {
    let connections = Connections::default();
    let person = |name: &str, tenant: &str| Principal::new(name).with_tenant(tenant);
    let admit = |path: &str, principal: Option<Principal>| {
        let caller = Caller { principal: principal.as_ref(), ..Caller::default() };
        connections.admit(&Arc::from(path), caller, &Limits::NONE).expect("a slot")
    };
    let old = [admit("/a", Some(person("ann", "t1"))), admit("/a", None)];
    tokio::time::advance(Duration::from_secs(60)).await;
    let young = [
        admit("/a", Some(person("ann", "t2"))),
        admit("/b", Some(person("ann", "t1"))),
        admit("/b", Some(person("bob", "t1"))),
    ];
    let all = ConnectionFilter::all;
    let first = old[0].connection().id();
    let id = |n: u64| all().id(first + n);
    let selected = |filter: ConnectionFilter| {
        let mut ids: Vec<_> =
            connections.0.matching(&filter).iter().map(|one| one.identity.id).collect();
        ids.sort_unstable();
        ids.iter().map(|id| id - first).collect::<Vec<_>>()
    };
    assert_eq!(selected(all()), [0, 1, 2, 3, 4]);
    assert_eq!(selected(all().endpoint("/a")), [0, 1, 2]);
    assert_eq!(selected(all().subject("ann")), [0, 2, 3]);
    assert_eq!(selected(all().tenant("t1")), [0, 3, 4]);
    assert_eq!(selected(all().older_than(Duration::from_secs(60))), [0, 1]);
    assert!(selected(all().older_than(Duration::from_secs(61))).is_empty());
    assert_eq!(selected(all().endpoint("/b").subject("ann")), [3]);
    assert!(selected(all().endpoint("/c")).is_empty());
    assert_eq!(selected(id(3)), [3]);
    assert_eq!(selected(id(3).endpoint("/b").subject("ann").tenant("t1")), [3]);
    assert!(selected(id(3).subject("bob")).is_empty() && selected(id(5)).is_empty());
    assert_eq!(selected(all().not(id(3))), [0, 1, 2, 4]);
    assert_eq!(selected(all().tenant("t1").not(id(3)).not(id(0))), [4]);
    assert_eq!(selected(all().not(all().subject("ann").tenant("t1"))), [1, 2, 4]);
    assert_eq!(selected(all().not(all().subject("ann").not(id(2)))), [1, 2, 4]);
    assert_eq!(selected(all().not(all().older_than(Duration::from_secs(60)))), [2, 3, 4]);
    assert!(selected(all().not(all())).is_empty() && selected(id(3).not(id(3))).is_empty());
    assert_eq!((connections.count(&id(3)), connections.count(&all().not(id(3)))), (1, 4));
    let cx = Context::from_waker(std::task::Waker::noop());
    assert_eq!(connections.drain(&all().tenant("t1")), 3);
    let ended = old.iter().chain(&young).map(|slot| slot.poll_end_request(&cx).is_some());
    assert_eq!(ended.collect::<Vec<_>>(), [true, false, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_over_a_window_starts_with_the_oldest_and_stops_when_dropped() {
    let connections = Connections::default();
    let admit = |_| {
        let admitted = connections.admit(&Arc::from("/a"), Caller::default(), &Limits::NONE);
        admitted.expect("a slot")
    };
    let mut slots: Vec<_> = (0..11).map(admit).collect();
    // The table has no order.
    slots.remove(3);
    slots.push(admit(11));
    let cx = Context::from_waker(std::task::Waker::noop());
    let asked =
        || slots.iter().map(|slot| slot.poll_end_request(&cx).is_some()).collect::<Vec<_>>();
    let window = Duration::from_secs(10);
    let all = ConnectionFilter::all();
    let some = tokio::time::timeout(window * 9 / 20, connections.drain_over(&all, window)).await;
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
fn a_closed_endpoint_admits_no_stream_until_it_is_opened() {
    let connections = Connections::default();
    let admit =
        |path: &str| connections.admit(&Arc::from(path), Caller::default(), &Limits::NONE).err();
    assert!(connections.close_endpoint("/a"));
    assert!(!connections.close_endpoint("/a"));
    assert_eq!((admit("/a"), admit("/b")), (Some(AdmissionError::Closed), None));
    assert!(connections.open_endpoint("/a"));
    assert!(!connections.open_endpoint("/a"));
    assert_eq!(admit("/a"), None);
}

/// A request whose caller was checked before a disconnect is checked again if the disconnect matches it, or if
/// so many followed that nobody knows.
#[test]
fn a_request_that_a_disconnect_overtook_is_checked_again() {
    let connections = Connections::default();
    let ann = Principal::new("ann");
    let admit = |disconnects_before| {
        let caller = Caller { principal: Some(&ann), disconnects_before, ..Caller::default() };
        connections.admit(&Arc::from("/a"), caller, &Limits::NONE).err()
    };
    let disconnect = |subject: &str| {
        let filter = ConnectionFilter::all().subject(subject);
        connections.disconnect(&filter, CloseReason::Revoked)
    };
    disconnect("ann");
    assert_eq!((admit(0), admit(1)), (Some(AdmissionError::Changed), None));
    for _ in 0..REMEMBERED_DISCONNECTS {
        disconnect("bob");
    }
    assert_eq!((admit(0), admit(1)), (Some(AdmissionError::Changed), None));
    disconnect("bob");
    assert_eq!((admit(1), admit(2)), (Some(AdmissionError::Changed), None));
}

#[tokio::test(start_paused = true)]
async fn a_poll_of_user_code_blocks_its_thread_from_100_ms_on() {
    let connections = Connections::default();
    let busy = |time: Duration| tokio::time::advance(time).now_or_never();
    let short = BLOCKING - Duration::from_millis(1);
    let code = async {
        busy(short);
        yield_now().await;
        busy(short);
    };
    connections.timed("/a", code).await;
    assert_eq!(connections.blocking_polls(), 0, "each poll is measured by itself");
    connections.timed("/a", async { busy(BLOCKING) }).await;
    assert_eq!(connections.blocking_polls(), 1);
}
