use serde_json::Value;

use super::settings::{ENDPOINT_SETTINGS, SERVER_SETTINGS, Setting};
use super::*;

fn defaults() -> Policy {
    let none = &PolicyOverrides::NONE;
    let layers = Layers { options: none, declaration: none, table: none };
    Policy::resolve(layers, Method::Get, StreamKind::Private)
}

/// The value of the options that a row's text stands for; `None` if the default cannot be written.
fn written(default: &str) -> Option<Value> {
    let value = serde_json::from_str(default).unwrap_or_else(|_| Value::from(default));
    (default != "none").then_some(value)
}

/// Documentation shows the text, and code has the value.
#[test]
fn the_text_of_each_default_stands_for_its_value() {
    let debug = |value: &dyn std::fmt::Debug| format!("{value:?}");
    let mut server = ServerSettings::default();
    for Setting { key, default, read, .. } in SERVER_SETTINGS {
        if let Some(value) = written(default) {
            read(&mut server, &value).expect(key);
        }
        assert_eq!(debug(&server), debug(&ServerSettings::default()), "{key}");
    }
    for (method, kind) in [
        (Method::Get, StreamKind::Private),
        (Method::Get, StreamKind::Subscription),
        (Method::Post, StreamKind::Private),
        (Method::Post, StreamKind::Subscription),
    ] {
        let (mut texts, none) = (PolicyOverrides::NONE, PolicyOverrides::NONE);
        for Setting { key, default, subscription, plain, posted, read, .. } in ENDPOINT_SETTINGS {
            let subscription = subscription.filter(|_| kind == StreamKind::Subscription);
            // The profile of a `POST` is plain.
            let posted = posted.or(*plain).filter(|_| method == Method::Post);
            let value = written(posted.or(subscription).unwrap_or(default)).expect("a text");
            read(&mut texts, &value).expect(key);
        }
        let resolve = |options| {
            let layers = Layers { options, declaration: &none, table: &none };
            Policy::resolve(layers, method, kind)
        };
        assert_eq!(resolve(&texts), resolve(&none), "{method:?} {kind:?}");
    }
}

#[test]
fn no_default_is_out_of_bounds() {
    let server = ServerSettings::default();
    assert_eq!(Setting::all_faults(SERVER_SETTINGS, &server).count(), 0);
    assert_eq!(defaults().fault(), None);
}

/// Users rely on these defaults, so a change of one is a decision: change it here, too.
#[test]
fn the_defaults_are_these() {
    let seconds = Duration::from_secs;
    let policy = defaults();
    assert_eq!(policy.profile, Profile::Native);
    assert!(policy.clean_end && policy.direct_events);
    assert_eq!((policy.heartbeat, policy.heartbeat_event), (Some(seconds(15)), false));
    assert_eq!((policy.write_timeout, policy.retry), (Some(seconds(5)), seconds(3)));
    assert_eq!((policy.max_age, policy.reauthorize), (None, None));
    assert_eq!((policy.max_connections, policy.max_per_principal), (None, 8));
    assert_eq!((policy.max_per_address, policy.over_limit), (None, OverLimit::Retry));
    assert_eq!(policy.token_sources, TokenSources::ALL);
    assert_eq!((policy.buffer, policy.overflow), (None, Overflow::Disconnect));
    assert_eq!(policy.drain_jitter, Some(seconds(5)));
    let server = ServerSettings::default();
    assert!(server.enabled && server.redact_query && !server.cors_credentials);
    assert_eq!(server.peer_timeout, Some(seconds(60)));
    assert_eq!((server.drain_timeout, server.drain_delay), (Some(seconds(5)), None));
    assert_eq!(server.authorizer_timeout, Some(seconds(5)));
    assert_eq!((server.max_connections, server.connects_per_minute), (10_000, Some(300)));
    assert_eq!(server.failed_attempts_per_minute, Some(60));
    assert_eq!(server.token_cookie, None);
}

#[test]
fn keys_are_unique_where_they_may_stand() {
    let server = SERVER_SETTINGS.iter().map(|row| row.key);
    let general = ENDPOINT_SETTINGS.iter().filter(|row| !row.method.is_empty()).map(|row| row.key);
    for keys in [server.chain(general).collect(), ENDPOINT_SETTINGS.iter().map(|r| r.key).collect()]
    {
        let (all, mut unique): (Vec<_>, Vec<_>) = (keys, Vec::new());
        unique.clone_from(&all);
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(all.len(), unique.len(), "{all:?}");
    }
}

