//! Conversations with a relay: delivery, back-pressure, duplicates, timers, mesh.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Relay, client_info, disco_packet, frames, key, kinds, recv, send, server_key};
use relay::ConnId;
use relay::server::{CloseReason, PAUSE, QUEUE_FULL, QUEUE_LIMIT, QUEUE_SHORT, Request, Transport};
use wire::derp::login::ClientInfo;
use wire::derp::{FrameType, PeerGoneReason, encode};
use wire::keys::{NodePrivate, NodePublic};
use wire::ws;
use zeroize::Zeroizing;

const MESH_KEY: &str = "aBcDeFgHiJkLmNoPqRsTuVwXyZ012345";

fn relay() -> Relay {
    Relay::new(server_key(), Some(MESH_KEY))
}

fn mesh(relay: &mut Relay, private: &NodePrivate) -> ConnId {
    let mesh_key = Some(Zeroizing::new(MESH_KEY.to_owned()));
    relay.client_with(private, &ClientInfo { version: 2, mesh_key, ..ClientInfo::default() })
}

fn gone(peer: &NodePublic, reason: PeerGoneReason) -> Vec<u8> {
    let mut out = Vec::new();
    encode::peer_gone(&mut out, peer, reason);
    out
}

#[test]
fn neighbours_for_one_destination_leave_in_one_write() {
    let mut relay = relay();
    let (a, b, c) = (relay.client(&key(1)), relay.client(&key(2)), relay.client(&key(3)));
    let [for_b, for_c] = [2, 3].map(|n| send(&key(n).public(), &[n; 1200]));
    relay.sockets.writes = 0;
    relay.feed(a, &[for_b.repeat(30), for_c.repeat(30), for_b.repeat(30)].concat());
    assert_eq!(relay.sockets.writes, 3);
    let source = key(1).public();
    assert!(relay.take(b) == recv(&source, &[2; 1200]).repeat(60));
    assert!(relay.take(c) == recv(&source, &[3; 1200]).repeat(30));
}

#[test]
fn frames_cut_anywhere_are_put_together() {
    let mut relay = relay();
    let (a, b) = (relay.client(&key(1)), relay.client(&key(2)));
    let mut unknown = Vec::new();
    encode::frame(&mut unknown, FrameType::Unknown(0x7f), &[&[1; 50]]);
    let stream = [send(&key(2).public(), b"one"), unknown, send(&key(2).public(), b"two")].concat();
    let expected = [recv(&key(1).public(), b"one"), recv(&key(1).public(), b"two")].concat();
    for cut in 0..=stream.len() {
        relay.feed(a, &stream[..cut]);
        relay.feed(a, &stream[cut..]);
        assert_eq!(relay.take(b), expected, "cut at {cut}");
    }
}

#[test]
fn a_full_queue_makes_its_sender_wait_and_goes_on_when_it_is_short() {
    let mut relay = relay();
    let (a, b, c) = (relay.client(&key(1)), relay.client(&key(2)), relay.client(&key(3)));
    relay.sockets.room.insert(b, 1000);
    let packet = send(&key(2).public(), &[0; 10_000]);
    let until_full = QUEUE_FULL / packet.len() + 2;
    for _ in 0..until_full {
        relay.feed(a, &packet);
    }
    let paused = Request::Interest { id: a, read: false, write: false };
    assert_eq!(relay.requests(), [Request::Interest { id: b, read: true, write: true }, paused]);
    assert_eq!(relay.router.counters().dropped.queue_full, 0);

    // Others are not held up by it.
    relay.feed(c, &send(&key(1).public(), b"hello"));
    assert_eq!(relay.take(a), recv(&key(3).public(), b"hello"));

    relay.sockets.room.insert(b, QUEUE_FULL - QUEUE_SHORT);
    relay.writable(b);
    assert!(relay.requests().is_empty());
    relay.sockets.room.insert(b, 2 * packet.len());
    relay.writable(b);
    assert_eq!(relay.requests(), [Request::Interest { id: a, read: true, write: false }]);
    relay.sockets.room.insert(b, usize::MAX);
    relay.writable(b);
    assert_eq!(relay.requests(), [Request::Interest { id: b, read: true, write: false }]);
    let whole = recv(&key(1).public(), &[0; 10_000]).repeat(until_full);
    assert!(relay.take(b) == whole);
    assert_eq!(relay.router.counters().queued_bytes, 0);
}

