//! Two and three relays of one region.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Relay, disco_packet, key, kinds, recv, send};
use relay::ConnId;
use relay::server::{CloseReason, LOGIN_TIMEOUT, Request};
use wire::derp::{FrameType, PeerGoneReason, encode};
use wire::keys::NodePublic;

const MESH_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Relays, and which connection of one is which of another.
struct Region {
    relays: Vec<Relay>,
    wires: Vec<((usize, ConnId), (usize, ConnId))>,
}

impl Region {
    /// As many relays, each linked to each other one.
    fn meshed(count: u8) -> Self {
        let relays = (0..count).map(|n| Relay::new(key(200 + n), Some(MESH_KEY))).collect();
        let mut region = Self { relays, wires: Vec::new() };
        for from in 0..usize::from(count) {
            for to in (0..usize::from(count)).filter(|to| *to != from) {
                region.join(from, to);
            }
        }
        region.settle();
        region
    }

    /// A link of `from` to `to`.
    fn join(&mut self, from: usize, to: usize) {
        let now = self.relays[from].now;
        let link = self.relays[from].router.link(now, "192.0.2.9:1".parse().unwrap());
        let other = self.relays[to].accept();
        self.wires.push(((from, link), (to, other)));
    }

    /// Carries bytes between the relays until there are none.
    fn settle(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            for ((a, link), (b, other)) in self.wires.clone() {
                for (from, id, to, at) in [(a, link, b, other), (b, other, a, link)] {
                    let bytes = self.relays[from].take(id);
                    if !bytes.is_empty() {
                        self.relays[to].feed(at, &bytes);
                        moved = true;
                    }
                }
            }
        }
    }

    fn send(&mut self, relay: usize, from: ConnId, to: &NodePublic, packet: &[u8]) {
        self.relays[relay].feed(from, &send(to, packet));
        self.settle();
    }
}

fn gone(peer: &NodePublic) -> Vec<u8> {
    let mut out = Vec::new();
    encode::peer_gone(&mut out, peer, PeerGoneReason::Disconnected);
    out
}

#[test]
fn clients_of_different_relays_reach_each_other_both_ways() {
    let mut region = Region::meshed(2);
    let (a, b) = (region.relays[0].client(&key(1)), region.relays[1].client(&key(2)));
    region.settle();
    region.send(0, a, &key(2).public(), b"hello");
    assert_eq!(region.relays[1].take(b), recv(&key(1).public(), b"hello"));
    region.send(1, b, &key(1).public(), &vec![3; 65_536]);
    assert!(region.relays[0].take(a) == recv(&key(2).public(), &vec![3; 65_536]));
    assert_eq!(region.relays[0].router.counters().forwarded, 1);
    assert_eq!(region.relays[0].router.counters().links, 1);
}

#[test]
fn a_client_that_was_there_before_the_link_is_known_too() {
    let mut region = Region::meshed(1);
    let a = region.relays[0].client(&key(1));
    let mut second = Relay::new(key(201), Some(MESH_KEY));
    let b = second.client(&key(2));
    region.relays.push(second);
    region.join(0, 1);
    region.settle();
    region.send(0, a, &key(2).public(), b"hello");
    assert_eq!(region.relays[1].take(b), recv(&key(1).public(), b"hello"));
}

#[test]
fn who_heard_from_a_client_of_another_relay_is_told_of_its_end() {
    let mut region = Region::meshed(2);
    let (a, b) = (region.relays[0].client(&key(1)), region.relays[1].client(&key(2)));
    region.settle();
    region.send(0, a, &key(2).public(), b"hello");
    region.relays[1].take(b);
    region.relays[0].disconnect(a);
    region.settle();
    assert_eq!(region.relays[1].take(b), gone(&key(1).public()));
    // And packets for it are lost at once, which disco packets are told.
    region.send(1, b, &key(1).public(), &disco_packet());
    assert_eq!(kinds(&region.relays[1].take(b)), [FrameType::PeerGone]);
}

#[test]
fn a_client_that_moves_to_the_other_relay_is_not_gone() {
    let mut region = Region::meshed(2);
    let (a, b) = (region.relays[0].client(&key(1)), region.relays[1].client(&key(2)));
    region.settle();
    region.send(0, a, &key(2).public(), b"hello");
    region.relays[1].take(b);
    let moved = region.relays[1].client(&key(1));
    region.relays[0].disconnect(a);
    region.settle();
    assert!(region.relays[1].take(b).is_empty());
    region.send(1, b, &key(1).public(), b"welcome");
    assert_eq!(region.relays[1].take(moved), recv(&key(2).public(), b"welcome"));
}

