//! Attacks with a visitor's cookie: cross-site requests, planted cookies, credentials in the wrong place.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use hero_sse::options::TokenSource;
use hero_sse::{SseContext, SseOptions};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::site::{SITE, Site};
use crate::support::testing;
use crate::support::{Log, Server, burst, claims, options, sign, sse_with, token};

#[tokio::test]
async fn a_page_of_another_site_opens_a_stream_with_its_visitors_cookie() {
    let site = Site::new("");
    for headers in [
        &[SITE, ("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")][..],
        &[SITE, ("origin", "https://evil.example")],
        &[SITE, ("origin", "https://app.example.com.evil.example")],
        // `X-Forwarded-Host` does not count: any client can send it.
        &[SITE, ("origin", "https://evil.example"), ("x-forwarded-host", "evil.example")],
    ] {
        assert_eq!(site.with_cookie("/s", headers).await, StatusCode::FORBIDDEN, "{headers:?}");
    }
    site.assert_runs(0);
    assert!(site.sse.connections().is_empty());
    // A page of the site itself may use it.
    for headers in [
        &[SITE, ("origin", "https://app.example.com"), ("sec-fetch-site", "same-origin")][..],
        &[SITE, ("sec-fetch-site", "same-origin")],
        &[SITE],
    ] {
        assert_eq!(site.with_cookie("/s", headers).await, StatusCode::OK, "{headers:?}");
    }
    site.assert_runs(3);
}

#[tokio::test]
async fn a_foreign_page_gets_a_problem_without_a_byte_of_the_stream_and_is_logged() {
    let (log, _guard) = Log::everything();
    let site = Site::new("");
    let cookie = format!("__Host-t={}", token());
    let headers = [SITE, ("cookie", cookie.as_str()), ("origin", "https://evil.example")];
    let refused = site.request(Method::GET, "/s", &headers).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert!(!refused.body.contains("retry:") && !refused.body.contains("evil"), "{}", refused.body);
    let log = log.text();
    assert!(log.contains("a page of another site sent a cookie"), "{log}");
    assert!(log.contains("https://evil.example") && log.contains("app.example.com"), "{log}");
}

#[tokio::test]
async fn a_page_on_another_port_or_a_sibling_host_is_another_origin() {
    let site = Site::new("");
    for headers in [
        &[SITE, ("origin", "https://app.example.com:8443"), ("sec-fetch-site", "same-site")][..],
        &[SITE, ("origin", "https://blog.example.com"), ("sec-fetch-site", "same-site")],
        // An image or a script of the sibling's page, without `Origin`.
        &[SITE, ("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")],
    ] {
        assert_eq!(site.with_cookie("/s", headers).await, StatusCode::FORBIDDEN, "{headers:?}");
    }
    site.assert_runs(0);
}

#[tokio::test]
async fn an_image_or_a_link_of_another_site_sends_no_origin() {
    let site = Site::new("");
    for mode in ["no-cors", "navigate"] {
        let headers = [SITE, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode)];
        assert_eq!(site.with_cookie("/s", &headers).await, StatusCode::FORBIDDEN, "{mode}");
    }
    site.assert_runs(0);
}

#[tokio::test]
async fn a_sandboxed_frame_says_null() {
    let site = Site::new("");
    for headers in [
        &[SITE, ("origin", "null")][..],
        &[SITE, ("origin", "null"), ("sec-fetch-site", "same-origin")],
        &[("host", "null"), ("origin", "null")],
    ] {
        assert_eq!(site.with_cookie("/s", headers).await, StatusCode::FORBIDDEN, "{headers:?}");
    }
    site.assert_runs(0);
}

#[tokio::test]
async fn two_origins_or_two_hosts_hide_the_wrong_one() {
    let site = Site::new("");
    let (good, evil) = (("origin", "https://app.example.com"), ("origin", "https://evil.example"));
    for headers in [
        &[SITE, good, evil][..],
        &[SITE, evil, good],
        &[SITE, good, good],
        &[SITE, ("host", "evil.example"), evil],
        &[SITE, ("origin", "https://app.example.com, https://evil.example")],
        &[SITE, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(site.with_cookie("/s", headers).await, StatusCode::FORBIDDEN, "{headers:?}");
    }
    site.assert_runs(0);
}

#[tokio::test]
async fn a_form_of_another_site_posts_with_its_visitors_cookie() {
    let site = Site::new("");
    let cookie = format!("__Host-t={}", token());
    let cookie = ("cookie", cookie.as_str());
    let server = Server::start(&site.sse, site.app.clone()).await;
    for origin in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        // Every browser sends `Origin` with a `POST`.
        &[],
    ] {
        let headers = [&[SITE, cookie], origin].concat();
        let answer = site.request(Method::POST, "/post", &headers).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin:?}");
        let mut own = testing::connect(server.address, "/own").method(Method::POST);
        for (name, value) in [&[cookie], origin].concat() {
            own = own.header(name, value);
        }
        let answer = own.await.expect_err("403");
        assert_eq!(answer.status, Some(StatusCode::FORBIDDEN), "{origin:?}");
    }
    site.assert_runs(0);
    let own = [SITE, cookie, ("origin", "https://app.example.com")];
    assert_eq!(site.request(Method::POST, "/post", &own).await.status, StatusCode::OK);
    site.assert_runs(1);
    server.stop().await;
}