#[test]
fn a_sender_waits_no_longer_than_it_must_and_then_loses_what_does_not_fit() {
    let mut relay = relay();
    let (a, b) = (relay.client(&key(1)), relay.client(&key(2)));
    relay.sockets.room.insert(b, 0);
    let packet = send(&key(2).public(), &[0; 10_000]);
    let many = packet.repeat(20);
    while relay.router.counters().pauses == 0 {
        relay.feed(a, &many);
    }
    relay.requests();
    relay.advance(PAUSE - Duration::from_millis(1));
    assert!(relay.requests().is_empty());
    relay.advance(Duration::from_millis(1));
    assert_eq!(relay.requests(), [Request::Interest { id: a, read: true, write: false }]);

    let queued = relay.router.counters().queued_bytes;
    relay.feed(a, &many);
    let counters = relay.router.counters();
    assert_eq!((counters.dropped.queue_full, counters.queued_bytes, counters.pauses), (20, queued, 1));

    // Control frames still pass.
    let mut ping = Vec::new();
    encode::ping(&mut ping, &[1; 8]);
    relay.feed(b, &ping);
    relay.sockets.room.insert(b, usize::MAX);
    relay.writable(b);
    assert_eq!(kinds(&relay.take(b)).first(), Some(&FrameType::Pong));
}

#[test]
fn a_queue_has_an_end_however_many_flood_it() {
    let mut relay = relay();
    let target = relay.client(&key(1));
    relay.sockets.room.insert(target, 0);
    let flood = send(&key(1).public(), &[0; 60_000]).repeat(4);
    for number in 2..30 {
        let sender = relay.client(&key(number));
        relay.feed(sender, &flood);
    }
    let counters = relay.router.counters();
    assert!(counters.queued_bytes <= QUEUE_LIMIT as u64);
    assert_eq!(counters.dropped.queue_full + counters.packets, 28 * 4);
    assert!(counters.dropped.queue_full > 0);
}

#[test]
fn a_socket_that_takes_nothing_for_two_seconds_is_closed_and_a_slow_one_is_not() {
    let mut relay = relay();
    let (a, b) = (relay.client(&key(1)), relay.client(&key(2)));
    relay.sockets.room.insert(b, 0);
    relay.feed(a, &send(&key(2).public(), &[0; 5000]));
    relay.advance(Duration::from_millis(1500));
    relay.sockets.room.insert(b, 1);
    relay.writable(b);
    relay.advance(Duration::from_millis(1999));
    assert!(!relay.closed(b));
    relay.advance(Duration::from_millis(1));
    assert!(relay.requests().contains(&Request::Close { id: b, reason: CloseReason::Stalled }));
    assert_eq!(relay.router.counters().stalled, 1);
    // Those who wait for a closed connection go on, and its memory is free.
    assert_eq!(relay.router.counters().queued_bytes, 0);
}

#[test]
fn a_broken_destination_ends_itself_and_not_its_sender() {
    let mut relay = relay();
    let (a, b) = (relay.client(&key(1)), relay.client(&key(2)));
    relay.sockets.broken.push(b);
    relay.feed(a, &send(&key(2).public(), b"x").repeat(3));
    assert_eq!(relay.requests(), [Request::Close { id: b, reason: CloseReason::Broken }]);
    assert_eq!(relay.router.counters().dropped.gone, 3);
}

#[test]
fn a_login_that_does_not_come_in_time_is_refused() {
    let mut relay = relay();
    let late = relay.accept();
    let client = relay.client(&key(1));
    relay.advance(Duration::from_millis(9_999));
    assert!(!relay.closed(late));
    relay.advance(Duration::from_millis(1));
    assert_eq!(relay.requests(), [Request::Close { id: late, reason: CloseReason::LoginTimeout }]);
    assert!(!relay.closed(client));
}

#[test]
fn keepalives_come_after_a_minute_and_the_connections_own_part_of_five_seconds() {
    let mut relay = relay();
    relay.nonces.lock().unwrap().push_back([0x80; 24]);
    let a = relay.client(&key(1));
    // 0x8080 of 0x10000 of 5 s.
    let interval = Duration::from_secs(60) + Duration::from_secs(5) * 0x8080 / 0x10000;
    for _ in 0..3 {
        relay.advance(interval - Duration::from_nanos(1));
        assert!(relay.take(a).is_empty());
        relay.advance(Duration::from_nanos(1));
        assert_eq!(kinds(&relay.take(a)), [FrameType::KeepAlive]);
    }
}

