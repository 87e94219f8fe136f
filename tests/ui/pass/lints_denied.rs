//! The expansion obeys the lints of the crate it is in. `tests/it/lints.rs` checks those of clippy.
#![forbid(unsafe_code)]
#![deny(
    warnings,
    ambiguous_negative_literals,
    closure_returning_async_block,
    deprecated_in_future,
    elided_lifetimes_in_paths,
    explicit_outlives_requirements,
    future_incompatible,
    impl_trait_redundant_captures,
    keyword_idents,
    let_underscore_drop,
    macro_use_extern_crate,
    meta_variable_misuse,
    missing_abi,
    missing_copy_implementations,
    missing_debug_implementations,
    missing_docs,
    missing_unsafe_on_extern,
    non_ascii_idents,
    nonstandard_style,
    redundant_imports,
    redundant_lifetimes,
    rust_2018_idioms,
    rust_2024_compatibility,
    single_use_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    unit_bindings,
    unnameable_types,
    unreachable_pub,
    unused,
    unused_extern_crates,
    unused_import_braces,
    unused_lifetimes,
    unused_macro_rules,
    unused_qualifications,
    unused_results,
    variant_size_differences
)]

use std::time::Duration;

// With these names in scope the full paths in the expansion are longer than needed.
use hero_sse::prelude::*;
use axum::extract::State;
use serde::Serialize;
use hero_sse::auth::IntoPermission;
use hero_sse::event::{EventName, FrameWriter, InvalidEvent};
use hero_sse::extend::{AppState, BodyExtractor, Descriptor, Endpoint, EndpointMeta, EventStream, Events, Extractor, IntoEventStream, OpeningStream};
use hero_sse::options::Overflow;

/// A reading.
#[derive(Debug, Clone, Copy, Serialize, SseEvent)]
pub struct Usage {
    #[sse(id, key)]
    seq: u64,
    #[sse(retry)]
    #[serde(skip)]
    retry: Option<Duration>,
}

/// A note that borrows its text.
#[derive(Debug, Clone, Copy, Serialize, SseEvent)]
#[sse(event = "note")]
pub struct Note<'a, T: Copy>(#[sse(id)] &'a str, T);

/// A text.
#[derive(Debug, Clone, Copy, SseEvent)]
#[sse(data = "text", retry = "3s")]
pub struct Text<'a>(&'a str);

/// What a build reports.
#[derive(Debug, Clone, SseEvent)]
#[sse(rename_all = "snake_case")]
pub enum Build<'a, T>
where
    T: Clone,
{
    /// The build waits.
    #[sse(retry = "1s")]
    Queued {
        /// The number of the job.
        #[sse(id)]
        job: u64,
        /// The name of the repository.
        #[sse(key)]
        of: &'a str,
    },
    /// A line of the log.
    Line(&'a str, T),
    /// A line as plain text.
    #[sse(data = "text")]
    Text(#[sse(id, key)] u8, &'a str),
    /// The build has ended.
    #[sse(last)]
    Finished,
}

/// Small and large events, with names against the conventions.
#[derive(Debug, Clone, Copy, SseEvent)]
#[allow(non_camel_case_types, non_snake_case, variant_size_differences)]
pub enum odd_names {
    #[allow(missing_docs)]
    small_one,
    /// A large event.
    Large {
        /// Its field.
        Field: [u64; 32],
    },
}

/// The state of the endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Meter;

/// A permission.
pub const READ: &str = "usage.read";

/// The endpoints.
pub mod feeds {
    use axum::Json;
    use axum::extract::State;
    use hero_sse::prelude::*;

    use crate::{Build, Meter, READ, Usage};

    /// Live usage gauge.
    #[sse_endpoint(
        "/usage/stream",
        event = "usage",
        permission = all(READ, any("a", "b")),
        heartbeat_event = true,
        retry = "2s",
        max_age = "1h",
        reauthorize = "1m",
        max_connections = 3,
        over_limit = "refuse",
        overflow = "latest",
        state = Meter
    )]
    pub async fn usage_stream(
        State(_): State<Meter>,
        _: Principal,
    ) -> Result<impl Stream<Item = Result<Usage, String>>, Refusal> {
        Ok(futures_util::stream::iter([Ok(Usage { seq: 1, retry: None })]))
    }

    #[sse_endpoint("/private", public, heartbeat = "off", write_timeout = "00:00:20", deprecated)]
    #[deprecated = "endpoints may be deprecated"]
    pub(super) async fn private_stream() -> impl Stream<Item = Usage> {
        futures_util::stream::iter([Usage { seq: 1, retry: None }])
    }

    /// A question with a body.
    #[sse_endpoint("/post", method = "post", token_sources = ["header"])]
    pub async fn post(_: LastEventId, _: Json<u64>) -> impl Stream<Item = Build<'static, u8>> {
        futures_util::stream::empty()
    }

    #[sse_endpoint("/hidden", buffer = 3)]
    async fn hidden() -> impl Stream<Item = super::Text<'static>> {
        futures_util::stream::empty()
    }

    /// All endpoints.
    #[must_use]
    pub fn all() -> hero_sse::extend::Endpoints<Meter> {
        #[allow(deprecated)]
        let endpoints = endpoints![usage_stream, private_stream, post, hidden];
        endpoints
    }
}

/// With hero-sse's own names in scope.
#[sse_endpoint("/named", method = "post", permission = READ, event = "text")]
pub async fn named(State(_): State<Meter>) -> impl Stream<Item = Text<'static>> {
    futures_util::stream::empty()
}

/// Uses the names that are imported only to be in scope.
#[must_use]
pub fn uses<
    S: AppState + Extractor<S> + BodyExtractor<S, K>,
    T: Endpoint<S, K> + EndpointMeta,
    K,
    N,
>(
    _: Option<(S, T, K, N)>,
    _: impl Events<N> + IntoEventStream<K> + IntoPermission,
    _: &mut FrameWriter<'_>,
    _: Result<EventName, InvalidEvent>,
    _: Option<(EventStream, OpeningStream, Overflow)>,
) -> Descriptor {
    T::DESCRIPTOR
}

fn main() {
    let more: hero_sse::extend::Endpoints<Meter> = endpoints![named];
    let endpoints = format!("{:?} {more:?}", feeds::all());
    assert_eq!(endpoints.matches("Descriptor {").count(), 5);
}
