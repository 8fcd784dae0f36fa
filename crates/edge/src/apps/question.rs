//! Asks the application whether a request may reach an app.

use hyper::body::Incoming;
use hyper::header::{
    CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, TRANSFER_ENCODING,
};
use hyper::{Method, Request, Response, Uri};

use super::ticket::{self, Ticket};
use super::{Rules, Scope};
use crate::front::{Upload, Upstream, UpstreamError};

/// Where the application answers. It believes nobody but who holds the secret.
const PATH: &str = "/-/edge/app";
const SECRET: HeaderName = HeaderName::from_static("coder-edge-secret");
const AT: HeaderName = HeaderName::from_static("coder-edge-at");
const HOST_ASKED: HeaderName = HeaderName::from_static("coder-edge-host");
const METHOD: HeaderName = HeaderName::from_static("coder-edge-method");
const TARGET: HeaderName = HeaderName::from_static("coder-edge-target");
const UPGRADE: HeaderName = HeaderName::from_static("coder-edge-upgrade");
const FAILURE: HeaderName = HeaderName::from_static("coder-edge-failure");
/// In the answer: a ticket, and the origin that may read what the app answers.
const TICKET: &str = "coder-edge-ticket";
const ORIGIN: &str = "coder-edge-allow-origin";

/// Nobody speaks to the application in the edge's name.
pub(crate) fn remove_ours(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("coder-edge-")).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

/// A request's head, as often as it is needed.
#[derive(Clone)]
pub(super) struct Question {
    at: String,
    headers: HeaderMap,
}

/// What the application says.
pub(super) enum Verdict {
    /// Go on.
    Granted(Granted),
    /// The client gets this.
    Refused(Response<Incoming>),
}

/// Leave to reach an app.
pub(super) struct Granted {
    pub(super) ticket: Ticket,
    /// What the browser is to keep.
    pub(super) cookies: Vec<HeaderValue>,
    /// The origin that may read the answer, where that is not the app's own.
    pub(super) allow_origin: Option<HeaderValue>,
}

impl Question {
    /// `headers`: those of the request, with its origin settled and those of one connection removed.
    pub(super) fn new(
        rules: &Rules,
        scope: &Scope,
        method: &Method,
        target: &str,
        mut headers: HeaderMap,
        upgrade: bool,
    ) -> Option<Self> {
        remove_ours(&mut headers);
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT] {
            headers.remove(name);
        }
        if let Some(host) = headers.insert(HOST, HeaderValue::from_str(&rules.dashboard).ok()?) {
            headers.insert(HOST_ASKED, host);
        }
        headers.insert(SECRET, rules.secret.clone());
        headers.insert(AT, HeaderValue::from_str(&scope.at).ok()?);
        headers.insert(METHOD, HeaderValue::from_str(method.as_str()).ok()?);
        headers.insert(TARGET, HeaderValue::from_str(target).ok()?);
        if upgrade {
            headers.insert(UPGRADE, HeaderValue::from_static("1"));
        }
        Some(Self { at: scope.at.clone(), headers })
    }

    /// Asks; `failure` says why the app could not be reached after an earlier answer, so that a page about that comes.
    pub(super) async fn ask(
        &self,
        rules: &Rules,
        upstream: &std::sync::Arc<Upstream>,
        failure: Option<&str>,
    ) -> Result<Verdict, UpstreamError> {
        let mut request = Request::new(Upload::empty());
        *request.uri_mut() = Uri::from_static(PATH);
        *request.headers_mut() = self.headers.clone();
        if let Some(failure) = failure.and_then(|text| HeaderValue::from_str(text).ok()) {
            request.headers_mut().insert(FAILURE, failure);
        }
        let mut response = upstream.send(request).await?;
        let headers = response.headers_mut();
        let ticket = headers.remove(TICKET);
        let found = ticket.as_ref().and_then(|text| text.to_str().ok());
        let Some(ticket) = found.and_then(|text| ticket::verify(&rules.keys, text, &self.at, now())) else {
            return Ok(Verdict::Refused(response));
        };
        let cookies = headers.get_all(SET_COOKIE).iter().cloned().collect();
        Ok(Verdict::Granted(Granted { ticket, cookies, allow_origin: headers.remove(ORIGIN) }))
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
