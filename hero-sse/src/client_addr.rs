//! Determines the address of the client: the peer of the socket or, if that is a trusted proxy, the client
//! that the proxy names in a header.
//!
//! Each proxy appends the address of its peer to the header. So entries are read from the right, and the first
//! address that is not a trusted proxy is the client. Entries on its left may be forged and are not read.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::ConnectInfo;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};

/// Maximum number of proxies in a row. Real chains are shorter.
const MAX_HOPS: usize = 16;

/// Maximum length of an entry. An element of `Forwarded` may also name host, protocol and proxy.
const MAX_ENTRY: usize = 1024;

/// The header in which [trusted proxies](crate::SseOptions::trusted_proxies) name the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: a list of addresses, with or without ports.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl ForwardedHeader {
    const fn name(self) -> HeaderName {
        match self {
            Self::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            Self::Forwarded => http::header::FORWARDED,
        }
    }

    /// Parses the address in an entry.
    fn parse(self, entry: &[u8]) -> Option<IpAddr> {
        let entry = Some(entry).filter(|entry| entry.len() <= MAX_ENTRY)?;
        match self {
            Self::XForwardedFor => address(entry),
            Self::Forwarded => forwarded_for(entry),
        }
    }
}

/// A network of trusted proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network(IpNet);

impl Network {
    /// Reads a network (`"10.0.0.0/8"`) or an address.
    ///
    /// # Errors
    ///
    /// A sentence with the cure.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match network(text) {
            Some(network) if network.prefix_len() == 0 => Err(format!(
                "{text:?} trusts everybody, so that any client can claim any address: write the networks of your \
                 proxies"
            )),
            Some(network) => Ok(Self(network)),
            None => Err(format!(
                "{text:?} is not a network: write \"10.0.0.0/8\", \"2001:db8::/32\" or an address"
            )),
        }
    }
}

/// The trusted proxies, and the header that they set.
#[derive(Clone, Debug)]
pub(crate) struct TrustedProxies {
    networks: Vec<Network>,
    header: ForwardedHeader,
}

impl TrustedProxies {
    pub(crate) fn new(networks: Vec<Network>, header: ForwardedHeader) -> Self {
        Self { networks, header }
    }

    /// Returns the client's address. `None`: the socket has no address, such as a Unix socket.
    pub(crate) fn client_of(&self, parts: &Parts) -> Option<IpAddr> {
        let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
        Some(self.client(peer.ip(), &parts.headers))
    }

    /// Returns the peer if it looks like a proxy that is not configured: its address is private and it sends a
    /// header of proxies. A client with a private address can pretend this.
    pub(crate) fn unlisted_proxy(&self, parts: &Parts) -> Option<IpAddr> {
        let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
        let names = [ForwardedHeader::XForwardedFor.name(), ForwardedHeader::Forwarded.name()];
        let forwards = names.iter().any(|name| parts.headers.contains_key(name));
        let peer = Some(peer.ip().to_canonical()).filter(|peer| is_private(*peer));
        peer.filter(|_| forwards && self.networks.is_empty())
    }

    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut last = peer.to_canonical();
        if !self.trusts(last) {
            return last;
        }
        let lines = headers.get_all(self.header.name()).iter().rev();
        // Split at every comma, even in quotes: no address contains one. If quotes were paired from the left, a
        // quote in the client's part could enclose the proxy's part.
        let entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for entry in entries.take(MAX_HOPS) {
            match self.header.parse(entry) {
                Some(next) => last = next.to_canonical(),
                None => return last,
            }
            if !self.trusts(last) {
                return last;
            }
        }
        last
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|Network(network)| network.contains(&address))
    }
}

/// Returns what limits count an address by. For IPv6 that is the /64 network, since its owner can use any
/// address in it.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

/// Returns whether an address belongs to this machine or a private network, as those of proxies do.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            // Shared address space (RFC 6598), which container networks use.
            let shared = matches!(address.octets(), [100, 64..=127, ..]);
            address.is_loopback() || address.is_private() || address.is_link_local() || shared
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse().map(IpAddr::into).ok())?;
    // Addresses are compared in their canonical form.
    match network {
        IpNet::V6(mapped) if mapped.prefix_len() >= 96 => match mapped.addr().to_ipv4_mapped() {
            Some(address) => Some(Ipv4Net::new(address, mapped.prefix_len() - 96).ok()?.into()),
            None => Some(network),
        },
        _ => Some(network),
    }
}

