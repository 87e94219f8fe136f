use hero_sse::prelude::*;

#[derive(SseEvent)]
#[serde(rename_all_field = "camelCase")]
enum Build {
    Queued { job_number: u64 },
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Build>();
}
