//! Generated code passes clippy in the strictest configuration. `cargo clippy --workspace --all-targets` checks it.

use axum::Router;
use hero_sse::testing::open;
use hero_sse::{Principal, SseOptions, endpoints};

use crate::support::sse_with;
use declarations::{build, odd, said, tick, usage_stream};

/// Declarations of every kind, under every lint that a user may deny.
#[deny(
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::arbitrary_source_item_ordering,
    clippy::absolute_paths,
    clippy::clone_on_ref_ptr,
    clippy::default_numeric_fallback,
    clippy::default_union_representation,
    clippy::else_if_without_else,
    clippy::empty_enum_variants_with_brackets,
    clippy::empty_structs_with_brackets,
    clippy::error_impl_error,
    clippy::exhaustive_enums,
    clippy::expect_used,
    clippy::field_scoped_visibility_modifiers,
    clippy::if_then_some_else_none,
    clippy::impl_trait_in_params,
    clippy::indexing_slicing,
    clippy::let_underscore_must_use,
    clippy::let_underscore_untyped,
    clippy::map_err_ignore,
    clippy::min_ident_chars,
    clippy::missing_docs_in_private_items,
    clippy::missing_inline_in_public_items,
    clippy::missing_trait_methods,
    clippy::mod_module_files,
    clippy::module_name_repetitions,
    clippy::multiple_inherent_impl,
    clippy::panic,
    clippy::pattern_type_mismatch,
    clippy::pub_use,
    clippy::pub_without_shorthand,
    clippy::redundant_type_annotations,
    clippy::ref_patterns,
    clippy::renamed_function_params,
    clippy::same_name_method,
    clippy::semicolon_outside_block,
    clippy::shadow_reuse,
    clippy::shadow_same,
    clippy::shadow_unrelated,
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    clippy::str_to_string,
    clippy::undocumented_unsafe_blocks,
    clippy::unneeded_field_pattern,
    clippy::unreachable,
    clippy::unseparated_literal_suffix,
    clippy::unused_trait_names,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    clippy::use_debug,
    clippy::wildcard_enum_match_arm,
    warnings,
    elided_lifetimes_in_paths,
    explicit_outlives_requirements,
    let_underscore_drop,
    missing_copy_implementations,
    missing_debug_implementations,
    missing_docs,
    redundant_imports,
    redundant_lifetimes,
    rust_2018_idioms,
    single_use_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    unit_bindings,
    unreachable_pub,
    unused,
    unused_lifetimes,
    unused_qualifications,
    unused_results,
    variant_size_differences
)]
mod declarations {
    use core::fmt::Display;
    use core::future::ready;
    use core::time::Duration;

    use axum::Json;
    use axum::extract::State;
    use futures_util::stream;
    use hero_sse::prelude::*;
    use serde::Serialize;

    /// A permission of its own.
    const READ: &str = "usage.read";

    /// A reading.
    #[derive(Clone, Copy, Debug, Serialize, SseEvent)]
    pub(super) struct Usage {
        /// When a browser comes back.
        #[sse(retry)]
        #[serde(skip)]
        retry: Option<Duration>,
        /// Its number.
        #[sse(id, key)]
        seq: u64,
    }

