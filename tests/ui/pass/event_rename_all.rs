//! `rename_all` makes events' names of variants' names in serde's cases.
#![deny(warnings)]

use hero_sse::prelude::*;
use hero_sse::testing::frame;

macro_rules! cases {
    ($($name:ident $case:literal $one:literal $two:literal,)*) => {
        $(
            #[derive(SseEvent)]
            #[sse(rename_all = $case)]
            enum $name {
                LogLine,
                Http2Get,
                #[sse(event = "As-It_Is")]
                Own,
            }
        )*

        fn main() {
            $(
                for (event, name) in [($name::LogLine, $one), ($name::Http2Get, $two), ($name::Own, "As-It_Is")] {
                    assert_eq!(frame(&event).unwrap(), format!("event: {name}\ndata: null\n\n"));
                }
            )*
        }
    };
}

cases! {
    Kebab "kebab-case" "log-line" "http2-get",
    Snake "snake_case" "log_line" "http2_get",
    Camel "camelCase" "logLine" "http2Get",
    Pascal "PascalCase" "LogLine" "Http2Get",
    Screaming "SCREAMING_SNAKE_CASE" "LOG_LINE" "HTTP2_GET",
    Scream "SCREAMING-KEBAB-CASE" "LOG-LINE" "HTTP2-GET",
    Lower "lowercase" "logline" "http2get",
    Upper "UPPERCASE" "LOGLINE" "HTTP2GET",
}
