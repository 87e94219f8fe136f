//! Pages of other origins: what CORS lets them read, and what it does not.

use std::time::Duration;

use axum::Router;
use axum::routing::{delete, get};
use hero_sse::SseOptions;
use hero_sse::options::Cors;
use http::{Method, StatusCode};
use tower::ServiceExt;

use super::site::{SITE, Site};
use crate::support::testing;
use crate::support::{Server, burst, sse_with, token};

/// An allowed origin.
const ALLOWED: (&str, &str) = ("origin", "https://pages.example.net");
const CORS: &str = "CorsOrigins = [\"https://pages.example.net\", \"http://localhost:5173\"]\n";

#[tokio::test]
async fn without_cors_there_is_no_cors_header() {
    let site = Site::new("");
    let bearer = format!("Bearer {}", token());
    for (method, headers, status) in [
        (Method::GET, &[SITE, ALLOWED, ("authorization", &bearer)][..], StatusCode::OK),
        (Method::GET, &[SITE, ALLOWED], StatusCode::UNAUTHORIZED),
        (Method::OPTIONS, &[SITE, ALLOWED], StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = site.request(method, "/s", headers).await;
        assert_eq!(answer.status, status);
        answer.assert_no_cors();
        assert_eq!(answer.header("vary"), None);
    }
}

#[tokio::test]
async fn an_origin_is_never_reflected() {
    let site = Site::new(&format!("{CORS}CorsCredentials = true"));
    let cookie = format!("__Host-t={}", token());
    for origin in [
        "https://evil.example",
        "https://pages.example.net.evil.example",
        "https://evilpages.example.net",
        "http://pages.example.net",
        "https://pages.example.net:8443",
        "https://pages.example.net/",
        "https://pages.example.net@evil.example",
        "https://pages.example.net, https://evil.example",
        "null",
        "*",
        "file://",
        "",
    ] {
        for method in [Method::GET, Method::OPTIONS, Method::POST] {
            let headers = [SITE, ("origin", origin), ("cookie", &cookie)];
            let answer = site.request(method.clone(), "/s", &headers).await;
            answer.assert_no_cors();
            assert_eq!(answer.header("vary"), Some("origin"), "{method} {origin}");
            if method == Method::GET {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin}");
            }
        }
    }
    let two =
        site.request(Method::GET, "/s", &[SITE, ALLOWED, ("origin", "https://evil.example")]).await;
    two.assert_no_cors();
    site.assert_runs(0);
    // As in the options, not as in the request.
    let shouted =
        site.request(Method::GET, "/s", &[SITE, ("origin", "HTTPS://PAGES.example.net:443")]);
    let shouted = shouted.await;
    assert_eq!(shouted.header("access-control-allow-origin"), Some("https://pages.example.net"));
}

#[tokio::test]
async fn a_preflight_needs_no_token_and_runs_no_handler() {
    let site = Site::new(CORS);
    for path in ["/s", "/post", "/public"] {
        let headers = [
            SITE,
            ALLOWED,
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "authorization,last-event-id,x-evil"),
        ];
        let answer = site.request(Method::OPTIONS, path, &headers).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(answer.header("access-control-allow-origin"), Some(ALLOWED.1));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, POST"));
        let headers = answer.header("access-control-allow-headers");
        assert_eq!(headers, Some("authorization, content-type, last-event-id"));
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    site.assert_runs(0);
    assert!(site.sse.connections().is_empty());
}

