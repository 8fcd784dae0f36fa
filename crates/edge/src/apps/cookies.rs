//! Cookies that are the server's own: they stop here, in both directions.

use hyper::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};

/// Where browsers keep the ticket.
const TICKET: &[u8] = b"coder_signed_app_token";
/// Tickets tried: browsers send the one of the longest path first.
const MAX_TICKETS: usize = 4;

/// What browsers take as a promise about who set a cookie (RFC 6265bis, section 4.1.3); the rest is its name with us.
const PREFIXES: [&[u8]; 2] = [b"__Host-", b"__Secure-"];

/// Whether no app may see or set a cookie of that name.
fn is_ours(name: &[u8]) -> bool {
    let name = PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix)).unwrap_or(name);
    name.starts_with(b"coder_") || name == b"oauth_state" || name == b"oauth_redirect"
}

/// The name that a server will read. Browsers keep `=a=b` as a cookie without a name and send it as `a=b`.
fn name(cookie: &[u8]) -> &[u8] {
    let start = cookie.iter().position(|byte| !matches!(byte, b'=' | b' ' | b'\t')).unwrap_or(cookie.len());
    let cookie = &cookie[start..];
    let end = cookie.iter().position(|byte| *byte == b'=').unwrap_or(cookie.len());
    cookie[..end].trim_ascii()
}

fn each(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii)
}

/// The tickets in a request.
pub(super) fn tickets(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    each(headers)
        .filter(|cookie| name(cookie) == TICKET)
        .filter_map(|cookie| std::str::from_utf8(cookie.get(TICKET.len() + 1..)?).ok())
        .take(MAX_TICKETS)
}

/// Takes our cookies out of a request, and leaves one line of them (HTTP/2 may have more: RFC 9113, section 8.2.3).
pub(super) fn strip(headers: &mut HeaderMap) {
    let one_line = headers.get_all(COOKIE).iter().count() < 2;
    if one_line && !each(headers).any(|cookie| is_ours(name(cookie))) {
        return;
    }
    let theirs: Vec<&[u8]> = each(headers).filter(|cookie| !is_ours(name(cookie))).collect();
    let line = HeaderValue::from_bytes(&theirs.join(&b"; "[..]));
    headers.remove(COOKIE);
    if let Ok(line) = line
        && !line.is_empty()
    {
        headers.insert(COOKIE, line);
    }
}

/// Takes cookies with our names out of an app's answer.
pub(super) fn strip_set(headers: &mut HeaderMap) {
    if headers.get_all(SET_COOKIE).iter().any(|line| is_ours(name(line.as_bytes()))) {
        let theirs: Vec<HeaderValue> = headers
            .get_all(SET_COOKIE)
            .iter()
            .filter(|line| !is_ours(name(line.as_bytes())))
            .cloned()
            .collect();
        headers.remove(SET_COOKIE);
        for line in theirs {
            headers.append(SET_COOKIE, line);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(name: hyper::header::HeaderName, lines: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(name.clone(), line.parse().unwrap());
        }
        map
    }

    #[test]
    fn our_cookies_leave_and_others_stay() {
        let cases: [(&[&str], &[&str]); 8] = [
            (&["a=1", "b=2"], &["a=1; b=2"]),
            (&["a=1; coder_session_token=x; b=2"], &["a=1; b=2"]),
            (&["coder_session_token=x"], &[]),
            (&["a=1", "coder_subdomain_app_session_token_ff=x;b"], &["a=1; b"]),
            (&["a=coder_session_token=x; xcoder_y=1"], &["a=coder_session_token=x; xcoder_y=1"]),
            (&[" coder_signed_app_token = x;oauth_state=1; oauth_redirect=2;;c=3"], &["; c=3"]),
            (&["__Host-coder_session_token=x; __Secure-coder_form=y; __Host-mine=1"], &["__Host-mine=1"]),
            (&["=coder_session_token=x; =a=b"], &["=a=b"]),
        ];
        for (given, left) in cases {
            let mut map = headers(COOKIE, given);
            strip(&mut map);
            assert_eq!(map, headers(COOKIE, left), "{given:?}");
        }
        let mut map = headers(
            SET_COOKIE,
            &[
                "coder_session_token=evil; Path=/",
                "= coder_form=x",
                "__Host-coder_form=x; Path=/; Secure",
                "a=1",
            ],
        );
        strip_set(&mut map);
        assert_eq!(map, headers(SET_COOKIE, &["a=1"]));
    }

    #[test]
    fn only_so_many_tickets_are_tried() {
        let line = "coder_signed_app_token=1; a=b; coder_signed_app_token=2; coder_signed_app_tokens=3; ";
        let map = headers(COOKIE, &[line, line, line]);
        assert_eq!(tickets(&map).collect::<Vec<_>>(), ["1", "2", "1", "2"]);
    }
}
