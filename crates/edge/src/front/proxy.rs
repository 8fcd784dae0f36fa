//! Everything that is the application's: passed on and back as streams.

use std::sync::Arc;

use http_body_util::Either;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, EXPECT, HOST, HeaderValue, UPGRADE};
use hyper::http::uri::PathAndQuery;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;

use super::upload::{Upload, UploadError};
use super::{Body, Front, Peer, answers, forwarded, headers};
use crate::apps;
use crate::counters::Tally;
use crate::seats::Seat;

/// Asks the application.
pub(super) async fn forward(front: &Front, peer: &Peer, mut request: Request<Incoming>) -> Response<Body> {
    let wanted = headers::upgrade(request.headers());
    let client = wanted.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let eager = !request.headers().contains_key(EXPECT);
    let Some(request) = rewrite(front, peer, request, wanted) else {
        Tally::add(&front.tally.malformed);
        return answers::problem(StatusCode::BAD_REQUEST, "The request names no path.");
    };
    let Some(upstream) = &front.upstream else { return answers::only_a_relay() };
    let (parts, body) = request.into_parts();
    let body = match Upload::new(body, front.body, eager) {
        Ok(body) => body,
        Err(error) => return refuse(front, &error),
    };
    let mut response = match upstream.send(Request::from_parts(parts, body)).await {
        Ok(response) => response,
        Err(error) => {
            if let Some(error) = error.upload() {
                return refuse(front, error);
            }
            Tally::add(&front.tally.upstream_errors);
            let message = "The application does not answer. It may be starting; try again in a moment.";
            return answers::problem(StatusCode::BAD_GATEWAY, message);
        }
    };
    let granted = headers::upgrade(response.headers());
    let required = response.headers().get(UPGRADE).cloned();
    headers::strip_hop_by_hop(response.headers_mut());
    // This answer has to name the protocol (RFC 9110, section 15.5.22).
    if let (StatusCode::UPGRADE_REQUIRED, Some(protocol)) = (response.status(), required) {
        headers::set_upgrade(response.headers_mut(), protocol);
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(client), Some(protocol)) = (client, granted) else {
            Tally::add(&front.tally.upstream_errors);
            let message = "The application switched to a protocol nobody asked for.";
            return answers::problem(StatusCode::BAD_GATEWAY, message);
        };
        headers::set_upgrade(response.headers_mut(), protocol);
        let server = hyper::upgrade::on(&mut response);
        tokio::spawn(splice(client, server, Arc::clone(&peer.seat)));
    }
    response.map(Either::Left)
}

/// Answers a request whose body cannot be passed on. What is left of the body would be taken for a request.
fn refuse(front: &Front, error: &UploadError) -> Response<Body> {
    Tally::add(&front.tally.malformed);
    let mut response = match error {
        UploadError::TooLarge => {
            answers::problem(StatusCode::PAYLOAD_TOO_LARGE, "The body of the request is too large.")
        }
        UploadError::TooSlow => {
            answers::problem(StatusCode::REQUEST_TIMEOUT, "The body of the request came too slowly.")
        }
        UploadError::Broken(_) => {
            answers::problem(StatusCode::BAD_REQUEST, "The body of the request is broken.")
        }
    };
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The request as the application gets it. `None` if its target is no path of this server.
fn rewrite(
    front: &Front,
    peer: &Peer,
    request: Request<Incoming>,
    upgrade: Option<HeaderValue>,
) -> Option<Request<Incoming>> {
    let (mut parts, body) = request.into_parts();
    // A full URL's authority overrides Host (RFC 9112, section 3.2.2).
    if let Some(authority) = parts.uri.authority() {
        parts.headers.insert(HOST, HeaderValue::from_str(authority.as_str()).ok()?);
    }
    let target: PathAndQuery = parts.uri.path_and_query()?.clone();
    headers::strip_hop_by_hop(&mut parts.headers);
    apps::remove_question_headers(&mut parts.headers);
    let origin = forwarded::origin(&parts.headers, peer.address.ip(), peer.secure, |hop| front.trusts(hop));
    forwarded::set(&mut parts.headers, origin);
    if let Some(protocol) = upgrade {
        headers::set_upgrade(&mut parts.headers, protocol);
    }
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = Uri::from(target);
    *request.headers_mut() = parts.headers;
    *request.version_mut() = Version::HTTP_11;
    Some(request)
}

/// After an upgrade: bytes both ways until both sides have ended.
async fn splice(client: OnUpgrade, server: OnUpgrade, _seat: Arc<Seat>) {
    if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
        // An error ends both; nobody is left to be told.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
    }
}
