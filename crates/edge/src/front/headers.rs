//! Which headers pass from one side to the other.

use hyper::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

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
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asked).cloned()
}

/// Removes what must not pass.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
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
pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
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
    use crate::sample::headers;

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
}
