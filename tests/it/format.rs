//! Everything that an `Event` can say, read back by readers that know only the specification (WHATWG HTML 9.2.6): one
//! written here line by line after its text, and two crates.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use axum::Router;
use futures_util::stream;
use hero_sse::event::{EventName, FrameWriter, InvalidEvent};
use hero_sse::options::Overflow;
use hero_sse::{CloseReason, Event, HeroSse, SseEvent, SseOptions};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::testing::{self, frame};
use crate::support::{Log, Server, sse_with};

/// An event that a browser dispatches.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Dispatched {
    event: String,
    data: String,
    last_event_id: String,
}

/// What a reader has found in a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    events: Vec<Dispatched>,
    comments: Vec<String>,
    retry: Option<u64>,
    last_event_id: String,
}

/// Reads a stream as the specification says.
fn read(stream: &str) -> Found {
    let (mut found, mut event, mut data, mut id) =
        (Found::default(), String::new(), String::new(), String::new());
    let mut rest = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    while let Some(end) = rest.find(['\r', '\n']) {
        let line = &rest[..end];
        rest = rest[end..].strip_prefix("\r\n").unwrap_or(&rest[end + 1..]);
        if line.is_empty() {
            found.last_event_id.clone_from(&id);
            let (event, mut data) = (std::mem::take(&mut event), std::mem::take(&mut data));
            if data.is_empty() {
                continue;
            }
            if data.ends_with('\n') {
                data.pop();
            }
            let event = if event.is_empty() { "message".to_owned() } else { event };
            found.events.push(Dispatched { event, data, last_event_id: id.clone() });
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => found.comments.push(value.to_owned()),
            "event" => value.clone_into(&mut event),
            "data" => data += &format!("{value}\n"),
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                found.retry = value.parse().ok().or(found.retry);
            }
            _ => {}
        }
    }
    found
}

/// The parts of an event, before the library has seen them.
#[derive(Clone, Debug)]
struct Parts {
    comment: Option<String>,
    /// `None`: the endpoint's. `Some(None)`: unnamed.
    name: Option<Option<&'static str>>,
    /// An empty one clears the client's cursor.
    id: Option<&'static str>,
    retry: Option<u64>,
    data: Option<Data>,
}

#[derive(Clone, Debug)]
enum Data {
    Text(String),
    Json(String),
}

impl Parts {
    /// `None`: there is no such event.
    fn event(&self) -> Option<Event> {
        let mut event = match (&self.data, &self.comment, self.name, self.id, self.retry) {
            (Some(Data::Text(text)), ..) => Event::text(text.clone()),
            (Some(Data::Json(text)), ..) => Event::json(text).expect("JSON"),
            (None, Some(comment), ..) => Event::comment(comment.clone()),
            (None, _, Some(Some(name)), ..) => Event::empty(name).expect("a name"),
            (None, _, _, Some(""), _) => Event::comment("").clear_id(),
            (None, _, _, Some(id), _) => Event::id_only(id).expect("an id"),
            (None, _, _, _, Some(retry)) => {
                Event::retry(Duration::from_millis(retry)).expect("a time")
            }
            (None, None, _, None, None) => return None,
        };
        if let Some(comment) = &self.comment {
            event = event.with_comment(comment.clone());
        }
        event = match self.name {
            Some(Some(name)) => event.named(name).expect("a name"),
            Some(None) => event.unnamed(),
            None => event,
        };
        event = match self.id {
            Some("") => event.clear_id(),
            Some(id) => event.with_id(id).expect("an id"),
            None => event,
        };
        if let Some(retry) = self.retry {
            event = event.with_retry(Duration::from_millis(retry)).expect("a time");
        }
        Some(event)
    }

    /// Adds what a client must find of this event.
    fn expect(&self, endpoint: Option<&str>, found: &mut Found) {
        match (self, &self.comment) {
            (_, Some(comment)) => found.comments.extend(lines(comment)),
            // No event is nothing but an empty id.
            (Self { data: None, name: None | Some(None), id: Some(""), .. }, None) => {
                found.comments.push(String::new());
            }
            _ => {}
        }
        found.retry = self.retry.or(found.retry);
        if let Some(id) = self.id {
            id.clone_into(&mut found.last_event_id);
        }
        let data = match &self.data {
            Some(Data::Text(text)) => lines(text).join("\n"),
            Some(Data::Json(text)) => serde_json::to_string(text).expect("JSON"),
            None => return,
        };
        let name = self.name.unwrap_or(endpoint).unwrap_or("message");
        let last_event_id = found.last_event_id.clone();
        found.events.push(Dispatched { event: name.to_owned(), data, last_event_id });
    }
}

