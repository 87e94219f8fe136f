//! The table of all settings. One row is all that a setting needs, besides the code that uses its value.
//!
//! | column | meaning |
//! |---|---|
//! | `field: Type` | the field of [`Policy`] or [`ServerSettings`] that holds the value |
//! | `meaning` | the rustdoc of its methods, and its cell in the tables of `SseOptions` |
//! | `default` | the value as options write it, the value, and the reason (which follows "because") |
//! | `subscription` | the same for the subscription of a topic, if its default differs |
//! | `plain` | the same under `Profile::Plain` |
//! | `posted` | the same for a `POST` |
//! | `check` | a function that finds values out of bounds, in place of those that its type refuses |
//! | `declaration` | a function of the options' value and the declared one, if a declaration cannot set just any value |
//! | `post` | a function of the value, if a `POST` cannot have just any value |
//! | `alias` | words by which users may search the documentation for its methods |
//! | `option` | its key in options files; then its method on `SseOptions`, unless it is a setting of single endpoints |
//! | `takes` | the argument of its methods, and what they make of it |
//! | `attribute` | its key in `#[sse_endpoint]` and its method on `EndpointBuilder`; then the argument that generated code passes, and what becomes of it. Without this column only the options have the setting |
//!
//! A key of the attribute also has a row in `hero-sse-macros/src/endpoint/parse.rs`. A test compares the two. Optional columns are left out, in the order above. Types of endpoint settings are `Copy`, because
//! declarations are constants. A new type implements [`SettingValue`], and is added to [`types`]. A new enum for the
//! attribute is also exported by `__private`.

use serde_json::Value;

use self::types::*;
use super::generate::{endpoint_settings, first_of, server_settings};
use super::value::{Method, SettingValue, StreamKind, fault_of_cookie, fault_of_retry};

/// The types that rows name. Files that call a macro made of the rows import them all.
pub(crate) mod types {
    pub(crate) use std::time::Duration;

    pub(crate) use http::HeaderName;

    pub(crate) use crate::client_addr::{ForwardedHeader, Network};
    pub(crate) use crate::origin::{Host, Listed, Origin};
    pub(crate) use crate::overflow::Overflow;
    pub(crate) use crate::policy::{OverLimit, TokenSource, TokenSources};
    pub(crate) use crate::profile::Profile;
}

/// Settings by who made them, from the weakest to the strongest.
#[derive(Clone, Copy)]
pub(crate) struct Layers<'a> {
    /// The options for all endpoints.
    pub(crate) options: &'a PolicyOverrides,
    /// The endpoint's own declaration.
    pub(crate) declaration: &'a PolicyOverrides,
    /// The options' table for the endpoint.
    pub(crate) table: &'a PolicyOverrides,
}

impl Layers<'_> {
    pub(super) fn set<T>(&self, field: fn(&PolicyOverrides) -> Option<T>) -> bool {
        [self.options, self.declaration, self.table].into_iter().any(|layer| field(layer).is_some())
    }

    /// The profile, on which other defaults depend.
    pub(super) fn profile(&self, method: Method) -> Profile {
        let set = self.table.profile.or(self.declaration.profile).or(self.options.profile);
        set.unwrap_or(match method {
            Method::Get => Profile::Native,
            Method::Post => Profile::Plain,
        })
    }
}

