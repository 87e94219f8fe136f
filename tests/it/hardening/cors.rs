//! Pages of other origins: what CORS lets them read, and what it does not.

use axum::Router;
use hero_sse::SseOptions;
use hero_sse::options::Cors;
use http::{Method, StatusCode};

use super::site::{SITE, Site};
use crate::support::testing;
use crate::support::{burst, sse_with, token};

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
