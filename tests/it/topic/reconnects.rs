//! Clients that reconnect elsewhere, publishers on other runtimes, and topics that outlive them.

use super::lines::*;

/// A window that is shut from the beginning: nothing has been said when the topic moves on.
#[tokio::test(start_paused = true)]
async fn a_client_without_an_event_yet_misses_nothing() {
    for (settings, several) in
        [("", false), ("", true), ("Buffer = 10", false), ("Overflow = \"drop_oldest\"", false)]
    {
        let (topic, other) = (topic(100), Topic::<Line>::new("others"));
        let serve = |sse: &HeroSse| {
            let (topic, other) = (topic.clone(), other.clone());
            match several {
                true => serving(sse, move || other.subscribe().and(topic.subscribe())),
                false => serving(sse, move || topic.subscribe()),
            }
        };
        let sse = sse_with(options(settings));
        let app = serve(&sse);
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        // More than the share of the topic that a slow client may be behind.
        publish(&topic, 1..=90, 10).await;
        let mut got = there(&mut reader);
        got.has_all(90);
        let mut unheard = testing::open(&app, "/s").await.expect("a stream");
        publish(&topic, 91..=95, 10).await;
        let id = got.back().expect("an id");
        let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
        assert_eq!(there(&mut back).numbers, [91, 92, 93, 94, 95]);
        // The server goes.
        sse.drain();
        let mut got = there(&mut unheard);
        assert_eq!((got.numbers.as_slice(), got.close.as_deref()), (&[][..], Some("draining")));
        let id = got.back().expect("where it would have begun");
        publish(&topic, [96], 10).await;
        let app = serve(&sse_with(SseOptions::default()));
        let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
        let back = there(&mut back);
        assert_eq!((back.numbers.as_slice(), back.gaps), (&[91, 92, 93, 94, 95, 96][..], 0));
    }
}

/// Whoever was to get all that is kept, and has had nothing, comes back for all that is kept.
#[tokio::test(start_paused = true)]
async fn a_client_disconnected_before_its_replay_still_gets_the_replay() {
    let topic = topic(3);
    let serve = |sse: &HeroSse| {
        let topic = topic.clone();
        serving(sse, move || topic.subscribe().from_start())
    };
    publish(&topic, 1..=3, 10).await;
    let sse = sse_with(SseOptions::default());
    let mut reader = testing::open(&serve(&sse), "/s").await.expect("a stream");
    sse.drain();
    let got = there(&mut reader);
    assert_eq!((got.close.as_deref(), got.id), (Some("draining"), None));
}

/// Filtered events, then the end: a reconnecting client has no gap for events that its filter excludes.
#[tokio::test(start_paused = true)]
async fn filtered_events_are_no_gap_for_a_disconnected_client() {
    for reason in ["draining", "overflow"] {
        let topic = topic(100);
        let filtered = |sse: &HeroSse| {
            let topic = topic.clone();
            serving(sse, move || {
                topic.subscribe().filter(|line: &Line| line.n.is_multiple_of(1_000))
            })
        };
        let sse = sse_with(SseOptions::default());
        let app = filtered(&sse);
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        there(&mut reader);
        for n in 1..=150 {
            publish(&topic, [n], 10).await;
            there(&mut reader);
        }
        match reason {
            "draining" => _ = sse.drain(),
            // It has the first of what was published together, and is slow from then on.
            _ => {
                publish(&topic, std::iter::once(1_000).chain(151..=180), 10).await;
                assert_eq!(reader.next().await.expect("in time").expect("one").event, "line");
                publish(&topic, 181..=265, 10).await;
            }
        }
        let mut got = there(&mut reader);
        assert_eq!(got.close.as_deref(), Some(reason));
        let id = got.back().expect("an id");
        publish(&topic, [3_000], 10).await;
        let app = filtered(&sse_with(SseOptions::default()));
        let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
        let got = there(&mut back);
        assert_eq!((got.numbers.as_slice(), got.missed), (&[3_000][..], 0), "{reason}");
    }
}

