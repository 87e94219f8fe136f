//! The library has the same rules as the macros: one table, which a test in `hero-sse-macros/src/lib.rs` reads, too.

use std::time::Duration;

use futures_util::stream;
use hero_sse::auth::Permission;
use hero_sse::event::EventName;
use hero_sse::options::parse_duration;
use hero_sse::{Event, SseOptions};
use serde_json::Value;

use crate::support::sse_with;

/// Returns whether the builder accepts this path.
fn maps(path: &str) -> bool {
    let open = || async { stream::pending::<Event>() };
    sse_with(SseOptions::default()).endpoint(path).handler::<_, _, ()>(open).is_ok()
}

/// Returns whether the builder accepts this permission on a path with captures.
fn requires(permission: &str) -> bool {
    let endpoint = sse_with(SseOptions::default());
    let endpoint = endpoint.endpoint("/a/{b}/{c}/{*d}").permission(permission.to_owned());
    endpoint.handler::<_, _, ()>(|| async { stream::pending::<Event>() }).is_ok()
}

#[test]
fn the_rules_are_those_of_the_macros() {
    let rules: Value = serde_json::from_str(include_str!("../rules.json")).expect("JSON");
    let mut drifts = Vec::new();
    for (rule, table) in rules.as_object().expect("rules") {
        for (text, verdict) in table.as_object().expect("a table") {
            let accepted = match rule.as_str() {
                "durations" => {
                    let expected = verdict.as_u64().map(|n| Some(Duration::from_millis(n)));
                    let read = parse_duration(text).ok();
                    if read != expected {
                        drifts.push(format!("{rule} {text:?}: {verdict}, but read: {read:?}"));
                    }
                    continue;
                }
                "retries" => {
                    SseOptions::from_toml(&format!("[SseOptions]\nRetry = {text:?}")).is_ok()
                }
                "events" => EventName::new(text.clone()).is_ok(),
                "permissions" => Permission::new(text.clone()).is_ok(),
                "permissions of /a/{b}/{c}/{*d}" => requires(text),
                "paths" => maps(text),
                other => panic!("an unknown rule: {other}"),
            };
            if Some(accepted) != verdict.as_bool() {
                drifts.push(format!("{rule} {text:?}: {verdict}, but accepted: {accepted}"));
            }
        }
    }
    assert_eq!(drifts, Vec::<String>::new());
}
