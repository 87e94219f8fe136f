//! Which page a request comes from and which host it asks for: `Origin`, `Sec-Fetch-Site`, `Host`.

use std::fmt;
use std::net::Ipv6Addr;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method};

/// No name of a host is longer, with its port (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253 + ":65535".len();

/// A host as a URL names it: in lower case, without the dot that may end it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    /// Reads an entry of an operator's list.
    ///
    /// # Errors
    ///
    /// A sentence with the cure.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).ok_or_else(|| {
            let why = match text {
                _ if text.contains("://") => "is a URL: leave out its scheme",
                _ if text.contains('*') => "is a pattern: name each host",
                _ if text.contains('/') => "has a path: leave it out",
                _ if !text.is_ascii() => "is not ASCII: write its `xn--` form",
                _ => "is no host",
            };
            format!("{text:?} {why}, as in \"app.example.com\" or \"localhost:8080\"")
        })
    }

    /// Reads `app.example.com`, `localhost:8080`, `[::1]:443`. User names are none of it.
    fn read(text: &str) -> Option<Self> {
        let text = Some(text).filter(|text| text.len() <= MAX_HOST)?;
        let (name, port) = match text.strip_prefix('[') {
            Some(bracketed) => {
                let (address, port) = bracketed.split_once(']')?;
                (format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port)
            }
            None => {
                let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                let name = name.strip_suffix('.').unwrap_or(name);
                let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                let label = |label: &str| !label.is_empty() && label.bytes().all(legal);
                if !name.split('.').all(label) {
                    return None;
                }
                (name.to_ascii_lowercase(), port)
            }
        };
        let port = match port {
            "" | ":" => None,
            port => Some(number(port.strip_prefix(':')?)?),
        };
        Some(Self { name, port })
    }

    /// The one that a request asks for; `None` where it names none.
    ///
    /// # Errors
    ///
    /// When it names several, or something that is none.
    fn asked_for(parts: &Parts) -> Result<Option<Self>, Unclear> {
        let mut lines = parts.headers.get_all(HOST).iter();
        let line = lines.next();
        if lines.next().is_some() {
            return Err(Unclear);
        }
        let read = |text: &str| Self::read(text).ok_or(Unclear);
        let header = line.map(|line| read(line.to_str().map_err(|_| Unclear)?)).transpose()?;
        // The authority of an absolute URL, and `:authority` of HTTP/2, come before the header.
        let authority = parts.uri.authority().map(|text| read(text.as_str())).transpose()?;
        match (&header, &authority) {
            (Some(header), Some(authority)) if header.name != authority.name => Err(Unclear),
            _ => Ok(authority.or(header)),
        }
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?.filter(|port| *port > 0)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A request names two hosts, or what is none.
#[derive(Debug)]
struct Unclear;

/// Scheme, host and port of a page, as a browser writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    /// Without a port where it is the scheme's own.
    host: Host,
}

