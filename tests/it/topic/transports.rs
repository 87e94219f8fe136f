//! Topics over HTTP/2, TLS and other servers: a slow or broken connection loses no event, and delays no other.

use super::lines::*;

/// A stream that has said where it stands, and whose window is not opened again.
async fn shut(client: &mut Client) -> (Got, h2::RecvStream) {
    let (mut got, mut body) = (Got::default(), Wire::shut(client, None).await);
    while got.id.is_none() {
        got.take(&within(body.data()).await.expect("no end").expect("no reset"));
    }
    (got, body)
}

/// All lines, to three healthy streams of a connection, which have them all, and to one whose window is full.
async fn beside_a_shut_window(
    client: &mut Client,
    topic: &Topic<Line>,
) -> (Got, h2::RecvStream, Vec<Wire>) {
    let (stalled, body) = shut(client).await;
    let mut healthy = Vec::new();
    for _ in 0..3 {
        let (mut got, mut wire) = (Got::default(), Wire::h2(client, None).await);
        got.placed(&mut wire).await;
        healthy.push(tokio::spawn(async move {
            got.until(&mut wire, LINES).await;
            got.has_all(LINES);
            wire
        }));
    }
    for n in (1..=LINES).step_by(10) {
        publish(topic, n..n + 10, 1_000).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut wires = Vec::new();
    for wire in healthy {
        wires.push(wire.await.expect("all lines"));
    }
    (stalled, body, wires)
}

/// A server other than `serve`, with a shutdown as the documentation describes it.
async fn foreign(
    sse: &HeroSse,
    app: Router,
) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let sse = sse.clone();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        let _ = stopped.await;
        sse.drain();
    });
    (address, stop, tokio::spawn(server.into_future()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_another_server_a_stalled_subscriber_is_cut_and_resumes() {
    let topic = topic(100_000);
    let sse = sse_with(options("WriteTimeout = \"1s\"\nMaxConnections = 2"));
    let (address, _stop, server) = foreign(&sse, app_of(&sse, &topic)).await;
    let (mut stalled, mut healthy) = (Got::default(), Got::default());
    let mut kept = Wire::h1(small_socket(address).await, "/s", None).await;
    stalled.placed(&mut kept).await;
    let mut wire = Wire::h1(socket(address).await, "/s", None).await;
    healthy.placed(&mut wire).await;
    let mut last = 0;
    while sse.connections().closed(CloseReason::WriteTimeout) == 0 {
        publish(&topic, last + 1..=last + 5, 20_000).await;
        last += 5;
        healthy.until(&mut wire, last).await;
        assert!(last < 10_000, "never taken back");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    healthy.has_all(last);
    assert_eq!((topic.subscribers(), sse.connections().len()), (1, 1));
    // Its place is free, also for itself.
    stalled.rest_of(kept).await;
    assert!((stalled.numbers.len() as u64) < last, "it had everything");
    let mut back = Wire::h1(socket(address).await, "/s", stalled.back().as_deref()).await;
    stalled.until(&mut back, last).await;
    stalled.has_all(last);
    assert_eq!(sse.connections().gaps(), 0);
    server.abort();
}

/// While the topic stays open: a client that is up to date, one that is behind, and a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_another_server_loses_no_event() {
    let topic = topic(10_000);
    let mut clients: Vec<Got> = (0..3).map(|_| Got::default()).collect();
    let mut last = 0;
    for round in 0..3 {
        let sse = sse_with(options("Retry = \"1s\""));
        let (address, stop, server) = foreign(&sse, app_of(&sse, &topic)).await;
        let mut wires = Vec::new();
        for (number, got) in clients.iter_mut().enumerate() {
            let id = got.back();
            let mut wire = Wire::h1(small_socket(address).await, "/s", id.as_deref()).await;
            if number < 2 {
                got.placed(&mut wire).await;
            }
            wires.push(wire);
        }
        publish(&topic, last + 1..=last + 200, 2_000).await;
        last += 200;
        clients[0].until(&mut wires[0], last).await;
        drop(stop);
        let ends = clients.iter_mut().zip(wires).map(|(got, wire)| got.rest_of(wire));
        futures_util::future::join_all(ends).await;
        for got in &clients {
            assert_eq!(got.close.as_deref(), Some("draining"), "{round}");
            assert!(got.id.is_some());
        }
        within(server).await.expect("no panic").expect("no error");
        assert!(topic.subscribers() == 0 && sse.connections().is_empty());
        publish(&topic, last + 1..=last + 100, 2_000).await;
        last += 100;
    }
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, app_of(&sse, &topic)).await;
    for got in &mut clients {
        let mut wire = Wire::h1(socket(server.address).await, "/s", got.back().as_deref()).await;
        got.until(&mut wire, last).await;
        got.has_all(last);
    }
    server.stop().await;
}

/// Its connection breaks amid a record; it comes back over HTTP/1.1, and then as a stream of HTTP/2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_broken_connection_loses_no_event() {
    let (topic, certificate) = (topic(10_000), Certificate::new());
    let sse = sse_with(SseOptions::default());
    let server = start(&sse, app_of(&sse, &topic), certificate.tls()).await;
    let mut got = Got::default();
    let protocols = ["http/1.1"];
    let mut wire =
        Wire::h1(certificate.connect(server.address, &protocols).await, "/s", None).await;
    got.placed(&mut wire).await;
    publish(&topic, 1..=300, 1_000).await;
    got.until(&mut wire, 100).await;
    drop(wire);
    publish(&topic, 301..=400, 1_000).await;
    let socket = certificate.connect(server.address, &protocols).await;
    let mut wire = Wire::h1(socket, "/s", got.back().as_deref()).await;
    got.until(&mut wire, 350).await;
    drop(wire);
    publish(&topic, 401..=500, 1_000).await;
    let mut client = certificate.client(server.address).await;
    let mut wire = Wire::h2(&mut client, got.back().as_deref()).await;
    got.until(&mut wire, 500).await;
    got.has_all(500);
    eventually("the broken ones have gone", || topic.subscribers() == 1).await;
    drop((client, wire));
    server.stop().await;
}

