//! Admission: limits, and the answers to clients over a limit.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use futures_util::stream;
use hero_sse::{CloseReason, Event, HeroSse, Refusal};
use http::StatusCode;
use serde_json::Value;

use crate::support::testing::{self, Open};
use crate::support::{Log, Server, burst, eventually, flood, options, public, sse_with};

/// `/s` and `/t` require a token, `/p` is public.
fn app(sse: &HeroSse) -> Router {
    let route = |path: &str| sse.endpoint(path).handler(async || burst(1)).expect("a route");
    let anybody = sse.endpoint("/p").public().handler(async || burst(1)).expect("a route");
    anybody.merge(route("/s")).merge(route("/t"))
}

/// Makes requests come from this address.
fn from(app: &Router, address: &str) -> Router {
    let address: SocketAddr = address.parse().expect("an address");
    app.clone().layer(axum::Extension(ConnectInfo(address)))
}

/// Returns the reason and the reconnection time of a rejected client.
async fn rejected(open: Open<Router>) -> (String, Duration) {
    let mut stream = open.await.expect("a closing event in a 200");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let events = stream.read_to_end().await.expect("a clean end");
    let [close] = events.as_slice() else { panic!("{events:?}") };
    let data: Value = close.json().expect("JSON");
    let retry = Duration::from_millis(data["retry_ms"].as_u64().expect("a number"));
    assert_eq!((close.event.as_str(), stream.retry()), ("hero.close", Some(retry)));
    assert_eq!(data["reconnect"], true);
    (data["reason"].as_str().expect("a text").to_owned(), retry)
}

#[tokio::test]
async fn the_limit_per_address_counts_ipv6_by_network() {
    let sse = sse_with(options(
        "MaxPerAddress = 2\n[SseOptions.Endpoints.\"/s\"]\nMaxPerAddress = 3\n\
         [SseOptions.Endpoints.\"/t\"]\nMaxPerAddress = \"off\"",
    ));
    let app = app(&sse);
    let mut held = Vec::new();
    for address in
        ["[2001:db8::1]:1", "[2001:db8::2:3:4:5]:2", "192.0.2.1:3", "[::ffff:192.0.2.1]:4"]
    {
        held.push(testing::open(&from(&app, address), "/p").await.expect("a stream"));
    }
    for address in ["[2001:db8::9]:1", "192.0.2.1:9"] {
        let open = |path| testing::open(&from(&app, address), path);
        assert_eq!(rejected(open("/p")).await.0, "over_limit", "{address}");
        // The count is shared by all endpoints, the limit is each endpoint's own.
        held.push(open("/s").principal("ann").await.expect("the third"));
        assert_eq!(rejected(open("/s").principal("bob")).await.0, "over_limit", "{address}");
        held.push(open("/t").principal("bob").await.expect("no limit"));
    }
    for other in ["[2001:db8:0:1::1]:1", "192.0.2.2:1"] {
        held.push(testing::open(&from(&app, other), "/p").await.expect("another's place is free"));
    }
    assert_eq!(sse.connections().closed(CloseReason::OverLimit), 4);
    for _ in 0..3 {
        held.push(testing::open(&app, "/p").await.expect("without an address nothing is counted"));
    }
    let snapshot = sse.connections().snapshot();
    let count = |address: &str| {
        let address = Some(address.parse().expect("an address"));
        snapshot.iter().filter(|one| one.address == address).count()
    };
    // The registry knows one spelling of an address.
    assert_eq!((count("192.0.2.1"), count("2001:db8::1"), count("::ffff:192.0.2.1")), (4, 1, 0));
    assert_eq!(snapshot.iter().filter(|one| one.address.is_none()).count(), 3);
    drop(held);
    assert!(sse.connections().is_empty());
}

