//! From an HTTP request to a DERP stream: plain, fast start, or inside a WebSocket.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::{Body as _, Incoming};
use hyper::header::{HeaderMap, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use relay::server::Transport;

use super::takeover::TakeoverStream;
use super::{Body, Front, Peer, answers, forwarded};
use crate::counters::Tally;
use crate::relay_thread::{Handover, RelayThread};

/// RFC 6455, section 1.3.
const ACCEPT_SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const FAST_START: &str = "derp-fast-start";

/// How the stream starts.
struct Start {
    transport: Transport,
    preface: Vec<u8>,
}

/// Answers a request for `/derp`.
pub(super) fn derp(
    front: &Arc<Front>,
    relay: &Arc<RelayThread>,
    peer: &Peer,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let start = match start(&request, relay) {
        Ok(start) => start,
        Err((status, text)) => return answers::text(status, text),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    peer.takeover.announce();
    let remote = remote(front, peer, request.headers());
    tokio::spawn(hand_over(Arc::clone(front), Arc::clone(relay), (peer.clone(), remote), upgrade, start));
    answers::empty(StatusCode::SWITCHING_PROTOCOLS)
}

/// The client's address; its port only if no proxy stands between.
fn remote(front: &Front, peer: &Peer, headers: &HeaderMap) -> SocketAddr {
    let client = forwarded::origin(headers, peer.address.ip(), peer.secure, |hop| front.trusts(hop)).client;
    if client == peer.address.ip() { peer.address } else { SocketAddr::new(client, 0) }
}

async fn hand_over(
    front: Arc<Front>,
    relay: Arc<RelayThread>,
    (peer, remote): (Peer, SocketAddr),
    upgrade: OnUpgrade,
    start: Start,
) {
    // An error here means that the client is gone.
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TakeoverStream>() else { return };
    let Ok(stream) = parts.io.into_stream() else { return };
    Tally::add(&front.tally.upgraded);
    relay.take_over(Handover {
        stream,
        remote,
        transport: start.transport,
        preface: start.preface,
        early: parts.read_buf.to_vec(),
        seat: peer.seat,
    });
}

/// Judges the request; a refusal is a status and its text.
fn start(request: &Request<Incoming>, relay: &RelayThread) -> Result<Start, (StatusCode, &'static str)> {
    let headers = request.headers();
    let protocol = headers.get(UPGRADE).map_or(&[][..], |value| value.as_bytes());
    let websocket = protocol.eq_ignore_ascii_case(b"websocket");
    // Old clients say "websocket" without the subprotocol and mean plain DERP.
    if !(websocket || protocol.eq_ignore_ascii_case(b"derp")) || request.version() != Version::HTTP_11 {
        return Err((StatusCode::UPGRADE_REQUIRED, "DERP requires connection upgrade\n"));
    }
    if !request.body().is_end_stream() {
        return Err((StatusCode::BAD_REQUEST, "an upgrade to DERP takes no body\n"));
    }
    if websocket && offers_derp(headers) {
        let accept = websocket_accept(request)
            .ok_or((StatusCode::BAD_REQUEST, "not a WebSocket handshake of version 13\n"))?;
        return Ok(Start { transport: Transport::WebSocket, preface: websocket_answer(&accept) });
    }
    let fast = headers.get(FAST_START).is_some_and(|value| value == "1");
    let preface = if fast { Vec::new() } else { plain_answer(relay) };
    Ok(Start { transport: Transport::Plain, preface })
}

fn offers_derp(headers: &HeaderMap) -> bool {
    headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().any(|offers| {
        offers.as_bytes().split(|byte| *byte == b',').any(|offer| offer.trim_ascii() == b"derp")
    })
}

/// The proof that the handshake was understood; `None` if it is not one.
fn websocket_accept(request: &Request<Incoming>) -> Option<String> {
    let headers = request.headers();
    let key = headers.get(SEC_WEBSOCKET_KEY)?.as_bytes();
    let right = request.method() == Method::GET
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13")
        && STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    right.then(|| STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_SALT].concat())))
}

fn websocket_answer(accept: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Connection: Upgrade\r\n\
         Sec-Websocket-Accept: {accept}\r\n\
         Sec-Websocket-Protocol: derp\r\n\
         Upgrade: websocket\r\n\r\n"
    )
    .into_bytes()
}

/// Exactly what every DERP server answers; clients ignore the two headers of its own.
fn plain_answer(relay: &RelayThread) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Upgrade: DERP\r\n\
         Connection: Upgrade\r\n\
         Derp-Version: {}\r\n\
         Derp-Public-Key: {}\r\n\r\n",
        wire::derp::VERSION,
        relay.public_key().to_hex(),
    )
    .into_bytes()
}
