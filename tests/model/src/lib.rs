//! A topic's ring under a model checker: who joins, reads, lags, leaves and ends while others publish.
//!
//! The ring is the library's own. Its locks, its pointer and its wakers are those of `loom`, which runs each
//! story here in every order in which its threads can take turns; a reader that sleeps for ever with something to read
//! is a deadlock, and found as such.

// The ring brings its own unit tests, which are not for here.
#![cfg(not(test))]

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loom::future::block_on;
use loom::thread::{self, JoinHandle};

use position::EpochIds;
use ring::{Cursor, End, Entry, Read, Retention, Ring, StartAt};

mod sync;

#[allow(dead_code, unused_imports, unreachable_pub)] // What no story here needs.
#[path = "../../../hero-sse/src/topic/ring/mod.rs"]
mod ring;

/// What stands for the ids of a life of the log: its number.
mod position {
    pub(crate) struct EpochIds(pub(crate) u64);
}

fn ring(retained: usize) -> Arc<Ring> {
    Ring::new(Retention { events: retained, bytes: 1 << 20, age: None }, false, None, EpochIds(1))
}

fn entry(offset: u64, (frame, last): (u64, bool)) -> Entry {
    Entry {
        offset,
        frame: Bytes::copy_from_slice(&frame.to_be_bytes()),
        body: 0,
        has_data: true,
        name: None,
        key: None,
        last,
        value: None,
        at: Duration::ZERO,
    }
}

/// Publishes these next to each other, as one publisher does; they say their own offset where there is one publisher.
fn publish(ring: &Arc<Ring>, frames: impl IntoIterator<Item = u64>) -> Option<u64> {
    let events = frames.into_iter().map(|frame| (frame, false));
    ring.append(events, |_, offset, event| entry(offset, event)).map(|(offset, _wake)| offset)
}

fn publisher(ring: &Arc<Ring>, publishes: &'static [&'static [u64]]) -> JoinHandle<()> {
    let ring = ring.clone();
    thread::spawn(move || {
        for frames in publishes {
            publish(&ring, frames.iter().copied());
        }
    })
}

/// What a reader came by.
#[derive(Debug, PartialEq)]
enum Got {
    /// Offset and content.
    Event(u64, u64),
    Missed(Option<u64>, u64),
    Over,
}

fn next(cursor: &mut Cursor) -> Vec<Got> {
    match block_on(poll_fn(|cx| cursor.poll(cx, None))) {
        Read::Batch(batch) => {
            let whole: Vec<u8> =
                batch.entries.iter().flat_map(|entry| entry.frame.to_vec()).collect();
            assert_eq!(whole, batch.bytes, "a batch is its frames");
            let content = |frame: &[u8]| u64::from_be_bytes(frame.try_into().expect("eight bytes"));
            batch
                .entries
                .iter()
                .map(|entry| Got::Event(entry.offset, content(&entry.frame)))
                .collect()
        }
        Read::Missed(missed) => {
            cursor.move_past(&missed);
            vec![Got::Missed(missed.from, missed.to)]
        }
        Read::Over(_) => vec![Got::Over],
    }
}

/// Reads until all up to that offset is read, or told as missed.
fn read_to(cursor: &mut Cursor, last: u64) -> Vec<Got> {
    let mut got = Vec::new();
    while cursor.next() <= last {
        let read = next(cursor);
        assert!(!read.is_empty(), "a batch is not empty");
        got.extend(read);
    }
    got
}

/// Each offset of these is read or missed, once and in order.
fn assert_whole(got: &[Got], from: u64, last: u64) {
    let mut at = from;
    for got in got {
        match got {
            Got::Event(offset, _) => {
                assert_eq!(*offset, at, "in order, each once");
                at += 1;
            }
            Got::Missed(Some(since), to) => {
                assert_eq!(*since, at, "what is missing begins where it stands");
                assert!(*to > at, "something is missing");
                at = *to;
            }
            Got::Missed(None, _) | Got::Over => panic!("{got:?}"),
        }
    }
    assert_eq!(at, last + 1, "all of it");
}

fn events(got: &[Got]) -> Vec<u64> {
    got.iter()
        .filter_map(|got| if let Got::Event(_, content) = got { Some(*content) } else { None })
        .collect()
}