/// The lines of a text, whatever ends them.
fn lines(text: &str) -> Vec<String> {
    text.replace("\r\n", "\n").replace('\r', "\n").split('\n').map(str::to_owned).collect()
}

fn text() -> impl Strategy<Value = String> {
    const FRAGMENTS: &[&str] = &[
        "",
        "a",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\0",
        "\u{feff}",
        "\u{2028}",
        "\u{2029}",
        "\u{85}",
        "\u{b}",
        "\u{c}",
        "\u{7f}",
        " ",
        "\t",
        ":",
        "é",
        "😀",
        "data: x",
        "event: hero.close",
        "id: 7",
        "retry: 1",
        "data",
        "\ndata: x\n\n",
        "[DONE]",
    ];
    prop_oneof![
        8 => prop::collection::vec(prop::sample::select(FRAGMENTS), 0..8)
            .prop_map(|fragments| fragments.concat()),
        1 => any::<String>(),
    ]
}

fn parts() -> impl Strategy<Value = Parts> {
    let name =
        prop::sample::select(&["x", " x", "x ", ":", "data", "message", "\u{feff}", "é"][..]);
    let id = prop::sample::select(&["", "7", "0", "a b", "é", ":x", "\u{feff}7", "id: 8"][..]);
    let data = prop_oneof![text().prop_map(Data::Text), text().prop_map(Data::Json)];
    let parts = (
        prop::option::weighted(0.3, text()),
        prop::option::of(prop::option::of(name)),
        prop::option::weighted(0.3, id),
        prop::option::weighted(0.3, 500_u64..=86_400_000),
        prop::option::weighted(0.6, data),
    );
    let parts =
        parts.prop_map(|(comment, name, id, retry, data)| Parts { comment, name, id, retry, data });
    parts.prop_filter("an event", |parts| parts.event().is_some())
}

proptest! {
    /// Whatever the texts are, a client finds each part where it was put, and nothing else.
    #[test]
    fn a_client_finds_what_the_events_say(all in prop::collection::vec(parts(), 0..12)) {
        let (mut wire, mut expected) = (String::new(), Found::default());
        for parts in &all {
            wire += &frame(&parts.event().expect("an event")).expect("a frame");
            parts.expect(None, &mut expected);
        }
        // An id counts from the blank line of its block on. All ids here have one.
        prop_assert_eq!(&read(&wire), &expected, "{:?}", wire);
        prop_assert!(!wire.contains('\r'), "some parsers know no CR: {wire:?}");

        // A heartbeat between two events changes neither.
        for heartbeat in [":\n\n", ":\n"] {
            let frames = all.iter().map(|parts| frame(&parts.event().expect("an event")).expect("a frame"));
            let wire: String = frames.flat_map(|frame| [frame, heartbeat.to_owned()]).collect();
            let mut found = read(&wire);
            found.comments.retain(|comment| !comment.is_empty());
            let mut expected = expected.clone();
            expected.comments.retain(|comment| !comment.is_empty());
            prop_assert_eq!(found, expected, "{:?}", wire);
        }
    }

    /// Two crates read the same.
    #[test]
    fn other_parsers_find_the_same(all in prop::collection::vec(parts(), 0..12)) {
        let all: Vec<_> = all.iter().map(|parts| (parts, parts.event().expect("an event"))).collect();
        let wire: String = all.iter().map(|(_, event)| frame(event).expect("a frame")).collect();
        let expected: Vec<_> = read(&wire).events.into_iter().map(|event| (event.event, event.data)).collect();

        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let bytes = stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from(wire.clone()))]);
        let blocks: Vec<_> = runtime.block_on(futures_util::StreamExt::collect(sse_stream::SseByteStream::new(bytes)));
        let mut found = Vec::new();
        for block in blocks {
            let block: sse_stream::Sse = block.expect("a block");
            if let Some(data) = block.data {
                found.push((block.event.filter(|name| !name.is_empty()).unwrap_or("message".into()), data));
            }
        }
        prop_assert_eq!(&found, &expected, "{:?}", wire);
    }
}