#[test]
fn one_pong_waits_at_most() {
    let mut relay = relay();
    let a = relay.client(&key(1));
    relay.sockets.room.insert(a, 5);
    let pings = [1, 2, 3].map(|n| {
        let mut ping = Vec::new();
        encode::ping(&mut ping, &[n; 8]);
        ping
    });
    pings.iter().for_each(|ping| relay.feed(a, ping));
    relay.sockets.room.insert(a, usize::MAX);
    relay.writable(a);
    relay.feed(a, &pings[2]);
    let mut pongs = Vec::new();
    encode::pong(&mut pongs, &[1; 8]);
    encode::pong(&mut pongs, &[3; 8]);
    assert_eq!(relay.take(a), pongs);
}

#[test]
fn only_lost_disco_packets_are_answered_three_at_once_and_one_per_second() {
    let mut relay = relay();
    let a = relay.client(&key(1));
    let nobody = key(9).public();
    relay.feed(a, &send(&nobody, b"data").repeat(5));
    assert!(relay.take(a).is_empty());
    relay.feed(a, &send(&nobody, &disco_packet()).repeat(5));
    assert_eq!(relay.take(a), gone(&nobody, PeerGoneReason::NotHere).repeat(3));
    relay.advance(Duration::from_secs(1));
    relay.feed(a, &send(&nobody, &disco_packet()).repeat(5));
    assert_eq!(relay.take(a), gone(&nobody, PeerGoneReason::NotHere));
    assert_eq!(relay.router.counters().dropped.unknown, 15);
}

#[test]
fn who_heard_from_a_key_is_told_when_its_last_connection_ends() {
    let mut relay = relay();
    let (a, b, stranger) = (relay.client(&key(1)), relay.client(&key(2)), relay.client(&key(3)));
    let b_again = relay.client(&key(2));
    relay.feed(b, &send(&key(1).public(), b"hello"));
    relay.take(a);
    relay.disconnect(b);
    assert!(relay.take(a).is_empty());
    relay.disconnect(b_again);
    assert_eq!(relay.take(a), gone(&key(2).public(), PeerGoneReason::Disconnected));
    assert!(relay.take(stranger).is_empty());
}

#[test]
fn the_connection_that_spoke_last_gets_the_packets() {
    let mut relay = relay();
    let sender = relay.client(&key(9));
    let [one, two, three] = [1; 3].map(|n| relay.client(&key(n)));
    let mut home = Vec::new();
    encode::note_preferred(&mut home, true);
    let active = |relay: &mut Relay| {
        relay.feed(sender, &send(&key(1).public(), b"?"));
        let got: Vec<_> = [one, two, three].into_iter().filter(|id| !relay.take(*id).is_empty()).collect();
        got
    };
    assert_eq!(active(&mut relay), [three]);
    relay.feed(one, &home);
    assert_eq!(active(&mut relay), [one]);
    relay.disconnect(one);
    assert_eq!(active(&mut relay), [three]);
    relay.disconnect(three);
    assert_eq!(active(&mut relay), [two]);
    relay.disconnect(two);
    assert!(active(&mut relay).is_empty());
}

#[test]
fn a_mesh_peer_may_close_and_the_closed_one_takes_nothing_more() {
    let mut relay = relay();
    let peer = mesh(&mut relay, &key(1));
    let [one, two] = [2; 2].map(|n| relay.client(&key(n)));
    let mut close = Vec::new();
    encode::close_peer(&mut close, &key(2).public());
    relay.feed(peer, &close);
    assert!(relay.closed(one) && relay.closed(two));
    relay.feed(one, &send(&key(1).public(), b"too late"));
    assert!(relay.take(peer).is_empty());
    // One that closes itself is done at once, even in the middle of a read.
    let mut close = Vec::new();
    encode::close_peer(&mut close, &key(1).public());
    let other = relay.client(&key(3));
    relay.feed(peer, &[close, send(&key(3).public(), b"too late")].concat());
    assert!(relay.closed(peer));
    assert!(relay.take(other).is_empty());
}

#[test]
fn a_wrong_mesh_key_makes_an_ordinary_client() {
    let mut relay = relay();
    let mesh_key = Some(Zeroizing::new(MESH_KEY.to_lowercase()));
    let a = relay.client_with(&key(1), &ClientInfo { version: 2, mesh_key, ..ClientInfo::default() });
    let mut watch = Vec::new();
    encode::watch_conns(&mut watch);
    relay.feed(a, &watch);
    assert_eq!(relay.requests(), [Request::Close { id: a, reason: CloseReason::NotPermitted }]);
}