/// A socket that gives one byte at a time, whatever there is.
struct Bytewise(TcpStream);

impl AsyncRead for Bytewise {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut one = [0];
        let mut byte = ReadBuf::new(&mut one);
        let read = Pin::new(&mut self.0).poll_read(cx, &mut byte);
        out.put_slice(byte.filled());
        read
    }
}

impl AsyncWrite for Bytewise {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// As a proxy may read, of either version; a part of a frame is no frame when the connection goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_single_bytes_gets_each_event_once() {
    let topic = topic(10_000);
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, app_of(&sse, &topic)).await;
    let (mut old, mut new) = (Got::default(), Got::default());
    for round in 0..4 {
        let stream = Bytewise(socket(server.address).await);
        let mut one = Wire::h1(stream, "/s", old.back().as_deref()).await;
        let mut client = Client::over(Bytewise(socket(server.address).await)).await;
        let mut two = Wire::h2(&mut client, new.back().as_deref()).await;
        old.placed(&mut one).await;
        new.placed(&mut two).await;
        publish(&topic, round * 50 + 1..=round * 50 + 50, 200).await;
        // In the middle of what was sent, but the last time.
        let until = if round == 3 { 200 } else { round * 50 + 30 };
        old.until(&mut one, until).await;
        new.until(&mut two, until).await;
    }
    old.has_all(200);
    new.has_all(200);
    server.stop().await;
}

/// To hyper that is a client that has gone; it may still read, and comes back with what it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_its_sending_half_loses_no_event() {
    let topic = topic(10_000);
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, app_of(&sse, &topic)).await;
    let (mut got, mut last) = (Got::default(), 0);
    for _ in 0..5 {
        let mut socket = socket(server.address).await;
        let id = got.back().map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        // Of this version a body has no chunks.
        let request = format!("GET /s HTTP/1.0\r\nhost: x\r\n{id}\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(socket.read_u8()).await.expect("a head"));
        }
        assert!(head.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&head));
        let mut piece = vec![0; 2_000];
        while got.id.is_none() {
            let read = within(socket.read(&mut piece)).await.expect("a read");
            got.take(&piece[..read]);
        }
        publish(&topic, last + 1..=last + 100, 1_000).await;
        last += 100;
        // It has some of it when it says that it has no more to say.
        let read = within(socket.read(&mut piece)).await.expect("a read");
        got.take(&piece[..read]);
        socket.shutdown().await.expect("a half");
        publish(&topic, last + 1..=last + 100, 1_000).await;
        last += 100;
        while let Ok(read) = within(socket.read(&mut piece)).await {
            if read == 0 {
                break;
            }
            got.take(&piece[..read]);
        }
        eventually("it has gone", || topic.subscribers() == 0).await;
    }
    let mut wire = Wire::h1(socket(server.address).await, "/s", got.back().as_deref()).await;
    got.until(&mut wire, last).await;
    got.has_all(last);
    assert_eq!(sse.connections().closed(CloseReason::ClientGone), 5);
    drop(wire);
    server.stop().await;
}

