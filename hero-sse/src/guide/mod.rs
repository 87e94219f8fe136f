#![doc = include_str!("links.md")]
#![doc = include_str!("../../docs/README.md")]

// The guides link to each other by references whose label is the target: `[filters][topics.md#filter]`. Each file
// defines its labels as links between files. Markdown takes the first definition, so `links.md` wins in rustdoc.
macro_rules! guides {
    ($($name:ident: $file:literal, $api:literal;)*) => {$(
        #[cfg_attr(all(feature = "jwt", feature = "testing"), doc = include_str!("links.md"))]
        #[cfg_attr(
            all(feature = "jwt", feature = "testing"),
            doc = include_str!(concat!("../../docs/", $file))
        )]
        #[cfg_attr(
            not(all(feature = "jwt", feature = "testing")),
            doc = "Build the documentation with `--all-features` to read this guide."
        )]
        #[cfg_attr(all(feature = "jwt", feature = "testing"), doc = concat!("\n\n## API\n\n", $api))]
        pub mod $name {}
    )*};
}

guides! {
    access: "access.md", "[`JwtAuthenticator`](crate::JwtAuthenticator), [`Principal`](crate::Principal), \
        [`Refusal`](crate::Refusal), [`auth`](crate::auth), [`Connections::disconnect`](crate::connections::Connections::disconnect)";
    browser: "browser.md", "[`SseOptions`](crate::SseOptions), [`CloseReason`](crate::CloseReason)";
    clients: "clients.md", "[`CloseReason`](crate::CloseReason), [`Event`](crate::Event), \
        [`LastEventId`](crate::LastEventId), [`SseOptions`](crate::SseOptions)";
    deploys: "deploys.md", "[`Serve`](crate::server::Serve), [`Readiness`](crate::server::Readiness), \
        [`HeroSse::drain`](crate::HeroSse::drain), [`Connections`](crate::connections::Connections)";
    endpoints: "endpoints.md", "All keys in one table: [`sse_endpoint`](macro@crate::sse_endpoint). \
        [`endpoints!`](crate::endpoints), [`Mount`](crate::server::Mount), \
        [`EndpointBuilder`](crate::server::EndpointBuilder), [`SseContext`](crate::SseContext), \
        [`LastEventId`](crate::LastEventId), [`stream`](crate::stream())";
    errors: "errors.md", "[`sse_endpoint`](macro@crate::sse_endpoint), [`SseEvent`](derive@crate::SseEvent)";
    events: "events.md", "All keys in one table: [`SseEvent`](derive@crate::SseEvent). \
        The trait: [`SseEvent`](trait@crate::SseEvent), [`Event`](crate::Event), [`event`](crate::event)";
    keyed_topics: "keyed-topics.md", "[`KeyedTopics`](crate::KeyedTopics), \
        [`KeyedTopicsBuilder`](crate::topic::KeyedTopicsBuilder), \
        [`Connections::send`](crate::connections::Connections::send), \
        [`ConnectionFilter`](crate::connections::ConnectionFilter)";
    limits: "limits.md", "[`SseOptions`](crate::SseOptions), [`OverLimit`](crate::options::OverLimit)";
    llm_answers: "llm-answers.md", "[`stream`](crate::stream()), [`Event`](crate::Event), [`Refusal`](crate::Refusal), \
        [`adopt`](crate::adopt)";
    monitoring: "monitoring.md", "[`CloseReason`](crate::CloseReason), \
        [`Connections`](crate::connections::Connections), [`ConnectionInfo`](crate::connections::ConnectionInfo)";
    other_servers: "other-servers.md", "[`HeroSse::guard`](crate::HeroSse::guard), \
        [`HeroSse::guard_connection`](crate::HeroSse::guard_connection), \
        [`HeroSse::redact_layer`](crate::HeroSse::redact_layer), [`server`](crate::server)";
    posts: "posts.md", "[`Profile`](crate::options::Profile), [`SseOptions`](crate::SseOptions), \
        [`CloseReason`](crate::CloseReason), [`sse_endpoint`](macro@crate::sse_endpoint)";
    proxies: "proxies.md", "[`SseOptions`](crate::SseOptions)";
    publishing: "publishing.md", "[`Topic::publish`](crate::Topic::publish), \
        [`PublishError`](crate::topic::PublishError)";
    slow_clients: "slow-clients.md", "[`Overflow`](crate::options::Overflow), [`SseOptions`](crate::SseOptions), \
        [`CloseReason`](crate::CloseReason)";
    tenancy: "tenancy.md", "[`Principal`](crate::Principal), [`KeyedTopics`](crate::KeyedTopics), \
        [`ConnectionFilter`](crate::connections::ConnectionFilter)";
    testing: "testing.md", "The module `testing`, with the feature of that name.";
    tokens: "tokens.md", "[`TokenSource`](crate::options::TokenSource), [`Cors`](crate::options::Cors), \
        [`Tickets`](crate::auth::Tickets), [`Mount::tickets`](crate::server::Mount::tickets), \
        [`QueryToken`](crate::server::QueryToken), [`request_span`](crate::server::request_span)";
    topics: "topics.md", "[`Topic`](crate::Topic), [`Subscription`](crate::Subscription), \
        [`MergedSubscription`](crate::MergedSubscription), [`TopicBuilder`](crate::topic::TopicBuilder), \
        [`Broker`](crate::extend::Broker)";
}