#[test]
fn reconnection_times_are_spread() {
    let policy = Policy { retry: Duration::from_secs(2), ..defaults() };
    let range = |time: &dyn Fn() -> Duration| {
        let mut all: Vec<_> = (0..1_000).map(|_| time().as_millis()).collect();
        all.sort_unstable();
        (all[0], all[999])
    };
    let closing = |policy: &Policy, reason, least| {
        range(&|| policy.closing_retry(reason, Duration::from_secs(least)))
    };
    let within = |(shortest, longest): (u128, u128), from: u128, to: u128| {
        let slack = (to - from) / 50;
        let spread = shortest < from + slack && longest > to - slack;
        assert!(
            shortest >= from && longest <= to && spread,
            "{shortest} to {longest} in {from} to {to}"
        );
    };
    within(range(&|| policy.jittered_retry()), 2_000, 3_000);
    within(closing(&policy, CloseReason::Draining, 0), 2_000, 7_000);
    within(closing(&policy, CloseReason::MaxAge, 0), 2_000, 3_000);
    within(closing(&policy, CloseReason::OverLimit, 0), 2_000, 3_000);
    within(closing(&policy, CloseReason::OverLimit, 20), 20_000, 30_000);
    let off = Policy { drain_jitter: None, ..policy.clone() };
    within(closing(&off, CloseReason::Draining, 0), 2_000, 3_000);
    let far = Policy { drain_jitter: Some(Duration::from_secs(366 * 86_400)), ..policy };
    assert!(closing(&far, CloseReason::Draining, 0).1 <= 86_400_000);
}

/// A row of the macros' table that is marked as a setting: its key, and what it takes.
fn rows_of_the_macros() -> Vec<(String, String)> {
    let source = include_str!("../../../hero-sse-macros/src/endpoint/parse.rs");
    let table = source.split("keys! {").nth(1).and_then(|rest| rest.split("\n}").next());
    let rows = table.expect("a table").split(";\n").filter(|row| row.ends_with(" setting"));
    let row = |row: &str| {
        let (key, rest) = row.trim().strip_prefix('"')?.split_once("\", ")?;
        // The example is the next text: of a key, not of its words.
        let example = rest.find(&format!("r#\"{key} =")).or(rest.find(&format!("\"{key} =")))?;
        let takes = rest.get(..example)?.trim().trim_end_matches(',');
        Some((key.to_owned(), takes.to_owned()))
    };
    rows.map(|text| row(text).unwrap_or_else(|| panic!("not a row: {text}"))).collect()
}

/// What the macros must take for a setting, so that generated code fits its method.
fn takes(row: &Setting<PolicyOverrides>) -> String {
    match row.declares {
        "Option<Duration>" => "DurationOrOff".to_owned(),
        "Duration" => "Duration".to_owned(),
        "bool" => "Flag".to_owned(),
        "usize" => "Count".to_owned(),
        listed => {
            // The error lists the words.
            let error = (row.read)(&mut PolicyOverrides::NONE.clone(), &Value::from("?"));
            let error = error.expect_err("no word");
            let (_, cure) = error.rsplit_once("write ").expect("a cure");
            let words: Vec<_> = cure.split('"').skip(1).step_by(2).collect();
            match listed.strip_prefix("&[").and_then(|rest| rest.strip_suffix(']')) {
                Some(item) => format!("SomeOf({item:?}, &{words:?})"),
                None => format!("OneOf({listed:?}, &{words:?})"),
            }
        }
    }
}

/// A key that only the macros have would not compile where it is used; one that only the library has would be
/// unknown to users.
#[test]
fn the_macros_have_the_same_keys_that_take_the_same() {
    let attributes = ENDPOINT_SETTINGS.iter().filter(|row| !row.attribute.is_empty());
    let mut library: Vec<_> =
        attributes.map(|row| (row.attribute.to_owned(), takes(row))).collect();
    let mut macros = rows_of_the_macros();
    library.sort_unstable();
    macros.sort_unstable();
    assert_eq!(macros, library);
    assert!(library.len() > 10, "{library:?}");
}
