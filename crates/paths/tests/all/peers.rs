//! One node and one peer made by hand: what is sent when, to the millisecond.

use std::net::SocketAddr;
use std::time::Duration;

use paths::{Class, Event, Output, Path, Route};
use wire::disco::Message;

use crate::alone::{Alone, Puppet, plain};
use crate::world::{map_of, ms, relay_region};

const NEAR: &str = "192.0.2.20:7000";
const FAR: &str = "198.51.100.20:7000";
const WIREGUARD: [u8; 8] = [4, 0, 0, 0, 1, 1, 1, 1];

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn direct(text: &str) -> Path {
    Path::Direct(addr(text))
}

/// A node with its home relay up, and a peer of the same home.
fn met(endpoints: &[&str]) -> (Alone, Puppet) {
    let mut alone = Alone::with_socket();
    alone.set_map(map_of([relay_region(9), relay_region(8)]));
    alone.latency(9, 10);
    alone.latency(8, 50);
    alone.paths.relay_up(alone.now, 9);
    let peer = Puppet::new(2);
    alone.paths.set_peers(alone.now, &[peer.record(9, endpoints)]);
    alone.drain();
    (alone, peer)
}

/// The same with a proved path to [`NEAR`], 10 ms away, in use.
fn proved() -> (Alone, Puppet) {
    let (mut alone, peer) = met(&[NEAR]);
    send(&mut alone, &peer);
    let (_, tx) = peer.pings(&alone.drain())[0];
    alone.pass(ms(10));
    udp(&mut alone, NEAR, &peer.pong(tx));
    (alone, peer)
}

fn send(alone: &mut Alone, peer: &Puppet) -> Route {
    alone.paths.route(alone.now, &peer.node)
}

fn udp(alone: &mut Alone, from: &str, packet: &[u8]) -> Vec<Output> {
    assert_eq!(alone.paths.handle_udp(alone.now, addr(from), packet), Class::Consumed);
    alone.drain()
}

fn relayed(alone: &mut Alone, peer: &Puppet, packet: &[u8]) -> Vec<Output> {
    assert_eq!(alone.paths.handle_relayed(alone.now, 9, peer.node, packet), Class::Consumed);
    alone.drain()
}

fn changes(outputs: &[Output]) -> Vec<Path> {
    let change = |output: &Output| match output {
        Output::Event(Event::PathChanged { path, .. }) => Some(*path),
        _ => None,
    };
    outputs.iter().filter_map(change).collect()
}

#[test]
fn the_first_packet_goes_by_relay_and_starts_discovery() {
    let (mut alone, peer) = met(&[NEAR, FAR]);
    assert_eq!(send(&mut alone, &peer), Route { udp: None, relay: Some(9), ..<_>::default() });
    let outputs = alone.drain();
    let pinged: Vec<Path> = peer.pings(&outputs).into_iter().map(|(path, _)| path).collect();
    assert_eq!(pinged, [direct(NEAR), direct(FAR)]);
    assert_eq!(peer.calls(&outputs), [[addr("10.0.0.2:41641")]]);
    // Sending on pings nothing again within 5 s, and calls nobody.
    for _ in 0..20 {
        alone.pass(ms(100));
        send(&mut alone, &peer);
        assert!(peer.pings(&alone.drain()).is_empty());
    }
}

#[test]
fn every_ping_carries_our_node_key_and_is_padded() {
    let (mut alone, peer) = met(&[NEAR]);
    send(&mut alone, &peer);
    let outputs = alone.drain();
    let Some(Output::Udp { bytes, .. }) = outputs.first() else { panic!("no ping: {outputs:?}") };
    assert_eq!(bytes.len(), 1310);
    let Some((_, Message::Ping { node_key, .. })) = peer.read(&outputs[0]) else { panic!("no ping") };
    assert_eq!(node_key, Some(crate::world::node_key(1)));
}

