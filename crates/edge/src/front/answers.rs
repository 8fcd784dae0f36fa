//! Answers that need neither the application nor the relay.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};

use super::Body;
use crate::counters::Counters;

const CHALLENGE: &str = "x-tailscale-challenge";
const CHALLENGE_RESPONSE: HeaderName = HeaderName::from_static("x-tailscale-response");
/// Numbers that tell what is now.
const GAUGES: [&str; 5] =
    ["connections", "relay_clients", "relay_at_home", "relay_queued_bytes", "relay_links"];
const MAX_CHALLENGE: usize = 64;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    with_body(status, Bytes::new())
}

/// An answer in words, for clients that show them.
pub(crate) fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = with_body(status, Bytes::from_static(text.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// An error in the application's form. `message` must need no escaping in JSON.
pub(crate) fn problem(status: StatusCode, message: &'static str) -> Response<Body> {
    let mut response = with_body(status, Bytes::from(format!("{{\"message\":\"{message}\"}}\n")));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What clients measure a relay's latency with.
pub(crate) fn probe(method: &Method) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "bogus probe method\n");
    }
    let mut response = empty(StatusCode::OK);
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// The relay is alive.
pub(crate) fn healthy() -> Response<Body> {
    text(StatusCode::OK, "OK\n")
}

/// What is answered where there is no application.
pub(crate) fn only_a_relay() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "This is a relay. It has no pages.\n")
}

/// The counters in the text form of Prometheus.
pub(crate) fn metrics(counters: &Counters) -> Response<Body> {
    let mut body = String::new();
    for (name, value) in counters.named() {
        let (kind, end) = if GAUGES.contains(&name) { ("gauge", "") } else { ("counter", "_total") };
        body.push_str(&format!("# TYPE coder_edge_{name}{end} {kind}\ncoder_edge_{name}{end} {value}\n"));
    }
    let mut response = with_body(StatusCode::OK, Bytes::from(body));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// What clients detect captive portals with: only the real server can answer their challenge.
pub(crate) fn generate_204(request: &HeaderMap) -> Response<Body> {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    let never = "no-cache, no-store, must-revalidate, no-transform, max-age=0";
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(never));
    let challenge = request.get(CHALLENGE).map_or(&[][..], HeaderValue::as_bytes);
    if (1..=MAX_CHALLENGE).contains(&challenge.len())
        && challenge.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(byte))
        && let Ok(value) = HeaderValue::from_bytes(&[b"response ", challenge].concat())
    {
        headers.insert(CHALLENGE_RESPONSE, value);
    }
    response
}

fn with_body(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Either::Right(Either::Left(Full::new(body))));
    *response.status_mut() = status;
    response
}
