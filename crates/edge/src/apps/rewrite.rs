//! What changes in a request on its way to an app, and in the answer on its way back.

use std::str::FromStr;

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, SET_COOKIE, VARY,
};
use hyper::http::uri::PathAndQuery;

use super::Scope;
use super::cookies;
use super::question::Granted;
use super::ticket::Ticket;

const SESSION: HeaderName = HeaderName::from_static("coder-session-token");
const OF_ORIGINS: [&str; 4] = [
    "origin",
    "access-control-request-method",
    "access-control-request-methods",
    "access-control-request-headers",
];
/// With these an app would rule the rest of the dashboard's origin.
const OF_WHOLE_ORIGINS: [HeaderName; 2] =
    [HeaderName::from_static("clear-site-data"), HeaderName::from_static("service-worker-allowed")];
/// In a query: what a browser brings back from signing in.
const SIGN_IN: &str = "coder_application_connect_api_key_35e783=";

/// Whether a ticket that a request brings along is enough. If not, the application has to judge: the page that sends
/// the request is another's, the browser comes from signing in, or the address lacks its slash.
pub(super) fn speaks_for_itself(scope: &Scope, headers: &HeaderMap, query: Option<&str>) -> bool {
    let signing_in = query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with(SIGN_IN)));
    let at_home = headers.get_all(ORIGIN).iter().all(|origin| {
        let host = headers.get(HOST).map_or(&[][..], HeaderValue::as_bytes);
        let start = origin.as_bytes().windows(3).position(|part| part == b"://");
        start.is_some_and(|start| origin.as_bytes()[start + 3..].eq_ignore_ascii_case(host))
    });
    scope.rest.is_some() && !signing_in && at_home
}

/// Takes out what is between the browser and this server.
pub(super) fn request(headers: &mut HeaderMap) {
    cookies::strip(headers);
    headers.remove(SESSION);
    super::question::remove_ours(headers);
}

/// Where the app finds what the request is for.
pub(super) fn target(scope: &Scope, ticket: &Ticket, asked: &PathAndQuery) -> Option<PathAndQuery> {
    let rest = asked.path().get(scope.rest?..)?;
    let base = ticket.path.trim_end_matches('/');
    let rest = if rest.is_empty() { "/" } else { rest };
    let query = asked.query().map_or_else(String::new, |query| format!("?{query}"));
    PathAndQuery::from_str(&format!("{base}{rest}{query}")).ok()
}

/// Where a request for the bare app is sent first, if its URL has a query.
pub(super) fn start(scope: &Scope, ticket: &Ticket, asked: &PathAndQuery) -> Option<String> {
    let bare = scope.rest.is_some_and(|rest| asked.path().get(rest..) == Some("/"));
    let missing = bare && asked.query().is_none() && !ticket.query.is_empty();
    missing.then(|| format!("{}?{}", asked.path(), ticket.query))
}

/// Takes out of an answer what an app has no say in, and adds what the application wants the browser to know.
pub(super) fn response(headers: &mut HeaderMap, scope: &Scope, granted: &Granted) {
    cookies::strip_set(headers);
    if scope.is_path() {
        for name in OF_WHOLE_ORIGINS {
            headers.remove(name);
        }
    }
    if !granted.ticket.cors {
        strip_cors(headers);
    }
    if let Some(origin) = &granted.allow_origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    for cookie in &granted.cookies {
        headers.append(SET_COOKIE, cookie.clone());
    }
}

