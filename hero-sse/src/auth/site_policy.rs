//! Which hosts are served, and which pages may authenticate with a cookie: protection against DNS rebinding
//! and cross-site requests.

use http::Method;
use http::request::Parts;

use crate::origin::{Ambiguous, Host, Origin};

/// Extension of a request that arrived over TLS, terminated by this server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverTls;

/// The hosts and origins of one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct SitePolicy {
    /// Origins of its own pages, as browsers see them. Empty: the origin of the request's host.
    pub(crate) public_origins: Vec<Origin>,
    /// Origins of other pages that may send cookies.
    pub(crate) trusted_origins: Vec<Origin>,
    /// Hosts that are served. Empty: all.
    pub(crate) hosts: Vec<Host>,
}

/// Why a request may not authenticate with its cookie.
#[derive(Debug)]
pub(crate) struct ForeignPage {
    /// For the client.
    pub(crate) why: &'static str,
    /// For the log: the page's origin.
    pub(crate) origin: Option<String>,
    /// For the log: the host of the request.
    pub(crate) host: Option<String>,
}

impl SitePolicy {
    /// Returns whether the request is for a host that is served. In DNS rebinding, it is for the host of
    /// the attacker's page.
    pub(crate) fn allows_host(&self, parts: &Parts) -> bool {
        if self.hosts.is_empty() {
            return true;
        }
        let Ok(Some(requested)) = Host::of_request(parts) else { return false };
        let defaults: &[u16] = if is_over_tls(parts) { &[443] } else { &[443, 80] };
        let port_fits = |port: u16| match requested.port {
            Some(requested) => requested == port,
            None => defaults.contains(&port),
        };
        self.hosts.iter().any(|host| host.name == requested.name && host.port.is_none_or(port_fits))
    }

    /// Checks that the page that sent this request may use its browser's cookie here: a page of this site,
    /// or of a trusted origin.
    ///
    /// Browsers send no `Origin` with `GET` to the page's own origin, nor for images. There `Sec-Fetch-Site`
    /// decides. A request without either is not from a page, or from a browser older than 2023: it may
    /// read, but not change anything.
    pub(crate) fn check_cookie(&self, parts: &Parts) -> Result<(), ForeignPage> {
        const FOREIGN: &str = "a cookie counts only from a page of this site";
        let host = Host::of_request(parts).ok().flatten();
        let refuse = |why, origin: Option<&Origin>| {
            let (origin, host) =
                (origin.map(Origin::to_string), host.as_ref().map(Host::to_string));
            Err(ForeignPage { why, origin, host })
        };
        match Origin::of_request(&parts.headers) {
            Err(Ambiguous) => refuse(FOREIGN, None),
            Ok(Some(origin)) => {
                let is_own = || match &host {
                    Some(host) => {
                        self.public_origins.is_empty()
                            && origin.is_served_by(host, is_over_tls(parts))
                    }
                    None => false,
                };
                let is_listed =
                    self.public_origins.contains(&origin) || self.trusted_origins.contains(&origin);
                if is_listed || is_own() { Ok(()) } else { refuse(FOREIGN, Some(&origin)) }
            }
            Ok(None) => {
                let reads = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
                match is_cross_origin(parts) {
                    Some(false) => Ok(()),
                    None if reads => Ok(()),
                    None => refuse("with a cookie alone this method needs an Origin", None),
                    Some(true) => refuse(FOREIGN, None),
                }
            }
        }
    }
}

fn is_over_tls(parts: &Parts) -> bool {
    parts.extensions.get::<OverTls>().is_some()
}

