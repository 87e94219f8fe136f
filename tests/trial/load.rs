//! The clients of a soak: healthy ones that check every event, and others that misbehave.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Cursor, Frames, H1, connect_http2, open_http2, request};

/// Streams on one HTTP/2 connection.
pub(crate) const STREAMS: usize = 10;

/// The smallest receive buffer. A client that does not read soon blocks the server.
pub(crate) const TIGHT: Option<u32> = Some(4096);

/// What misbehaving clients do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Run,
    /// They disconnect, so that healthy clients can be counted.
    Pause,
    Stop,
}

/// What all clients share.
#[derive(Clone)]
pub(crate) struct Load {
    nodes: Vec<SocketAddr>,
    phase: watch::Receiver<Phase>,
    /// The event after which a healthy client ends.
    target: watch::Receiver<u64>,
    pub(crate) tally: Arc<Tally>,
}

#[derive(Default)]
pub(crate) struct Tally {
    /// Open streams of healthy clients, by node.
    pub(crate) open: [AtomicUsize; 2],
    /// Open connections of healthy clients, by node.
    pub(crate) sockets: [AtomicUsize; 2],
    pub(crate) events: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Why streams of healthy clients ended.
    pub(crate) ends: Mutex<BTreeMap<String, u64>>,
    /// Rounds of misbehaving clients, by kind.
    pub(crate) rounds: Mutex<BTreeMap<&'static str, u64>>,
    /// Times until stalled clients were reset.
    pub(crate) resets: Mutex<Vec<Duration>>,
    pub(crate) never_reset: AtomicU64,
    /// Reconnecting clients that missed an event or received one twice.
    pub(crate) flawed: AtomicU64,
}

fn add<K: Ord>(counts: &Mutex<BTreeMap<K, u64>>, key: K) {
    *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
}

/// Counts one while it exists.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Controls the clients of a load.
pub(crate) struct Control {
    phase: watch::Sender<Phase>,
    target: watch::Sender<u64>,
}

impl Control {
    /// Lets healthy clients end after this event.
    pub(crate) fn finish(&self, target: u64) {
        self.target.send_replace(target);
    }

    pub(crate) fn phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }
}

impl Load {
    pub(crate) fn new(nodes: Vec<SocketAddr>) -> (Self, Control) {
        let (set_phase, phase) = watch::channel(Phase::Run);
        let (set_target, target) = watch::channel(u64::MAX);
        let load = Self { nodes, phase, target, tally: Arc::default() };
        (load, Control { phase: set_phase, target: set_target })
    }

    fn is_done(&self, cursor: &Cursor) -> bool {
        cursor.last >= Some(*self.target.borrow())
    }

    fn ended(&self, cursor: &mut Cursor, end: String) {
        add(&self.tally.ends, cursor.close_reason.take().unwrap_or(end));
    }