/// An application whose stream is these events.
fn app(sse: &HeroSse, name: Option<&'static str>, events: Vec<Event>) -> Router {
    let endpoint = sse.endpoint("/s").public();
    let endpoint = if let Some(name) = name { endpoint.event(name) } else { endpoint };
    endpoint.handler(async move || stream::iter(events.clone())).expect("a route")
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().expect("a runtime").block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The same through an endpoint, with and without a name of its own, and with every kind of buffer.
    #[test]
    fn an_endpoint_sends_what_the_events_say(
        all in prop::collection::vec(parts(), 0..12),
        name in prop::option::of(Just("declared")),
        buffer in prop::option::of(prop::sample::select(&[Overflow::Disconnect, Overflow::DropOldest][..])),
    ) {
        let mut expected = Found::default();
        all.iter().for_each(|parts| parts.expect(name, &mut expected));
        let events = all.iter().map(|parts| parts.event().expect("an event")).collect();
        let options = SseOptions::default();
        let options = match buffer {
            Some(overflow) => options.buffer(64).overflow(overflow),
            None => options,
        };
        let raw = paused(async {
            let app = app(&sse_with(options), name, events);
            let mut stream = testing::open(&app, "/s").await.expect("a stream");
            stream.read_to_end().await.expect("a clean end");
            assert_eq!(stream.close_reason(), Some(CloseReason::Ended));
            stream.raw()
        });
        let mut found = read(&raw);
        found.events.retain(|event| !event.event.starts_with("hero."));
        prop_assert_eq!(found.events, expected.events, "{:?}", raw);
        prop_assert_eq!(found.comments, expected.comments, "{:?}", raw);
        prop_assert_eq!(found.last_event_id, expected.last_event_id, "{:?}", raw);
    }

    /// A slow client misses no event because of comments, and what it misses is counted without them.
    #[test]
    fn events_without_data_displace_none(
        all in prop::collection::vec(parts(), 0..40),
        buffer in 1_usize..8,
        overflow in prop::sample::select(&[Overflow::DropOldest, Overflow::Latest][..]),
    ) {
        let events: Vec<_> = all.iter().map(|parts| parts.event().expect("an event").with_key("k")).collect();
        let raw = paused(async {
            let app = app(&sse_with(SseOptions::default().buffer(buffer).overflow(overflow)), None, events);
            let mut stream = testing::open(&app, "/s").await.expect("a stream");
            // The buffer fills before the first read.
            tokio::time::sleep(Duration::from_millis(1)).await;
            stream.read_to_end().await.expect("a clean end");
            stream.raw()
        });
        let mut expected = Found::default();
        all.iter().for_each(|parts| parts.expect(None, &mut expected));
        let pairs = |events: &[Dispatched]| -> Vec<_> {
            let own = events.iter().filter(|event| !event.event.starts_with("hero."));
            own.map(|event| (event.event.clone(), event.data.clone())).collect()
        };
        let found = read(&raw);
        let gap = found.events.iter().filter(|event| event.event == "hero.gap");
        let missed: u64 = gap
            .map(|gap| serde_json::from_str::<Value>(&gap.data).expect("JSON")["missed"].as_u64().expect("a count"))
            .sum();
        let names: HashSet<_> =
            all.iter().filter(|parts| parts.data.is_some()).map(|parts| parts.name.flatten()).collect();
        let (sent, all) = (pairs(&found.events), pairs(&expected.events));
        match overflow {
            Overflow::DropOldest => {
                prop_assert_eq!(sent.len() as u64 + missed, all.len() as u64, "{:?}", raw);
                prop_assert_eq!(&sent, &all[all.len() - sent.len()..], "{:?}", raw);
                prop_assert!(sent.len() >= all.len().min(buffer), "{:?}", raw);
            }
            _ => {
                let newest: HashMap<_, _> = all.iter().cloned().collect();
                let sent: HashMap<_, _> = sent.into_iter().collect();
                let lost = newest.iter().filter(|(name, data)| sent.get(*name) != Some(*data)).count();
                prop_assert_eq!(lost as u64, missed.min(lost as u64), "{:?}", raw);
                // For a client, an event named `message` is as one without a name. For the buffer it is not.
                prop_assert!(names.len() > buffer || lost == 0, "{:?}", raw);
            }
        }
    }
}

/// A megabyte of comment, with line breaks that could end a block, is one comment for the client.
#[tokio::test]
async fn a_comment_of_a_megabyte_arrives_whole_over_a_socket() {
    let text = "data: x\n\r\n\revent: hero.close\r".repeat(1 << 15);
    let sse = sse_with(SseOptions::default());
    let comment = Event::comment(text.clone());
    let server = Server::start(&sse, app(&sse, None, vec![comment, Event::text("end")])).await;
    let mut stream = testing::connect(server.address, "/s").await.expect("a stream");
    let events = stream.read_to_end().await.expect("a clean end");
    let names: Vec<_> = events.iter().map(|event| (&*event.event, &*event.data)).collect();
    assert_eq!(names[0], ("message", "end"));
    assert_eq!((names.len(), names[1].0), (2, "hero.close"));
    assert!(stream.comments() == lines(&text));
    server.stop().await;
}