#[test]
fn a_pong_proves_the_path_for_six_and_a_half_seconds() {
    let (mut alone, peer) = met(&[NEAR]);
    send(&mut alone, &peer);
    let (_, tx) = peer.pings(&alone.drain())[0];
    alone.pass(ms(10));
    let outputs = udp(&mut alone, NEAR, &peer.pong(tx));
    assert_eq!(changes(&outputs), [direct(NEAR)]);
    assert_eq!(send(&mut alone, &peer), Route { udp: Some(addr(NEAR)), relay: None, ..<_>::default() });
    // Signs of life keep suspicion away, but do not prolong trust.
    for _ in 0..64 {
        alone.pass(ms(100));
        alone.paths.note_received(alone.now, &peer.node, addr(NEAR));
        assert_eq!(send(&mut alone, &peer).relay, None);
    }
    let lapsed = alone.pass(ms(100));
    assert_eq!(changes(&plain(&lapsed)), [Path::Relay(9)]);
    assert_eq!(send(&mut alone, &peer), Route { udp: Some(addr(NEAR)), relay: Some(9), ..<_>::default() });
}

#[test]
fn the_better_path_wins_and_a_worse_one_only_when_trust_is_gone() {
    let (mut alone, peer) = met(&[NEAR, FAR]);
    send(&mut alone, &peer);
    let pings = peer.pings(&alone.drain());
    alone.pass(ms(10));
    udp(&mut alone, NEAR, &peer.pong(pings[0].1));
    alone.pass(ms(10));
    let outputs = udp(&mut alone, FAR, &peer.pong(pings[1].1));
    assert_eq!(changes(&outputs), []);
    // Only the slower one answers from now on.
    for _ in 0..70 {
        for (_, output) in alone.pass(ms(100)) {
            if let Some((path, Message::Ping { tx, .. })) = peer.read(&output)
                && path == direct(FAR)
            {
                let pong = peer.pong(tx);
                udp(&mut alone, FAR, &pong);
            }
        }
        let route = send(&mut alone, &peer);
        assert!(route.udp.is_some());
        alone.drain();
    }
    assert_eq!(send(&mut alone, &peer).udp, Some(addr(FAR)));
}

#[test]
fn heartbeats_come_every_three_seconds_and_end_after_forty_five() {
    let (mut alone, peer) = proved();
    let mut beats = Vec::new();
    let started = alone.now;
    while alone.now < started + Duration::from_secs(60) {
        for (at, output) in alone.pass(ms(10)) {
            if let Some((_, Message::Ping { tx, .. })) = peer.read(&output) {
                beats.push(at.as_millis());
                let pong = peer.pong(tx);
                udp(&mut alone, NEAR, &pong);
            }
        }
    }
    assert_eq!(beats, (1..15).map(|beat| beat * 3000).collect::<Vec<u128>>());
}

#[test]
fn a_silent_path_in_use_is_pinged_thrice_and_given_up() {
    let (mut alone, peer) = proved();
    let started = alone.now - alone.start;
    let mut pings = Vec::new();
    let mut fell = None;
    for _ in 0..30 {
        send(&mut alone, &peer);
        for (at, output) in alone.pass(ms(100)) {
            if !peer.pings(std::slice::from_ref(&output)).is_empty() {
                pings.push(at - started);
            }
            if changes(&[output]) == [Path::Relay(9)] {
                fell = Some(at - started);
            }
        }
    }
    assert_eq!(pings[..3], [ms(1000), ms(1300), ms(1600)]);
    assert_eq!(fell, Some(ms(1900)));
}

#[test]
fn a_keepalive_that_gets_no_answer_is_no_suspicion() {
    let (mut alone, peer) = proved();
    send(&mut alone, &peer);
    assert!(peer.pings(&plain(&alone.pass(ms(2900)))).is_empty());
}

#[test]
fn a_sign_of_life_calls_the_suspicion_off() {
    let (mut alone, peer) = proved();
    for _ in 0..14 {
        send(&mut alone, &peer);
        alone.pass(ms(100));
    }
    alone.paths.note_received(alone.now, &peer.node, addr(NEAR));
    assert_eq!(changes(&plain(&alone.pass(ms(900)))), []);
    assert_eq!(send(&mut alone, &peer).relay, None);
}