endpoint_settings! {
    profile: Profile {
        meaning: "Sets what is sent besides the application's events, and how streams end. `\"native\"` is for an \
            `EventSource`: it sends `retry:` and `hero.*`, and ends with `hero.close`. `\"plain\"` sends nothing but \
            the events and heartbeat comments. What fails or is cut there breaks the body.",
        default: "native" = Profile::Native, "an `EventSource` sends a `GET`",
        posted: "plain" = Profile::Plain, "an answer is read by clients that know only their own protocol",
        option: "Profile" as profile,
        takes: (profile: Profile) = profile,
        attribute: profile(profile: Profile) = profile,
    }
    clean_end: bool {
        meaning: "Ends a native stream cleanly, after `hero.close`, also where its client is to return: at its maximum \
            age, at a drain, over a limit, and after a failure. `false` breaks the body there instead, for clients that \
            take a clean end for the end of all events. The server's and the proxies' logs show it as an error.",
        default: "true" = true, "an `EventSource` returns after either, and a broken body is an error in the logs of proxies",
        option: "CleanEnd" as clean_end,
        takes: (clean: bool) = clean,
        attribute: clean_end(clean: bool) = clean,
    }
    direct_events: bool {
        meaning: "Lets [`Connections::send`](crate::connections::Connections::send) reach the endpoint's streams.",
        default: "true" = true, "a page ignores events that it has no listener for",
        plain: "false" = false, "a client of another protocol fails on an event that is not its own",
        option: "DirectEvents" as direct_events,
        takes: (accepted: bool) = accepted,
        attribute: direct_events(accepted: bool) = accepted,
    }
    early: bool {
        meaning: "Sends the head and heartbeats before the endpoint's function is ready. Token, permission and limits are \
            still checked first. The function can then answer nothing but events: its error ends the stream with \
            `stream_error`.",
        default: "false" = false, "an error of the function is then a status, which every client understands",
        option: "Early" as early,
        takes: (enabled: bool) = enabled,
        attribute: early(enabled: bool) = enabled,
    }
    heartbeat: Option<Duration> {
        meaning: "Limits the silence between two writes. After this long a heartbeat is sent, which is a comment \
            that no page sees. It must be shorter than `max_age`. `None` (`\"off\"`) sends none.",
        default: "15s" = Some(seconds(15)), "proxies close idle connections after 30 to 60 s",
        alias: ["keep-alive", "ping"],
        option: "HeartbeatInterval" as heartbeat_interval,
        takes: (interval: impl Into<Option<Duration>>) = interval.into(),
        attribute: heartbeat(interval: Option<Duration>) = interval,
    }
    heartbeat_event: bool {
        meaning: "Sends each heartbeat also as the event `hero.heartbeat`. A page can then notice a lost server: \
            a browser has no read timeout and shows no comments.",
        default: "false" = false, "not every page has a watchdog, and each event costs bytes",
        option: "HeartbeatEvent" as heartbeat_event,
        takes: (enabled: bool) = enabled,
        attribute: heartbeat_event(enabled: bool) = enabled,
    }
    write_timeout: Option<Duration> {
        meaning: "Limits the time that a write may take without progress. After that the connection is reset and \
            the stream dropped. `None` (`\"off\"`) waits forever.",
        default: "5s" = Some(seconds(5)), "it outlasts any healthy pause and limits what a stalled client costs",
        option: "WriteTimeout" as write_timeout,
        takes: (timeout: impl Into<Option<Duration>>) = timeout.into(),
        attribute: write_timeout(timeout: Option<Duration>) = timeout,
    }
    retry: Duration {
        meaning: "Sets the reconnection time of clients, from `500ms` to `24h`. Each client gets a random time \
            between this and 1.5 times this, so that they do not return together.",
        default: "3s" = seconds(3), "browsers wait about as long by themselves",
        check: fault_of_retry,
        alias: ["reconnect"],
        option: "Retry" as retry,
        takes: (time: Duration) = time,
        attribute: retry(time: Duration) = time,
    }
    max_age: Option<Duration> {
        meaning: "Limits the age of a stream. It ends up to a fifth earlier, at random, so that streams opened \
            together do not reconnect together. `None` (`\"off\"`) is no limit.",
        default: "off" = None, "a private stream loses its work when it is cut",
        subscription: "30m" = Some(minutes(30)),
            "it resumes where it was cut, and a proxy can keep the stream of a closed browser open forever",
        plain: "off" = None, "the body would break off",
        option: "MaxAge" as max_age,
        takes: (age: impl Into<Option<Duration>>) = age.into(),
        attribute: max_age(age: Option<Duration>) = age,
    }
    reauthorize: Option<Duration> {
        meaning: "Sets the interval at which the [`Authorizer`](crate::auth::Authorizer) decides again on an open \
            stream. Each check comes after a random time between four fifths of this and this. Without an \
            authorizer it is an error. `None` (`\"off\"`) checks only when the stream opens.",
        default: "off" = None, "the claims of a token never change, and \
            [`disconnect`](crate::connections::Connections::disconnect) takes effect at once",
        option: "ReauthorizeInterval" as reauthorize_interval,
        takes: (interval: impl Into<Option<Duration>>) = interval.into(),
        attribute: reauthorize(interval: Option<Duration>) = interval,
    }
    max_connections: Option<usize> {
        meaning: "Limits the open streams of one endpoint. The server has a limit of its own besides. In the options, \
            `\"off\"` lifts the limit that an endpoint declares.",
        default: "off" = None, "the limit of the server covers all endpoints",
        option: "MaxConnections",
        takes: (limit: impl Into<Option<usize>>) = limit.into(),
        attribute: max_connections(limit: usize) = Some(limit),
    }
    max_per_principal: usize {
        meaning: "Limits the open streams of one subject of one issuer, over all endpoints. An endpoint's own \
            value is compared with the same total. Callers without a token are not counted.",
        default: "8" = 8, "a user has a few tabs open, and a bug that opens streams in a loop stays small",
        option: "MaxPerPrincipal" as max_per_principal,
        takes: (limit: usize) = limit,
        attribute: max_per_principal(limit: usize) = limit,
    }
    max_per_address: Option<usize> {
        meaning: "Limits the open streams of one address, over all endpoints. An IPv6 network of 64 bits counts \
            as one address. An endpoint's own value is compared with the same total. Sockets without an address \
            are not counted. Behind a proxy, set [`trusted_proxies`](crate::SseOptions::trusted_proxies) too, or \
            all clients share the proxy's address. `None` (`\"off\"`) is no limit.",
        default: "off" = None, "behind a proxy or a company's router many users share one address",
        option: "MaxPerAddress" as max_per_address,
        takes: (limit: impl Into<Option<usize>>) = limit.into(),
    }
    over_limit: OverLimit {
        meaning: "Sets the answer to a client over a limit. `\"retry\"` is a stream that asks it to reconnect \
            later, `\"refuse\"` is an error status.",
        default: "retry" = OverLimit::Retry, "a browser never returns after an error status",
        plain: "refuse" = OverLimit::Refuse, "a client there reads the status",
        option: "OverLimit" as over_limit,
        takes: (answer: OverLimit) = answer,
        attribute: over_limit(answer: OverLimit) = answer,
    }
    token_sources: TokenSources {
        meaning: "Sets which parts of a request may hold a token: `Authorization`, the cookie named by \
            [`token_cookie`](crate::SseOptions::token_cookie), the query (`?access_token=`). A token elsewhere is \
            ignored. A `POST` never has a token in its query. An endpoint's declaration can only remove sources.",
        default: "[\"header\", \"cookie\", \"query\"]" = TokenSources::ALL,
            "an `EventSource` cannot send headers, and without a named cookie none is read",
        declaration: TokenSources::and,
        post: TokenSources::without_query,
        option: "TokenSources" as token_sources,
        takes: (sources: impl IntoIterator<Item = TokenSource>) = sources.into_iter().collect(),
        attribute: token_sources(sources: &[TokenSource]) = TokenSources::of(sources),
    }
    buffer: Option<usize> {
        meaning: "Sets how many events may wait for a slow client, at least 1. A stream with a buffer is polled \
            as fast as it yields, and `overflow` is the rule for one event more. 1 MiB of waiting events fills \
            any buffer. If only `overflow` is set, the buffer holds 256 events. A topic's subscription has no \
            buffer: here it is how many events a client may be behind, by default three quarters of what the \
            topic retains.",
        default: "off" = None, "a stream that is polled at its client's pace buffers nothing and drops nothing",
        option: "Buffer" as buffer,
        takes: (events: impl Into<Option<usize>>) = events.into(),
        attribute: buffer(events: usize) = Some(events),
    }
    overflow: Overflow {
        meaning: "Sets the rule for one event more than the `buffer` holds: `\"disconnect\"`, `\"drop_oldest\"` \
            or `\"latest\"`. Setting it also gives the stream a buffer.",
        default: "disconnect" = Overflow::Disconnect, "only this rule leaves no gap",
        alias: ["back-pressure"],
        option: "Overflow" as overflow,
        takes: (rule: Overflow) = rule,
        attribute: overflow(rule: Overflow) = rule,
    }
    drain_jitter: Option<Duration> {
        meaning: "Sets the time over which the clients of a drain return. Each waits a random time between \
            `retry` and `retry` plus this. `None` (`\"off\"`) spreads them like other clients.",
        default: "5s" = Some(seconds(5)), "ten thousand clients then make 2,000 requests a second, and none is away for long",
        option: "DrainJitter" as drain_jitter,
        takes: (jitter: impl Into<Option<Duration>>) = jitter.into(),
    }
}

