//! A full destination: who waits, who loses, and what goes ahead.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Relay, disco_packet, frames, key, kinds, recv, send, server_key};
use relay::server::{FLOW_LEAST, PAUSE, PIECE, QUEUE_FULL, RateLimit, Request, Transport, URGENT_LIMIT};
use wire::derp::login::ClientInfo;
use wire::derp::{FrameType, encode};
use wire::ws;

fn relay() -> Relay {
    Relay::new(server_key(), None)
}

/// The sources of the packets in a stream, in order.
fn sources(bytes: &[u8]) -> Vec<u8> {
    let packets = frames(bytes).into_iter().filter(|frame| frame[0] == FrameType::RecvPacket.to_u8());
    packets.map(|frame| frame[frame.len() - 1]).collect()
}

#[test]
fn a_light_sender_loses_nothing_to_a_heavy_one_and_needs_no_patience() {
    let mut relay = relay();
    let (heavy, light, target) = (relay.client(&key(1)), relay.client(&key(2)), relay.client(&key(3)));
    relay.sockets.room.insert(target, 0);
    let to = key(3).public();
    // Until its patience is over and its tail is dropped.
    while relay.router.counters().dropped.queue_full == 0 {
        relay.feed(heavy, &send(&to, &[1; 1000]).repeat(100));
        relay.advance(PAUSE);
    }
    relay.requests();
    let few = 10;
    relay.feed(light, &send(&to, &[2; 1000]).repeat(few));
    assert!(relay.requests().is_empty(), "the light sender is not paused");
    // Its packets come after one piece of the heavy sender's, not after all of them.
    relay.sockets.room.insert(target, 2 * PIECE);
    relay.writable(target);
    relay.sockets.room.insert(target, usize::MAX);
    relay.writable(target);
    let order = sources(&relay.take(target));
    let last = order.iter().rposition(|source| *source == 2).unwrap();
    assert_eq!(order.iter().filter(|source| **source == 2).count(), few);
    assert!(last <= 2 * PIECE / 1037 + few, "{last}");
}

#[test]
fn senders_to_one_slow_destination_get_equal_parts_of_it() {
    let mut relay = relay();
    let target = relay.client(&key(100));
    let to = key(100).public();
    relay.sockets.room.insert(target, 0);
    let senders: Vec<_> = (1..=4).map(|n| relay.client(&key(n))).collect();
    let mut got = [0; 5];
    for _ in 0..50 {
        // The first sends ten times as much as each other one.
        for (n, sender) in (1..).zip(&senders) {
            let count = if n == 1 { 200 } else { 20 };
            relay.feed(*sender, &send(&to, &[n; 1000]).repeat(count));
        }
        relay.advance(PAUSE);
        relay.sockets.room.insert(target, 64 * 1037);
        relay.writable(target);
    }
    relay.sockets.room.insert(target, usize::MAX);
    relay.writable(target);
    for source in sources(&relay.take(target)) {
        got[usize::from(source)] += 1;
    }
    // 16 of each round are their share, 20 are offered; what waited longer than the test is at most a queue's share.
    for light in &got[2..] {
        assert!((50 * 16..=50 * 20).contains(light), "{got:?}");
    }
    assert!(got[1] < 50 * 16 + QUEUE_FULL / 1037 + 64, "{got:?}");
}

#[test]
fn disco_packets_go_ahead_of_data_and_never_split_a_frame() {
    for transport in [Transport::Plain, Transport::WebSocket] {
        let mut relay = relay();
        let sender = relay.client(&key(1));
        let target = relay.accept_as("192.0.2.1:1", transport);
        let login = common::client_info(&key(2), &relay.server, &ClientInfo::default());
        match transport {
            Transport::Plain => relay.feed(target, &login),
            Transport::WebSocket => {
                let mut message = Vec::new();
                ws::encode(&mut message, ws::Opcode::Binary, &login, Some([1; 4]));
                relay.feed(target, &message);
            }
        }
        relay.take(target);
        let to = key(2).public();
        // The socket is full in the middle of the first frame.
        relay.sockets.room.insert(target, 100);
        let data = send(&to, &[7; 1000]).repeat(100);
        relay.feed(sender, &data);
        relay.feed(sender, &[data, send(&to, &disco_packet())].concat());
        relay.sockets.room.insert(target, usize::MAX);
        relay.writable(target);
        let bytes = match transport {
            Transport::Plain => relay.take(target),
            Transport::WebSocket => unwrap(relay.take(target)),
        };
        let frames = frames(&bytes);
        assert_eq!(frames.len(), 201);
        let disco =
            frames.iter().position(|frame| *frame == recv(&key(1).public(), &disco_packet())).unwrap();
        // Behind the frame, or the message, that was begun.
        let begun = if transport == Transport::Plain { 1 } else { PIECE / 1037 };
        assert_eq!(disco, begun, "{transport:?}");
        assert_eq!(relay.router.counters().packets, 201);
    }
}