#[tokio::test]
async fn an_allowed_page_can_read_every_response() {
    let site = Site::new(&format!("{CORS}MaxConnections = 1"));
    let (bearer, lacking) = (format!("Bearer {}", token()), "Bearer a.b.c");
    let first = testing::open(&site.app, "/s").bearer(&token()).await.expect("a stream");
    for (method, authorization, status) in [
        (Method::GET, None, StatusCode::UNAUTHORIZED),
        (Method::GET, Some(lacking), StatusCode::UNAUTHORIZED),
        // Over the limit: `hero.close` at once.
        (Method::GET, Some(bearer.as_str()), StatusCode::OK),
        (Method::HEAD, Some(bearer.as_str()), StatusCode::OK),
        (Method::DELETE, Some(bearer.as_str()), StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let mut headers = vec![SITE, ALLOWED];
        headers.extend(authorization.map(|bearer| ("authorization", bearer)));
        let answer = site.request(method.clone(), "/s", &headers).await;
        assert_eq!(answer.status, status, "{method} {authorization:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(ALLOWED.1), "{method}");
        assert_eq!(answer.header("vary"), Some("origin"));
        let exposed = answer.header("access-control-expose-headers");
        assert_eq!(exposed, Some("www-authenticate, retry-after"));
    }
    drop(first);
    // Without `Origin`, `Vary` is needed as well, or a cache could use the response for other pages.
    let plain = site.request(Method::GET, "/s", &[SITE]).await;
    assert_eq!(plain.header("vary"), Some("origin"));
    plain.assert_no_cors();
}

#[tokio::test]
async fn cors_without_credentials_accepts_no_cookie() {
    let without = Site::new(CORS);
    assert_eq!(without.with_cookie("/s", &[SITE, ALLOWED]).await, StatusCode::FORBIDDEN);
    without.assert_runs(0);
    let with = Site::new(&format!("{CORS}CorsCredentials = true"));
    let headers = [SITE, ALLOWED, ("sec-fetch-site", "cross-site")];
    assert_eq!(with.with_cookie("/s", &headers).await, StatusCode::OK);
    let answer = with.request(Method::GET, "/s", &headers).await;
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    with.assert_runs(1);
}

#[tokio::test]
async fn a_get_and_a_post_on_one_path_share_their_preflight() {
    let sse = sse_with(SseOptions::default().cors(Cors::origins([ALLOWED.1])));
    let reads: Router = sse.endpoint("/s").public().handler(async || burst(1)).expect("a route");
    let posts = sse.endpoint("/s").public().post_handler(async || burst(1)).expect("a route");
    let app = reads.merge(posts);
    for method in [Method::GET, Method::POST, Method::OPTIONS, Method::PUT] {
        let open = testing::open(&app, "/s").method(method.clone()).header("origin", ALLOWED.1);
        let headers = match open.await {
            Ok(stream) => stream.headers().clone(),
            Err(error) => error.headers,
        };
        assert_eq!(headers["access-control-allow-origin"], ALLOWED.1, "{method}");
        assert_eq!(headers.get_all("vary").iter().count(), 1, "{method}");
    }
}

fn sse_for_pages(cors: Cors) -> hero_sse::HeroSse {
    sse_with(SseOptions::default().cors(cors))
}

/// Returns the status and the headers that a preflight for `POST` gets.
async fn preflight(app: &Router, path: &str) -> (u16, http::HeaderMap) {
    let open = testing::open(app, path)
        .method(Method::OPTIONS)
        .header("origin", ALLOWED.1)
        .header("access-control-request-method", "POST")
        .header("access-control-request-private-network", "true");
    let error = open.await.expect_err("no stream");
    (error.status.expect("an answer").as_u16(), error.headers)
}

/// axum merges the methods of a path, in whatever order.
#[tokio::test]
async fn a_preflight_survives_other_routes_on_the_path() {
    let endpoints = || {
        let sse = sse_for_pages(Cors::origins([ALLOWED.1]));
        let reads: Router = sse.endpoint("/s").public().handler(async || burst(1)).expect("one");
        let posts: Router =
            sse.endpoint("/s").public().post_handler(async || burst(1)).expect("one");
        (sse, reads, posts)
    };
    let own = || Router::new().route("/s", delete(async || "gone"));
    let (_, r, _) = endpoints();
    let before = r.route("/s", delete(async || "gone"));
    let (_, r, p) = endpoints();
    let after = own().merge(p).merge(r);
    let (_, r, p) = endpoints();
    let between = p.merge(own()).merge(r);
    let (_, r, p) = endpoints();
    let with_fallback = Router::new()
        .fallback(async || (StatusCode::NOT_FOUND, "none"))
        .merge(r.merge(own()))
        .merge(p);
    let (_, r, p) = endpoints();
    let custom = Router::new().route("/s", get(async || "").fallback(async || "mine"));
    let _ = (r, p);
    let (_, _, p) = endpoints();
    let with_method_fallback = Router::new().nest("/p", p).merge(custom);
    for app in [before, after, between, with_fallback] {
        let (status, headers) = preflight(&app, "/s").await;
        assert_eq!(
            (status, &headers["access-control-allow-origin"]),
            (204, &ALLOWED.1.parse().expect("one"))
        );
        let nested = Router::new().nest("/a/b", app.clone()).nest("/x/c", app);
        for path in ["/a/b/s", "/x/c/s"] {
            let (status, headers) = preflight(&nested, path).await;
            assert!(status == 204 && headers.contains_key("access-control-allow-origin"), "{path}");
        }
        let gone = http::Request::delete("/a/b/s").body(axum::body::Body::empty()).expect("one");
        assert_eq!(nested.oneshot(gone).await.expect("an answer").status(), StatusCode::OK);
    }
    // Endpoints of one path that are nested apart.
    let (status, headers) = preflight(&with_method_fallback, "/p/s").await;
    assert!(status == 204 && headers.contains_key("access-control-allow-origin"));
    // Over a socket, under `axum::serve`.
    let (sse, r, _) = endpoints();
    let app = r.route("/s", delete(async || "gone"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (listener, guarded) = sse.guard(listener, app.clone());
    let serving = tokio::spawn(async move { axum::serve(listener, guarded).await });
    let server = Server::start(&sse, app).await;
    for address in [address, server.address] {
        let open = testing::connect(address, "/s").method(Method::OPTIONS);
        let error = open.header("origin", ALLOWED.1).await.expect_err("no stream");
        assert_eq!(error.status, Some(StatusCode::NO_CONTENT));
        assert_eq!(error.headers["access-control-allow-origin"], ALLOWED.1);
    }
    serving.abort();
    server.stop().await;
}

#[tokio::test]
async fn headers_age_and_private_networks_are_options() {
    let cors = Cors::origins([ALLOWED.1])
        .allow_headers(["traceparent", "Cache-Control", "Authorization"])
        .expose_headers(["x-request-id", "Retry-After"])
        .max_age(Duration::from_secs(7200))
        .private_network(true);
    let in_file = format!(
        "{CORS}CorsAllowedHeaders = [\"traceparent\", \"Cache-Control\", \"Authorization\"]\n\
        CorsExposedHeaders = [\"x-request-id\", \"Retry-After\"]\n\
        CorsMaxAge = \"2h\"\nCorsPrivateNetwork = true"
    );
    for sse in [sse_for_pages(cors), sse_with(crate::support::options(&in_file))] {
        let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
        let (_, headers) = preflight(&app, "/s").await;
        let allowed = "authorization, content-type, last-event-id, traceparent, cache-control";
        assert_eq!(headers["access-control-allow-headers"], allowed);
        assert_eq!(headers["access-control-max-age"], "7200");
        assert_eq!(headers["access-control-allow-private-network"], "true");
        let refused = testing::open(&app, "/s").header("origin", ALLOWED.1).await.expect_err("401");
        let exposed = "www-authenticate, retry-after, x-request-id";
        assert_eq!(refused.headers["access-control-expose-headers"], exposed);
    }
    let app: Router = sse_for_pages(Cors::origins([ALLOWED.1]))
        .endpoint("/s")
        .handler(async || burst(1))
        .expect("a route");
    let (_, headers) = preflight(&app, "/s").await;
    assert_eq!(headers["access-control-max-age"], "600");
    assert!(!headers.contains_key("access-control-allow-private-network"));
}

#[test]
fn wildcards_and_broken_names_are_refused_at_set_up() {
    let build = |cors| {
        let builder = hero_sse::HeroSse::builder().options(SseOptions::default().cors(cors));
        builder.environment(Vec::<(String, String)>::new()).build()
    };
    let origins = || Cors::origins([ALLOWED.1]);
    for (cors, words) in [
        (origins().credentials(true).allow_headers(["*"]), "the \"*\" in CorsAllowedHeaders"),
        (origins().credentials(true).expose_headers(["*"]), "the \"*\" in CorsExposedHeaders"),
        (Cors::origins(["*"]).credentials(true), "is a pattern"),
        (origins().allow_headers(["a b"]), "cannot be the name of a header"),
        (origins().expose_headers(["a\r\nb: c"]), "cannot be the name of a header"),
    ] {
        let error = build(cors).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(build(origins().allow_headers(["*"]).expose_headers(["*"])).is_ok());
}

/// What tower-http's layer answers with the same settings, but for its `Vary`, which names two more headers.
#[tokio::test]
async fn the_answers_are_those_of_tower_https_layer() {
    use tower_http::cors::CorsLayer;
    let layer = CorsLayer::new()
        .allow_origin(["https://pages.example.net".parse().expect("an origin")])
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers(
            ["authorization", "content-type", "last-event-id"]
                .map(|n| n.parse::<http::HeaderName>().expect("a name")),
        )
        .expose_headers(
            ["www-authenticate", "retry-after"]
                .map(|n| n.parse::<http::HeaderName>().expect("a name")),
        )
        .allow_private_network(true)
        .max_age(Duration::from_secs(600));
    let cors = Cors::origins([ALLOWED.1]).credentials(true).private_network(true);
    let ours: Router = sse_for_pages(cors).endpoint("/s").handler(async || burst(1)).expect("one");
    let theirs: Router =
        sse_with(SseOptions::default()).endpoint("/s").handler(async || burst(1)).expect("one");
    let theirs = theirs.layer(layer);
    let answer = async |app: &Router, method: &Method, origin: &str, private: bool| {
        let mut request =
            http::Request::builder().method(method).uri("/s").header("origin", origin);
        if *method == Method::OPTIONS {
            request = request.header("access-control-request-method", "GET");
        }
        if private {
            request = request.header("access-control-request-private-network", "true");
        }
        let request = request.body(axum::body::Body::empty()).expect("a request");
        let headers = app.clone().oneshot(request).await.expect("an answer").headers().clone();
        let list = |value: &str| {
            value.split(',').map(|part| part.trim().to_ascii_lowercase()).collect::<Vec<_>>()
        };
        let cors = headers.iter().filter(|(name, _)| name.as_str().starts_with("access-control-"));
        let mut cors: Vec<_> = cors
            .map(|(name, value)| (name.to_string(), list(value.to_str().expect("ASCII"))))
            .collect();
        cors.sort();
        cors
    };
    for method in [Method::OPTIONS, Method::GET, Method::POST] {
        // Browsers ask for a private network in preflights only.
        for private in [false, method == Method::OPTIONS] {
            let (ours, theirs) = (
                answer(&ours, &method, ALLOWED.1, private).await,
                answer(&theirs, &method, ALLOWED.1, private).await,
            );
            assert_eq!(ours, theirs, "{method} {private}");
            assert!(!ours.is_empty());
        }
    }
}

/// A page can read why it got no ticket, and why it got no stream.
#[tokio::test]
async fn refusals_of_every_kind_have_cors_headers() {
    let options = SseOptions::default().cors(Cors::origins([ALLOWED.1]));
    let sse = crate::tickets::builder("OverLimit = \"refuse\"").options(options);
    let sse = sse.tickets(hero_sse::auth::Tickets::new().audience("usage")).build().expect("one");
    let limited = sse
        .endpoint("/limited")
        .max_connections(1)
        .over_limit(hero_sse::options::OverLimit::Refuse);
    let app = crate::tickets::app(&sse);
    let app = app.merge(limited.handler(async || burst(1)).expect("a route"));
    let _first = testing::open(&app, "/limited").bearer("ann").await.expect("a stream");
    for (status, path, method, token, body) in [
        (503, "/limited", Method::GET, "bob", ""),
        (401, "/limited", Method::GET, "bad", ""),
        (403, "/api/usage", Method::GET, "bob", ""),
        (404, "/api/tickets", Method::POST, "ann.may", r#"{"path": "/none"}"#),
        (400, "/api/tickets", Method::POST, "ann.may", "{}"),
        (401, "/api/tickets", Method::POST, "bad", r#"{"path": "/api/usage"}"#),
        (405, "/api/tickets", Method::PUT, "ann", ""),
    ] {
        let open = testing::open(&app, path).bearer(token).body(body).method(method);
        let error = open.header("origin", ALLOWED.1).await.expect_err("a refusal");
        assert_eq!(error.status.map(|status| status.as_u16()), Some(status), "{path}");
        assert_eq!(error.headers["access-control-allow-origin"], ALLOWED.1, "{status} {path}");
        assert_eq!(error.headers["vary"], "origin", "{status} {path}");
    }
}