    /// A text.
    #[derive(Clone, Copy, Debug, SseEvent)]
    #[sse(data = "text", event = "said", retry = "3s")]
    pub(super) struct Text<'text, T: Display>(&'text T);

    /// No more than a name.
    #[derive(Clone, Copy, Debug, Serialize, SseEvent)]
    pub(super) struct Tick;

    /// What a build reports.
    #[derive(Clone, Debug, SseEvent)]
    #[sse(rename_all = "snake_case")]
    pub(super) enum Build<'text, T>
    where
        T: Clone,
    {
        /// It is over.
        #[sse(last)]
        Finished,
        /// It says something.
        Line(&'text str, T),
        /// It waits.
        #[sse(retry = "1s")]
        Queued {
            /// Which one.
            #[sse(id)]
            job: u64,
            /// Of what.
            #[sse(key)]
            of: &'text str,
        },
        /// It says it as it is.
        #[sse(data = "text")]
        Text(#[sse(id, key)] u8, &'text str),
    }

    /// Types that clippy warns of, unless an attribute accepts them.
    #[expect(
        clippy::vec_box,
        clippy::type_complexity,
        reason = "the derive must not need it again"
    )]
    #[derive(Clone, Debug, SseEvent)]
    pub(super) enum Odd {
        /// Boxed twice.
        Boxed(Vec<Box<u8>>),
        /// Complex.
        Complex(Vec<(Option<Vec<Option<(u8, u8)>>>, Option<Vec<Option<(u8, Option<u8>)>>>)>),
    }

    /// Live usage gauge.
    #[sse_endpoint(
        "/usage/stream",
        event = "usage",
        permission = all(READ, any("a", "b")),
        heartbeat = "10s",
        heartbeat_event = true,
        retry = "2s",
        max_age = "1h",
        max_connections = 3,
        max_per_principal = 2,
        over_limit = "refuse",
        buffer = 3,
        overflow = "latest",
        token_sources = ["header"],
        state = u64
    )]
    pub(super) async fn usage_stream(
        State(seq): State<u64>,
        caller: Principal,
    ) -> Result<impl Stream<Item = Result<Usage, String>>, Refusal> {
        let _: usize = ready(caller.require_tenant()?.len()).await;
        Ok(stream::iter([Ok(Usage { retry: None, seq })]))
    }

    /// Nothing but a name, off where it can be.
    #[sse_endpoint("/odd", public, heartbeat = "off", write_timeout = "off", deprecated)]
    pub(super) async fn odd() -> impl Stream<Item = Odd> {
        ready(stream::iter([Odd::Complex(Vec::new()), Odd::Boxed(Vec::new())])).await
    }

    /// A single event.
    #[sse_endpoint("/tick", public)]
    pub(super) async fn tick() -> impl Stream<Item = Tick> {
        ready(stream::iter([Tick])).await
    }

    /// A text.
    #[sse_endpoint("/said", public)]
    pub(super) async fn said() -> impl Stream<Item = Text<'static, u8>> {
        ready(stream::iter([Text(&7)])).await
    }

    /// Asked with a body.
    #[sse_endpoint("/build", method = "post", public)]
    pub(super) async fn build(
        _: LastEventId,
        Json(job): Json<u64>,
    ) -> impl Stream<Item = Build<'static, u8>> {
        ready(stream::iter([
            Build::Queued { job, of: "it" },
            Build::Line("a", 1),
            Build::Text(1, "b"),
            Build::Finished,
        ]))
        .await
    }
}

/// The declarations work.
#[tokio::test]
async fn what_is_declared_is_served() {
    let sse = sse_with(SseOptions::default());
    let endpoints = endpoints![usage_stream, odd, tick, said, build, forbidding::forbidding];
    let app = Router::new().merge(sse.routes(endpoints).expect("routes")).with_state(3_u64);
    let ann = Principal::test("ann").with_tenant("t").permission("usage.read").permission("b");
    for (open, first) in [
        (open(&app, "/usage/stream").principal(ann), r#"{"seq":3}"#),
        (open(&app, "/odd"), "[]"),
        (open(&app, "/tick"), "null"),
        (open(&app, "/said"), "7"),
        (open(&app, "/forbidding"), r#"{"job":1,"of":null}"#),
        (open(&app, "/build").json(&3), r#"{"job":3,"of":"it"}"#),
    ] {
        let mut stream = open.await.expect("a stream");
        let mut event = stream.next().await.expect("in time").expect("an event");
        if event.event == "hero.heartbeat" {
            event = stream.next().await.expect("in time").expect("an event");
        }
        assert_eq!(event.data, first);
    }
}

/// Generated code contains no `allow` of lints that a user may forbid.
#[forbid(clippy::all, clippy::pedantic, clippy::nursery)]
mod forbidding {
    use futures_util::stream;
    use hero_sse::prelude::*;

    #[derive(SseEvent)]
    pub(super) enum Build {
        Queued { job: u64, of: Option<&'static str> },
        Owned(Box<u8>, Option<Box<str>>, Vec<u8>, String, &'static Option<u8>),
    }

    #[sse_endpoint("/forbidding", public)]
    pub(super) async fn forbidding() -> impl Stream<Item = Build> {
        let owned = Build::Owned(Box::new(1), None, vec![], String::new(), &None);
        core::future::ready(stream::iter([Build::Queued { job: 1, of: None }, owned])).await
    }
}
