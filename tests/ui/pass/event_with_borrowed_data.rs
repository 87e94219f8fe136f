//! Events may borrow or share their data.
#![deny(warnings)]

use std::borrow::Cow;
use std::sync::Arc;

use hero_sse::prelude::*;
use serde::Serialize;
use hero_sse::testing::frame;

#[derive(Serialize, SseEvent)]
struct Note<'a> {
    #[sse(id)]
    id: &'a str,
    text: Cow<'a, str>,
    #[serde(skip)]
    #[sse(key)]
    about: &'a dyn std::fmt::Display,
}

#[derive(SseEvent)]
enum Build<'a, 'b: 'a> {
    Queued {
        by: &'a str,
        with: &'b [u8],
    },
    #[sse(data = "text")]
    Log(&'a str),
    Many(&'a [&'b str]),
    Owned(Box<str>),
    Shared {
        #[serde(serialize_with = "shared")]
        text: Arc<str>,
    },
}

fn shared<S: serde::Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

#[derive(SseEvent)]
#[sse(event = "static", data = "text")]
struct Static(&'static str);

fn main() {
    let text = "local".to_owned();
    let note = Note { id: &text, text: Cow::Borrowed(&text), about: &7 };
    assert_eq!(
        frame(&note).unwrap(),
        "event: note\nid: local\ndata: {\"id\":\"local\",\"text\":\"local\"}\n\n"
    );
    assert_eq!(note.key().as_deref(), Some("7"));
    for (event, data) in [
        (
            Build::Queued { by: &text, with: &[1] },
            r#"event: queued
data: {"by":"local","with":[1]}"#,
        ),
        (Build::Log(&text), "event: log\ndata: local"),
        (Build::Many(&[&text]), "event: many\ndata: [\"local\"]"),
        (Build::Owned(text.as_str().into()), "event: owned\ndata: \"local\""),
        (Build::Shared { text: text.as_str().into() }, "event: shared\ndata: {\"text\":\"local\"}"),
    ] {
        assert_eq!(frame(&event).unwrap(), format!("{data}\n\n"));
    }
    assert_eq!(frame(&Static("s")).unwrap(), "event: static\ndata: s\n\n");
}