/// Runs the story in every order in which its threads can take turns, when so many turns at most are taken from a
/// thread that could go on. With three threads that many orders are too many: two such turns are what the known
/// races take.
fn explore(turns: usize, story: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(turns);
    let orders = Arc::new(AtomicUsize::new(0));
    let (counted, begun) = (orders.clone(), Instant::now());
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        story();
    });
    println!("{} orders in {:?}", orders.load(Ordering::Relaxed), begun.elapsed());
}

/// A reader joins while somebody publishes one by one: it gets what was published since, and is never left asleep.
pub fn joins_while_one_publishes() {
    explore(3, || {
        let ring = ring(8);
        let publisher = publisher(&ring, &[&[1], &[2, 3]]);
        let mut cursor = Cursor::new(&ring);
        let from = cursor.next();
        assert_whole(&read_to(&mut cursor, 3), from, 3);
        publisher.join().expect("published");
    });
}

/// Two publish at the same time: there is one order, and the reader sees it; what was published together stays so.
pub fn joins_while_two_publish() {
    explore(2, || {
        let ring = ring(8);
        let one = publisher(&ring, &[&[10, 11]]);
        let two = publisher(&ring, &[&[20]]);
        let mut cursor = Cursor::new(&ring);
        let from = cursor.next();
        let live = read_to(&mut cursor, 3);
        assert_whole(&live, from, 3);
        one.join().expect("published");
        two.join().expect("published");
        cursor.start_at(StartAt::Oldest);
        let all = events(&read_to(&mut cursor, 3));
        assert!(all == [10, 11, 20] || all == [20, 10, 11], "{all:?}");
        assert!(all.ends_with(&events(&live)), "{live:?} of {all:?}");
    });
}

/// A reader comes back while somebody publishes: between replay and live nothing is lost or doubled.
pub fn resumes_while_one_publishes() {
    explore(3, || {
        let ring = ring(8);
        publish(&ring, [1, 2]);
        let publisher = publisher(&ring, &[&[3], &[4]]);
        let mut cursor = Cursor::new(&ring);
        assert!(cursor.resume(|_| Some(1)).is_none(), "all is there");
        let got = read_to(&mut cursor, 4);
        assert_whole(&got, 2, 4);
        assert_eq!(events(&got), [2, 3, 4]);
        publisher.join().expect("published");
    });
}

/// A reader comes back with an id of an event that another node had first: it waits for it, and does not get it.
pub fn resumes_ahead() {
    explore(3, || {
        let ring = ring(8);
        publish(&ring, [1]);
        let publisher = publisher(&ring, &[&[2], &[3]]);
        let mut cursor = Cursor::new(&ring);
        assert!(cursor.resume(|_| Some(2)).is_none(), "nothing is missing");
        assert_eq!(read_to(&mut cursor, 3), [Got::Event(3, 3)]);
        publisher.join().expect("published");
    });
}

/// Two that are behind read what either of them joined.
pub fn two_share_what_one_joined() {
    explore(2, || {
        let ring = ring(8);
        publish(&ring, [1]);
        publish(&ring, [2]);
        let publisher = publisher(&ring, &[&[3]]);
        let mut there = Cursor::new(&ring);
        there.start_at(StartAt::Oldest);
        let other = thread::spawn(move || assert_whole(&read_to(&mut there, 3), 1, 3));
        let mut cursor = Cursor::new(&ring);
        assert!(cursor.resume(|_| Some(0)).is_none(), "all is there");
        assert_whole(&read_to(&mut cursor, 3), 1, 3);
        other.join().expect("read");
        publisher.join().expect("published");
    });
}

/// Events that are evicted during a read are reported as missed, and counted.
pub fn eviction_is_told() {
    explore(2, || {
        let ring = ring(2);
        publish(&ring, [1]);
        let publisher = publisher(&ring, &[&[2], &[3], &[4, 5, 6]]);
        let mut cursor = Cursor::new(&ring);
        cursor.resume(|_| Some(0));
        let got = read_to(&mut cursor, 6);
        let told = got.iter().find(|got| matches!(got, Got::Missed(None, _)));
        assert!(told.is_none(), "it is the same life: {told:?}");
        // It may have been told at the resume already, where the reader is put behind what is missing later.
        assert_whole(&got, 1, 6);
        publisher.join().expect("published");
    });
}