/// Parses an address with or without port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text.trim_ascii()).ok()?;
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']')?;
        let legal = rest.strip_prefix(':').map_or(rest.is_empty(), is_port);
        return address.parse().ok().filter(|_| legal).map(IpAddr::V6);
    }
    let bare = || text.parse().ok();
    match text.split_once(':') {
        Some((address, port)) if is_port(port) => {
            address.parse().ok().map(IpAddr::V4).or_else(bare)
        }
        _ => bare(),
    }
}

/// Returns whether `text` is a port, or an obfuscated one such as `_a1` (RFC 7239, section 6.3).
fn is_port(text: &str) -> bool {
    let obfuscated = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let number = || text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    number() || text.strip_prefix('_').is_some_and(obfuscated)
}

/// Parses the address in an element of `Forwarded` (RFC 7239, section 4), such as
/// `for="[2001:db8::1]:80";proto=https`. `None` for `unknown`, obfuscated names, two `for` and malformed
/// elements.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in str::from_utf8(element).ok()?.split(';').map(str::trim_ascii) {
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=')?;
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = quoted.unwrap_or(value);
        // An escape in quotes is legal, but no address has one. A single quote is malformed.
        if value.contains(['"', '\\']) {
            return None;
        }
        if name.eq_ignore_ascii_case("for") {
            let first = found.replace(address(value.as_bytes())?);
            if first.is_some() {
                return None;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn proxies(header: ForwardedHeader) -> TrustedProxies {
        let networks = ["10.0.0.0/8", "2001:db8:f::/48", "127.0.0.1"];
        TrustedProxies::new(networks.map(|text| Network::parse(text).expect(text)).into(), header)
    }

    fn client(header: ForwardedHeader, peer: &str, lines: &[&[u8]]) -> IpAddr {
        let mut headers = HeaderMap::new();
        for line in lines {
            let line = http::HeaderValue::from_bytes(line).expect("a header's bytes");
            headers.append(header.name(), line);
        }
        proxies(header).client(peer.parse().expect("an address"), &headers)
    }

    fn seen(header: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        client(header, peer, &lines).to_string()
    }

    #[test]
    fn the_first_address_from_the_right_that_is_not_a_proxy_is_the_client() {
        use ForwardedHeader::XForwardedFor as X;
        for (lines, client) in [
            (&[][..], PROXY),
            (&["192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6", "192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6,192.0.2.1 ,\t10.2.0.1"], "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1", "10.2.0.1, 10.3.0.1"], "192.0.2.1"),
            (&["10.9.0.1, 10.2.0.1"], "10.9.0.1"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[2001:db8::1]:443, 2001:db8:f::9"], "2001:db8::1"),
            (&["6.6.6.6, ::ffff:192.0.2.1, ::ffff:10.0.0.7"], "192.0.2.1"),
            // An invalid entry ends the search, with the last proxy as the client.
            (&["6.6.6.6, nonsense, 10.2.0.1"], "10.2.0.1"),
            (&["6.6.6.6, unknown"], PROXY),
            (&["6.6.6.6,"], PROXY),
            (&[""], PROXY),
            (&["6.6.6.6, 192.0.2.1:http"], PROXY),
            (&["6.6.6.6, 192.0.2.1:"], PROXY),
            (&["6.6.6.6, 192.0.2.1:+80"], PROXY),
            (&["6.6.6.6, 192.0.2.1:99999"], PROXY),
            (&["6.6.6.6, [192.0.2.1]"], PROXY),
            (&["6.6.6.6, [2001:db8::1"], PROXY),
            (&["6.6.6.6, [2001:db8::1]x"], PROXY),
            (&["6.6.6.6, fe80::1%eth0"], PROXY),
            (&["6.6.6.6, \"192.0.2.1\""], PROXY),
            (&["6.6.6.6, 192.0.2.1 192.0.2.2"], PROXY),
            (&["6.6.6.6, 010.0.0.1"], PROXY),
        ] {
            assert_eq!(seen(X, PROXY, lines), client, "{lines:?}");
        }
        // The header of a peer that is not a proxy does not count.
        assert_eq!(seen(X, "203.0.113.9", &["192.0.2.1"]), "203.0.113.9");
        assert_eq!(seen(X, "::ffff:203.0.113.9", &["192.0.2.1"]), "203.0.113.9");
        assert_eq!(seen(X, "::ffff:127.0.0.1", &["192.0.2.1"]), "192.0.2.1");
    }

    #[test]
    fn elements_of_forwarded_are_parsed_as_in_rfc_7239() {
        use ForwardedHeader::Forwarded as F;
        for (lines, client) in [
            (&["for=192.0.2.1"][..], "192.0.2.1"),
            (&["For=\"192.0.2.1:4711\""], "192.0.2.1"),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
            (&["proto=http; host=\"a.example:80\" ;for=\"192.0.2.60:_x1\";"], "192.0.2.60"),
            (&["for=6.6.6.6, for=192.0.2.43, for=10.1.1.1"], "192.0.2.43"),
            (&["for=6.6.6.6", "for=192.0.2.43,for=\"[2001:db8:f::1]\""], "192.0.2.43"),
            (&["for=6.6.6.6, for=unknown"], PROXY),
            (&["for=6.6.6.6, for=\"unknown:80\""], PROXY),
            (&["for=6.6.6.6, for=_hidden, for=10.1.1.1"], "10.1.1.1"),
            (&["for=6.6.6.6, proto=https"], PROXY),
            (&["for=6.6.6.6, for=1.1.1.1;for=2.2.2.2"], PROXY),
            (&["for=6.6.6.6, for"], PROXY),
            (&["for=6.6.6.6, for="], PROXY),
            // The client's part cannot enclose the proxy's part.
            (&["for=6.6.6.6;host=\"a, for=192.0.2.43"], "192.0.2.43"),
            (&["for=6.6.6.6;host=\"a", "for=192.0.2.43"], "192.0.2.43"),
            (&["for=6.6.6.6;host=\", for=192.0.2.43;host=\"b\""], "192.0.2.43"),
            // A host that the proxy has copied from the client cannot pass as an element.
            (&["for=192.0.2.43;host=\"x\\\", for=6.6.6.6;host=\\\"y\""], PROXY),
            (&["for=6.6.6.6, for=192.0.2.43;host=\"a,b\""], PROXY),
        ] {
            assert_eq!(seen(F, PROXY, lines), client, "{lines:?}");
        }
        assert_eq!(seen(F, "203.0.113.9", &["for=192.0.2.1"]), "203.0.113.9");
    }

    #[test]
    fn chains_and_entries_are_bounded() {
        use ForwardedHeader::{Forwarded, XForwardedFor};
        let chain = format!("6.6.6.6{}", ", 10.7.0.1".repeat(MAX_HOPS));
        assert_eq!(seen(XForwardedFor, PROXY, &[&chain]), "10.7.0.1");
        let long = format!("for=6.6.6.6;host={}", "a".repeat(MAX_ENTRY));
        assert_eq!(seen(Forwarded, PROXY, &[&long]), PROXY);
        let huge = vec![b','; 64 * 1024];
        assert_eq!(client(Forwarded, PROXY, &[&huge]).to_string(), PROXY);
    }

    #[test]
    fn proxies_are_networks_or_addresses() {
        let good = ["10.1.2.3/8", "::1", "::ffff:192.0.2.0/120", "0.0.0.0/32"];
        let good = good.map(|text| Network::parse(text).expect(text)).into();
        let proxies = TrustedProxies::new(good, ForwardedHeader::XForwardedFor);
        let trusts = |text: &str| proxies.trusts(text.parse().expect("an address"));
        assert!(trusts("10.255.0.1") && trusts("::1") && trusts("192.0.2.77"));
        assert!(!trusts("11.0.0.1") && !trusts("::2") && !trusts("192.0.3.1"));
        for (text, words) in [
            ("10.0.0.0/33", "is not a network"),
            ("", "is not a network"),
            ("proxy.example", "\"proxy.example\" is not a network"),
            ("::/0", "trusts everybody"),
        ] {
            let fault = Network::parse(text).expect_err(text);
            assert!(fault.contains(words), "{fault}");
        }
    }

    #[test]
    fn only_a_private_peer_with_a_header_of_proxies_may_be_an_unlisted_proxy() {
        let unlisted = |proxies: &TrustedProxies, peer: &str, header: &str| {
            let peer: IpAddr = peer.parse().expect("an address");
            let request = http::Request::get("/").header(header, "192.0.2.1");
            let request = request.extension(ConnectInfo(SocketAddr::new(peer, 1)));
            proxies.unlisted_proxy(&request.body(()).expect("a request").into_parts().0)
        };
        let none = TrustedProxies::new(Vec::new(), ForwardedHeader::XForwardedFor);
        for private in
            ["127.0.0.1", "10.1.2.3", "192.168.0.9", "172.31.0.1", "169.254.1.1", "100.64.0.1"]
        {
            assert_eq!(
                unlisted(&none, private, "x-forwarded-for").map(|a| a.to_string()).as_deref(),
                Some(private)
            );
            assert_eq!(unlisted(&none, private, "x-forwarded-host"), None);
            assert_eq!(unlisted(&proxies(ForwardedHeader::Forwarded), private, "forwarded"), None);
        }
        for private in ["::1", "fd00::7", "fe80::1", "::ffff:10.0.0.1"] {
            assert!(unlisted(&none, private, "forwarded").is_some(), "{private}");
        }
        for public in
            ["203.0.113.9", "100.128.0.1", "172.32.0.1", "2001:db8::1", "::ffff:203.0.113.9"]
        {
            assert_eq!(unlisted(&none, public, "x-forwarded-for"), None, "{public}");
        }
    }

    #[test]
    fn ipv6_counts_by_network_and_mapped_ipv4_as_ipv4() {
        let of = |text: &str| network_of(text.parse().expect("an address")).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }

    /// Headers of valid and invalid pieces, and of any bytes that a header may have.
    fn header() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                "for=",
                "For=\"",
                "\"",
                "\\",
                ",",
                ", ",
                ";",
                "proto=https",
                "unknown",
                "_x",
                "10.0.0.2",
                "10.1.1.1",
                "192.0.2.1",
                "6.6.6.6:80",
                "[2001:db8::1]",
                ":443",
                "::1",
                "2001:db8:f::2",
                "[",
                "]",
                "host=\"a",
                " ",
                "\t",
                "for=10.0.0.9",
                "for=192.0.2.7",
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..6),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| {
            let mut bytes = pieces.concat();
            bytes.retain(|byte| *byte == b'\t' || (*byte >= 32 && *byte != 127));
            bytes
        })
    }

    fn kind() -> impl Strategy<Value = ForwardedHeader> {
        prop::sample::select(vec![ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded])
    }

    proptest! {
        #[test]
        fn no_header_of_an_untrusted_peer_counts(
            kind in kind(),
            lines in prop::collection::vec(header(), 0..4),
        ) {
            let lines: Vec<_> = lines.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(client(kind, "203.0.113.9", &lines).to_string(), "203.0.113.9");
        }

        /// The proxies' part begins with the client's address or an invalid entry. What the client has sent before
        /// it, in the same line or in other lines, makes no difference.
        #[test]
        fn what_the_client_has_sent_never_counts(
            kind in kind(),
            forged in prop::collection::vec(header(), 1..4),
            written in header(),
            hops in 0..4usize,
            same_line in any::<bool>(),
        ) {
            let prefix = if kind == ForwardedHeader::Forwarded { "for=" } else { "" };
            let mut written = written;
            for hop in 0..hops {
                written.extend_from_slice(format!(", {prefix}10.5.5.{hop}").as_bytes());
            }
            let alone = client(kind, PROXY, &[&written]);
            // If all entries are proxies, the search goes on into the client's part.
            let entries: Vec<_> = written.split(|byte| *byte == b',').collect();
            let proxies = proxies(kind);
            let passes = |entry: &&[u8]| kind.parse(entry).is_some_and(|a| proxies.trusts(a.to_canonical()));
            prop_assume!(!entries.iter().all(passes));
            let mut lines = forged;
            if same_line {
                let last = lines.pop().unwrap_or_default();
                lines.push([last.as_slice(), b", ", written.as_slice()].concat());
            } else {
                lines.push(written);
            }
            let lines: Vec<_> = lines.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(client(kind, PROXY, &lines), alone);
        }
    }
}