/// Half a minute of long packets over a path on which short ones always come back; `longs_pass` says whether pongs do.
/// Answers when packets went by relay as well, and when that became the path.
fn long_packets(longs_pass: bool) -> (Option<Duration>, Option<Duration>) {
    let (mut alone, peer) = proved();
    let started = alone.now - alone.start;
    let (mut both, mut fell) = (None, None);
    for _ in 0..300 {
        let route = send(&mut alone, &peer);
        if route.relay.is_some() {
            both.get_or_insert(alone.now - alone.start - started);
        }
        alone.paths.note_long(alone.now, &peer.node);
        alone.paths.note_received(alone.now, &peer.node, addr(NEAR));
        for (at, output) in alone.pass(ms(100)) {
            let ping = peer.pings(std::slice::from_ref(&output)).first().copied();
            if let (true, Some((_, tx))) = (longs_pass, ping) {
                udp(&mut alone, NEAR, &peer.pong(tx));
            }
            if changes(&[output]) == [Path::Relay(9)] {
                fell.get_or_insert(at - started);
            }
        }
    }
    (both, fell)
}

#[test]
fn a_path_that_no_longer_carries_long_packets_is_given_up_though_short_ones_arrive() {
    assert_eq!(long_packets(false), (Some(ms(1300)), Some(ms(2500))));
}

#[test]
fn a_path_that_carries_long_packets_is_asked_and_kept() {
    assert_eq!(long_packets(true), (None, None));
}

#[test]
fn a_lost_ping_clears_an_unproved_best() {
    let (mut alone, peer) = proved();
    for _ in 0..90 {
        send(&mut alone, &peer);
        alone.pass(ms(100));
    }
    assert_eq!(send(&mut alone, &peer), Route { udp: None, relay: Some(9), ..<_>::default() });
}

#[test]
fn a_send_error_forgets_the_path() {
    let (mut alone, peer) = proved();
    alone.paths.udp_failed(alone.now, addr(NEAR));
    assert_eq!(changes(&alone.drain()), [Path::Relay(9)]);
    assert_eq!(send(&mut alone, &peer), Route { udp: None, relay: Some(9), ..<_>::default() });
}

#[test]
fn a_new_disco_key_forgets_the_old_process() {
    let (mut alone, peer) = proved();
    let again = Puppet::new(3);
    let mut record = again.record(9, &[FAR]);
    record.key = peer.node;
    alone.paths.set_peers(alone.now, &[record]);
    assert!(changes(&alone.drain()).contains(&Path::Relay(9)));
    udp(&mut alone, NEAR, &peer.ping(1));
    assert_eq!(alone.paths.refusals().unknown_disco, 1);
}

#[test]
fn pings_are_answered_by_the_way_they_came_and_duplicates_are_not() {
    let (mut alone, peer) = met(&[]);
    let ping = peer.ping(5);
    assert_eq!(peer.pongs(&udp(&mut alone, NEAR, &ping)), [(direct(NEAR), [5; 12], addr(NEAR))]);
    assert_eq!(udp(&mut alone, NEAR, &ping), []);
    let pongs = relayed(&mut alone, &peer, &ping);
    assert_eq!(peer.pongs(&pongs), [(Path::Relay(9), [5; 12], addr("127.3.3.40:9"))]);
    assert_eq!(relayed(&mut alone, &peer, &ping), []);
}

#[test]
fn a_ping_makes_its_source_known_for_forty_five_seconds() {
    let (mut alone, peer) = met(&[]);
    assert_eq!(alone.paths.handle_udp(alone.now, addr(FAR), &WIREGUARD), Class::WireGuard(None));
    udp(&mut alone, FAR, &peer.ping(5));
    assert_eq!(alone.paths.handle_udp(alone.now, addr(FAR), &WIREGUARD), Class::WireGuard(Some(peer.node)));
    let mapped = addr("[::ffff:198.51.100.20]:7000");
    assert_eq!(alone.paths.handle_udp(alone.now, mapped, &WIREGUARD), Class::WireGuard(Some(peer.node)));
    alone.pass(ms(44_900));
    send(&mut alone, &peer);
    assert_eq!(peer.pings(&alone.drain()).len(), 1);
    alone.pass(ms(100));
    alone.pass(ms(6000));
    send(&mut alone, &peer);
    assert_eq!(peer.pings(&alone.drain()), []);
}