#[tokio::test]
async fn routes_of_the_applications_own_are_behind_the_same_check() {
    let site = Site::new("");
    let server = Server::start(&site.sse, site.app.clone()).await;
    let cookie = format!("__Host-t={}", token());
    let status = async |origin: &str| {
        let open = testing::connect(server.address, "/own").header("cookie", cookie.as_str());
        match open.header("origin", origin).await {
            Ok(answer) => answer.status(),
            Err(error) => error.status.expect("an answer"),
        }
    };
    assert_eq!(status("https://evil.example").await, StatusCode::FORBIDDEN);
    site.assert_runs(0);
    assert_eq!(status(&format!("http://{}", server.address)).await, StatusCode::OK);
    site.assert_runs(1);
    server.stop().await;

    let asked = |origin: &str| {
        let request = http::Request::get("/").header("cookie", cookie.as_str());
        let request = request.header("host", "app.example.com").header("origin", origin);
        request.body(()).expect("a request").into_parts().0
    };
    let refused = site.sse.authenticate(&asked("https://evil.example")).await.expect_err("403");
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let ann = site.sse.authenticate(&asked("https://app.example.com")).await.expect("a caller");
    assert_eq!(ann.subject(), "ann");
}

#[tokio::test]
async fn a_foreign_page_may_open_a_public_endpoint_without_the_cookie_only() {
    let site = Site::new("");
    let evil = [SITE, ("origin", "https://evil.example")];
    assert_eq!(site.with_cookie("/public", &evil).await, StatusCode::FORBIDDEN);
    site.assert_runs(0);
    assert_eq!(site.request(Method::GET, "/public", &evil).await.status, StatusCode::OK);
    site.assert_runs(1);
}