/// Returns whether a page of another origin sent the request, by `Sec-Fetch-Site`. `None`: there is no such
/// header.
pub(super) fn is_cross_origin(parts: &Parts) -> Option<bool> {
    let mut sites = parts.headers.get_all("sec-fetch-site").iter();
    let first = sites.next()?.as_bytes();
    Some(sites.next().is_some() || !matches!(first, b"same-origin" | b"none"))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::parse(text).expect(text)
    }

    fn parts(method: Method, uri: &str, headers: &[(&str, &str)], over_tls: bool) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).expect("a request").into_parts().0;
        if over_tls {
            parts.extensions.insert(OverTls);
        }
        parts
    }

    #[test]
    fn a_cookie_counts_only_from_pages_of_the_requested_host_and_of_trusted_origins() {
        let own = SitePolicy::default();
        let behind_a_proxy =
            SitePolicy { public_origins: vec![origin("https://app.example.com")], ..own.clone() };
        let with_trusted = SitePolicy {
            trusted_origins: vec![origin("https://pages.example.net")],
            ..own.clone()
        };
        let host = ("host", "app.example.com");
        let from = |value| ("origin", value);
        let site = |value| ("sec-fetch-site", value);
        for (policy, headers, over_tls, trusted) in [
            (&own, &[host][..], false, true),
            (&own, &[host, from("https://app.example.com")], false, true),
            (&own, &[host, from("http://app.example.com")], false, true),
            (&own, &[host, from("https://app.example.com")], true, true),
            (&own, &[host, from("http://app.example.com")], true, false),
            (&own, &[host, from("https://app.example.com:8443")], false, false),
            (&own, &[host, from("https://example.com")], false, false),
            (&own, &[host, from("https://app.example.com.evil.example")], false, false),
            (&own, &[host, from("https://evil.example")], false, false),
            (&own, &[host, from("null")], false, false),
            (&own, &[host, from("")], false, false),
            (&own, &[host, from("file://")], false, false),
            (&own, &[host, from("chrome-extension://app.example.com")], false, false),
            (&own, &[from("https://app.example.com")], false, false),
            (&own, &[host, host, from("https://app.example.com")], false, false),
            (
                &own,
                &[host, from("https://app.example.com"), from("https://app.example.com")],
                false,
                false,
            ),
            (
                &own,
                &[("host", "app.example.com:3000"), from("http://app.example.com:3000")],
                false,
                true,
            ),
            (
                &own,
                &[("host", "app.example.com:3000"), from("http://app.example.com")],
                false,
                false,
            ),
            // `Origin` takes precedence over `Sec-Fetch-Site`: a trusted page is of another site.
            (&own, &[host, from("https://evil.example"), site("same-origin")], false, false),
            (
                &with_trusted,
                &[host, from("https://pages.example.net"), site("cross-site")],
                false,
                true,
            ),
            (&with_trusted, &[host, from("https://app.example.com")], false, true),
            (&with_trusted, &[host, from("http://pages.example.net")], false, false),
            // With configured public origins `Host` does not count: a proxy may have changed it.
            (
                &behind_a_proxy,
                &[("host", "10.0.0.7"), from("https://app.example.com")],
                false,
                true,
            ),
            (&behind_a_proxy, &[host, from("http://app.example.com")], false, false),
            (&behind_a_proxy, &[("host", "10.0.0.7"), from("http://10.0.0.7")], false, false),
            (&own, &[host, site("same-origin")], false, true),
            (&own, &[host, site("none")], false, true),
            (&own, &[host, site("same-site")], false, false),
            (&own, &[host, site("cross-site")], false, false),
            (&own, &[host, site("")], false, false),
            (&own, &[host, site("same-origin"), site("cross-site")], false, false),
            (&own, &[host, site("same-origin, cross-site")], false, false),
        ] {
            let parts = parts(Method::GET, "/", headers, over_tls);
            assert_eq!(policy.check_cookie(&parts).is_ok(), trusted, "{headers:?} {over_tls}");
        }
    }

    #[test]
    fn methods_that_change_something_need_an_origin() {
        let policy = SitePolicy::default();
        for (method, headers, trusted) in [
            (Method::HEAD, &[][..], true),
            (Method::POST, &[], false),
            (Method::DELETE, &[], false),
            (Method::POST, &[("sec-fetch-site", "same-origin")], true),
            (Method::POST, &[("sec-fetch-site", "same-site")], false),
            (Method::POST, &[("origin", "http://a")], true),
            (Method::POST, &[("origin", "null"), ("sec-fetch-site", "same-origin")], false),
        ] {
            let parts = parts(method.clone(), "http://a/", headers, false);
            assert_eq!(policy.check_cookie(&parts).is_ok(), trusted, "{method} {headers:?}");
        }
    }

    #[test]
    fn only_listed_hosts_are_served_however_they_are_written() {
        let hosts = ["app.example.com", "localhost:8080", "secure:443", "[::1]"];
        let policy = SitePolicy {
            hosts: hosts.map(|host| Host::parse(host).expect("a host")).to_vec(),
            ..SitePolicy::default()
        };
        for (uri, headers, over_tls, served) in [
            ("/", &["app.example.com"][..], false, true),
            ("/", &["APP.example.com."], false, true),
            ("/", &["app.example.com:8443"], false, true),
            ("/", &["localhost:8080"], false, true),
            ("/", &["localhost"], false, false),
            ("/", &["localhost:80"], false, false),
            ("/", &["secure"], true, true),
            ("/", &["[0::1]:9"], false, true),
            ("/", &["evil.example"], false, false),
            ("/", &["127.0.0.1"], false, false),
            ("/", &["app.example.com.evil.example"], false, false),
            ("/", &["evil.example@app.example.com"], false, false),
            ("/", &["app.example.com@evil.example"], false, false),
            ("/", &["app.example.com, evil.example"], false, false),
            ("/", &["app.example.com", "app.example.com"], false, false),
            ("/", &["evil.example", "app.example.com"], false, false),
            ("/", &[""], false, false),
            ("/", &[], false, false),
            // An absolute URL, or `:authority`.
            ("http://app.example.com/", &[], false, true),
            ("http://app.example.com/", &["app.example.com"], false, true),
            ("http://evil.example/", &["app.example.com"], false, false),
            ("http://app.example.com/", &["evil.example"], false, false),
            ("http://app.example.com@evil.example/", &[], false, false),
            ("http://evil.example@app.example.com/", &[], false, false),
        ] {
            let headers: Vec<_> = headers.iter().map(|value| ("host", *value)).collect();
            let parts = parts(Method::GET, uri, &headers, over_tls);
            assert_eq!(policy.allows_host(&parts), served, "{uri} {headers:?}");
            assert!(SitePolicy::default().allows_host(&parts), "{uri} {headers:?}");
        }
    }
}