/// Closed, or without a handle: who stalls finds the end behind what it had not read, and then all is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_streams_of_an_ended_topic_get_the_rest_and_the_end() {
    const ALL: u64 = 2_000;
    for closes in [true, false] {
        let held = Arc::new(());
        // The only handle there is.
        let only = Arc::new(Mutex::new(Some(topic(100_000))));
        let (of, sse) = (only.clone(), sse_with(options("WriteTimeout = \"60s\"")));
        let app = serving(&sse, move || {
            let topic = of.lock().unwrap_or_else(PoisonError::into_inner);
            topic.as_ref().map(Topic::subscribe).expect("a topic")
        });
        let server = Server::start(&sse, app).await;
        let mut client = Client::connect(server.address).await;
        let mut one = Got::default();
        let mut old = Wire::h1(small_socket(server.address).await, "/s", None).await;
        one.placed(&mut old).await;
        let (mut two, mut body) = shut(&mut client).await;
        let (_, never) = shut(&mut client).await;
        {
            let topic = only.lock().expect("no panic").clone().expect("a topic");
            for n in (1..=ALL).step_by(20) {
                let lines = (n..n + 20).map(|n| Line { _held: held.clone(), ..line(n, 1_000) });
                topic.publish_all(lines).await.expect("published");
                tokio::task::yield_now().await;
            }
            assert_eq!(topic.subscribers(), 3);
        }
        let kept = only.lock().expect("no panic").take().filter(|_| closes);
        if let Some(topic) = &kept {
            topic.close();
        }
        // One never opens its window, and goes.
        drop(never);
        eventually("it is dropped", || sse.connections().len() == 2).await;
        assert_eq!(Arc::strong_count(&held) as u64, ALL + 1, "what is not read yet is kept");
        one.rest_of(old).await;
        open(&mut body);
        two.rest_of(Wire::taking(body)).await;
        for got in [&one, &two] {
            got.has_all(ALL);
            assert_eq!(got.close.as_deref(), Some("ended"));
        }
        eventually("all are gone", || sse.connections().is_empty()).await;
        assert_eq!(sse.connections().closed(CloseReason::Ended), 2);
        drop(kept);
        drop(client);
        server.stop().await;
        assert_eq!(Arc::strong_count(&held), 1, "an event is held by nobody knows whom");
    }
}

/// The other clients get everything while one reads nothing. That one overflows when it reads again, and reconnects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_a_closed_window_delays_no_other_stream_and_overflows() {
    let topic = topic(LINES as usize);
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let server = Server::start(&sse, app_of(&sse, &topic)).await;
    let mut client = Client::connect(server.address).await;
    let (mut stalled, mut body, healthy) = beside_a_shut_window(&mut client, &topic).await;
    // Nobody waited for it to go.
    assert_eq!(sse.connections().len(), 4);
    open(&mut body);
    stalled.rest_of(Wire::taking(body)).await;
    assert_eq!(stalled.close.as_deref(), Some("overflow"));
    assert_eq!(sse.connections().closed(CloseReason::Overflow), 1);
    assert!((1..100).contains(&stalled.numbers.len()), "{}", stalled.numbers.len());
    let mut wire = Wire::h2(&mut client, stalled.back().as_deref()).await;
    stalled.until(&mut wire, LINES).await;
    stalled.has_all(LINES);
    assert_eq!(sse.connections().gaps(), 0);
    drop((client, wire, healthy));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_a_window_that_stays_closed_ends_its_stream_alone_and_loses_no_event() {
    let topic = topic(10 * LINES as usize);
    let sse = sse_with(options("WriteTimeout = \"1s\""));
    let server = Server::start(&sse, app_of(&sse, &topic)).await;
    let mut client = Client::connect(server.address).await;
    let (mut stalled, mut body, healthy) = beside_a_shut_window(&mut client, &topic).await;
    // What came before the reset counts.
    let reason = loop {
        match within(body.data()).await.expect("no clean end") {
            Ok(bytes) => stalled.take(&bytes),
            Err(error) => break error.reason(),
        }
    };
    assert_eq!(reason, Some(h2::Reason::CANCEL));
    eventually("counted", || sse.connections().closed(CloseReason::WriteTimeout) == 1).await;
    assert!(stalled.numbers.len() < 100, "{}", stalled.numbers.len());
    let mut wire = Wire::h2(&mut client, stalled.back().as_deref()).await;
    stalled.until(&mut wire, LINES).await;
    stalled.has_all(LINES);
    assert_eq!(sse.connections().len(), 4);
    drop((client, wire, healthy));
    server.stop().await;
}

/// Who may miss some misses them counted; what waits for it is no more than the topic keeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_a_closed_window_takes_no_memory_and_its_gaps_are_counted() {
    const KEEP: usize = 50;
    let (topic, held) = (topic(KEEP), Arc::new(()));
    let sse = sse_with(options("WriteTimeout = \"60s\"\nOverflow = \"drop_oldest\""));
    let server = Server::start(&sse, app_of(&sse, &topic)).await;
    let mut client = Client::connect(server.address).await;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        stalled.push(shut(&mut client).await);
    }
    for n in 1..=LINES {
        let line = Line { _held: held.clone(), ..line(n, 1_000) };
        topic.publish(line).await.expect("published");
        if n % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // Besides what is kept: a batch that was joined for who was behind, and the newest.
    let events = Arc::strong_count(&held) - 1;
    assert!((KEEP..KEEP + 34).contains(&events), "{events} events are held");
    let mut gaps = 0;
    for (mut got, mut body) in stalled {
        open(&mut body);
        let mut wire = Wire::taking(body);
        got.until(&mut wire, LINES).await;
        assert!(got.numbers.is_sorted_by(|one, other| one < other), "{:?}", got.numbers);
        assert!(got.gaps > 0);
        assert_eq!(got.numbers.len() as u64 + got.missed, LINES);
        gaps += got.gaps;
    }
    assert_eq!(sse.connections().gaps(), gaps);
    drop(client);
    server.stop().await;
    drop(topic);
    drop(sse);
    assert_eq!(Arc::strong_count(&held), 1);
}