#[test]
fn a_call_is_answered_by_pings_only_and_replaces_the_last_one() {
    let (mut alone, peer) = met(&[]);
    let call =
        |endpoints: &[&str]| Message::CallMeMaybe { endpoints: endpoints.iter().map(|e| addr(e)).collect() };
    let first = peer.say(&call(&[
        NEAR,
        "[fe80::1]:1",
        "[fd60:627a:a42b::1]:1",
        "224.0.0.1:1",
        "0.0.0.0:1",
        "192.0.2.1:0",
    ]));
    let outputs = relayed(&mut alone, &peer, &first);
    assert_eq!(peer.pings(&outputs).len(), 1);
    assert!(peer.calls(&outputs).is_empty());
    let second = peer.say(&call(&[FAR]));
    let pings = peer.pings(&relayed(&mut alone, &peer, &second));
    assert_eq!(pings.iter().map(|(path, _)| *path).collect::<Vec<_>>(), [direct(FAR)]);
    // By UDP it means nothing.
    assert_eq!(udp(&mut alone, NEAR, &first), []);
    assert_eq!(alone.paths.refusals().bad_disco, 1);
}

#[test]
fn a_call_with_ten_thousand_endpoints_is_bounded() {
    let (mut alone, peer) = met(&[NEAR]);
    let many = (0..10_000u16).map(|port| SocketAddr::new("192.0.2.99".parse().unwrap(), port + 1));
    let call = peer.say(&Message::CallMeMaybe { endpoints: many.collect() });
    let mut pings = 0;
    for _ in 0..50 {
        pings += peer.pings(&relayed(&mut alone, &peer, &call)).len();
    }
    assert_eq!(pings, 400);
}

#[test]
fn a_flood_of_pings_is_answered_within_bounds() {
    let (mut alone, peer) = met(&[NEAR]);
    let mut answered = 0;
    for tx in 0..200 {
        answered += peer.pongs(&udp(&mut alone, NEAR, &peer.ping(tx))).len();
    }
    assert_eq!(answered, 20);
    assert_eq!(alone.paths.refusals().flooded, 180);
    alone.pass(ms(50));
    assert_eq!(peer.pongs(&udp(&mut alone, NEAR, &peer.ping(201))).len(), 1);
}

#[test]
fn a_flood_of_sources_leaves_the_record_and_the_best_alone() {
    let (mut alone, peer) = proved();
    for port in 1..2000u16 {
        let from = SocketAddr::new("198.51.100.77".parse().unwrap(), port);
        let ping = peer.say(&Message::ping([port.to_le_bytes(); 6].concat().try_into().unwrap(), peer.node));
        alone.paths.handle_udp(alone.now, from, &ping);
    }
    alone.drain();
    assert_eq!(send(&mut alone, &peer), Route { udp: Some(addr(NEAR)), relay: None, ..<_>::default() });
    alone.paths.udp_failed(alone.now, addr(NEAR));
    send(&mut alone, &peer);
    assert!(peer.pings(&alone.drain()).len() <= 100);
}

#[test]
fn strangers_and_forgeries_are_dropped() {
    let (mut alone, peer) = met(&[NEAR]);
    let stranger = Puppet::new(7);
    assert_eq!(udp(&mut alone, NEAR, &stranger.ping(1)), []);
    assert_eq!(alone.paths.handle_relayed(alone.now, 9, stranger.node, &stranger.ping(2)), Class::Drop);
    let mut forged = peer.ping(3);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(udp(&mut alone, NEAR, &forged), []);
    // The relay names a peer, but the message is by another key.
    assert_eq!(relayed(&mut alone, &peer, &stranger.ping(4)), []);
    let refused = alone.paths.refusals();
    assert_eq!((refused.unknown_disco, refused.bad_disco, refused.unknown_relayed), (2, 1, 1));
}