server_settings! {
    enabled: bool {
        meaning: "Allows endpoints. `false` makes mapping one an error. A program that can do without streams \
            checks its own configuration first.",
        default: "true" = true, "a server should not lose its streams by accident",
        option: "Enabled",
    }
    max_connections: usize {
        meaning: "Limits the open streams of the server. `serve` raises the soft limit of open files to fit, or \
            logs a warning.",
        default: "10000" = 10_000, "each stream costs an open file and memory",
        option: "MaxConnections" as max_connections,
        takes: (limit: usize) = limit,
    }
    peer_timeout: Option<Duration> {
        meaning: "Limits the time that sent bytes may stay unacknowledged, or a receive window shut, while a \
            stream is live. `None` (`\"off\"`) waits as long as the kernel does.",
        default: "60s" = Some(seconds(60)), "a shorter time cuts clients in a tunnel, which never notice",
        option: "PeerTimeout" as peer_timeout,
        takes: (timeout: impl Into<Option<Duration>>) = timeout.into(),
    }
    authorizer_timeout: Option<Duration> {
        meaning: "Limits the time that an [`Authorizer`](crate::auth::Authorizer) may take. After that the caller \
            is refused. `None` (`\"off\"`) waits forever.",
        default: "5s" = Some(seconds(5)), "the user of a browser waits about as long",
        option: "AuthorizerTimeout" as authorizer_timeout,
        takes: (timeout: impl Into<Option<Duration>>) = timeout.into(),
    }
    connects_per_minute: Option<usize> {
        meaning: "Limits the attempts per minute by which one subject of one issuer opens a stream, over all \
            endpoints. As many may come at once. Callers without a token are not counted: `MaxPerAddress` limits \
            them. `None` (`\"off\"`) is no limit.",
        default: "300" = Some(300), "eight tabs that reconnect every 3 s make 160; set more for a service that holds \
            many streams",
        alias: ["rate limit"],
        option: "ConnectsPerMinute" as connects_per_minute,
        takes: (attempts: impl Into<Option<usize>>) = attempts.into(),
    }
    failed_attempts_per_minute: Option<usize> {
        meaning: "Limits the invalid tokens and tickets per minute from one address. As many may come at once. An \
            IPv6 network of 64 bits counts as one address. Above the limit all requests of the address are \
            rejected before their token is checked, also those with a valid token. Sockets without an address are \
            not counted. Without `TrustedProxies`, a client in a private network that sends a proxy's header is \
            not limited, because it may be a proxy. The log says so once. `None` (`\"off\"`) is no limit.",
        default: "60" = Some(60), "a page with an expired token makes one attempt, guessing gets nowhere at that pace, \
            and the address is served again within a second",
        alias: ["rate limit", "brute force"],
        option: "FailedAttemptsPerMinute" as failed_attempts_per_minute,
        takes: (attempts: impl Into<Option<usize>>) = attempts.into(),
    }
    trusted_proxies: Listed<Network> {
        meaning: "Names the networks of your own proxies, such as `[\"10.0.0.0/8\", \"127.0.0.1\"]`. A variable \
            separates them by commas. The header with the client's address is read only from them. An invalid \
            network is an error of [`build`](crate::server::Builder::build).",
        default: "[]" = Listed::NONE, "any client could send the header",
        option: "TrustedProxies" as trusted_proxies,
        takes: (networks: impl IntoIterator<Item: AsRef<str>>) = Listed::read(networks, Network::parse),
    }
    forwarded_header: ForwardedHeader {
        meaning: "Names the header by which trusted proxies pass on the client's address: `\"x-forwarded-for\"`, \
            or `\"forwarded\"` (RFC 7239). Every trusted proxy must set it, because what a proxy leaves in it is \
            believed.",
        default: "x-forwarded-for" = ForwardedHeader::XForwardedFor, "most proxies set it",
        option: "ForwardedHeader" as forwarded_header,
        takes: (header: ForwardedHeader) = header,
    }
    token_cookie: Option<String> {
        meaning: "Names the cookie that holds a token, such as `\"__Host-session\"`. With the prefix `__Host-`, \
            browsers accept it only over TLS and from this very host, so that no sibling domain can set another. \
            A token that is only in a cookie counts only in requests of the site's own pages and of those that \
            `CorsCredentials` allows.",
        default: "none" = None, "any page can make a browser send a cookie",
        check: fault_of_cookie,
        option: "TokenCookie" as token_cookie,
        takes: (name: impl Into<String>) = Some(name.into()),
    }
    public_origins: Listed<Origin> {
        meaning: "Names the origins of the application's own pages as browsers see them, such as \
            `[\"https://app.example.com\"]`. Without any, pages of the host that a request asks for are its own. \
            Needed for cookies behind a proxy that ends TLS or changes the host. An invalid origin is an error of \
            [`build`](crate::server::Builder::build).",
        default: "[]" = Listed::NONE, "without such a proxy the request's host is right",
        option: "PublicOrigins" as public_origins,
        takes: (origins: impl IntoIterator<Item: AsRef<str>>) = Listed::read(origins, Origin::parse),
    }
    allowed_hosts: Listed<Host> {
        meaning: "Names the hosts that endpoints answer to: `\"app.example.com\"` on any port, \
            `\"localhost:8080\"` on this one. Requests for other hosts are refused, which protects against DNS \
            rebinding. Without any, all hosts are allowed. An invalid host is an error of \
            [`build`](crate::server::Builder::build).",
        default: "[]" = Listed::NONE, "load balancers ask by address",
        option: "AllowedHosts" as allowed_hosts,
        takes: (hosts: impl IntoIterator<Item: AsRef<str>>) = Listed::read(hosts, Host::parse),
    }
    cors_origins: Listed<Origin> {
        meaning: "Names the origins of other sites whose pages may open endpoints, such as \
            `[\"https://pages.example.net\"]`. There is no `*`. In code: [`cors`](crate::SseOptions::cors).",
        default: "[]" = Listed::NONE, "no other site should read a user's streams unless you name it",
        option: "CorsOrigins",
    }
    cors_credentials: bool {
        meaning: "Lets the browsers of these origins send cookies. Their pages then act for the caller like the \
            site's own pages. In code: [`cors`](crate::SseOptions::cors).",
        default: "false" = false, "a token in a header or the query needs no cookie",
        option: "CorsCredentials",
    }
    cors_allowed_headers: Listed<HeaderName> {
        meaning: "Names more headers that these pages may send, such as `[\"traceparent\"]`. `Authorization`, \
            `Content-Type` and `Last-Event-ID` are always allowed. `\"*\"` is all but `Authorization`. In code: \
            [`cors`](crate::SseOptions::cors).",
        default: "[]" = Listed::NONE, "a stream needs no others",
        option: "CorsAllowedHeaders",
    }
    cors_exposed_headers: Listed<HeaderName> {
        meaning: "Names more headers of responses that these pages may read, such as `[\"x-request-id\"]`. \
            `WWW-Authenticate` and `Retry-After` can always be read. In code: [`cors`](crate::SseOptions::cors).",
        default: "[]" = Listed::NONE, "the library sends no others that matter",
        option: "CorsExposedHeaders",
    }
    cors_max_age: Option<Duration> {
        meaning: "Sets for how long browsers may reuse the answer to a preflight. `None` (`\"off\"`): not at all. In \
            code: [`cors`](crate::SseOptions::cors).",
        default: "10m" = Some(minutes(10)), "a change of these settings is soon effective",
        option: "CorsMaxAge",
    }
    cors_private_network: bool {
        meaning: "Lets these pages open the server at a private address, such as `192.168.0.7`, from a public one. In \
            code: [`cors`](crate::SseOptions::cors).",
        default: "false" = false, "a page on the Internet has no business in a private network",
        option: "CorsPrivateNetwork",
    }
    redact_query: bool {
        meaning: "Removes `access_token` from the URI of every request under `serve`, `guard` and the \
            [layer](crate::HeroSse::redact_layer), and `ticket` on a server with tickets. An application with a parameter of that name reads it by \
            [`QueryToken`](crate::server::QueryToken), or switches this off.",
        default: "true" = true, "URIs end up in logs",
        option: "RedactQuery" as redact_query,
        takes: (enabled: bool) = enabled,
    }
    drain_delay: Option<Duration> {
        meaning: "Sets the time for which a server that shuts down goes on as before, but reports that it is not \
            [ready](crate::HeroSse::readiness). Load balancers notice in that time. `None` (`\"off\"`) is no \
            delay.",
        default: "off" = None, "only you know how long your load balancer takes to notice: a bit more than two of its checks",
        option: "DrainDelay" as drain_delay,
        takes: (delay: impl Into<Option<Duration>>) = delay.into(),
    }
    drain_timeout: Option<Duration> {
        meaning: "Limits the time that a shutdown waits until all closing events are sent. `None` (`\"off\"`) \
            waits forever.",
        default: "5s" = Some(seconds(5)), "process managers kill after 10 to 30 s",
        alias: ["graceful shutdown"],
        option: "DrainTimeout" as drain_timeout,
        takes: (timeout: impl Into<Option<Duration>>) = timeout.into(),
    }
}

