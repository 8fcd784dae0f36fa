//! Whatever arrives, however it is cut: no panic, nothing for others to suffer, memory within limits.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Instant;

use common::{Relay, client_info, recv, send, server_key};
use proptest::prelude::*;
use relay::server::Transport;
use relay::{ClientOptions, ClientSession};
use wire::derp::login::ClientInfo;
use wire::derp::{FrameType, encode};
use wire::keys::NodePrivate;
use wire::ws;

fn key(number: u8) -> NodePrivate {
    NodePrivate::from_bytes([number; 32])
}

/// Frames with a type and length that fit, and a payload that means nothing.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let frame = (0u8..0x18, proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(kind, payload)| {
        let mut out = Vec::new();
        encode::frame(&mut out, FrameType::from_u8(kind), &[&payload]);
        out
    });
    proptest::collection::vec(frame, 0..10).prop_map(|frames| frames.concat())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![proptest::collection::vec(any::<u8>(), 0..2000), frames()]
}

/// Feeds garbage to one connection; two others must go on as if nothing happened.
fn disturb(garbage: &[u8], cut: usize, logged_in: bool, mesh: bool, transport: Transport) {
    let mut relay = Relay::new(server_key(), Some("secret"));
    let (a, b) = (relay.client(&key(1)), relay.client(&key(2)));
    let bad = relay.accept_as("192.0.2.66:6", transport);
    let mut stream = Vec::new();
    if logged_in {
        let mesh_key = mesh.then(|| zeroize::Zeroizing::new("secret".to_owned()));
        let info = ClientInfo { version: 2, mesh_key, ..ClientInfo::default() };
        stream = client_info(&key(3), &relay.server, &info);
    }
    stream.extend_from_slice(garbage);
    if transport == Transport::WebSocket && logged_in {
        let frames = std::mem::take(&mut stream);
        ws::encode(&mut stream, ws::Opcode::Binary, &frames, Some([7, 1, 2, 9]));
    }
    for part in stream.chunks(cut) {
        relay.feed(bad, part);
        assert!(relay.router.kept(bad) <= stream.len());
    }
    if relay.closed(bad) {
        assert_eq!(relay.router.kept(bad), 0);
    }
    relay.take(a);
    relay.take(b);
    relay.feed(a, &send(&key(2).public(), b"still fine"));
    assert_eq!(relay.take(b), recv(&key(1).public(), b"still fine"));
}

proptest! {
    #[test]
    fn a_relay_survives_anything(
        garbage in bytes(),
        cut in 1usize..300,
        logged_in: bool,
        mesh: bool,
        websocket: bool,
    ) {
        let transport = if websocket { Transport::WebSocket } else { Transport::Plain };
        disturb(&garbage, cut, logged_in, mesh, transport);
    }

    #[test]
    fn a_client_survives_anything(garbage in bytes(), cut in 1usize..300, greeted: bool) {
        let mut client = ClientSession::new(Instant::now(), key(1), ClientOptions::default());
        let (mut stream, mut out) = (Vec::new(), Vec::new());
        if greeted {
            encode::server_key(&mut stream, &server_key().public());
        }
        stream.extend_from_slice(&garbage);
        for part in stream.chunks_mut(cut) {
            if client.feed(Instant::now(), part, &mut out, &mut |_| {}).is_err() {
                break;
            }
        }
        prop_assert!(out.len() <= stream.len() + 200);
    }

    #[test]
    fn packets_arrive_however_the_stream_is_cut(
        lengths in proptest::collection::vec((2u8..5, 0usize..3000), 1..30),
        cut in 1usize..5000,
    ) {
        let mut relay = Relay::new(server_key(), None);
        let sender = relay.client(&key(1));
        let receivers = [2, 3].map(|number| relay.client(&key(number)));
        let packets: Vec<_> = lengths.iter().map(|(to, len)| (*to, vec![*to; *len])).collect();
        let stream: Vec<u8> = packets.iter().flat_map(|(to, packet)| send(&key(*to).public(), packet)).collect();
        for part in stream.chunks(cut) {
            relay.feed(sender, part);
        }
        for (receiver, number) in receivers.into_iter().zip([2, 3]) {
            let expected: Vec<u8> = packets
                .iter()
                .filter(|(to, _)| *to == number)
                .flat_map(|(_, packet)| recv(&key(1).public(), packet))
                .collect();
            prop_assert_eq!(relay.take(receiver), expected);
        }
    }
}

#[test]
fn ten_thousand_unknown_destinations_leave_nothing_behind() {
    let mut relay = Relay::new(server_key(), None);
    let private = NodePrivate::from_bytes([1; 32]);
    let a = relay.client(&private);
    let mut frames = Vec::new();
    for number in 0..10_000u32 {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        frames.extend(common::send(&wire::keys::NodePublic::from_bytes(key), &common::disco_packet()));
    }
    relay.feed(a, &frames);
    let counters = relay.router.counters();
    assert_eq!((counters.dropped.unknown, counters.queued_bytes), (10_000, 0));
    // Three answers, however many were looked for.
    assert_eq!(common::kinds(&relay.take(a)).len(), 3);
    relay.disconnect(a);
    assert_eq!(relay.router.counters().clients, 0);
}