#[tokio::test]
async fn a_sibling_host_plants_a_second_cookie() {
    let site = Site::new("");
    let (ann, eve) = (token(), sign(&claims(|claims| claims["sub"] = json!("eve"))));
    let both = format!("__Host-t={eve}; __Host-t={ann}");
    let (first, second) = (format!("__Host-t={eve}"), format!("x=1; __Host-t={ann}"));
    for cookies in [&[("cookie", both.as_str())][..], &[("cookie", &first), ("cookie", &second)]] {
        let answer = site.request(Method::GET, "/s", cookies).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.header("www-authenticate").is_some_and(|c| c.contains("invalid_request")));
    }
    site.assert_runs(0);
    // HTTP/2 sends each cookie in a header of its own.
    let split = [("cookie", "x=1"), ("cookie", &second[5..]), ("cookie", "y=2")];
    assert_eq!(site.request(Method::GET, "/s", &split).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_beside_the_cookie_overrides_it() {
    let site = Site::new("");
    let ann = token();
    let (bearer, cookie) = (format!("Bearer {ann}"), format!("__Host-t={ann}"));
    let eve = sign(&claims(|claims| claims["sub"] = json!("eve")));
    let planted = format!("/s?access_token={eve}");
    let two = site.request(Method::GET, &planted, &[SITE, ("cookie", &cookie)]).await;
    assert_eq!(two.status, StatusCode::BAD_REQUEST);
    let other = format!("Bearer {eve}");
    let two =
        site.request(Method::GET, "/s", &[("authorization", &other), ("cookie", &cookie)]).await;
    assert_eq!(two.status, StatusCode::BAD_REQUEST);
    site.assert_runs(0);
    // A browser never adds an `Authorization` header by itself, so `Origin` does not matter here.
    let foreign = ("origin", "https://evil.example");
    let one = [SITE, ("authorization", bearer.as_str()), ("cookie", &cookie), foreign];
    assert_eq!(site.request(Method::GET, "/s", &one).await.status, StatusCode::OK);
    // The query may repeat the cookie's token. It is still a request with a cookie.
    let known = format!("/s?access_token={ann}");
    let one = site.request(Method::GET, &known, &[SITE, ("cookie", &cookie), foreign]).await;
    assert_eq!(one.status, StatusCode::FORBIDDEN);
    site.assert_runs(1);
}

#[tokio::test]
async fn a_cookie_of_another_name_is_not_a_credential() {
    let site = Site::new("");
    for cookie in [format!("t={}", token()), format!("__host-t={}", token()), token()] {
        let answer = site.request(Method::GET, "/s", &[("cookie", &cookie)]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{cookie}");
    }
    let unnamed = sse_with(SseOptions::default());
    let app: Router = unnamed.endpoint("/s").handler(async || burst(1)).expect("a route");
    let open = testing::open(&app, "/s").header("cookie", format!("__Host-t={}", token()));
    assert_eq!(open.await.expect_err("401").status, Some(StatusCode::UNAUTHORIZED));
}

#[tokio::test]
async fn a_token_from_a_disabled_source_does_not_count() {
    let site = Site::new("TokenSources = [\"header\"]");
    assert_eq!(site.with_cookie("/s", &[]).await, StatusCode::UNAUTHORIZED);
    let query = format!("/s?access_token={}", token());
    assert_eq!(site.request(Method::GET, &query, &[]).await.status, StatusCode::UNAUTHORIZED);
    // It does not conflict with the token from the enabled source.
    let bearer = format!("Bearer {}", token());
    let headers = [("authorization", bearer.as_str()), ("cookie", "__Host-t=another")];
    let answer = site.request(Method::GET, "/s?access_token=another", &headers).await;
    assert_eq!(answer.status, StatusCode::OK);
    site.assert_runs(1);
}

#[tokio::test]
async fn a_post_takes_no_token_from_its_query() {
    let sse = sse_with(SseOptions::default());
    let posted: Router = sse.endpoint("/s").post_handler(async || burst(1)).expect("a route");
    let context = async |sse: SseContext| sse.stream(burst(1)).await;
    let app = posted.route("/context", get(context).post(context)).layer(axum::Extension(sse));
    for (method, path, status) in [
        (Method::POST, "/s", Some(StatusCode::UNAUTHORIZED)),
        (Method::POST, "/context", Some(StatusCode::UNAUTHORIZED)),
        (Method::GET, "/context", None),
    ] {
        let path = format!("{path}?access_token={}", token());
        let opened = testing::open(&app, &path).method(method.clone()).await;
        assert_eq!(opened.err().and_then(|error| error.status), status, "{method} {path:.9}");
    }
}

#[tokio::test]
async fn an_endpoint_cannot_enable_a_source_that_the_options_disable() {
    let sse = sse_with(options("TokenCookie = \"t\"\nTokenSources = [\"header\"]"));
    let declare = |sources: &[TokenSource]| {
        let endpoint = sse.endpoint("/s").token_sources(sources.iter().copied());
        endpoint.handler::<_, _, ()>(async || burst(1))
    };
    let error = declare(&[TokenSource::Query]).expect_err("no source left").to_string();
    assert!(
        error.contains("no part of a request may hold one") && error.contains("cookies.rs"),
        "{error}"
    );
    let app = declare(&[TokenSource::Header, TokenSource::Query]).expect("a route");
    let query = format!("/s?access_token={}", token());
    let refused = testing::open(&app, &query).await.expect_err("401");
    assert_eq!(refused.status, Some(StatusCode::UNAUTHORIZED));

    let sse = sse_with(SseOptions::default());
    let cookie = sse.endpoint("/s").token_sources([TokenSource::Cookie]);
    let error = cookie.handler::<_, _, ()>(async || burst(1)).expect_err("no cookie").to_string();
    assert!(error.contains("set TokenCookie"), "{error}");
    let post = sse.endpoint("/s").token_sources([TokenSource::Query]);
    let error =
        post.post_handler::<_, _, (), _>(async || burst(1)).expect_err("a POST").to_string();
    assert!(error.contains("no part of a request may hold one"), "{error}");
}

#[tokio::test]
async fn behind_a_proxy_the_public_origin_counts_and_not_the_host() {
    let site = Site::new("PublicOrigins = [\"https://app.example.com\"]");
    let inner = ("host", "10.0.0.7:8080");
    let own = [inner, ("origin", "https://app.example.com")];
    assert_eq!(site.with_cookie("/s", &own).await, StatusCode::OK);
    for origin in ["http://app.example.com", "http://10.0.0.7:8080", "https://10.0.0.7:8080"] {
        let status = site.with_cookie("/s", &[inner, ("origin", origin)]).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{origin}");
    }
    site.assert_runs(1);
}

#[tokio::test]
async fn with_tls_a_page_over_http_is_another_origin() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let tls = hero_sse::server::Tls::from_pem(own.cert.pem(), own.signing_key.serialize_pem());
    let tls = tls.expect("a certificate");
    let site = Site::new("");
    let server = Server::start_as(&site.sse, site.app.clone(), |serve| serve.tls(tls)).await;
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(own.cert.der().clone()).expect("a root");
    let client = tokio_rustls::rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    for (origin, status) in [("https://localhost", "200"), ("http://localhost", "403")] {
        let socket = TcpStream::connect(server.address).await.expect("a socket");
        let name = "localhost".try_into().expect("a name");
        let mut socket = connector.connect(name, socket).await.expect("a handshake");
        let cookie = token();
        let request = format!(
            "GET /s HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\ncookie: __Host-t={cookie}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = vec![0; 4096];
        let read = socket.read(&mut answer).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{origin}: {answer}");
    }
    site.assert_runs(1);
    server.stop().await;
}