/// A row as data. `T` is what it changes.
pub(crate) struct Setting<T> {
    pub(crate) key: &'static str,
    /// Empty if only the tables of endpoints have the key.
    pub(crate) method: &'static str,
    /// Empty if no declaration has it.
    pub(crate) attribute: &'static str,
    /// Sets it to a value of the options.
    pub(crate) read: fn(&mut T, &Value) -> Result<(), String>,
    /// Returns what is wrong with its value.
    pub(crate) faults: fn(&T) -> Vec<String>,
    /// The default as options write it.
    #[cfg(test)]
    pub(crate) default: &'static str,
    /// That of a topic's subscription, if it differs.
    #[cfg(test)]
    pub(crate) subscription: Option<&'static str>,
    /// That under `Profile::Plain`, and that for a `POST`.
    #[cfg(test)]
    pub(crate) plain: Option<&'static str>,
    #[cfg(test)]
    pub(crate) posted: Option<&'static str>,
    /// The type that generated code passes.
    #[cfg(test)]
    pub(crate) declares: &'static str,
}

impl<T> Setting<T> {
    /// Returns what is wrong with all of `settings`, each with its row.
    pub(crate) fn all_faults<'a>(
        rows: &'a [Self],
        settings: &'a T,
    ) -> impl Iterator<Item = (&'a Self, String)> {
        rows.iter()
            .flat_map(|row| (row.faults)(settings).into_iter().map(move |fault| (row, fault)))
    }
}

type Check<T> = fn(&T) -> Option<String>;

fn checked<T: SettingValue>(value: &Value, checks: &[Check<T>]) -> Result<T, String> {
    let value = T::read(value)?;
    let faults = faults_of(&value, checks);
    if faults.is_empty() { Ok(value) } else { Err(faults.join("; ")) }
}

/// The row's check comes first, since it knows best what to write.
fn faults_of<T: SettingValue>(value: &T, checks: &[Check<T>]) -> Vec<String> {
    let faults: Vec<_> = checks.iter().filter_map(|check| check(value)).collect();
    if faults.is_empty() { value.faults() } else { faults }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}
