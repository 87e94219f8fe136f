//! Hosts and origins, as requests name them (`Host`, `Origin`) and as configuration lists them.

use std::fmt;
use std::net::Ipv6Addr;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderName};

/// Maximum length of a host name (RFC 1035, section 2.3.4) with its port.
const MAX_HOST: usize = 253 + ":65535".len();

/// A host name with an optional port, in lower case and without a final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
}

impl Host {
    /// Reads an entry of a configured list.
    ///
    /// # Errors
    ///
    /// A sentence that says how to write it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).ok_or_else(|| {
            let why = match text {
                _ if text.contains("://") => "is a URL: leave out its scheme",
                _ if text.contains('*') => "is a pattern: name each host",
                _ if text.contains('/') => "has a path: leave it out",
                _ if !text.is_ascii() => "is not ASCII: write its `xn--` form",
                _ => "is not a host",
            };
            format!("{text:?} {why}, as in \"app.example.com\" or \"localhost:8080\"")
        })
    }

    /// Reads `app.example.com`, `localhost:8080` or `[::1]:443`. A user name before it is not allowed.
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

    /// Returns the host that a request is for. `None`: it names no host.
    ///
    /// # Errors
    ///
    /// If it names several hosts, or something that is not a host.
    pub(crate) fn of_request(parts: &Parts) -> Result<Option<Self>, Ambiguous> {
        let mut lines = parts.headers.get_all(HOST).iter();
        let line = lines.next();
        if lines.next().is_some() {
            return Err(Ambiguous);
        }
        let read = |text: &str| Self::read(text).ok_or(Ambiguous);
        let header = line.map(|line| read(line.to_str().map_err(|_| Ambiguous)?)).transpose()?;
        // The authority of an absolute URL, and `:authority` of HTTP/2, take precedence over the header.
        let authority = parts.uri.authority().map(|text| read(text.as_str())).transpose()?;
        match (&header, &authority) {
            (Some(header), Some(authority)) if header.name != authority.name => Err(Ambiguous),
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

/// A request names several hosts or origins, or something that is neither.
#[derive(Debug)]
pub(crate) struct Ambiguous;

/// Scheme, host and port of a page, as a browser sends them in `Origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    /// Without the scheme's default port.
    host: Host,
}

impl Origin {
    /// Reads an entry of a configured list.
    ///
    /// # Errors
    ///
    /// A sentence that says how to write it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).ok_or_else(|| {
            let rest = text.split_once("://").map(|(_, rest)| rest);
            let why = match rest {
                _ if text.contains('*') => "is a pattern: name each origin",
                _ if text == "null" => "is what every sandboxed page sends: serve yours from a URL",
                None => "has no scheme: put `https://` before it",
                Some(rest) if rest.ends_with('/') && rest.matches('/').count() == 1 => {
                    "ends in a slash: leave it out"
                }
                Some(rest) if rest.contains(['/', '?', '#']) => "has a path: leave it out",
                Some(rest) if rest.contains('@') => "names a user: leave it out",
                Some(_) if !text.is_ascii() => "is not ASCII: write its `xn--` form",
                Some(_) => "is not an origin",
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

    /// Returns the origin of the page that sent a request. `None`: there is no `Origin`.
    ///
    /// # Errors
    ///
    /// If there are several, or one that is not an origin, such as `null`.
    pub(crate) fn of_request(headers: &HeaderMap) -> Result<Option<Self>, Ambiguous> {
        let mut lines = headers.get_all(ORIGIN).iter();
        let Some(line) = lines.next() else { return Ok(None) };
        if lines.next().is_some() {
            return Err(Ambiguous);
        }
        let line = line.to_str().ok().and_then(Self::read);
        line.map(Some).ok_or(Ambiguous)
    }

    /// Returns the entry of `list` that equals the request's origin.
    pub(crate) fn find_in<'a>(list: &'a [Self], headers: &HeaderMap) -> Option<&'a Self> {
        let sent = Self::of_request(headers).ok()??;
        list.iter().find(|origin| **origin == sent)
    }

    /// Returns whether `host` serves the pages of this origin.
    ///
    /// A proxy may terminate TLS, so `https` is accepted without TLS here. `http` is not accepted with it.
    pub(crate) fn is_served_by(&self, host: &Host, over_tls: bool) -> bool {
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

/// A configured list: its valid entries, and the mistakes in the others.
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

/// Reads an entry of a list of headers: a name, or `*`.
pub(crate) fn header_name(text: &str) -> Result<HeaderName, String> {
    let fault =
        |_| format!("{text:?} cannot be the name of a header: write one such as \"traceparent\"");
    text.parse().map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::parse(text).expect(text)
    }

    #[test]
    fn hosts_are_read_as_in_urls() {
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
    fn origins_are_exact_and_errors_say_how_to_write_them() {
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
            ("https://", "is not an origin"),
            ("https://a b", "is not an origin"),
            ("1http://a", "is not an origin"),
            ("", "has no scheme"),
        ] {
            let error = Origin::parse(text).expect_err(text);
            assert!(error.contains(cure) && error.contains("as in \"https:"), "{error}");
        }
    }
}
