//! Who asks, as far as it can be believed: one address, one scheme and one host, whatever stood in the request.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Where a request started.
pub(crate) struct Origin {
    pub(crate) client: IpAddr,
    scheme: &'static str,
    host: Option<HeaderValue>,
}

/// Finds the client behind the proxies that `trusts` knows. Each of those has added the address that it was asked from
/// at the right end, so the first one from there that is no such proxy is the client; what stands left of it is merely
/// claimed. Of schemes and hosts the ones at the same place count, or the leftmost where proxies keep just one.
pub(crate) fn origin(
    headers: &HeaderMap,
    peer: IpAddr,
    secure: bool,
    trusts: impl Fn(IpAddr) -> bool,
) -> Origin {
    let hops = list(headers, &FORWARDED_FOR);
    let (mut client, mut believed) = (peer, 0);
    while trusts(client)
        && let Some(hop) = hops.iter().rev().nth(believed).and_then(|hop| address(hop))
    {
        client = hop;
        believed += 1;
    }
    // A trusted proxy may say how it was asked without saying by whom.
    let believed = if trusts(peer) { believed.max(1) } else { 0 };
    let said = |name: HeaderName| {
        let values = list(headers, &name);
        if believed == 0 { None } else { values.get(values.len().saturating_sub(believed)).copied() }
    };
    let scheme = match said(FORWARDED_PROTO) {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        Some(scheme) if scheme.eq_ignore_ascii_case("http") => "http",
        _ if secure => "https",
        _ => "http",
    };
    let host = said(FORWARDED_HOST).and_then(|host| HeaderValue::from_str(host).ok());
    Origin { client, scheme, host: host.or_else(|| headers.get(HOST).cloned()) }
}

/// Tells the application, instead of everything that the request said about it.
pub(crate) fn set(headers: &mut HeaderMap, origin: Origin) {
    let claims: Vec<HeaderName> =
        headers.keys().filter(|name| is_forwarding(name.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
    // An address is always a header value.
    if let Ok(client) = HeaderValue::from_str(&origin.client.to_string()) {
        headers.insert(FORWARDED_FOR, client);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(origin.scheme));
    if let Some(host) = origin.host {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// The entries of a header that may stand in several lines.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let entries = headers.get_all(name).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    entries.map(|entry| std::str::from_utf8(entry).unwrap_or_default().trim()).collect()
}

/// An address as proxies write it: some add the port, some put IPv6 in brackets.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.parse::<IpAddr>().ok().or_else(with_port).map(|address| address.to_canonical())
}

/// Underscores count as hyphens: some applications cannot tell them apart.
fn is_forwarding(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sample::headers;

    /// What the application sees when 10.0.0.0/8 is trusted.
    fn seen(peer: &str, lines: &[(&str, &str)]) -> HeaderMap {
        let trusted: crate::Network = "10.0.0.0/8".parse().unwrap();
        let mut map = headers(lines);
        let origin = origin(&map, peer.parse().unwrap(), false, |hop| trusted.contains(hop));
        set(&mut map, origin);
        map
    }

    #[test]
    fn a_stranger_cannot_say_whom_he_forwards() {
        let claims = [
            ("host", "example.com"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-user", "root"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
        ];
        let expected = headers(&[
            ("host", "example.com"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "example.com"),
        ]);
        assert_eq!(seen("192.0.2.1", &claims), expected);
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_trusted_proxy() {
        let cases: [(&[&str], &str); 10] = [
            (&["203.0.113.5"], "203.0.113.5"),
            (&["6.6.6.6, 203.0.113.5"], "203.0.113.5"),
            (&["6.6.6.6,203.0.113.5, 10.0.0.2"], "203.0.113.5"),
            (&["6.6.6.6", "203.0.113.5", "10.0.0.2"], "203.0.113.5"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&["6.6.6.6, unknown"], "10.0.0.1"),
            (&["6.6.6.6, 203.0.113.5:4711"], "203.0.113.5"),
            (&["6.6.6.6, [2001:db8::1]:443"], "2001:db8::1"),
            (&["6.6.6.6, [2001:db8::1]"], "2001:db8::1"),
            (&[], "10.0.0.1"),
        ];
        for (lines, client) in cases {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let map = seen("10.0.0.1", &lines);
            let all: Vec<_> = map.get_all(&FORWARDED_FOR).iter().collect();
            assert_eq!(all, [client], "{lines:?}");
        }
    }

    #[test]
    fn scheme_and_host_are_of_the_same_hop_as_the_address() {
        let cases = [
            ("203.0.113.5", "https", "https"),
            ("6.6.6.6, 203.0.113.5", "http, https", "https"),
            ("6.6.6.6, 203.0.113.5", "https, http", "http"),
            ("6.6.6.6, 203.0.113.5, 10.0.0.2", "https", "https"),
            ("6.6.6.6, 203.0.113.5, 10.0.0.2", "http, https, http", "https"),
            ("203.0.113.5", "gopher", "http"),
            ("", "https", "https"),
        ];
        for (hops, schemes, scheme) in cases {
            let hosts = schemes.replace("http", "h");
            let map = seen(
                "10.0.0.1",
                &[("x-forwarded-for", hops), ("x-forwarded-proto", schemes), ("x-forwarded-host", &hosts)],
            );
            assert_eq!(map["x-forwarded-proto"], scheme, "{hops} {schemes}");
            if schemes != "gopher" {
                assert_eq!(map["x-forwarded-host"], scheme.replace("http", "h"), "{hops} {schemes}");
            }
        }
    }
}