#[test]
fn a_relay_that_meets_itself_is_told_nothing() {
    let mut relay = relay();
    let own = mesh(&mut relay, &server_key());
    let mut watch = Vec::new();
    encode::watch_conns(&mut watch);
    relay.feed(own, &watch);
    relay.client(&key(1));
    assert!(relay.take(own).is_empty());
}

#[test]
fn the_largest_login_passes_and_trickles_in_at_linear_cost() {
    let mut relay = relay();
    let id = relay.accept();
    let app_name = "x".repeat(262_144 - 32 - 24 - 16 - 60);
    let info = ClientInfo { version: 2, app_name, ..ClientInfo::default() };
    let login = client_info(&key(1), &relay.server, &info);
    assert!((262_000..=262_149).contains(&login.len()), "{}", login.len());
    for part in login.chunks(100) {
        relay.feed(id, part);
    }
    assert_eq!(kinds(&relay.take(id)), [FrameType::ServerKey, FrameType::ServerInfo]);
    assert_eq!(relay.router.kept(id), 0);
}

#[test]
fn websocket_streams_may_be_cut_and_split_anywhere() {
    let mut relay = relay();
    let b = relay.client(&key(2));
    let login = client_info(&key(1), &relay.server, &ClientInfo::default());
    let stream = [login, send(&key(2).public(), b"one"), send(&key(2).public(), &[5; 300])].concat();
    let expected = [recv(&key(1).public(), b"one"), recv(&key(1).public(), &[5; 300])].concat();
    for (message, read) in [(1, 1), (3, 2), (40, 7), (200, 1000), (1000, 13)] {
        let a = relay.accept_as("192.0.2.1:1", Transport::WebSocket);
        let mut raw = Vec::new();
        for part in stream.chunks(message) {
            ws::encode(&mut raw, ws::Opcode::Binary, part, Some([9, 8, 7, 6]));
        }
        for part in raw.chunks(read) {
            relay.feed(a, part);
        }
        assert_eq!(relay.take(b), expected, "messages of {message}, reads of {read}");
        // One message per flush: greeting, then ServerInfo.
        let answer = relay.take(a);
        assert_eq!((answer[0], answer[1], answer[47], answer[48]), (0x82, 45, 0x82, 58));
        relay.disconnect(a);
        relay.take(b);
    }
}

#[test]
fn runs_to_a_websocket_are_one_message_even_when_they_must_wait() {
    let mut relay = relay();
    let a = relay.client(&key(1));
    let b = relay.accept_as("192.0.2.1:1", Transport::WebSocket);
    let mut login = Vec::new();
    let info = client_info(&key(2), &relay.server, &ClientInfo::default());
    ws::encode(&mut login, ws::Opcode::Binary, &info, Some([1; 4]));
    relay.feed(b, &login);
    relay.take(b);
    let run = recv(&key(1).public(), &[3; 500]);
    let message = |count: usize| {
        let header = ws::OutHeader::new(ws::Opcode::Binary, run.len() * count, None);
        [header.as_bytes(), &run.repeat(count)].concat()
    };
    for room in [0, 1, 3, 4, 5, 600, 5000] {
        relay.sockets.room.insert(b, room);
        relay.feed(a, &send(&key(2).public(), &[3; 500]).repeat(3));
        relay.feed(a, &send(&key(2).public(), &[3; 500]).repeat(2));
        relay.sockets.room.insert(b, usize::MAX);
        relay.writable(b);
        assert_eq!(relay.take(b), [message(3), message(2)].concat(), "room for {room}");
    }
}

#[test]
fn names_of_closed_connections_mean_nothing() {
    let mut relay = relay();
    let a = relay.client(&key(1));
    relay.disconnect(a);
    let b = relay.client(&key(2));
    assert_eq!(a.slot(), b.slot());
    assert_ne!(a, b);
    assert_eq!(ConnId::from_u64(b.to_u64()), b);
    relay.feed(a, &send(&key(2).public(), b"x"));
    relay.disconnect(a);
    relay.writable(a);
    assert_eq!(frames(&relay.take(b)), Vec::<Vec<u8>>::new());
    assert_eq!(relay.router.counters().clients, 1);
}
