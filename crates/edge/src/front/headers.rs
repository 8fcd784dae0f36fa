//! Which headers pass from one side to the other.

use std::net::IpAddr;

use hyper::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers that concern one connection only (RFC 9110, section 7.6.1), beside those that Connection names.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The protocol a message asks to upgrade to (or, in an answer, upgrades to).
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asked).cloned()
}

/// Removes what must not pass.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_tokens(headers)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        // The length of a body is not one connection's affair, whatever Connection says.
        if *name != HOST && *name != hyper::header::CONTENT_LENGTH {
            headers.remove(name);
        }
    }
    // The edge itself answers an expectation, when the application starts to read the body.
    headers.remove(EXPECT);
}

/// Asks for an upgrade in the edge's own name.
pub(super) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Tells the application who asks and how. What the client says about that counts only if it is a trusted proxy.
pub(super) fn set_forwarded(headers: &mut HeaderMap, client: IpAddr, trusted: bool, secure: bool) {
    if !trusted {
        let forged: Vec<HeaderName> =
            headers.keys().filter(|name| is_forwarding(name.as_str())).cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }
    let mut chain: Vec<u8> = Vec::new();
    for hop in headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(hop.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(client.to_string().as_bytes());
    // Header values and an address are always a header value again.
    if let Ok(chain) = HeaderValue::from_bytes(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if secure { "https" } else { "http" }));
    }
    if !headers.contains_key(FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Underscores count as hyphens: some applications cannot tell them apart.
fn is_forwarding(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn headers_of_one_connection_do_not_pass() {
        let mut map = headers(&[
            ("connection", "keep-alive, X-Secret , upgrade"),
            ("connection", "host"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("host", "a"),
            ("accept", "*/*"),
        ]);
        assert_eq!(upgrade(&map).unwrap(), "websocket");
        strip_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("host", "a"), ("accept", "*/*")]));
        assert_eq!(upgrade(&headers(&[("upgrade", "websocket")])), None);
    }

    #[test]
    fn a_stranger_cannot_say_whom_he_forwards() {
        let mut map = headers(&[
            ("host", "example.com"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
            ("x-forwarded-user", "root"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
        ]);
        set_forwarded(&mut map, "192.0.2.1".parse().unwrap(), false, false);
        let expected = headers(&[
            ("host", "example.com"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "example.com"),
        ]);
        assert_eq!(map, expected);
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added_to_the_chain() {
        let mut map = headers(&[
            ("host", "internal"),
            ("x-forwarded-for", "203.0.113.5"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "example.com"),
        ]);
        set_forwarded(&mut map, "10.0.0.1".parse().unwrap(), true, false);
        assert_eq!(map["x-forwarded-for"], "203.0.113.5, 10.0.0.1");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["x-forwarded-host"], "example.com");
    }
}