fn strip_cors(headers: &mut HeaderMap) {
    for name in [
        ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_HEADERS,
    ] {
        headers.remove(name);
    }
    let names = headers.get_all(VARY).iter().filter_map(|line| line.to_str().ok());
    let names: Vec<&str> = names.flat_map(|line| line.split(',')).map(str::trim).collect();
    let kept: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !OF_ORIGINS.iter().any(|other| other.eq_ignore_ascii_case(name)))
        .collect();
    if kept.len() != names.len() {
        let line = HeaderValue::from_str(&kept.join(", ")).ok().filter(|line| !line.is_empty());
        headers.remove(VARY);
        headers.extend(line.map(|line| (VARY, line)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sample::headers;

    fn ticket(path: &str, query: &str, cors: bool) -> Ticket {
        let to = "[fd7a::1]:80".parse().unwrap();
        Ticket {
            exp: 1,
            at: String::new(),
            to,
            tls: false,
            path: path.to_owned(),
            query: query.to_owned(),
            cors,
        }
    }

    fn scope(at: &str, rest: Option<usize>) -> Scope {
        Scope { at: at.to_owned(), rest }
    }

    #[test]
    fn a_ticket_is_enough_unless_another_page_asks_or_the_browser_comes_from_signing_in() {
        let at = scope("a", Some(0));
        let alone = |lines: &[(&str, &str)], query| speaks_for_itself(&at, &headers(lines), query);
        assert!(alone(&[("host", "a:1")], None));
        assert!(alone(&[("host", "a:1"), ("origin", "https://A:1")], Some("x=1&y")));
        for origin in ["null", "https://b:1", "https://a", "https://a:1.evil.test", "", "a:1"] {
            assert!(!alone(&[("host", "a:1"), ("origin", origin)], None), "{origin}");
        }
        assert!(!alone(&[("host", "a:1"), ("origin", "https://a:1"), ("origin", "https://b:1")], None));
        assert!(!alone(&[("host", "a:1")], Some("x&coder_application_connect_api_key_35e783=k")));
        assert!(!speaks_for_itself(&scope("/@u/w/apps/s/", None), &headers(&[]), None));
    }

    #[test]
    fn the_apps_own_path_stands_in_front() {
        let at = scope("/@u/w/apps/s/", Some(12));
        let to = |base: &str, asked: &str| {
            target(&at, &ticket(base, "", false), &asked.parse().unwrap()).unwrap().to_string()
        };
        assert_eq!(to("/", "/@u/w/apps/s/x%20y?a=b"), "/x%20y?a=b");
        assert_eq!(to("", "/@u/w/apps/s/"), "/");
        assert_eq!(to("/sub/", "/@u/w/apps/s/x//y"), "/sub/x//y");
        let begin =
            |query: &str, asked: &str| start(&at, &ticket("/", query, false), &asked.parse().unwrap());
        assert_eq!(begin("folder=/w", "/@u/w/apps/s/").unwrap(), "/@u/w/apps/s/?folder=/w");
        assert_eq!(begin("folder=/w", "/@u/w/apps/s/?"), None);
        assert_eq!(begin("folder=/w", "/@u/w/apps/s/x"), None);
        assert_eq!(begin("", "/@u/w/apps/s/"), None);
    }

    #[test]
    fn an_app_has_no_say_over_the_origin() {
        let lines = [
            ("access-control-allow-origin", "*"),
            ("vary", "Accept, Origin"),
            ("clear-site-data", "*"),
            ("set-cookie", "coder_session_token=x"),
            ("x", "1"),
        ];
        let answer = |at: &str, cors, allow: Option<&'static str>| {
            let mut map = headers(&lines);
            let granted = Granted {
                ticket: ticket("/", "", cors),
                cookies: vec![HeaderValue::from_static("t=1")],
                allow_origin: allow.map(HeaderValue::from_static),
            };
            response(&mut map, &scope(at, Some(0)), &granted);
            map
        };
        let expected = headers(&[("vary", "Accept"), ("set-cookie", "t=1"), ("x", "1")]);
        assert_eq!(answer("/@u/w/apps/s/", false, None), expected);
        let expected = headers(&[
            ("access-control-allow-origin", "*"),
            ("vary", "Accept, Origin"),
            ("clear-site-data", "*"),
            ("set-cookie", "t=1"),
            ("x", "1"),
        ]);
        assert_eq!(answer("h", true, None), expected);
        let allowed = answer("h", false, Some("https://b"));
        assert_eq!(allowed["access-control-allow-origin"], "https://b");
        assert_eq!(allowed.get_all("vary").iter().collect::<Vec<_>>(), ["Accept", "Origin"]);
    }
}
