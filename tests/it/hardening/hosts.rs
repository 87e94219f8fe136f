//! DNS rebinding: requests for hosts that are not served.

use std::sync::atomic::Ordering;

use axum::routing::get;
use http::StatusCode;

use super::site::{Site, raw};
use crate::http2::Client;
use crate::support::{Server, token};

#[tokio::test]
async fn a_rebound_dns_name_is_not_an_allowed_host() {
    let site = Site::new("AllowedHosts = [\"app.example.com\", \"localhost:8080\"]");
    let server = Server::start(&site.sse, site.app.clone()).await;
    let bearer = format!("authorization: Bearer {}\r\n", token());
    for (target, hosts, status) in [
        ("/public", "host: app.example.com\r\n", "200"),
        ("/s", "host: APP.EXAMPLE.COM.:3000\r\n", "200"),
        ("/public", "host: localhost:8080\r\n", "200"),
        ("http://app.example.com/public", "host: app.example.com\r\n", "200"),
        ("/public", "host: evil.example\r\n", "403"),
        ("/s", "host: evil.example\r\n", "403"),
        ("/public", "host: localhost:8081\r\n", "403"),
        ("/public", "host: localhost\r\n", "403"),
        ("/public", "host: 127.0.0.1\r\n", "403"),
        ("/public", "host: app.example.com@evil.example\r\n", "403"),
        ("/public", "host: evil.example@app.example.com\r\n", "403"),
        ("/public", "host: app.example.com.evil.example\r\n", "403"),
        ("/public", "host: \r\n", "403"),
        ("/public", "host: app.example.com\r\nhost: evil.example\r\n", "403"),
        ("/public", "host: evil.example\r\nx-forwarded-host: app.example.com\r\n", "403"),
        ("http://evil.example/public", "host: app.example.com\r\n", "403"),
        ("http://app.example.com/public", "host: evil.example\r\n", "403"),
    ] {
        let runs = site.runs.load(Ordering::SeqCst);
        let request = format!("GET {target} HTTP/1.1\r\n{hosts}{bearer}\r\n");
        let answer = raw(server.address, &request).await;
        // hyper itself may refuse a malformed request.
        let refused = status == "403" && answer.starts_with("HTTP/1.1 400");
        let fits = answer.starts_with(&format!("HTTP/1.1 {status}")) || refused;
        assert!(fits, "{target} {hosts}: {answer}");
        site.assert_runs(runs + usize::from(status == "200"));
    }
    let old = raw(server.address, "GET /public HTTP/1.0\r\n\r\n").await;
    assert!(old.contains(" 403 "), "without any host: {old}");

    let mut client = Client::connect(server.address).await;
    let answer = client.get("/public").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN, "`localhost` without its port");
    let request = |uri: &str| http::Request::get(uri).body(()).expect("a request");
    let answer = client.send(request("http://app.example.com/public")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let answer = client.send(request("http://evil.example/public")).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    for (authority, host) in
        [("evil.example", "app.example.com"), ("app.example.com", "evil.example")]
    {
        let request = http::Request::get(format!("http://{authority}/public")).header("host", host);
        let answer = client.send(request.body(()).expect("a request")).await;
        assert_ne!(answer.status(), StatusCode::OK, "{authority} and {host}");
    }
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn other_routes_serve_every_host_so_that_load_balancers_can_use_the_address() {
    let site = Site::new("AllowedHosts = [\"app.example.com\"]");
    let app = site.app.clone().route("/readyz", get(site.sse.readiness()));
    let server = Server::start(&site.sse, app).await;
    let answer = raw(server.address, "GET /readyz HTTP/1.1\r\nhost: 10.0.0.7\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let bearer = format!("authorization: Bearer {}", token());
    let own = format!("GET /own HTTP/1.1\r\nhost: 10.0.0.7\r\n{bearer}\r\n\r\n");
    let answer = raw(server.address, &own).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "a route that authenticates: {answer}");
    server.stop().await;
}