/// The same of one topic, where another on the same stream is what the client is too slow for.
#[tokio::test(start_paused = true)]
async fn a_client_too_slow_for_one_topic_has_no_gap_in_another() {
    let (quiet, busy) = (topic(5), topic(100));
    let (one, other) = (quiet.clone(), busy.clone());
    let app = serving(&sse_with(SseOptions::default()), move || {
        one.subscribe().filter(|line: &Line| line.n > 1_000).and(other.subscribe())
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    there(&mut reader);
    publish(&busy, [1], 10).await;
    assert_eq!(reader.next().await.expect("in time").expect("one").event, "line");
    publish(&quiet, 1..=4, 10).await;
    publish(&busy, 2..=81, 10).await;
    let mut got = there(&mut reader);
    assert_eq!((got.numbers.as_slice(), got.close.as_deref()), (&[1][..], Some("overflow")));
    publish(&quiet, 5..=7, 10).await;
    let id = got.back().expect("an id");
    let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    let back = there(&mut back);
    assert!(back.numbers.iter().copied().eq(2..=81) && back.gaps == 0, "{back:?}");
}

/// What leaves is what the topic keeps, not a copy of it.
#[tokio::test(start_paused = true)]
async fn all_subscribers_send_the_same_bytes() {
    let topic = topic(100);
    let app = app_of(&sse_with(SseOptions::default()), &topic);
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let request = Request::get("/s").body(Body::empty()).expect("a request");
        let mut body = app.clone().oneshot(request).await.expect("an answer").into_body();
        body.frame().await.expect("a prelude").expect("no error");
        assert!(body.frame().now_or_never().is_none(), "it waits");
        bodies.push(body);
    }
    // One; many at once; many one after another, which the first who reads them joins.
    for (lines, each) in [(1..=1, 1), (2..=20, 19), (21..=40, 1)] {
        for n in lines.step_by(each) {
            publish(&topic, n..n + each as u64, 500).await;
        }
        // All at once, or else one may lie where another lay.
        let (mut places, mut held) = (BTreeSet::new(), Vec::new());
        for body in &mut bodies {
            let frame = body.frame().await.expect("a frame").expect("no error");
            let bytes = frame.into_data().expect("data");
            places.insert(bytes.as_ptr() as usize);
            held.push(bytes);
            while body.frame().now_or_never().is_some() {}
        }
        assert_eq!(places.len(), 1);
    }
}

/// From another runtime, a plain thread, a filter, an answer to a gap, and the drop of an event, all at once.
#[test]
fn an_event_may_be_published_on_any_runtime_or_thread() {
    const EACH: u64 = 100;
    let (topic, wakes) = (topic(10_000), Topic::<Wake>::builder("wakes").retain_events(1).build());
    let (here, elsewhere) = (runtime(), runtime());
    let sse = sse_with(options("Overflow = \"drop_oldest\""));
    let says = |from: u64| {
        let (topic, next) = (topic.clone(), Arc::new(AtomicU64::new(from)));
        let said = next.clone();
        let say = move || {
            let n = next.fetch_add(1, Ordering::SeqCst);
            topic.publish(line(n, 10)).now_or_never().expect("at once").expect("published");
        };
        (Arc::new(say), move || said.load(Ordering::SeqCst) > from)
    };
    // A stream of the wakes, whose filter and whose hook say lines as well.
    let (of, (filter, filtered), (hook, answered)) = (wakes.clone(), says(10_000), says(20_000));
    let route = sse.endpoint("/wakes").public().handler(async move || {
        let (filter, hook) = (filter.clone(), hook.clone());
        let wakes = of.subscribe().filter(move |_| {
            filter();
            false
        });
        wakes.on_gap(move |_| {
            let hook = hook.clone();
            async move {
                tokio::task::yield_now().await;
                hook();
                Ok(Vec::<Line>::new())
            }
        })
    });
    let app = app_of(&sse, &topic).merge(route.expect("a route"));
    here.block_on(async {
        let server = Server::start(&sse, app).await;
        let mut readers = Vec::new();
        for _ in 0..2 {
            let mut wire = Wire::h1(socket(server.address).await, "/s", None).await;
            let mut got = Got::default();
            got.placed(&mut wire).await;
            readers.push((got, wire));
        }
        let first = wakes.publish(Wake { says: None }).await.expect("published").to_string();
        for _ in 0..3 {
            wakes.publish(Wake { says: None }).await.expect("published");
        }
        let mut woken = Wire::h1(socket(server.address).await, "/wakes", Some(&first)).await;
        // It answers its gap, and then looks at what is published.
        let told = within(woken.bytes.next()).await.expect("no end").expect("no reset");
        assert!(String::from_utf8_lossy(&told).contains("hero.gap"), "{told:?}");
        eventually("the answer is there", answered).await;
        wakes.publish(Wake { says: None }).await.expect("published");
        eventually("the filter is asked", filtered).await;
        let lines = topic.clone();
        let other = elsewhere.spawn(async move {
            for n in 1..=EACH {
                publish(&lines, [n], 10).await;
                tokio::task::yield_now().await;
            }
        });
        let ((plain, _), lines) = (says(1_001), topic.clone());
        let thread = std::thread::spawn(move || {
            for n in 0..EACH {
                plain();
                let says = Some((lines.clone(), 2_001 + n));
                // It goes with the next one.
                wakes.publish(Wake { says }).now_or_never().expect("at once").expect("published");
                std::thread::sleep(Duration::from_millis(1));
            }
            wakes.close();
            drop(wakes);
        });
        within(other).await.expect("no panic");
        tokio::task::spawn_blocking(|| thread.join().expect("no panic")).await.expect("joined");
        let mut ended = Got::default();
        while let Some(Ok(bytes)) = within(woken.bytes.next()).await {
            let text = String::from_utf8_lossy(&bytes);
            ended.close = text.contains("\"ended\"").then(|| "ended".to_owned());
        }
        assert!(ended.close.is_some());
        publish(&topic, [u64::MAX], 10).await;
        let mut sequences = Vec::new();
        for (mut got, mut wire) in readers {
            got.until(&mut wire, u64::MAX).await;
            assert_eq!(got.missed, 0);
            sequences.push(got.numbers);
        }
        assert_eq!(sequences[0], sequences[1], "one order for all");
        let numbers: BTreeSet<_> = sequences[0].iter().copied().collect();
        assert_eq!(numbers.len(), sequences[0].len(), "a line came twice");
        let from = |begin: u64, end: u64| numbers.range(begin..end).count() as u64;
        assert_eq!((from(1, 1_000), from(1_001, 2_001)), (EACH, EACH));
        // The last is still kept, and perhaps what was read together.
        assert!((EACH - 3..=EACH).contains(&from(2_001, 10_000)));
        assert!(from(10_000, 20_000) > 0 && from(20_000, 30_000) > 0);
        server.stop().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_may_publish_to_its_topic_in_its_drop() {
    let topic = Topic::<Echo>::builder("echoes").retain_events(8).build();
    let own = Arc::new(Mutex::new(Some(topic.clone())));
    let sse = sse_with(options("Overflow = \"drop_oldest\""));
    let of = topic.clone();
    let server = Server::start(&sse, serving(&sse, move || of.subscribe())).await;
    let mut reader = testing::connect(server.address, "/s").await.expect("a stream");
    reader.next().await.expect("in time").expect("where it stands");
    for n in 1..=200 {
        let echo = Echo { n, echo: Some(own.clone()) };
        topic.publish(echo).await.expect("published");
        if n % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // Nothing comes behind the last: it would make that go, too, before a slow reader has had it.
    own.lock().expect("no panic").take();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Each that has gone has said so; who reads has had each, or knows how many not.
    let all = topic.publish(Echo { n: 0, echo: None }).await.expect("published").offset();
    assert!((380..=401).contains(&all), "{all}");
    let (mut seen, mut missed, mut over) = (BTreeSet::new(), 0, false);
    while !over {
        let event = reader.next().await.expect("in time").expect("more");
        let data: Value = event.json().expect("JSON");
        match event.event.as_str() {
            "hero.gap" => missed += data["missed"].as_u64().expect("counted"),
            _ => {
                let n = data["n"].as_u64().expect("a number");
                assert!(seen.insert(n), "{n} twice");
                over = n == 0;
            }
        }
    }
    assert_eq!(seen.len() as u64 + missed, all);
    drop(reader);
    server.stop().await;
}

#[test]
fn a_topic_outlives_the_runtime_of_its_readers() {
    let topic = topic(10_000);
    let sse = sse_with(options("WriteTimeout = \"1s\""));
    let app = app_of(&sse, &topic);
    let (mut reading, mut stalled) = (Got::default(), Got::default());
    let first = runtime();
    let left = first.block_on(async {
        let server = Server::start(&sse, app.clone()).await;
        let mut client = Client::connect(server.address).await;
        let mut wire = Wire::h2(&mut client, None).await;
        reading.placed(&mut wire).await;
        let mut other = Wire::h1(small_socket(server.address).await, "/s", None).await;
        stalled.placed(&mut other).await;
        publish(&topic, 1..=500, 1_000).await;
        reading.until(&mut wire, 200).await;
        (server, client, wire, other)
    });
    assert_eq!(topic.subscribers(), 2);
    drop(first);
    drop(left);
    // Nobody is there to be woken, and nobody is in the way.
    assert_eq!((topic.subscribers(), sse.connections().len()), (0, 0));
    publish(&topic, 501..=600, 1_000).now_or_never().expect("at once");
    let second = runtime();
    second.block_on(async {
        let server = Server::start(&sse, app).await;
        let mut client = Client::connect(server.address).await;
        let mut wire = Wire::h2(&mut client, reading.back().as_deref()).await;
        reading.until(&mut wire, 600).await;
        let mut other =
            Wire::h1(socket(server.address).await, "/s", stalled.back().as_deref()).await;
        stalled.until(&mut other, 600).await;
        publish(&topic, 601..=700, 10).await;
        reading.until(&mut wire, 700).await;
        stalled.until(&mut other, 700).await;
        reading.has_all(700);
        stalled.has_all(700);
        // The write timeout of a shut window is kept here as well.
        let shut = Wire::shut(&mut client, reading.id.as_deref()).await;
        publish(&topic, 701..=800, 1_000).await;
        let (_, reason) = crate::http2::stalled(shut).await;
        assert_eq!(reason, Some(h2::Reason::CANCEL));
        drop((client, wire, other));
        server.stop().await;
    });
}

/// One topic behind `GET`, behind `POST`, and beside another on one stream: an id is good everywhere.
#[tokio::test(start_paused = true)]
async fn a_client_resumes_on_another_endpoint_of_the_topic() {
    let (topic, other) = (topic(1_000), Topic::new("others"));
    let sse = sse_with(SseOptions::default());
    let routes = sse.routes(endpoints![got, posted, both]).expect("routes");
    let app: Router = Router::new().merge(routes).with_state((topic.clone(), other.clone()));
    let mut got = Got::default();
    let mut n = 0;
    for (path, query) in [
        ("/get", false),
        ("/post", false),
        ("/get", true),
        ("/two", true),
        ("/post", true),
        ("/two", false),
        ("/two", true),
        ("/get", false),
    ] {
        publish(&topic, [n + 1, n + 2], 10).await;
        n += 2;
        let id = got.back().filter(|_| n > 2);
        let target = match &id {
            Some(id) if query => format!("{path}?last_event_id={id}"),
            _ => path.to_owned(),
        };
        let mut open = testing::open(&app, &target);
        if let Some(id) = id.as_ref().filter(|_| !query) {
            open = open.last_event_id(id);
        }
        if path == "/post" {
            open = open.body("");
        }
        let mut reader = open.await.expect("a stream");
        publish(&topic, [n + 1, n + 2], 10).await;
        n += 2;
        there(&mut reader);
        // The client leaves amid what it was sent, and has but the first of it.
        publish(&topic, [n + 1], 10).await;
        publish(&topic, [n + 2], 10).await;
        n += 2;
        let known = reader.raw().len();
        reader.next().await.expect("in time").expect("an event");
        let raw = reader.raw();
        let end = raw[known..].find("\n\n").expect("a frame");
        got.take(&raw.as_bytes()[..known + end + 2]);
    }
    drop(other);
    // The first began with what was published after it.
    got.numbers.splice(0..0, [1, 2]);
    let last = *got.numbers.last().expect("a line");
    assert!(last >= n - 1, "{last} of {n}");
    got.has_all(last);
    assert_eq!(sse.connections().gaps(), 0);
}
