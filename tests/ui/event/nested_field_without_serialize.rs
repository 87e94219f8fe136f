use hero_sse::prelude::*;

struct LogLine;

#[derive(SseEvent)]
enum Build {
    Log { lines: Vec<LogLine> },
}

fn main() {}