#[tokio::test]
async fn only_a_trusted_proxy_can_name_the_client() {
    for (proxies, header, value, counted) in [
        ("", "x-forwarded-for", "192.0.2.{}", "127.0.0.1"),
        ("TrustedProxies = [\"10.0.0.0/8\"]", "x-forwarded-for", "192.0.2.{}", "127.0.0.1"),
        ("TrustedProxies = [\"127.0.0.1\"]", "x-forwarded-for", "6.6.6.{}, 192.0.2.1", "192.0.2.1"),
        ("TrustedProxies = [\"127.0.0.1\"]", "x-forwarded-for", "6.6.6.{}, unknown", "127.0.0.1"),
        ("TrustedProxies = [\"127.0.0.1\"]", "forwarded", "for=192.0.2.{}", "127.0.0.1"),
        (
            "TrustedProxies = [\"127.0.0.1\"]\nForwardedHeader = \"forwarded\"",
            "forwarded",
            "for=6.6.6.{}, for=\"[2001:db8::1]:80\";proto=https",
            "2001:db8::1",
        ),
    ] {
        let sse = sse_with(options(&format!("MaxPerAddress = 1\n{proxies}")));
        let app = sse
            .endpoint("/s")
            .public()
            .handler(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| {
                stream::iter([Event::text(peer.ip().to_string())]).chain_pending()
            })
            .expect("a route");
        let server = Server::start(&sse, app).await;
        let open = |n: u32| {
            let value = value.replace("{}", &n.to_string());
            testing::connect(server.address, "/s").header(header, value)
        };
        let mut first = open(1).await.expect("a stream");
        let peer = first.next().await.expect("in time").expect("an event").data;
        assert_eq!(peer, "127.0.0.1", "extractors see the socket's other end");
        let snapshot = sse.connections().snapshot();
        let address = snapshot.first().and_then(|one| one.address).map(|one| one.to_string());
        assert_eq!(address.as_deref(), Some(counted), "{proxies} {value}");
        assert_eq!(rejected(open(2)).await.0, "over_limit", "{proxies} {value}");
        drop(first);
        let connections = sse.connections().clone();
        eventually("the slot is released", || connections.is_empty()).await;
        drop(open(3).await.expect("a stream").next().await.expect("in time").expect("an event"));
        server.stop().await;
    }
}

trait ChainPending: futures_util::Stream<Item = Event> + Sized {
    fn chain_pending(self) -> impl futures_util::Stream<Item = Event> {
        futures_util::StreamExt::chain(self, stream::pending())
    }
}

impl<T: futures_util::Stream<Item = Event>> ChainPending for T {}