#[test]
fn a_pong_nobody_asked_for_proves_nothing() {
    let (mut alone, peer) = met(&[NEAR]);
    udp(&mut alone, NEAR, &peer.pong([1; 12]));
    send(&mut alone, &peer);
    let (_, tx) = peer.pings(&alone.drain())[0];
    // The right one, but through the relay.
    relayed(&mut alone, &peer, &peer.pong(tx));
    udp(&mut alone, NEAR, &peer.pong(tx));
    assert_eq!(send(&mut alone, &peer).udp, None);
}

#[test]
fn a_user_ping_tries_every_way_and_the_first_answer_counts() {
    let (mut alone, peer) = met(&[NEAR]);
    alone.paths.ping(alone.now, &peer.node, 42);
    let pings = peer.pings(&alone.drain());
    assert_eq!(pings.iter().map(|(path, _)| *path).collect::<Vec<_>>(), [Path::Relay(9), direct(NEAR)]);
    alone.pass(ms(15));
    let outputs = relayed(&mut alone, &peer, &peer.pong(pings[0].1));
    let pong = Event::Pong { id: 42, peer: peer.node, latency: ms(15), path: Path::Relay(9) };
    assert_eq!(outputs, [Output::Event(pong)]);
    let outputs = udp(&mut alone, NEAR, &peer.pong(pings[1].1));
    assert_eq!(changes(&outputs), [direct(NEAR)]);
    alone.paths.ping(alone.now, &peer.node, 43);
    assert_eq!(peer.pings(&alone.drain()).len(), 1, "a proved path is asked alone");
    let outputs = alone.pass(ms(5000));
    let timeout = Output::Event(Event::PingTimeout { id: 43 });
    assert_eq!(outputs.iter().find(|(_, output)| *output == timeout).unwrap().0, ms(5015));
}

#[test]
fn a_reverse_route_beats_dialling_the_peers_home() {
    let (mut alone, peer) = met(&[]);
    alone.paths.set_peers(alone.now, &[peer.record(8, &[])]);
    alone.drain();
    relayed(&mut alone, &peer, &peer.ping(1));
    assert_eq!(send(&mut alone, &peer).relay, Some(9));
    alone.drain();
    alone.paths.relay_peer_gone(alone.now, 9, peer.node);
    assert_eq!(send(&mut alone, &peer).relay, Some(8));
    assert!(alone.drain().contains(&Output::OpenRelay(8)));
    relayed(&mut alone, &peer, &peer.ping(2));
    alone.paths.relay_up(alone.now, 8);
    assert_eq!(send(&mut alone, &peer).relay, Some(8), "an open connection to its home beats all");
    alone.paths.relay_down(alone.now, 8);
    assert_eq!(send(&mut alone, &peer).relay, Some(9));
    alone.paths.relay_down(alone.now, 9);
    assert_eq!(send(&mut alone, &peer).relay, Some(8));
}

#[test]
fn forbidden_direct_paths_leave_the_relay() {
    let (mut alone, peer) = proved();
    alone.paths.set_block_direct(alone.now, true);
    let outputs = alone.drain();
    assert_eq!(changes(&outputs), [Path::Relay(9)]);
    assert_eq!(udp(&mut alone, NEAR, &peer.ping(1)), []);
    assert_eq!(alone.paths.handle_udp(alone.now, addr(NEAR), &WIREGUARD), Class::WireGuard(Some(peer.node)));
    assert_eq!(alone.paths.handle_udp(alone.now, addr(FAR), &WIREGUARD), Class::Drop);
    let call = peer.say(&Message::CallMeMaybe { endpoints: vec![addr(FAR)] });
    assert_eq!(relayed(&mut alone, &peer, &call), []);
    assert_eq!(send(&mut alone, &peer), Route { udp: None, relay: Some(9), ..<_>::default() });
    alone.paths.ping(alone.now, &peer.node, 1);
    assert_eq!(peer.pings(&alone.drain()).len(), 1);
    assert_eq!(peer.pongs(&relayed(&mut alone, &peer, &peer.ping(2))).len(), 1);
    alone.paths.set_block_direct(alone.now, false);
    alone.pass(ms(300));
    send(&mut alone, &peer);
    assert_eq!(peer.pings(&alone.drain()).len(), 1);
}