    fn record(&self, cursor: &mut Cursor, frame: &crate::client::Frame) {
        if cursor.record(frame) {
            self.tally.events.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A healthy client over HTTP/1.1: as fast as a browser or, with a small buffer, just fast enough.
    pub(crate) async fn http1(mut self, node: usize, from: u64, buffer: Option<u32>) -> Cursor {
        let mut cursor = Cursor::after(from);
        let tally = self.tally.clone();
        while !self.is_done(&cursor) {
            match H1::open(self.nodes[node], "/feed", cursor.last, buffer).await {
                Err(_) => {
                    tally.refused.fetch_add(1, Ordering::Relaxed);
                }
                Ok(mut stream) => {
                    let _counted =
                        (Counted::new(&tally.open[node]), Counted::new(&tally.sockets[node]));
                    let max = if buffer.is_some() { 512 } else { 4096 };
                    let mut read = Instant::now();
                    let end = loop {
                        if self.is_done(&cursor) {
                            return cursor;
                        }
                        let frame = tokio::select! {
                            frame = stream.next(max) => frame,
                            _ = self.target.changed() => continue,
                        };
                        match frame {
                            Ok(Some(frame)) => self.record(&mut cursor, &frame),
                            Ok(None) => break "the end".to_owned(),
                            Err(error) => break error.to_string(),
                        }
                        if buffer.is_some() && read.elapsed() > Duration::from_millis(100) {
                            sleep(Duration::from_millis(200)).await;
                            read = Instant::now();
                        }
                    };
                    self.ended(&mut cursor, end);
                }
            }
            sleep(cursor.retry).await;
        }
        cursor
    }

    /// Healthy streams on one HTTP/2 connection.
    pub(crate) async fn http2(self, node: usize, from: u64) -> Vec<Cursor> {
        let mut cursors = vec![Cursor::after(from); STREAMS];
        while !cursors.iter().all(|cursor| self.is_done(cursor)) {
            let Ok((requests, driver)) = connect_http2(self.nodes[node], 1 << 16).await else {
                self.tally.refused.fetch_add(1, Ordering::Relaxed);
                sleep(cursors[0].retry).await;
                continue;
            };
            let counted = Counted::new(&self.tally.sockets[node]);
            join_all(cursors.iter_mut().map(|cursor| {
                let (load, requests) = (self.clone(), requests.clone());
                load.stream(node, requests, cursor)
            }))
            .await;
            driver.abort();
            drop(counted);
            let retry = cursors.iter().map(|cursor| cursor.retry).max();
            if !cursors.iter().all(|cursor| self.is_done(cursor)) {
                sleep(retry.unwrap_or_default()).await;
            }
        }
        cursors
    }

    /// Reads streams on this connection, one after another, as long as it accepts requests.
    async fn stream(mut self, node: usize, requests: SendRequest<Bytes>, cursor: &mut Cursor) {
        let tally = self.tally.clone();
        while !self.is_done(cursor) {
            let Ok(mut body) = open_http2(&requests, cursor.last).await else { return };
            let counted = Counted::new(&tally.open[node]);
            let mut frames = Frames::default();
            let end = loop {
                while let Some(frame) = frames.next() {
                    self.record(cursor, &frame);
                }
                if self.is_done(cursor) {
                    return;
                }
                let bytes = tokio::select! {
                    bytes = body.data() => bytes,
                    _ = self.target.changed() => continue,
                };
                match bytes {
                    None => break "the end".to_owned(),
                    Some(Err(error)) => break error.to_string(),
                    Some(Ok(bytes)) => {
                        let _ = body.flow_control().release_capacity(bytes.len());
                        frames.push(&bytes);
                    }
                }
            };
            drop(counted);
            self.ended(cursor, end);
            sleep(cursor.retry).await;
        }
    }

    /// Repeats a round until the soak stops. A pause cancels the round.
    async fn rounds<F: Future<Output = io::Result<()>>>(
        mut self,
        kind: &'static str,
        pause: std::ops::Range<u64>,
        mut round: impl FnMut() -> F,
    ) {
        loop {
            sleep(Duration::from_millis(fastrand::u64(pause.clone()))).await;
            let phase = *self.phase.borrow();
            match phase {
                Phase::Stop => return,
                Phase::Pause => {
                    let _ = self.phase.wait_for(|phase| *phase != Phase::Pause).await;
                    continue;
                }
                Phase::Run => {}
            }
            tokio::select! {
                done = round() => match done {
                    Ok(()) => add(&self.tally.rounds, kind),
                    Err(_) => { self.tally.refused.fetch_add(1, Ordering::Relaxed); }
                },
                _ = self.phase.wait_for(|phase| *phase != Phase::Run) => {}
            }
        }
    }

    /// Requests an hour of history and does not read it.
    pub(crate) async fn stalls(self, node: usize, http2: bool) {
        let (address, tally) = (self.nodes[node], self.tally.clone());
        let round = || async {
            let reset = if http2 { stall_http2(address).await? } else { stall(address).await? };
            match reset {
                None => _ = tally.never_reset.fetch_add(1, Ordering::SeqCst),
                Some(after) => {
                    tally.resets.lock().unwrap_or_else(PoisonError::into_inner).push(after);
                }
            }
            Ok(())
        };
        self.rounds("stalled", 1000..3000, round).await;
    }

    /// Reads a few events, disconnects, and resumes later.
    pub(crate) async fn reconnects(self, node: usize, from: u64) {
        let (address, tally) = (self.nodes[node], self.tally.clone());
        let cursor = Mutex::new(Cursor::after(from));
        let round = || async {
            let mut own = cursor.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut stream = H1::open(address, "/feed", own.last, None).await?;
            for _ in 0..fastrand::u32(1..6) {
                match stream.next(4096).await {
                    Ok(Some(frame)) => own.record(&frame),
                    _ => break,
                };
            }
            tally.flawed.fetch_add(u64::from(!own.is_flawless()), Ordering::SeqCst);
            *cursor.lock().unwrap_or_else(PoisonError::into_inner) = own;
            if fastrand::bool() {
                stream.socket.set_zero_linger()?;
            }
            Ok(())
        };
        self.rounds("reconnected", 500..3000, round).await;
    }

    /// Disconnects abruptly at a random moment.
    pub(crate) async fn vanishes(self, node: usize) {
        let address = self.nodes[node];
        let round = || async move {
            match fastrand::u32(0..5) {
                // In the middle of a frame, by a reset.
                0 => {
                    let mut socket = request(address, "/feed", Some(0), TIGHT).await?;
                    socket.read_exact(&mut [0; 1500]).await?;
                    socket.set_zero_linger()?;
                }
                // Half-closed, then reads to the end.
                1 => {
                    let mut socket = request(address, "/feed", None, None).await?;
                    socket.shutdown().await?;
                    let mut bytes = [0; 4096];
                    while socket.read(&mut bytes).await? > 0 {}
                }
                // Before its request, and in the middle of it.
                2 => drop(TcpStream::connect(address).await?),
                3 => TcpStream::connect(address).await?.write_all(b"GET /feed HTT").await?,
                // Does not read for a while, then closes.
                _ => {
                    let socket = request(address, "/feed", Some(0), TIGHT).await?;
                    sleep(Duration::from_millis(fastrand::u64(0..2000))).await;
                    drop(socket);
                }
            }
            Ok(())
        };
        self.rounds("vanished", 500..2000, round).await;
    }
}

/// How long a stalled client waits for its reset.
const RESET_TIMEOUT: Duration = Duration::from_secs(30);

/// Stalls and returns the time from the request to the reset. `None`: there was no reset.
async fn stall(address: SocketAddr) -> io::Result<Option<Duration>> {
    let socket = request(address, "/feed", Some(0), TIGHT).await?;
    let start = Instant::now();
    while start.elapsed() < RESET_TIMEOUT {
        if !matches!(socket.take_error(), Ok(None)) {
            return Ok(Some(start.elapsed()));
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(None)
}

/// The same for one stream of an HTTP/2 connection, which never opens its window.
async fn stall_http2(address: SocketAddr) -> io::Result<Option<Duration>> {
    let (requests, driver) = connect_http2(address, 4096).await?;
    let start = Instant::now();
    let stalled = async {
        let mut body = open_http2(&requests, Some(0)).await?;
        while body.data().await.is_some_and(|data| data.is_ok()) {}
        Ok(start.elapsed())
    };
    let stalled = timeout(RESET_TIMEOUT, stalled).await;
    driver.abort();
    stalled.ok().transpose()
}
