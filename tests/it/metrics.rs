//! Metrics agree with the registry.

use axum::Router;
use futures_util::{StreamExt, stream};
use hero_sse::connections::ConnectionFilter;
use hero_sse::{CloseReason, Event, SseContext};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::support::testing;
use crate::support::{burst, options, sse_with};

/// Metrics by name and labels. Taking a snapshot resets the values, so it is taken once.
struct Metrics(Vec<(String, DebugValue)>);

impl Metrics {
    fn of(snapshotter: &Snapshotter) -> Self {
        let row = |(key, _, _, value): (metrics_util::CompositeKey, _, _, _)| {
            let labels =
                key.key().labels().map(|label| format!("{}={}", label.key(), label.value()));
            let labels: Vec<_> = labels.collect();
            (format!("{} {}", key.key().name(), labels.join(" ")), value)
        };
        Self(snapshotter.snapshot().into_vec().into_iter().map(row).collect())
    }

    fn count(&self, metric: &str) -> u64 {
        match self.0.iter().find(|(name, _)| name == metric) {
            Some((_, DebugValue::Counter(count))) => *count,
            Some((_, DebugValue::Gauge(value))) => value.0 as u64,
            Some((_, DebugValue::Histogram(values))) => values.len() as u64,
            None => 0,
        }
    }
}

#[tokio::test]
async fn metrics_and_registry_count_the_same_streams_and_ends() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let sse = sse_with(options("MaxConnections = 3"));
    let route = |path: &str, events: fn() -> Vec<Result<Event, String>>, open: bool| {
        let tail = move || stream::pending().take(usize::from(open));
        let handler = async move || stream::iter(events()).chain(tail());
        sse.endpoint(path).public().handler(handler).expect("a route")
    };
    let app = Router::new()
        .merge(route("/ends", || vec![Ok(Event::text("x"))], false))
        .merge(route("/last", || vec![Ok(Event::text("x").last())], true))
        .merge(route("/fails", || vec![Err("no".to_owned())], true))
        .merge(route("/open/{id}", Vec::new, true))
        .merge(sse.endpoint("/closed").handler(async || burst(1)).expect("a route"));
    for path in ["/ends", "/last", "/fails", "/ends"] {
        let mut stream = testing::open(&app, path).await.expect("a stream");
        while stream.next().await.expect("in time").is_some() {}
    }
    testing::open(&app, "/closed").await.expect_err("401");
    let open = |n: u8| testing::open(&app, &format!("/open/{n}")).into_future();
    let kept =
        (open(1).await.expect("one"), open(2).await.expect("two"), open(3).await.expect("three"));
    let mut rejected = open(4).await.expect("a closing event");
    while rejected.next().await.expect("in time").is_some() {}
    drop(kept.0);
    let sent = sse.connections().send(&ConnectionFilter::all(), Event::text("x"));
    assert_eq!(sent.expect("a good event").accepted, 2);

    let metrics = Metrics::of(&snapshotter);
    let paths = ["/ends", "/last", "/fails", "/closed", "/open/{id}"];
    for reason in CloseReason::ALL {
        let row = |path| format!("hero_sse_streams_closed_total path={path} reason={reason}");
        let counted: u64 = paths.iter().map(|path| metrics.count(&row(path))).sum();
        assert_eq!(counted, sse.connections().closed(*reason), "{reason}");
    }
    for (metric, count) in [
        ("hero_sse_streams path=/open/{id}", 2),
        ("hero_sse_streams path=/ends", 0),
        ("hero_sse_streams_opened_total path=/open/{id}", 3),
        ("hero_sse_streams_opened_total path=/ends", 2),
        ("hero_sse_streams_closed_total path=/ends reason=ended", 2),
        ("hero_sse_streams_closed_total path=/fails reason=stream_error", 1),
        ("hero_sse_streams_closed_total path=/open/{id} reason=client_gone", 1),
        ("hero_sse_streams_closed_total path=/open/{id} reason=over_limit", 1),
        ("hero_sse_stream_seconds path=/ends reason=ended", 2),
        ("hero_sse_turned_away_total path=/open/{id} limit=all connections", 1),
        ("hero_sse_refused_total path=/closed status=401", 1),
        ("hero_sse_sent_total outcome=accepted", 2),
        ("hero_sse_sent_total outcome=full", 0),
    ] {
        assert_eq!(metrics.count(metric), count, "{metric}\n{:?}", metrics.0);
    }
}

/// Clients must not be able to make up labels.
#[tokio::test]
async fn a_fallback_counts_under_one_path_whatever_clients_request() {
    let sse = sse_with(options(""));
    let app: Router = Router::new()
        .fallback(async |sse: SseContext| sse.public().stream(burst(1)).await)
        .layer(axum::Extension(sse.clone()));
    let mut kept = Vec::new();
    for n in 0..3 {
        kept.push(testing::open(&app, &format!("/made-up-{n}")).await.expect("a stream"));
    }
    let paths = sse.connections().snapshot().into_iter().map(|connection| connection.path);
    assert_eq!(paths.collect::<Vec<_>>(), ["/{*path}"; 3]);
}

#[tokio::test(start_paused = true)]
async fn dropped_calls_of_hooks_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let sse = hero_sse::HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .on_open(async |_| std::future::pending().await)
        .on_close(async |_| ())
        .build()
        .expect("a server");
    let app: Router = sse.endpoint("/s").public().handler(async || burst(1)).expect("a route");
    for _ in 0..3 {
        drop(testing::open(&app, "/s").await.expect("a stream"));
    }
    sse.connections().hooks_finished().await;
    let metrics = Metrics::of(&snapshotter);
    let count = |labels| metrics.count(&format!("hero_sse_hook_calls_dropped_total {labels}"));
    assert_eq!((count("hook=open cause=timeout"), count("hook=close cause=timeout")), (3, 0));
    assert_eq!(sse.connections().dropped_hook_calls(), 3);
}
