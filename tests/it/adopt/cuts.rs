//! Property: an adopted stream says what the upstream said, wherever its pieces end. Another crate's parser reads both.

use std::convert::Infallible;

use bytes::BytesMut;
use futures_util::{FutureExt, StreamExt, stream};
use hero_sse::adopt;
use proptest::prelude::*;
use russe::Event;
use tokio_util::codec::Decoder;

/// What `russe` reads: comments dropped, and reconnection times within our limits.
fn read(text: &[u8]) -> Vec<(Option<String>, Option<String>, String)> {
    let (mut decoder, mut input) = (russe::Decoder::default(), BytesMut::from(text));
    let mut events = Vec::new();
    while let Some(event) = decoder.decode(&mut input).expect("an event stream") {
        if let Event::Message(message) = event {
            let name = message.event.map(|name| name.to_string()).filter(|name| !name.is_empty());
            let id = message.id.map(|id| id.to_string());
            if name.is_some() || id.is_some() || !message.data.is_empty() {
                events.push((name, id, message.data.to_string()));
            }
        }
    }
    events
}

/// Whole blocks with every line ending.
fn upstream() -> impl Strategy<Value = String> {
    let text = "[a-c:\u{e9}\u{1f980}][a-c: \u{e9}]{0,5}[a-c]";
    let line = prop_oneof![
        3 => text.prop_map(|text| format!("data: {text}")),
        1 => text.prop_map(|text| format!("data:{text}")),
        1 => text.prop_map(|text| format!("id: {text}")),
        1 => Just("id:".to_owned()),
        1 => text.prop_map(|text| format!("event: {text}")),
        1 => text.prop_map(|text| format!(": {text}")),
        1 => "retry: [0-9]{1,9}".prop_map(|line| line),
        1 => Just("other: x".to_owned()),
        2 => Just(String::new()),
    ];
    let ending = prop::sample::select(vec!["\n", "\r", "\r\n"]);
    prop::collection::vec((line, ending), 0..40).prop_map(|lines| {
        let line = |(line, ending): (String, &str)| line + ending;
        lines.into_iter().map(line).chain(["\n\n\n".to_owned()]).collect()
    })
}

/// Our bytes for an upstream that arrives in these pieces.
fn passed_on(pieces: Vec<Vec<u8>>) -> String {
    let events = adopt::stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)));
    let frames = events.map(|event| {
        let event = event.expect("whole blocks");
        hero_sse::testing::frame(&event).expect("a frame")
    });
    frames.collect::<String>().now_or_never().expect("ready")
}

proptest! {
    #[test]
    fn any_pieces_say_what_the_upstream_said(
        text in upstream(), cuts in prop::collection::vec(1usize..12, 1..9),
    ) {
        let whole = passed_on(vec![text.clone().into_bytes()]);
        prop_assert_eq!(read(whole.as_bytes()), read(text.as_bytes()), "{:?}", whole);
        let mut rest = text.as_bytes();
        let mut pieces = Vec::new();
        for &cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece.to_vec());
            rest = after;
        }
        prop_assert_eq!(passed_on(pieces), whole);
    }
}