impl Origin {
    /// Reads an entry of an operator's list.
    ///
    /// # Errors
    ///
    /// A sentence with the cure.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).ok_or_else(|| {
            let rest = text.split_once("://").map(|(_, rest)| rest);
            let why = match rest {
                _ if text.contains('*') => "is a pattern: name each origin",
                _ if text == "null" => "is what any sandboxed page says: serve yours from a URL",
                None => "has no scheme: put `https://` before it",
                Some(rest) if rest.ends_with('/') && rest.matches('/').count() == 1 => {
                    "ends in a slash: leave it out"
                }
                Some(rest) if rest.contains(['/', '?', '#']) => "has a path: leave it out",
                Some(rest) if rest.contains('@') => "names a user: leave it out",
                Some(_) if !text.is_ascii() => "is not ASCII: write its `xn--` form",
                Some(_) => "is no origin",
            };
            format!(
                "{text:?} {why}, as in \"https://app.example.com\" or \"http://localhost:5173\""
            )
        })
    }

    fn read(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once("://")?;
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(legal) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let mut host = Host::read(host)?;
        host.port = host.port.filter(|port| Some(*port) != default_port(&scheme));
        Some(Self { scheme, host })
    }

    /// The one that a request comes from.
    ///
    /// # Errors
    ///
    /// When there are several, or something that is none, such as `null`.
    fn sent(headers: &HeaderMap) -> Result<Option<Self>, Unclear> {
        let mut lines = headers.get_all(ORIGIN).iter();
        let Some(line) = lines.next() else { return Ok(None) };
        if lines.next().is_some() {
            return Err(Unclear);
        }
        let line = line.to_str().ok().and_then(Self::read);
        line.map(Some).ok_or(Unclear)
    }

    /// The entry of `list` that a request comes from, if it does.
    pub(crate) fn listed<'a>(list: &'a [Self], headers: &HeaderMap) -> Option<&'a Self> {
        let sent = Self::sent(headers).ok()??;
        list.iter().find(|origin| **origin == sent)
    }

    /// Whether its pages were served by `host`. A proxy may speak HTTPS for it, so the scheme tells
    /// only where TLS ends here.
    fn is_of(&self, host: &Host, over_tls: bool) -> bool {
        let Some(default) = default_port(&self.scheme) else { return false };
        let port = |host: &Host| host.port.unwrap_or(default);
        (self.scheme == "https" || !over_tls)
            && self.host.name == host.name
            && port(&self.host) == port(host)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// A list as somebody wrote it: what could be read of it, and what is wrong with the rest.
#[derive(Clone, Debug)]
pub(crate) struct Listed<T> {
    pub(crate) entries: Vec<T>,
    pub(crate) faults: Vec<String>,
}

impl<T> Listed<T> {
    pub(crate) const NONE: Self = Self { entries: Vec::new(), faults: Vec::new() };

    pub(crate) fn read(
        texts: impl IntoIterator<Item: AsRef<str>>,
        read: fn(&str) -> Result<T, String>,
    ) -> Self {
        let mut listed = Self::NONE;
        for text in texts {
            match read(text.as_ref()) {
                Ok(entry) => listed.entries.push(entry),
                Err(fault) => listed.faults.push(fault),
            }
        }
        listed
    }
}

/// In the extensions of a request that came over TLS which ends here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverTls;

/// What a kit's pages and hosts are.
#[derive(Clone, Debug, Default)]
pub(crate) struct SitePolicy {
    /// Where its own pages are, as browsers see it. Empty: where the request's host says.
    pub(crate) public_origins: Vec<Origin>,
    /// Others whose pages may send cookies.
    pub(crate) trusted_origins: Vec<Origin>,
    /// The hosts it answers to. Empty: all.
    pub(crate) hosts: Vec<Host>,
}

/// Why a page may not use a cookie.
#[derive(Debug)]
pub(crate) struct Foreign {
    /// For the client.
    pub(crate) why: &'static str,
    /// For the log: where the page is, and which host it asked.
    pub(crate) origin: Option<String>,
    pub(crate) host: Option<String>,
}

impl SitePolicy {
    /// Whether the request asks for a host that is answered: a page whose name was made to lead here
    /// asks for its own.
    pub(crate) fn serves_host_of(&self, parts: &Parts) -> bool {
        if self.hosts.is_empty() {
            return true;
        }
        let Ok(Some(asked)) = Host::asked_for(parts) else { return false };
        let ports: &[u16] = if is_over_tls(parts) { &[443] } else { &[443, 80] };
        let port_fits = |port: u16| match asked.port {
            Some(asked) => asked == port,
            None => ports.contains(&port),
        };
        self.hosts.iter().any(|host| host.name == asked.name && host.port.is_none_or(port_fits))
    }

    /// Whether the page that this request comes from may use its browser's cookies here: one of the
    /// kit's own site, or of a friend's.
    ///
    /// Browsers send no `Origin` with a page's own `GET`, nor with an image's; what tells these apart
    /// is `Sec-Fetch-Site`. Without either it is no page, or one of a browser from before 2023: that may
    /// read, but not change anything.
    pub(crate) fn check_cookie_origin(&self, parts: &Parts) -> Result<(), Foreign> {
        let host = Host::asked_for(parts).ok().flatten();
        let refuse = |why, origin: Option<&Origin>| {
            let (origin, host) =
                (origin.map(Origin::to_string), host.as_ref().map(Host::to_string));
            Err(Foreign { why, origin, host })
        };
        match Origin::sent(&parts.headers) {
            Err(Unclear) => refuse("a cookie counts only from a page of this site", None),
            Ok(Some(origin)) => {
                let own = || match &host {
                    Some(host) => {
                        self.public_origins.is_empty() && origin.is_of(host, is_over_tls(parts))
                    }
                    None => false,
                };
                if self.public_origins.contains(&origin)
                    || self.trusted_origins.contains(&origin)
                    || own()
                {
                    return Ok(());
                }
                refuse("a cookie counts only from a page of this site", Some(&origin))
            }
            Ok(None) => {
                let reads = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
                match is_cross_origin(parts) {
                    Some(false) => Ok(()),
                    None if reads => Ok(()),
                    None => refuse("with a cookie alone this method needs an Origin", None),
                    Some(true) => refuse("a cookie counts only from a page of this site", None),
                }
            }
        }
    }
}

fn is_over_tls(parts: &Parts) -> bool {
    parts.extensions.get::<OverTls>().is_some()
}

/// Whether a page of another origin had the request sent, by a browser's `Sec-Fetch-Site`; `None` without
/// one.
pub(crate) fn is_cross_origin(parts: &Parts) -> Option<bool> {
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
    fn hosts_are_read_as_urls_name_them() {
        for (text, shown) in [
            ("app.example.com", "app.example.com"),
            ("APP.Example.COM.", "app.example.com"),
            ("localhost:8080", "localhost:8080"),
            ("localhost:", "localhost"),
            ("my_host-1", "my_host-1"),
            ("127.0.0.1:080", "127.0.0.1:80"),
            ("[::1]", "[::1]"),
            ("[0:0::1]:443", "[::1]:443"),
        ] {
            assert_eq!(Host::parse(text).expect(text).to_string(), shown);
        }
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            ":80",
            "a:b",
            "a:0",
            "a:65536",
            "a:+80",
            "a:80:80",
            "a b",
            "a,b",
            "a\u{e9}",
            "user@a",
            "a@b:80",
            "a/b",
            "a?b",
            "a#b",
            "a%2e",
            "::1",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "[fe80::1%25eth0]",
            "*.example.com",
            "http://a",
        ] {
            let error = Host::parse(text).expect_err(text);
            assert!(error.contains("as in \"app.example.com\""), "{error}");
        }
        assert!(Host::parse(&"a".repeat(MAX_HOST + 1)).is_err());
    }

    #[test]
    fn origins_are_exact_and_mistakes_come_with_the_cure() {
        for (text, shown) in [
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.com:443", "https://app.example.com"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://a:80", "http://a"),
            ("http://a:443", "http://a:443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(origin(text).to_string(), shown);
        }
        for (text, cure) in [
            ("*", "a pattern: name each"),
            ("https://*.example.com", "a pattern: name each"),
            ("null", "sandboxed"),
            ("app.example.com", "has no scheme"),
            ("https://a/", "ends in a slash"),
            ("https://a/b", "has a path"),
            ("https://a?b", "has a path"),
            ("https://u@a", "names a user"),
            ("https://\u{e9}", "xn--"),
            ("https://", "is no origin"),
            ("https://a b", "is no origin"),
            ("1http://a", "is no origin"),
            ("", "has no scheme"),
        ] {
            let error = Origin::parse(text).expect_err(text);
            assert!(error.contains(cure) && error.contains("as in \"https:"), "{error}");
        }
    }

    #[test]
    fn a_page_is_trusted_when_it_is_of_the_host_that_it_asks() {
        let own = SitePolicy::default();
        let behind_a_proxy =
            SitePolicy { public_origins: vec![origin("https://app.example.com")], ..own.clone() };
        let with_friends = SitePolicy {
            trusted_origins: vec![origin("https://pages.example.net")],
            ..own.clone()
        };
        let host = ("host", "app.example.com");
        let from = |value| ("origin", value);
        let site = |value| ("sec-fetch-site", value);
        for (sites, headers, over_tls, trusted) in [
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
            // What came with it is not asked, where an origin tells: a friend's page is of another site.
            (&own, &[host, from("https://evil.example"), site("same-origin")], false, false),
            (
                &with_friends,
                &[host, from("https://pages.example.net"), site("cross-site")],
                false,
                true,
            ),
            (&with_friends, &[host, from("https://app.example.com")], false, true),
            (&with_friends, &[host, from("http://pages.example.net")], false, false),
            // Where the public origin is known, the host, which a proxy may have made up, is not asked.
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
            assert_eq!(
                sites.check_cookie_origin(&parts).is_ok(),
                trusted,
                "{headers:?} {over_tls}"
            );
        }
    }

    #[test]
    fn what_changes_something_must_say_where_it_comes_from() {
        let sites = SitePolicy::default();
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
            assert_eq!(sites.check_cookie_origin(&parts).is_ok(), trusted, "{method} {headers:?}");
        }
    }

    #[test]
    fn only_listed_hosts_are_answered_however_they_are_spelt() {
        let hosts = ["app.example.com", "localhost:8080", "secure:443", "[::1]"];
        let sites = SitePolicy {
            hosts: hosts.map(|host| Host::parse(host).expect("a host")).to_vec(),
            ..SitePolicy::default()
        };
        for (uri, headers, over_tls, answered) in [
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
            assert_eq!(sites.serves_host_of(&parts), answered, "{uri} {headers:?}");
            assert!(SitePolicy::default().serves_host_of(&parts), "{uri} {headers:?}");
        }
    }
}