/// What only `FrameWriter` can be made to do: no order and no repetition breaks a frame out of its block.
#[test]
fn a_writer_that_repeats_itself_stays_within_one_block() {
    struct Odd(Vec<u8>);
    impl SseEvent for Odd {
        fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
            for step in &self.0 {
                match step {
                    0 => frame.comment("c\n\nd"),
                    1 => frame.event(&EventName::new("x")?),
                    2 => frame.unnamed(),
                    3 => frame.id(7)?,
                    4 => frame.retry(Duration::from_secs(1))?,
                    5 => frame.text("t\n\nu"),
                    6 => frame.json(&1)?,
                    _ => frame.without_data(),
                }
            }
            Ok(())
        }
    }
    let steps =
        || (0..8_u8).flat_map(|a| (0..8).flat_map(move |b| (0..8).map(move |c| vec![a, b, c])));
    for steps in steps() {
        let has_data = steps.iter().any(|step| matches!(step, 5 | 6)) || !steps.contains(&7);
        let wire = frame(&Odd(steps.clone())).expect("a frame") + "data: next\n\n";
        let found = read(&wire);
        assert_eq!(found.events.len(), 1 + usize::from(has_data), "{steps:?}: {wire:?}");
        let next = found.events.last().expect("the next event");
        assert_eq!((&*next.event, &*next.data), ("message", "next"), "{steps:?}: {wire:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_last_event_without_data_ends_the_stream_for_every_client() {
    for (last, id) in [
        (Event::comment("bye").last(), "hero.end"),
        (Event::retry(Duration::from_secs(9)).expect("a time").last(), "hero.end"),
        (Event::id_only(7).expect("an id").last(), "7;hero.end"),
        (Event::empty("done").expect("a name").last(), "hero.end"),
        (Event::empty("done").expect("a name").with_id(7).expect("an id").last(), "7;hero.end"),
    ] {
        let sse = sse_with(SseOptions::default());
        let app = app(&sse, Some("declared"), vec![Event::text("x"), last]);
        let mut stream = testing::open(&app, "/s").await.expect("a stream");
        let events = stream.read_to_end().await.expect("a clean end");
        let found: Vec<_> =
            events.iter().map(|event| (&*event.event, event.id.as_deref())).collect();
        let expected = [("declared", None), ("hero.cursor", Some(id)), ("hero.close", None)];
        assert_eq!(found, expected, "{}", stream.raw());
        assert_eq!(stream.close_reason(), Some(CloseReason::LastEvent));
        let again = testing::open(&app, "/s").last_event_id(id).await.expect_err("no stream");
        assert_eq!(again.status, Some(axum::http::StatusCode::NO_CONTENT));
    }
}

#[tokio::test(start_paused = true)]
async fn the_readers_cursor_moves_with_blocks_without_data() {
    let events = [
        Event::text("a").with_id(1).expect("an id"),
        Event::id_only(2).expect("an id"),
        Event::text("b").with_retry(Duration::from_secs(7)).expect("a time"),
    ];
    let app = app(&sse_with(SseOptions::default()), None, events.into());
    let mut stream = hero_sse::testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(stream.last_event_id(), None);
    let first = stream.next().await.expect("in time").expect("an event");
    assert_eq!((first.id.as_deref(), stream.last_event_id()), (Some("1"), Some("1")));
    let second = stream.next().await.expect("in time").expect("an event");
    assert_eq!((second.id, stream.last_event_id()), (None, Some("2")));
    assert_eq!(second.retry, Some(Duration::from_secs(7)));
}

/// An `EventSource` would pass it to `onerror`.
#[tokio::test(start_paused = true)]
async fn a_name_of_an_event_source_ends_a_native_stream_with_the_cure_in_the_log() {
    let (log, _guard) = Log::everything();
    let sse = sse_with(SseOptions::default());
    let error = Event::text("x").named("error").expect("a name");
    let app = app(&sse, None, vec![Event::text("a"), error]);
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    stream.read_to_end().await.expect("a clean end");
    assert_eq!(stream.close_reason(), Some(CloseReason::StreamError));
    assert!(!stream.raw().contains("event: error"), "{}", stream.raw());
    let log = log.text();
    assert!(log.contains("another name") && log.contains("profile = "), "{log}");
}
