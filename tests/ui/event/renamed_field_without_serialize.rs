use hero_sse::prelude::*;

struct LogLine;

#[derive(SseEvent)]
enum Build {
    Log {
        #[serde(rename = "text")]
        line: LogLine,
    },
}

fn main() {}