#[test]
fn peers_sharing_a_disco_key_are_told_apart_by_their_node_key() {
    let (mut alone, peer) = met(&[NEAR]);
    let mut twin = peer.record(9, &[FAR]);
    twin.key = crate::world::node_key(6);
    alone.paths.set_peers(alone.now, &[peer.record(9, &[NEAR]), twin.clone()]);
    alone.drain();
    let ping = peer.say(&Message::ping([1; 12], twin.key));
    assert_eq!(peer.pongs(&udp(&mut alone, "192.0.2.66:1", &ping)).len(), 1);
    let class = alone.paths.handle_udp(alone.now, addr("192.0.2.66:1"), &WIREGUARD);
    assert_eq!(class, Class::WireGuard(Some(twin.key)));
    let nameless = peer.say(&Message::Ping { tx: [2; 12], node_key: None, padding: 0 });
    assert_eq!(peer.pongs(&udp(&mut alone, "192.0.2.67:1", &nameless)).len(), 1);
    assert_eq!(alone.paths.handle_udp(alone.now, addr("192.0.2.67:1"), &WIREGUARD), Class::WireGuard(None));
}

#[test]
fn removing_a_peer_leaves_nothing() {
    let (mut alone, peer) = proved();
    alone.paths.ping(alone.now, &peer.node, 9);
    alone.drain();
    alone.paths.set_peers(alone.now, &[]);
    assert_eq!(alone.drain(), [Output::Event(Event::PingTimeout { id: 9 })]);
    assert_eq!(alone.paths.handle_udp(alone.now, addr(NEAR), &WIREGUARD), Class::WireGuard(None));
    assert_eq!(udp(&mut alone, NEAR, &peer.ping(1)), []);
    assert!(plain(&alone.pass(Duration::from_secs(100))).iter().all(|output| peer.read(output).is_none()));
}

/// What was to go by a relay connection that is gone is lost, so the peer is called again when it is back.
#[test]
fn a_returned_relay_carries_the_call_again() {
    let (mut alone, peer) = met(&[NEAR]);
    alone.paths.relay_down(alone.now, 9);
    send(&mut alone, &peer);
    alone.drain();
    let outputs = plain(&alone.pass(ms(20)));
    assert!(outputs.contains(&Output::OpenRelay(9)));
    alone.paths.relay_up(alone.now, 9);
    let calls = |outputs: &[Output]| outputs.iter().filter(|o| matches!(o, Output::Relay { .. })).count();
    assert_eq!(calls(&alone.drain()), 1);
    alone.paths.relay_up(alone.now, 9);
    assert_eq!(calls(&alone.drain()), 0, "nothing was lost");
}

/// A relay that restarts says when it is back; until then nobody knocks, and no relay may ask for more than the usual wait.
#[test]
fn a_relay_that_restarts_is_left_alone_until_it_is_back() {
    for (asked, left_alone) in [(ms(1200), ms(1200)), (Duration::from_secs(3600), Duration::from_secs(5))] {
        let (mut alone, _) = met(&[]);
        alone.drain();
        alone.paths.relay_restarting(alone.now, 9, asked);
        alone.paths.relay_down(alone.now, 9);
        let redials = |alone: &mut Alone, time| plain(&alone.pass(time)).contains(&Output::OpenRelay(9));
        assert!(!redials(&mut alone, left_alone - ms(1)));
        assert!(redials(&mut alone, ms(20)));
        // Only once: after the next failure the usual waits count.
        alone.paths.relay_down(alone.now, 9);
        assert!(redials(&mut alone, ms(100)));
    }
}
