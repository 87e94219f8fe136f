use hero_sse::prelude::*;

struct LogLine {
    _text: String,
}

#[derive(SseEvent)]
enum Build {
    Log(LogLine),
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Build>();
}