/// A close that comes while a reader looks ends it, after what there is.
pub fn close_ends_the_reader() {
    explore(2, || {
        let ring = ring(8);
        let mut cursor = Cursor::new(&ring);
        let publishing = ring.clone();
        let publisher = thread::spawn(move || publish(&publishing, [1]));
        let closer = thread::spawn(move || drop(ring.close()));
        let mut got = Vec::new();
        while got.last() != Some(&Got::Over) {
            got.extend(next(&mut cursor));
        }
        let published = publisher.join().expect("published");
        let wanted = if published.is_some() { vec![1] } else { vec![] };
        assert_eq!(events(&got), wanted, "what was accepted is read");
        closer.join().expect("closed");
    });
}

/// So does a last event.
pub fn the_last_event_ends_the_reader() {
    explore(3, || {
        let ring = ring(8);
        let mut cursor = Cursor::new(&ring);
        let publisher = thread::spawn(move || {
            let events = [(1, false), (2, true), (3, false)];
            let published = ring.append(events, |_, offset, event| entry(offset, event));
            assert_eq!(published.map(|(offset, _wake)| offset), Some(2));
        });
        assert_whole(&read_to(&mut cursor, 2), 1, 2);
        let over = block_on(poll_fn(|cx| cursor.poll(cx, None)));
        assert!(matches!(over, Read::Over(End::Last)));
        publisher.join().expect("published");
    });
}

/// A new epoch starts while a reader reads: the reader learns of it, gets all events of the new epoch, and none of the
/// old one at an offset of the new one. A resume with an offset of the old epoch fails.
pub fn another_life_is_told() {
    explore(3, || {
        let ring = ring(8);
        publish(&ring, [11, 12]);
        let feeding = ring.clone();
        let broker = thread::spawn(move || {
            drop(feeding.start_epoch(EpochIds(2), 1));
            publish(&feeding, [21]);
            publish(&feeding, [22]);
        });
        let mut cursor = Cursor::new(&ring);
        let missed = cursor.resume(|ids| (ids.0 == 1).then_some(1));
        let mut got = Vec::new();
        if let Some(missed) = missed {
            assert_eq!(missed.from, None);
            cursor.move_past(&missed);
            got.push(Got::Missed(None, missed.to));
        }
        while cursor.epoch().0 == 1 || cursor.next() <= 2 {
            got.extend(next(&mut cursor));
        }
        let told = got.iter().position(|got| *got == Got::Missed(None, 1)).expect("it is reported");
        let (old, new) = got.split_at(told);
        assert!(events(old).is_empty() || events(old) == [12], "{old:?}");
        assert_eq!(events(&new[1..]), [21, 22], "{new:?}");
        assert_whole(&new[1..], 1, 2);
        broker.join().expect("fed");
    });
}

/// A broker that has lost some: the reader learns which, wherever it stood.
pub fn a_hole_is_told() {
    explore(3, || {
        let ring = ring(8);
        publish(&ring, [1]);
        let feeding = ring.clone();
        let broker = thread::spawn(move || {
            let feed = |offset, frames: &[u64]| {
                let events = frames.iter().map(|frame| (*frame, false));
                drop(feeding.feed(offset, events, |_, offset, event| entry(offset, event)));
            };
            feed(1, &[1, 2]);
            feed(5, &[5]);
        });
        let mut cursor = Cursor::new(&ring);
        cursor.start_at(StartAt::Oldest);
        let from = cursor.next();
        let got = read_to(&mut cursor, 5);
        assert_whole(&got, from, 5);
        assert_eq!(got.last(), Some(&Got::Event(5, 5)));
        let missed = got.iter().any(|got| matches!(got, Got::Missed(..)));
        assert_eq!(missed, from < 5, "{got:?}");
        broker.join().expect("fed");
    });
}

/// One reader leaves while all are woken: the others are woken all the same, and its seat is free.
pub fn one_leaves_while_all_are_woken() {
    explore(3, || {
        let ring = ring(8);
        let leaving = Cursor::new(&ring);
        let mut cursor = Cursor::new(&ring);
        let publisher = publisher(&ring, &[&[1]]);
        let leaver = thread::spawn(move || drop(leaving));
        assert_whole(&read_to(&mut cursor, 1), 1, 1);
        leaver.join().expect("left");
        publisher.join().expect("published");
        assert_eq!(ring.readers(), 1);
    });
}