#[test]
fn a_broken_link_takes_its_clients_with_it() {
    let mut region = Region::meshed(2);
    let (a, b) = (region.relays[0].client(&key(1)), region.relays[1].client(&key(2)));
    region.settle();
    region.send(1, b, &key(1).public(), b"hello");
    region.relays[0].take(a);
    let ((from, link), _) = region.wires[0];
    assert_eq!(from, 0);
    region.relays[0].disconnect(link);
    assert_eq!(region.relays[0].take(a), gone(&key(2).public()));
    region.relays[0].feed(a, &send(&key(2).public(), b"lost"));
    let counters = region.relays[0].router.counters();
    assert_eq!((counters.dropped.unknown, counters.links), (1, 0));
}

#[test]
fn nothing_is_forwarded_twice() {
    // The third relay is linked to nobody, and only the second says it has the client.
    let mut region = Region::meshed(3);
    let (a, c) = (region.relays[0].client(&key(1)), region.relays[2].client(&key(3)));
    region.settle();
    region.send(0, a, &key(3).public(), b"once");
    assert_eq!(region.relays[2].take(c), recv(&key(1).public(), b"once"));
    assert_eq!(region.relays[1].router.counters().packets, 0);
    // A relay that gets a packet for somebody else's client drops it.
    let ((_, _), (to, incoming)) = region.wires[0];
    assert_eq!(to, 1);
    let mut frame = Vec::new();
    encode::forward_packet(&mut frame, &key(1).public(), &key(3).public(), b"stray");
    region.relays[1].feed(incoming, &frame);
    region.settle();
    assert!(region.relays[2].take(c).is_empty());
    assert_eq!(region.relays[1].router.counters().dropped.unknown, 1);
}

#[test]
fn a_key_with_two_relays_is_reached_by_the_first_until_it_goes() {
    let mut region = Region::meshed(3);
    let a = region.relays[0].client(&key(1));
    let first = region.relays[1].client(&key(9));
    region.settle();
    let second = region.relays[2].client(&key(9));
    region.settle();
    region.send(0, a, &key(9).public(), b"one");
    assert_eq!(kinds(&region.relays[1].take(first)), [FrameType::RecvPacket]);
    region.relays[1].disconnect(first);
    region.settle();
    region.send(0, a, &key(9).public(), b"two");
    assert_eq!(region.relays[2].take(second), recv(&key(1).public(), b"two"));
}

#[test]
fn a_link_to_itself_is_ended() {
    let mut region = Region::meshed(1);
    region.join(0, 0);
    let ((_, link), _) = region.wires[0];
    region.settle();
    let requests = region.relays[0].requests();
    assert!(requests.contains(&Request::Close { id: link, reason: CloseReason::Itself }), "{requests:?}");
}

#[test]
fn a_link_that_does_not_get_ready_or_goes_silent_is_ended() {
    let mut relay = Relay::new(key(200), Some(MESH_KEY));
    let link = relay.router.link(relay.now, "192.0.2.9:1".parse().unwrap());
    relay.advance(LOGIN_TIMEOUT);
    assert_eq!(relay.requests(), [Request::Close { id: link, reason: CloseReason::LoginTimeout }]);

    let mut region = Region::meshed(2);
    let ((_, link), _) = region.wires[0];
    region.relays[0].advance(Duration::from_secs(119));
    assert!(!region.relays[0].closed(link));
    region.relays[0].advance(Duration::from_secs(1));
    assert!(region.relays[0].closed(link));
}

#[test]
fn without_the_mesh_key_a_link_is_refused_and_tells_nothing() {
    let mut region = Region::meshed(1);
    region.relays.push(Relay::new(key(201), Some("another")));
    region.join(1, 0);
    region.settle();
    let (_, (_, incoming)) = region.wires[0];
    let requests = region.relays[0].requests();
    assert!(
        requests.contains(&Request::Close { id: incoming, reason: CloseReason::NotPermitted }),
        "{requests:?}"
    );
    assert_eq!(region.relays[0].router.counters().malformed, 1);
}

#[test]
fn what_a_broken_relay_sends_ends_its_link_only() {
    let mut region = Region::meshed(2);
    let a = region.relays[0].client(&key(1));
    region.settle();
    let ((_, link), _) = region.wires[0];
    // A frame above the limit of clients.
    region.relays[0].feed(link, &[FrameType::RecvPacket.to_u8(), 0xff, 0xff, 0xff, 0xff]);
    assert!(region.relays[0].closed(link) && !region.relays[0].closed(a));
}