fn unwrap(mut raw: Vec<u8>) -> Vec<u8> {
    let (mut decoder, mut bytes) = (ws::Decoder::new(ws::Role::Client), Vec::new());
    while !raw.is_empty() {
        let step = decoder.decode(&mut raw).unwrap();
        if let Some(ws::Event::Data(range)) = step.event {
            bytes.extend_from_slice(&raw[range]);
        }
        raw.drain(..step.consumed);
    }
    bytes
}

#[test]
fn a_flood_of_disco_is_bounded_too() {
    let mut relay = relay();
    let (sender, target) = (relay.client(&key(1)), relay.client(&key(2)));
    relay.sockets.room.insert(target, 0);
    let flood = send(&key(2).public(), &disco_packet()).repeat(1000);
    for _ in 0..10 {
        relay.feed(sender, &flood);
    }
    let counters = relay.router.counters();
    assert!(counters.queued_bytes <= URGENT_LIMIT as u64);
    assert_eq!(counters.packets + counters.dropped.queue_full, 10_000);
    assert!(counters.dropped.queue_full > 0);
}

#[test]
fn any_frame_fits_into_the_least_share() {
    let mut relay = relay();
    let target = relay.client(&key(200));
    relay.sockets.room.insert(target, 0);
    for number in 1..=100 {
        let sender = relay.client(&key(number));
        relay.feed(sender, &send(&key(200).public(), &vec![0; 65_536]));
    }
    const { assert!(FLOW_LEAST > 65_536 + 37) };
    assert_eq!(relay.router.counters().dropped.queue_full, 0);
}

#[test]
fn a_client_above_its_rate_is_not_read_from_until_it_is_not() {
    let mut relay = relay();
    relay.router.set_rate_limit(Some(RateLimit { per_second: 10_000, burst: 5_000 }));
    let (sender, target) = (relay.client(&key(1)), relay.client(&key(2)));
    relay.advance(Duration::from_secs(1));
    let packet = send(&key(2).public(), &[0; 2463]);
    relay.feed(sender, &packet.repeat(2));
    assert!(relay.requests().is_empty());
    relay.feed(sender, &packet);
    assert_eq!(relay.requests(), [Request::Interest { id: sender, read: false, write: false }]);
    relay.advance(Duration::from_micros(249_999));
    assert!(relay.requests().is_empty());
    relay.advance(Duration::from_micros(1));
    assert_eq!(relay.requests(), [Request::Interest { id: sender, read: true, write: false }]);
    // Nothing of it was lost, and the login was free.
    assert_eq!(kinds(&relay.take(target)), [FrameType::RecvPacket; 3]);
    assert_eq!(relay.router.counters().throttled, 1);
}

#[test]
fn a_restart_is_announced_to_each_client_with_a_time_of_its_own() {
    let mut relay = relay();
    let clients: Vec<_> = (1..=4).map(|n| relay.client(&key(n))).collect();
    let times = [100, 1000, 5000].map(Duration::from_millis);
    relay.router.restart(relay.now, times, &mut relay.sockets);
    let mut seen = Vec::new();
    for client in clients {
        let mut expected = Vec::new();
        let place = seen.len() as u32;
        encode::restarting(&mut expected, times[0] + times[1] * place / 4, times[2]);
        assert_eq!(relay.take(client), expected);
        seen.push(expected);
    }
    seen.dedup();
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_problem_of_the_relay_is_told_to_all() {
    let mut relay = relay();
    let client = relay.client(&key(1));
    relay.router.health(relay.now, "the disk is full", &mut relay.sockets);
    relay.router.health(relay.now, "", &mut relay.sockets);
    let mut expected = Vec::new();
    encode::health(&mut expected, "the disk is full");
    encode::health(&mut expected, "");
    assert_eq!(relay.take(client), expected);
}