#[tokio::test]
async fn clients_of_one_proxy_are_counted_apart() {
    let sse = sse_with(options("MaxPerAddress = 1\nTrustedProxies = [\"127.0.0.0/8\"]"));
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    let mut held = Vec::new();
    for n in 1..=5 {
        let open = testing::connect(server.address, "/s");
        held.push(open.header("x-forwarded-for", format!("192.0.2.{n}")).await.expect("a stream"));
    }
    assert_eq!(sse.connections().len(), 5);
    drop(held);
    server.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn sockets_without_an_address_are_not_counted_and_their_headers_not_read() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let sse = sse_with(options("MaxPerAddress = 1\nTrustedProxies = [\"127.0.0.1\"]"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let serving = tokio::spawn(sse.serve(listener, public(&sse, || burst(1))).into_future());
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut socket = tokio::net::UnixStream::connect(&path).await.expect("a socket");
        let request = b"GET /s HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.1\r\n\r\n";
        socket.write_all(request).await.expect("sent");
        let mut head = [0; 15];
        socket.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        held.push(socket);
    }
    let snapshot = sse.connections().snapshot();
    assert_eq!((snapshot.len(), snapshot.iter().filter_map(|one| one.address).count()), (3, 0));
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_client_over_the_rate_limit_is_asked_to_wait_until_it_may_connect_again() {
    let sse = sse_with(options("ConnectsPerMinute = 4\nRetry = \"2s\""));
    let app = app(&sse);
    let open = |path: &'static str, who: &str| testing::open(&app, path).principal(who);
    for path in ["/s", "/t", "/s", "/t"] {
        drop(open(path, "ann").await.expect("a stream").next().await.expect("in time"));
    }
    let (reason, retry) = rejected(open("/s", "ann")).await;
    assert_eq!(reason, "over_limit");
    assert!((15_000..=22_500).contains(&retry.as_millis()), "{retry:?}");
    for _ in 0..20 {
        drop(testing::open(&app, "/p").await.expect("callers without a token are not counted"));
    }
    drop(open("/s", "bob").await.expect("another may"));
    tokio::time::advance(retry).await;
    let mut back = open("/s", "ann").await.expect("a stream");
    assert_eq!(back.next().await.expect("in time").expect("an event").data, "1");
    assert_eq!(rejected(open("/s", "ann")).await.0, "over_limit");
    assert_eq!(sse.connections().closed(CloseReason::OverLimit), 2);
}

#[tokio::test(start_paused = true)]
async fn eight_tabs_that_keep_reconnecting_are_admitted_by_default() {
    let sse = sse_with(options(""));
    let app = app(&sse);
    for _ in 0..100 {
        for _ in 0..8 {
            let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
            assert_eq!(stream.next().await.expect("in time").expect("an event").data, "1");
        }
        tokio::time::advance(Duration::from_secs(3)).await;
    }
    assert_eq!(sse.connections().closed(CloseReason::OverLimit), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_its_limit_and_no_caller() {
    let (log, _guard) = Log::everything();
    for (limit, path, status, detail, line, least) in [
        ("MaxConnections = 1", "/t", 503, "on this server", "all connections", 2),
        (
            "[SseOptions.Endpoints.\"/s\"]\nMaxConnections = 1",
            "/s",
            503,
            "of this endpoint",
            "this endpoint's connections",
            2,
        ),
        ("MaxPerPrincipal = 1", "/t", 429, "of yours", "this principal's connections", 2),
        ("MaxPerAddress = 1", "/p", 429, "from your address", "this address's connections", 2),
        (
            "ConnectsPerMinute = 1",
            "/t",
            429,
            "within a minute",
            "this principal's connects a minute",
            60,
        ),
    ] {
        let sse = sse_with(options(&format!("OverLimit = \"refuse\"\nRetry = \"2s\"\n{limit}")));
        let app = from(&app(&sse), "192.0.2.77:4711");
        let before = log.text().len();
        let held = testing::open(&app, "/s").principal("ann").await.expect("a stream");
        let error = testing::open(&app, path).principal("ann").await.expect_err(limit);
        assert_eq!(error.status.map(|status| status.as_u16()), Some(status), "{limit}");
        assert_eq!(error.headers["content-type"], "application/problem+json");
        assert_eq!(error.headers["cache-control"], "no-store");
        let after: u64 = error.headers["retry-after"].to_str().expect("ASCII").parse().expect("s");
        assert!((least..=least * 3 / 2).contains(&after), "{limit}: {after}");
        let body = error.to_string();
        assert!(body.contains(detail), "{limit}: {body}");
        for secret in ["ann", "192.0.2.77", "4711"] {
            assert!(!body.contains(secret), "{limit}: {body}");
        }
        let text = log.text();
        let said: Vec<_> =
            text[before..].lines().filter(|line| line.contains("limit reached")).collect();
        let [said] = said.as_slice() else { panic!("{limit}: {said:?}") };
        assert!(said.contains(line) && said.contains(&format!("path=\"{path}\"")), "{said}");
        drop(held);
        assert!(sse.connections().is_empty());
        assert_eq!(sse.connections().closed(CloseReason::OverLimit), 1, "{limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_overload_logs_one_line_a_second() {
    let (log, _guard) = Log::everything();
    let sse =
        sse_with(options("MaxConnections = 1\nMaxPerPrincipal = 1\nConnectsPerMinute = \"off\""));
    let app = app(&sse);
    let _held = testing::open(&app, "/p").await.expect("a stream");
    let lines = || {
        let text = log.text();
        text.lines()
            .filter(|line| line.contains("limit reached"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for _ in 0..500 {
        rejected(testing::open(&app, "/p")).await;
        rejected(testing::open(&app, "/s").principal("ann")).await;
    }
    assert_eq!(lines().len(), 2, "one for each endpoint: {:?}", lines());
    tokio::time::advance(Duration::from_secs(1)).await;
    rejected(testing::open(&app, "/p")).await;
    let lines = lines();
    assert_eq!(lines.len(), 3);
    assert!(lines.last().is_some_and(|line| line.contains("suppressed=499")), "{lines:?}");
    assert_eq!(sse.connections().closed(CloseReason::OverLimit), 1001);
}

#[tokio::test]
async fn slots_are_taken_before_the_function_runs_and_released_when_it_refuses() {
    let sse = sse_with(options("MaxPerAddress = 1\nMaxPerPrincipal = 1\nMaxConnections = 1"));
    let app: Router = sse
        .endpoint("/s")
        .handler(async || Err::<stream::Pending<Event>, _>(Refusal::not_found("no such thing")))
        .expect("a route");
    let app = from(&app, "192.0.2.1:1");
    for _ in 0..10 {
        let error = testing::open(&app, "/s").principal("ann").await.expect_err("404");
        assert_eq!(error.status, Some(StatusCode::NOT_FOUND));
    }
    assert!(sse.connections().is_empty());
    assert_eq!(sse.connections().counts().map(|(_, count)| count).sum::<u64>(), 0);
}

/// For instance a proxy that keeps reading after its browser has disconnected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_always_read_ends_at_its_maximum_age() {
    let sse = sse_with(options("MaxAge = \"2s\"\nHeartbeatInterval = \"1s\"\nRetry = \"2s\""));
    let server = Server::start(&sse, public(&sse, flood)).await;
    let readers = (0..10).map(|_| {
        let address = server.address;
        tokio::spawn(async move {
            let start = Instant::now();
            let mut stream = testing::connect(address, "/s").await.expect("a stream");
            let mut read = 0;
            loop {
                let event = stream.next().await.expect("in time").expect("an event");
                if event.event == "hero.close" {
                    assert!(event.data.contains("\"max_age\""), "{}", event.data);
                    assert!(stream.next().await.expect("in time").is_none());
                    return (start.elapsed(), read);
                }
                read += 1;
            }
        })
    });
    let mut ages = Vec::new();
    for reader in readers.collect::<Vec<_>>() {
        let (age, read) = reader.await.expect("no panic");
        assert!(read > 100, "{read}");
        ages.push(age);
    }
    let seconds = |age: &Duration| age.as_secs_f64();
    assert!(ages.iter().map(seconds).all(|age| (1.6..4.0).contains(&age)), "{ages:?}");
    assert!(ages.iter().max() > ages.iter().min(), "{ages:?}");
    assert_eq!(sse.connections().closed(CloseReason::MaxAge), 10);
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn maximum_ages_of_streams_that_began_together_are_spread_over_the_last_fifth() {
    let sse =
        sse_with(options("MaxAge = \"100s\"\nMaxConnections = 1000\nHeartbeatInterval = \"off\""));
    let app = public(&sse, || burst(0));
    let start = tokio::time::Instant::now();
    let readers = (0..400).map(|_| {
        let open = testing::open(&app, "/s");
        tokio::spawn(async move {
            let stream = open.await.expect("a stream");
            stream.timeout(Duration::from_secs(101)).read_to_end().await.expect("a clean end");
            start.elapsed().as_secs_f64()
        })
    });
    let mut ages = Vec::new();
    for reader in readers.collect::<Vec<_>>() {
        ages.push(reader.await.expect("no panic"));
    }
    assert!(ages.iter().all(|age| (80.0..=100.1).contains(age)), "{ages:?}");
    // A hundred are expected in each quarter of the last fifth. Nine standard deviations are no coincidence.
    for quarter in 0..4 {
        let from = 80.0 + 5.0 * f64::from(quarter);
        let count = ages.iter().filter(|age| (from..from + 5.0).contains(*age)).count();
        assert!((25..=175).contains(&count), "{count} from {from} s on");
    }
}
